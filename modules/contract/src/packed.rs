//! How long messages travel up from version 1 on: deflated. What nodes report is JSON that repeats itself, and the way up is
//! the narrow one.
//!
//! A packed body is [`MARK`] and the deflated body. No message begins with that mark: it stands where the number of the
//! message is.

use std::borrow::Cow;
use std::io::Read;

use bytes::Bytes;
use flate2::read::DeflateDecoder;

use crate::wire::{BODY_MAX, WireError, deflate};

/// What a message holds a number of, and in which form it came.
///
/// A message that came packed stays so until somebody opens it: however much it inflates to, whoever queues it holds what came
/// over the wire, and only one at a time is open where they are served one after the other.
#[derive(Clone)]
pub struct Batch<T>(Form<T>);

#[derive(Clone)]
enum Form<T> {
    Open(Vec<T>),
    Packed { body: Bytes, open: Opener<T> },
}

type Opener<T> = fn(&[u8]) -> Result<Vec<T>, WireError>;

impl<T> From<Vec<T>> for Batch<T> {
    fn from(items: Vec<T>) -> Self {
        Batch(Form::Open(items))
    }
}

impl<T> Batch<T> {
    pub(crate) fn packed(body: &[u8], open: Opener<T>) -> Self {
        Batch(Form::Packed { body: Bytes::copy_from_slice(body), open })
    }

    /// What it holds.
    ///
    /// # Errors
    /// It came packed and is none.
    pub fn open(self) -> Result<Vec<T>, WireError> {
        match self.0 {
            Form::Open(items) => Ok(items),
            Form::Packed { body, open } => open(&body),
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Form::Open(items) => items.fmt(f),
            Form::Packed { body, .. } => write!(f, "{} packed bytes", body.len()),
        }
    }
}

/// The number of the message that a packed body holds; `None`: the body is not packed, or holds none.
pub(crate) fn packed_number(body: &[u8]) -> Option<u32> {
    let mut number = [0; 4];
    DeflateDecoder::new(body.strip_prefix(&MARK)?).read_exact(&mut number).ok()?;
    Some(u32::from_le_bytes(number))
}

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
    fn a_batch_stays_as_it_came_until_it_is_opened() {
        let long = [&[2, 0, 0, 0][..], &[7; 1000]].concat();
        let packed = pack(long.clone());
        assert_eq!(
            (packed_number(&packed), packed_number(&long), packed_number(&[0xff; 9])),
            (Some(2), None, None)
        );
        let batch = Batch::packed(&packed, |body| Ok(unpack(body)?.into_owned()));
        assert!(format!("{batch:?}").ends_with("packed bytes"));
        assert_eq!(batch.open().unwrap(), long);
        assert!(Batch::packed(&[0xff; 40], |body| Ok(unpack(body)?.into_owned())).open().is_err());
    }

    #[test]
    fn a_bomb_and_what_does_not_inflate_are_refused() {
        let bomb = [&MARK, deflate(&vec![0; 64 << 20]).as_slice()].concat();
        assert!(bomb.len() < 1 << 20 && unpack(&bomb).is_err());
        assert!(unpack(&[0xff; 40]).is_err());
    }
}
