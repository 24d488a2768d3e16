//! Deflated bytes: JSON repeats itself, and the way up is the narrow one. What inflates has a bound.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// The bytes, deflated. Empty, which is not a deflated anything, if they could not be.
pub(crate) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    // Writing to memory does not fail; an empty result is refused by the reader.
    if encoder.write_all(bytes).is_err() {
        return Vec::new();
    }
    encoder.finish().unwrap_or_default()
}

/// The bytes as they were; `None`: they do not inflate, or to more than `most`.
pub(crate) fn inflate(deflated: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    DeflateDecoder::new(deflated).take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= most).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_and_what_does_not_inflate_are_refused() {
        let zeros = deflate(&vec![0; 64 << 20]);
        assert!(zeros.len() < 1 << 20 && inflate(&zeros, 1 << 20).is_none());
        assert_eq!(inflate(&deflate(&[7; 1000]), 1000), Some(vec![7; 1000]));
        assert_eq!(inflate(&deflate(&[7; 1000]), 999), None);
        assert_eq!((inflate(&[0xff; 40], 1000), inflate(&[], 1000)), (None, None));
    }
}
