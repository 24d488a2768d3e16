//! What byte streams are made of once they are open. Pure.
//!
//! ```text
//! echo 1 bit | len 15 bits | bytes      (big-endian)
//! ```
//! Up to 16 KiB in a chunk. With `echo`, the sender wants to hear at once that the chunk has come. A chunk without bytes is
//! the end of its direction, and nothing follows it: the sender has sent all there is, or, with `echo`, breaks the stream off.
//! A stream that ends otherwise belongs to a link that ends. Frozen with the frames.

use thiserror::Error;

/// 16 KiB: bytes in a chunk.
pub(super) const CHUNK_MAX: usize = 16 << 10;
/// The sender has sent all there is.
pub(super) const END: [u8; 2] = [0, 0];
/// The sender breaks the stream off.
pub(super) const RESET: [u8; 2] = [0x80, 0];
const ECHO: u16 = 1 << 15;

/// A chunk of at most [`CHUNK_MAX`] bytes, as it goes to the transport.
pub(super) fn encode(bytes: &[u8], echo: bool) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let header = if echo { len | ECHO } else { len };
    let mut chunk = Vec::with_capacity(2 + bytes.len());
    chunk.extend(header.to_be_bytes());
    chunk.extend(bytes);
    chunk
}

/// What is in a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A chunk begins whose sender wants to hear of it.
    Echo,
    /// Bytes, in order.
    Bytes(&'a [u8]),
    /// All bytes have come.
    End,
    /// The stream breaks off.
    Reset,
}

/// Why bytes are no chunks.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ChunkError {
    #[error("a chunk of {0} bytes; at most {CHUNK_MAX} are taken")]
    TooLong(usize),
    #[error("bytes after the end")]
    AfterEnd,
}

/// Takes chunks apart, however they come.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The first byte of a header whose second has not come.
    first: Option<u8>,
    left: usize,
    ended: bool,
}

impl Decoder {
    /// Whether the sender has said that nothing follows.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next piece of what came; `None` when there is none yet. What was looked at is cut off `input`.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, ChunkError> {
        while self.left == 0 {
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            if self.ended {
                return Err(ChunkError::AfterEnd);
            }
            *input = rest;
            let Some(first) = self.first.take() else {
                self.first = Some(*byte);
                continue;
            };
            let header = u16::from_be_bytes([first, *byte]);
            let (echo, len) = (header & ECHO != 0, usize::from(header & !ECHO));
            match (len, echo) {
                (0, reset) => {
                    self.ended = true;
                    return Ok(Some(if reset { Piece::Reset } else { Piece::End }));
                }
                (len, _) if len > CHUNK_MAX => return Err(ChunkError::TooLong(len)),
                (len, _) => self.left = len,
            }
            if echo {
                return Ok(Some(Piece::Echo));
            }
        }
        if input.is_empty() {
            return Ok(None);
        }
        let (bytes, rest) = input.split_at(self.left.min(input.len()));
        *input = rest;
        self.left -= bytes.len();
        Ok(Some(Piece::Bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Over {
        Open,
        End,
        Reset,
    }

    /// The bytes of all chunks, how many echoes were wanted, and whether the end has come.
    fn decode(chunks: &[u8], at_once: usize) -> Result<(Vec<u8>, usize, Over), ChunkError> {
        let (mut decoder, mut bytes, mut echoes, mut over) = (Decoder::default(), Vec::new(), 0, Over::Open);
        for mut part in chunks.chunks(at_once) {
            while let Some(piece) = decoder.next(&mut part)? {
                match piece {
                    Piece::Echo => echoes += 1,
                    Piece::Bytes(more) => bytes.extend(more),
                    Piece::End => over = Over::End,
                    Piece::Reset => over = Over::Reset,
                }
            }
        }
        Ok((bytes, echoes, over))
    }

    #[test]
    fn the_layout_is_what_is_written_above() {
        assert_eq!(encode(b"abc", false), b"\x00\x03abc");
        assert_eq!(encode(b"abc", true), b"\x80\x03abc");
        assert_eq!(encode(&[7; CHUNK_MAX], false)[..2], [0x40, 0]);
        assert_eq!(
            decode(&[encode(b"abc", true).as_slice(), &END].concat(), 1),
            Ok((b"abc".to_vec(), 1, Over::End))
        );
    }

    #[test]
    fn an_end_and_a_break_are_told_apart() {
        assert_eq!(decode(&END, 2), Ok((Vec::new(), 0, Over::End)));
        assert_eq!(decode(&RESET, 1), Ok((Vec::new(), 0, Over::Reset)));
        assert_eq!(decode(&[RESET, END].concat(), 4), Err(ChunkError::AfterEnd));
    }

    #[test]
    fn what_is_no_chunk_is_named() {
        assert_eq!(decode(&[0x40, 1], 2), Err(ChunkError::TooLong(CHUNK_MAX + 1)));
        assert_eq!(decode(&[0, 0, 0], 3), Err(ChunkError::AfterEnd));
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..20),
            at_once in 1_usize..50,
        ) {
            let chunks: Vec<u8> = pieces.iter().flat_map(|bytes| encode(bytes, bytes.len() % 2 == 0)).collect();
            let echoes = pieces.iter().filter(|bytes| bytes.len() % 2 == 0).count();
            prop_assert_eq!(decode(&chunks, at_once), Ok((pieces.concat(), echoes, Over::Open)));
        }

        #[test]
        fn any_bytes_are_chunks_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at_once in 1_usize..9) {
            prop_assert_eq!(decode(&bytes, at_once), decode(&bytes, 200));
        }
    }
}
