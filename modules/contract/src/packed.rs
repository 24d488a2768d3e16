//! How long messages travel up from version 1 on: deflated. What nodes report is JSON that repeats itself, and the way up is
//! the narrow one.
//!
//! A packed body is [`MARK`] and the deflated body. No message begins with that mark: it stands where the number of the
//! message is.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::DeflateDecoder;

use crate::wire::{BODY_MAX, WireError, deflate};

/// The number that no message has.
const MARK: [u8; 4] = [0xff; 4];

/// 256 bytes: what is shorter gains nothing that a packet would show.
const FROM: usize = 256;

/// The body as it travels.
pub(crate) fn pack(body: Vec<u8>) -> Vec<u8> {
    if body.len() < FROM {
        return body;
    }
    let packed = [&MARK, deflate(&body).as_slice()].concat();
    if packed.len() < body.len() { packed } else { body }
}

/// The body as it was written.
///
/// # Errors
/// When it does not inflate, or to more than a frame could have carried.
pub(crate) fn unpack(body: &[u8]) -> Result<Cow<'_, [u8]>, WireError> {
    let Some(deflated) = body.strip_prefix(&MARK) else { return Ok(Cow::Borrowed(body)) };
    let mut whole = Vec::new();
    let read = DeflateDecoder::new(deflated).take(BODY_MAX + 1).read_to_end(&mut whole);
    if read.is_err() || whole.len() as u64 > BODY_MAX {
        return Err(WireError::Packed);
    }
    Ok(Cow::Owned(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_shrinks_and_comes_back_whole() {
        let short = vec![7; FROM - 1];
        assert_eq!(pack(short.clone()), short);
        let long = b"{\"type\":\"Ready\",\"status\":\"True\"}".repeat(50);
        let packed = pack(long.clone());
        assert!(packed.len() < 150, "{}", packed.len());
        assert_eq!(unpack(&packed).unwrap(), long);
        // What does not shrink goes as it is: every byte once, and no two in a row alike.
        let dense: Vec<u8> = (0..=255_u8).map(|n| n.wrapping_mul(167) ^ (n >> 3)).collect();
        assert_eq!(unpack(&pack(dense.clone())).unwrap(), dense);
    }

    #[test]
    fn a_bomb_and_what_does_not_inflate_are_refused() {
        let bomb = [&MARK, deflate(&vec![0; 64 << 20]).as_slice()].concat();
        assert!(bomb.len() < 1 << 20 && unpack(&bomb).is_err());
        assert!(unpack(&[0xff; 40]).is_err());
    }
}
