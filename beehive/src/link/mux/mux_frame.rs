//! One message of the pipe.
//!
//! ```text
//! kind u8 | what the kind says      (big-endian)
//! ```
//! Frozen under the name of the protocol (`hive-link.1`), whatever version of the frames it carries: `tests/mux-frames-1.txt`
//! holds every kind byte by byte, and a change is a new name.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::link::congestion_window::Stamp;
use crate::link::transport::Urgency;

/// 8 KiB: bytes of a stream in one frame. A frame that has gone into the pipe is what something urgent waits for at the
/// most: a quarter of a second at 256 kbit/s.
pub(super) const DATA_MAX: usize = 8 << 10;
/// The largest message.
pub const MUX_FRAME_MAX: usize = 1 + 4 + DATA_MAX;

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
pub(super) enum MuxFrame {
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
    /// So many bytes of streams have come over the connection in all, the last of them `at` that time of the receiver's clock.
    Echo { arrived: u64, at: Stamp },
    /// The connection ends.
    Close,
}

/// Why a message is no frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum MuxFrameError {
    #[error("message of {0} bytes; at most {MUX_FRAME_MAX} are taken")]
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

impl MuxFrame {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(13);
        match self {
            MuxFrame::Open { stream, urgency } => {
                out.put_u8(OPEN);
                out.put_u32(*stream);
                out.put_u8(match urgency {
                    Urgency::Link => 0,
                    Urgency::Control => 1,
                    Urgency::Work => 2,
                    Urgency::Bulk => 3,
                });
            }
            MuxFrame::Data { stream, bytes, echo } => {
                out.reserve(bytes.len());
                out.put_u8(if *echo { DATA_ECHO } else { DATA });
                out.put_u32(*stream);
                out.put_slice(bytes);
            }
            MuxFrame::Window { stream, more } => {
                out.put_u8(WINDOW);
                out.put_u32(*stream);
                out.put_u32(*more);
            }
            MuxFrame::End { stream } => {
                out.put_u8(END);
                out.put_u32(*stream);
            }
            MuxFrame::Stop { stream } => {
                out.put_u8(STOP);
                out.put_u32(*stream);
            }
            MuxFrame::Echo { arrived, at } => {
                out.put_u8(ECHO);
                out.put_u64(*arrived);
                out.put_u32(at.0);
            }
            MuxFrame::Close => out.put_u8(CLOSE),
        }
        out.freeze()
    }

    pub(super) fn decode(mut bytes: Bytes) -> Result<MuxFrame, MuxFrameError> {
        if bytes.len() > MUX_FRAME_MAX {
            return Err(MuxFrameError::TooLong(bytes.len()));
        }
        if bytes.is_empty() {
            return Err(MuxFrameError::Empty);
        }
        let kind = bytes.get_u8();
        let len = bytes.len();
        let fits = match kind {
            OPEN => len == 5,
            DATA | DATA_ECHO => len > 4,
            WINDOW => len == 8,
            ECHO => len == 12,
            END | STOP => len == 4,
            CLOSE => len == 0,
            other => return Err(MuxFrameError::Kind(other)),
        };
        if !fits {
            return Err(MuxFrameError::Length { kind, len });
        }
        Ok(match kind {
            OPEN => {
                let stream = bytes.get_u32();
                let urgency = match bytes.get_u8() {
                    0 => Urgency::Link,
                    1 => Urgency::Control,
                    2 => Urgency::Work,
                    3 => Urgency::Bulk,
                    other => return Err(MuxFrameError::Urgency(other)),
                };
                MuxFrame::Open { stream, urgency }
            }
            DATA | DATA_ECHO => {
                let stream = bytes.get_u32();
                MuxFrame::Data { stream, bytes, echo: kind == DATA_ECHO }
            }
            WINDOW => MuxFrame::Window { stream: bytes.get_u32(), more: bytes.get_u32() },
            END => MuxFrame::End { stream: bytes.get_u32() },
            STOP => MuxFrame::Stop { stream: bytes.get_u32() },
            ECHO => MuxFrame::Echo { arrived: bytes.get_u64(), at: Stamp(bytes.get_u32()) },
            _ => MuxFrame::Close,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_frame_comes_back_as_it_went() {
        let frames = [
            MuxFrame::Open { stream: 7, urgency: Urgency::Link },
            MuxFrame::Open { stream: 7, urgency: Urgency::Control },
            MuxFrame::Open { stream: 7, urgency: Urgency::Work },
            MuxFrame::Open { stream: 7, urgency: Urgency::Bulk },
            MuxFrame::Data { stream: 8, bytes: Bytes::from_static(b"abc"), echo: false },
            MuxFrame::Data { stream: 8, bytes: Bytes::from(vec![1; DATA_MAX]), echo: true },
            MuxFrame::Window { stream: 9, more: 10 },
            MuxFrame::End { stream: 11 },
            MuxFrame::Stop { stream: 12 },
            MuxFrame::Echo { arrived: u64::MAX, at: Stamp(u32::MAX) },
            MuxFrame::Close,
        ];
        for frame in frames {
            assert_eq!(MuxFrame::decode(frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn every_frame_is_written_as_the_golden_file_says() {
        let bytes = Bytes::from_static(b"abc");
        let frames = [
            ("open-vital", MuxFrame::Open { stream: 7, urgency: Urgency::Link }),
            ("open-control", MuxFrame::Open { stream: 7, urgency: Urgency::Control }),
            ("open-work", MuxFrame::Open { stream: 7, urgency: Urgency::Work }),
            ("open-bulk", MuxFrame::Open { stream: 7, urgency: Urgency::Bulk }),
            ("data", MuxFrame::Data { stream: 8, bytes: bytes.clone(), echo: false }),
            ("data-echo", MuxFrame::Data { stream: 8, bytes, echo: true }),
            ("window", MuxFrame::Window { stream: 9, more: 10 }),
            ("end", MuxFrame::End { stream: 11 }),
            ("stop", MuxFrame::Stop { stream: 12 }),
            ("echo", MuxFrame::Echo { arrived: 13, at: Stamp(7000) }),
            ("close", MuxFrame::Close),
        ];
        let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let written: Vec<String> =
            frames.iter().map(|(name, frame)| format!("{name} {}", hex(frame.encode()))).collect();
        let golden: Vec<&str> = include_str!("../../../tests/mux-frames-1.txt").lines().skip(1).collect();
        assert_eq!(written, golden);
    }

    #[test]
    fn what_is_no_frame_is_named() {
        let decode = |bytes: &[u8]| MuxFrame::decode(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(decode(&[]), MuxFrameError::Empty);
        assert_eq!(decode(&[99, 0]), MuxFrameError::Kind(99));
        assert_eq!(decode(&[DATA, 0, 0, 0, 1]), MuxFrameError::Length { kind: DATA, len: 4 });
        assert_eq!(decode(&[CLOSE, 0]), MuxFrameError::Length { kind: CLOSE, len: 1 });
        assert_eq!(decode(&[OPEN, 0, 0, 0, 1, 4]), MuxFrameError::Urgency(4));
        assert_eq!(decode(&vec![DATA; MUX_FRAME_MAX + 1]), MuxFrameError::TooLong(MUX_FRAME_MAX + 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            if let Ok(frame) = MuxFrame::decode(bytes.clone()) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}
