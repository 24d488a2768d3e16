//! Throws bad input at a door, and looks at what it leaves in memory.
//!
//! Every door has a test binary of its own, because memory is that of the whole process. Inputs are noise and valid ones
//! that were damaged, from a fixed seed: a run that fails fails again. What a door is given more than once may stay in its
//! caches, so it is warmed up first; after that a hundred thousand inputs may leave 2 MiB.

pub mod link;

use std::fs;

/// 2 MiB may be left of any number of bad inputs.
const LEFT_KIB: i64 = 2 << 10;
/// Memory is that of the whole process: one door of a binary at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Inputs that count.
pub const INPUTS: u32 = 100_000;
/// Inputs before those: allocators and caches have what they need then.
pub const WARM_UP: u32 = 10_000;

/// Deterministic noise: the sequence of splitmix64.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Always the same for the same seed.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % (bound.max(1) as u64)).unwrap_or(0)
    }

    /// Up to `most` bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.bits().to_le_bytes()[0]).collect()
    }

    /// Up to `most` characters that a person could have typed.
    pub fn text(&mut self, most: usize) -> String {
        const LETTERS: &[u8] = b"abcxyzABC0189-_./:{}[]\"' \\$#&*!|>%@`,\t\n";
        (0..self.below(most)).map(|_| char::from(LETTERS[self.below(LETTERS.len())])).collect()
    }

    /// One of them.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// One of `valid`, damaged in a few places.
    pub fn damaged(&mut self, valid: &[&[u8]]) -> Vec<u8> {
        let mut input = self.of(valid).to_vec();
        for _ in 0..=self.below(6) {
            self.damage(&mut input, valid);
        }
        input
    }

    /// The same as text; what is no UTF-8 any more is replaced.
    pub fn damaged_text(&mut self, valid: &[&str]) -> String {
        let valid: Vec<&[u8]> = valid.iter().map(|text| text.as_bytes()).collect();
        String::from_utf8_lossy(&self.damaged(&valid)).into_owned()
    }

    fn damage(&mut self, input: &mut Vec<u8>, valid: &[&[u8]]) {
        const NUMBERS: [&str; 8] =
            ["-1", "0", "4294967296", "18446744073709551616", "1e400", "NaN", "0x7f", "-0.0"];
        const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'\\'];
        let at = self.below(input.len());
        let end = (at + self.below(40)).min(input.len());
        match self.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = *self.of(&EDGES),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                drop(input.splice(at..at, piece));
            }
            4 => {
                let bytes = self.bytes(16);
                drop(input.splice(at..end, bytes));
            }
            5 => input.truncate(at),
            6 => {
                let other = *self.of(valid);
                let from = self.below(other.len());
                drop(input.splice(at..end, other[from..].iter().copied()));
            }
            7 => {
                let number = *self.of(&NUMBERS);
                drop(input.splice(at..end, number.bytes()));
            }
            8 => {
                // Deep or long, of something that the format knows.
                let piece = input[at..end].to_vec();
                let times = self.below(2000 / piece.len().max(1));
                let pieces = std::iter::repeat_n(piece, times).flatten().collect::<Vec<u8>>();
                drop(input.splice(at..at, pieces));
            }
            _ => {
                let text = self.text(12);
                drop(input.splice(at..at, text.into_bytes()));
            }
        }
    }
}

/// Resident memory of this process in KiB.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

/// Memory before and after.
#[derive(Debug)]
pub struct MemoryGauge {
    before: i64,
}

impl MemoryGauge {
    /// After the warm-up.
    pub fn tare() -> Self {
        MemoryGauge { before: resident() }
    }

    /// What has been left since then, in KiB.
    ///
    /// # Errors
    /// When it is more than 2 MiB.
    pub fn read(&self) -> Result<i64, String> {
        let left = resident() - self.before;
        if left <= LEFT_KIB { Ok(left) } else { Err(format!("{left} KiB are left of {INPUTS} bad inputs")) }
    }
}

/// Hands `feed` a hundred thousand inputs' worth of noise, after the warm-up.
///
/// # Errors
/// When more than 2 MiB are left.
pub fn endure(seed: u64, mut feed: impl FnMut(&mut SplitMix64)) -> Result<i64, String> {
    let _alone = ALONE.blocking_lock();
    let mut random = SplitMix64::new(seed);
    (0..WARM_UP).for_each(|_| feed(&mut random));
    let memory = MemoryGauge::tare();
    (0..INPUTS).for_each(|_| feed(&mut random));
    memory.read()
}

/// The same for a door behind a mailbox or a socket.
///
/// # Errors
/// When more than 2 MiB are left.
pub async fn endure_async(seed: u64, mut feed: impl AsyncFnMut(&mut SplitMix64)) -> Result<i64, String> {
    let _alone = ALONE.lock().await;
    let mut random = SplitMix64::new(seed);
    for _ in 0..WARM_UP {
        feed(&mut random).await;
    }
    let memory = MemoryGauge::tare();
    for _ in 0..INPUTS {
        feed(&mut random).await;
    }
    memory.read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_most_are_bad() {
        let make = || {
            let mut random = SplitMix64::new(7);
            (0..100).map(|_| random.damaged(&[b"{\"a\": 1}", b"{\"b\": [2]}"])).collect::<Vec<_>>()
        };
        assert_eq!(make(), make());
        let is_valid = |input: &&Vec<u8>| *input == b"{\"a\": 1}" || *input == b"{\"b\": [2]}";
        assert!(make().iter().filter(is_valid).count() < 10);
    }
}
