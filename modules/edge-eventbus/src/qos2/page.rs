//! 256 packet identifiers that have the same high byte, in little memory.

/// A bit for each place.
type Bits = [u64; 4];

/// What is not released of a page. Also a row of the store, which a commit writes once for all of them.
#[derive(Debug)]
pub(super) struct Page {
    number: u8,
    open: Bits,
    /// Of those that are open.
    taken: Bits,
    /// One of each that is open, in their order; or none at all, if there was no room for one.
    digests: Vec<u32>,
}

fn word(place: u8) -> (usize, u64) {
    (usize::from(place / 64), 1 << (place % 64))
}

fn has(bits: &Bits, place: u8) -> bool {
    let (word, bit) = word(place);
    bits.get(word).is_some_and(|bits| bits & bit != 0)
}

fn set(bits: &mut Bits, place: u8, on: bool) {
    let (word, bit) = word(place);
    if let Some(bits) = bits.get_mut(word) {
        *bits = if on { *bits | bit } else { *bits & !bit };
    }
}

fn count(bits: &[u64]) -> usize {
    bits.iter().map(|bits| bits.count_ones() as usize).sum()
}

/// How many there are before a place.
fn rank(bits: &Bits, place: u8) -> usize {
    let (word, bit) = word(place);
    let (before, rest) = bits.split_at(word);
    count(before) + count(&[rest.first().unwrap_or(&0) & (bit - 1)])
}

impl Page {
    pub(super) fn new(number: u8) -> Self {
        Page { number, open: Bits::default(), taken: Bits::default(), digests: Vec::new() }
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn is_empty(&self) -> bool {
        count(&self.open) == 0
    }

    /// How many digests it has.
    pub(super) fn digests(&self) -> usize {
        self.digests.len()
    }

    pub(super) fn has(&self, place: u8) -> bool {
        has(&self.open, place)
    }

    pub(super) fn is_taken(&self, place: u8) -> bool {
        has(&self.taken, place)
    }

    pub(super) fn digest(&self, place: u8) -> Option<u32> {
        let open = self.has(place).then(|| rank(&self.open, place))?;
        self.digests.get(open).copied()
    }

    /// It is open, and not taken yet. Where there is no digest of it, or no room for one more, the others lose theirs.
    pub(super) fn put(&mut self, place: u8, digest: Option<u32>, has_room: bool) {
        let (rank, was_open) = (rank(&self.open, place), self.has(place));
        let keeps_digests = self.is_empty() || !self.digests.is_empty();
        set(&mut self.open, place, true);
        set(&mut self.taken, place, false);
        match digest {
            Some(digest) if was_open => {
                self.digests.get_mut(rank).into_iter().for_each(|known| *known = digest);
            }
            Some(digest) if keeps_digests && has_room => {
                self.digests.reserve_exact(1);
                self.digests.insert(rank, digest);
            }
            _ => self.digests = Vec::new(),
        }
    }

    pub(super) fn take(&mut self, place: u8, is_taken: bool) {
        let is_open = self.has(place);
        set(&mut self.taken, place, is_open && is_taken);
    }

    /// One that is open.
    pub(super) fn release(&mut self, place: u8) {
        let rank = rank(&self.open, place);
        if rank < self.digests.len() {
            self.digests.remove(rank);
            self.digests.shrink_to_fit();
        }
        set(&mut self.open, place, false);
        set(&mut self.taken, place, false);
    }

    /// 32 bytes of bits, and 4 for each digest.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let bits = self.open.iter().flat_map(|bits| bits.to_be_bytes());
        bits.chain(self.digests.iter().flat_map(|digest| digest.to_be_bytes())).collect()
    }
}

/// The open places of what [`Page::to_bytes`] has made, with their digests; `None` for anything else.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Vec<(u8, Option<u32>)>> {
    let (bits, rest) = bytes.split_first_chunk::<32>()?;
    let mut open = Bits::default();
    for (open, bits) in open.iter_mut().zip(bits.as_chunks::<8>().0) {
        *open = u64::from_be_bytes(*bits);
    }
    let (digests, left) = rest.as_chunks::<4>();
    let is_whole = left.is_empty() && (digests.is_empty() || digests.len() == count(&open));
    let places = (0..=u8::MAX).filter(|place| has(&open, *place)).enumerate();
    let digest = |n| digests.get(n).map(|digest| u32::from_be_bytes(*digest));
    (is_whole && count(&open) > 0).then(|| places.map(|(n, place)| (place, digest(n))).collect())
}
