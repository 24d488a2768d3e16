//! The extension of a frame: contexts on a link. Pure.
//!
//! ```text
//! (tag u8 | length u16 | value)*                                   (big-endian)
//! tag 1: the message's own: version u8 | trace, 16 bytes | span, 8 bytes | flags u8
//! tag 2: those of things in it, at most 64: (place u16 | as above)*
//! ```
//! A tag that an end does not know is passed over, so that others can be added; what is cut off, or has an odd length, is passed over
//! with all that follows. A frame is as good as without it.

use super::carried::Carried;
use super::context::TraceContext;

/// What an end says in its hello that takes contexts. It is sent none otherwise.
pub(crate) const CAPABILITY: &str = "trace-context";
/// 64 things of one message: as many as batches have.
pub const PARTS_MAX: usize = 64;

const OWN: u8 = 1;
const PARTS: u8 = 2;
const PART_BYTES: usize = 2 + TraceContext::BYTES;
/// What all of it comes to at the most: as much is looked at.
const BYTES_MAX: usize = 2 * (1 + 2) + TraceContext::BYTES + PARTS_MAX * PART_BYTES;

/// As it stands in a frame.
pub(super) fn encode(carried: &Carried) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(own) = carried.own {
        entry(&mut bytes, OWN, &own.to_bytes());
    }
    let parts: Vec<u8> = carried
        .parts
        .iter()
        .take(PARTS_MAX)
        .flat_map(|(place, context)| place.to_be_bytes().into_iter().chain(context.to_bytes()))
        .collect();
    if !parts.is_empty() {
        entry(&mut bytes, PARTS, &parts);
    }
    bytes
}

fn entry(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    // Far below: see `BYTES_MAX`.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    bytes.push(tag);
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
}

/// What another end has sent: `None` where nothing of it is sampled.
pub(super) fn decode(bytes: &[u8]) -> Option<Carried> {
    let (mut own, mut parts) = (None, Vec::new());
    let mut rest = bytes.get(..BYTES_MAX).unwrap_or(bytes);
    while let Some((tag, value, after)) = next(rest) {
        match tag {
            OWN => own = value.first_chunk().and_then(TraceContext::from_bytes),
            PARTS => {
                let all = value.chunks_exact(PART_BYTES).take(PARTS_MAX);
                parts = all.filter_map(part).collect();
            }
            _ => {}
        }
        rest = after;
    }
    Carried::of(own, parts)
}

fn next(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, high, low], rest) = bytes.split_first_chunk()?;
    let (value, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    Some((tag, value, after))
}

fn part(bytes: &[u8]) -> Option<(u16, TraceContext)> {
    let (place, context) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*place), TraceContext::from_bytes(context.first_chunk()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn context(byte: u8) -> TraceContext {
        TraceContext { trace_id: [byte; 16], span_id: [byte; 8], is_sampled: true }
    }

    fn full() -> Carried {
        let parts = (0..64).map(|place| (place, context(2))).collect();
        Carried::of(Some(context(1)), parts).unwrap()
    }

    #[test]
    fn the_layout_is_what_is_written_above() {
        let bytes = encode(&Carried::of(Some(context(1)), vec![(7, context(2))]).unwrap());
        let own = [&[1, 0, 26, 0][..], &[1; 24], &[1]].concat();
        let parts = [&[2, 0, 28, 0, 7, 0][..], &[2; 24], &[1]].concat();
        assert_eq!(bytes, [own, parts].concat());
    }

    #[test]
    fn the_largest_is_read_back_and_more_is_cut_off() {
        let bytes = encode(&full());
        assert_eq!((decode(&bytes), bytes.len()), (Some(full()), BYTES_MAX));
        let parts = (0..200).map(|place| (place, context(2))).collect();
        let more = Carried::of(Some(context(1)), parts).unwrap();
        assert_eq!(encode(&more), bytes);
        // As somebody else might write it.
        let many: Vec<u8> = bytes.iter().skip(29 + 3).copied().cycle().take(60_004).collect();
        let long = [&[2][..], &60_004_u16.to_be_bytes(), &many].concat();
        assert!(decode(&long).is_none_or(|read| read.parts.len() <= PARTS_MAX));
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let known = encode(&full());
        let before = [&[9, 0, 3, 1, 2, 3][..], &encode(&Carried::of(Some(context(1)), vec![]).unwrap())];
        assert_eq!(decode(&before.concat()).unwrap().own, Some(context(1)));
        assert_eq!(decode(&[&[9, 0, 0][..], &[1, 0, 3, 1, 2, 3]].concat()), None, "an odd length");
        assert_eq!(decode(&known[..known.len() - 1]).unwrap().own, Some(context(1)), "cut off");
        assert_eq!(decode(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_contexts_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            if let Some(read) = decode(&bytes) {
                prop_assert!(read.parts.len() <= PARTS_MAX);
                prop_assert_eq!(decode(&encode(&read)), Some(read));
            }
        }

        #[test]
        fn what_is_almost_one_is_one_or_none((at, byte) in (0..200_usize, any::<u8>())) {
            let mut bytes = encode(&full());
            bytes[at] = byte;
            if let Some(read) = decode(&bytes) {
                prop_assert!(read.parts.len() <= PARTS_MAX);
            }
        }
    }
}
