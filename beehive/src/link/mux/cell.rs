//! One message of the pipe.
//!
//! ```text
//! kind u8 | what the kind says      (big-endian)
//! ```
//! Frozen under the name of the protocol (`hive-link.1`), whatever version of the frames it carries: `tests/cells-1.txt`
//! holds every kind byte by byte, and a change is a new name.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::link::transport::Urgency;

/// 8 KiB: bytes of a stream in one cell. A cell that has gone into the pipe is what something urgent waits for at the
/// most: a quarter of a second at 256 kbit/s.
pub(super) const DATA_MAX: usize = 8 << 10;
/// The largest message.
pub const CELL_MAX: usize = 1 + 4 + DATA_MAX;

const OPEN: u8 = 1;
const DATA: u8 = 2;
const DATA_ECHO: u8 = 3;
const WINDOW: u8 = 4;
const END: u8 = 5;
const STOP: u8 = 6;
const ECHO: u8 = 7;
const CLOSE: u8 = 8;

/// A message of the pipe, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// A stream begins.
    Open { stream: u32, urgency: Urgency },
    /// Bytes of a stream. With `echo`, the sender wants to hear at once that they came.
    Data { stream: u32, bytes: Bytes, echo: bool },
    /// So many more bytes may be sent on a stream.
    Window { stream: u32, more: u32 },
    /// The sender's half of a stream is complete.
    End { stream: u32 },
    /// The sender reads no more of a stream.
    Stop { stream: u32 },
    /// So many bytes of streams have come over the connection in all.
    Echo { arrived: u64 },
    /// The connection ends.
    Close,
}

/// Why a message is no cell.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum CellError {
    #[error("message of {0} bytes; at most {CELL_MAX} are taken")]
    TooLong(usize),
    #[error("message of unknown kind {0}")]
    Kind(u8),
    #[error("message of kind {kind} with {len} bytes after it")]
    Length { kind: u8, len: usize },
    #[error("unknown urgency {0}")]
    Urgency(u8),
    #[error("empty message")]
    Empty,
}

impl Cell {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(13);
        match self {
            Cell::Open { stream, urgency } => {
                out.put_u8(OPEN);
                out.put_u32(*stream);
                out.put_u8(match urgency {
                    Urgency::Link => 0,
                    Urgency::Control => 1,
                    Urgency::Work => 2,
                    Urgency::Bulk => 3,
                });
            }
            Cell::Data { stream, bytes, echo } => {
                out.reserve(bytes.len());
                out.put_u8(if *echo { DATA_ECHO } else { DATA });
                out.put_u32(*stream);
                out.put_slice(bytes);
            }
            Cell::Window { stream, more } => {
                out.put_u8(WINDOW);
                out.put_u32(*stream);
                out.put_u32(*more);
            }
            Cell::End { stream } => {
                out.put_u8(END);
                out.put_u32(*stream);
            }
            Cell::Stop { stream } => {
                out.put_u8(STOP);
                out.put_u32(*stream);
            }
            Cell::Echo { arrived } => {
                out.put_u8(ECHO);
                out.put_u64(*arrived);
            }
            Cell::Close => out.put_u8(CLOSE),
        }
        out.freeze()
    }

    pub(super) fn decode(mut bytes: Bytes) -> Result<Cell, CellError> {
        if bytes.len() > CELL_MAX {
            return Err(CellError::TooLong(bytes.len()));
        }
        if bytes.is_empty() {
            return Err(CellError::Empty);
        }
        let kind = bytes.get_u8();
        let len = bytes.len();
        let fits = match kind {
            OPEN => len == 5,
            DATA | DATA_ECHO => len > 4,
            WINDOW | ECHO => len == 8,
            END | STOP => len == 4,
            CLOSE => len == 0,
            other => return Err(CellError::Kind(other)),
        };
        if !fits {
            return Err(CellError::Length { kind, len });
        }
        Ok(match kind {
            OPEN => {
                let stream = bytes.get_u32();
                let urgency = match bytes.get_u8() {
                    0 => Urgency::Link,
                    1 => Urgency::Control,
                    2 => Urgency::Work,
                    3 => Urgency::Bulk,
                    other => return Err(CellError::Urgency(other)),
                };
                Cell::Open { stream, urgency }
            }
            DATA | DATA_ECHO => {
                let stream = bytes.get_u32();
                Cell::Data { stream, bytes, echo: kind == DATA_ECHO }
            }
            WINDOW => Cell::Window { stream: bytes.get_u32(), more: bytes.get_u32() },
            END => Cell::End { stream: bytes.get_u32() },
            STOP => Cell::Stop { stream: bytes.get_u32() },
            ECHO => Cell::Echo { arrived: bytes.get_u64() },
            _ => Cell::Close,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_cell_comes_back_as_it_went() {
        let cells = [
            Cell::Open { stream: 7, urgency: Urgency::Link },
            Cell::Open { stream: 7, urgency: Urgency::Control },
            Cell::Open { stream: 7, urgency: Urgency::Work },
            Cell::Open { stream: 7, urgency: Urgency::Bulk },
            Cell::Data { stream: 8, bytes: Bytes::from_static(b"abc"), echo: false },
            Cell::Data { stream: 8, bytes: Bytes::from(vec![1; DATA_MAX]), echo: true },
            Cell::Window { stream: 9, more: 10 },
            Cell::End { stream: 11 },
            Cell::Stop { stream: 12 },
            Cell::Echo { arrived: u64::MAX },
            Cell::Close,
        ];
        for cell in cells {
            assert_eq!(Cell::decode(cell.encode()), Ok(cell));
        }
    }

    #[test]
    fn every_cell_is_written_as_the_golden_file_says() {
        let bytes = Bytes::from_static(b"abc");
        let cells = [
            ("open-vital", Cell::Open { stream: 7, urgency: Urgency::Link }),
            ("open-control", Cell::Open { stream: 7, urgency: Urgency::Control }),
            ("open-work", Cell::Open { stream: 7, urgency: Urgency::Work }),
            ("open-bulk", Cell::Open { stream: 7, urgency: Urgency::Bulk }),
            ("data", Cell::Data { stream: 8, bytes: bytes.clone(), echo: false }),
            ("data-echo", Cell::Data { stream: 8, bytes, echo: true }),
            ("window", Cell::Window { stream: 9, more: 10 }),
            ("end", Cell::End { stream: 11 }),
            ("stop", Cell::Stop { stream: 12 }),
            ("echo", Cell::Echo { arrived: 13 }),
            ("close", Cell::Close),
        ];
        let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let written: Vec<String> =
            cells.iter().map(|(name, cell)| format!("{name} {}", hex(cell.encode()))).collect();
        let golden: Vec<&str> = include_str!("../../../tests/cells-1.txt").lines().skip(1).collect();
        assert_eq!(written, golden);
    }

    #[test]
    fn what_is_no_cell_is_named() {
        let decode = |bytes: &[u8]| Cell::decode(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(decode(&[]), CellError::Empty);
        assert_eq!(decode(&[99, 0]), CellError::Kind(99));
        assert_eq!(decode(&[DATA, 0, 0, 0, 1]), CellError::Length { kind: DATA, len: 4 });
        assert_eq!(decode(&[CLOSE, 0]), CellError::Length { kind: CLOSE, len: 1 });
        assert_eq!(decode(&[OPEN, 0, 0, 0, 1, 4]), CellError::Urgency(4));
        assert_eq!(decode(&vec![DATA; CELL_MAX + 1]), CellError::TooLong(CELL_MAX + 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_cell_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            if let Ok(cell) = Cell::decode(bytes.clone()) {
                prop_assert_eq!(cell.encode(), bytes);
            }
        }
    }
}
