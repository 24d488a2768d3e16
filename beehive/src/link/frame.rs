//! Frames: a header of fixed size, an extension block, a body. Sizes are checked before anything is allocated.
//!
//! ```text
//! len u32 | version u8 | kind u8 | id u64 | deadline_ms u32 | ext_len u16 | extension | body      (big-endian)
//! ```
//! `len` counts what follows it.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// 1 MiB of body and 4 KiB around it: the largest frame.
pub const FRAME_MAX: usize = (1 << 20) + (4 << 10);
/// The version of the frames and of what is in them. Version 0 may still change.
pub const WIRE_VERSION: u8 = 0;
/// What follows `len` at the least.
const FIXED: usize = 1 + 1 + 8 + 4 + 2;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// First on a stream: which mailbox. Body: the name.
    Open = 1,
    /// A message without an answer.
    Tell = 2,
    /// A message whose answer carries its id.
    Ask = 3,
    /// An answer.
    Reply = 4,
    /// No answer, and why. Body: a sentence. With id 0: about the stream.
    Nack = 5,
    /// `id` more messages may be sent on this stream.
    Credit = 6,
    /// First on the first stream. Body: the greeting.
    Hello = 7,
    /// The greeting was accepted.
    HelloAck = 8,
    /// The greeting was not accepted. Body: a sentence; `deadline_ms`: how long to wait, 0 for no advice.
    Refuse = 9,
    /// Are you there? `deadline_ms`: how long the sender has heard nothing.
    Ping = 10,
    /// Yes.
    Pong = 11,
    /// The sender ends the link in order.
    Bye = 12,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Ask, Bye, Credit, Hello, HelloAck, Nack, Open, Ping, Pong, Refuse, Reply, Tell};
        [Open, Tell, Ask, Reply, Nack, Credit, Hello, HelloAck, Refuse, Ping, Pong, Bye]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) deadline_ms: u32,
    pub(crate) extension: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("stream broke off")]
    Io(#[from] io::Error),
    #[error("frame of {0} bytes; at most {FRAME_MAX} are read")]
    TooLong(usize),
    #[error("frame of {0} bytes is shorter than a header")]
    TooShort(usize),
    #[error("frame of wire version {0}; this end speaks {WIRE_VERSION}")]
    Version(u8),
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    #[error("extension of {0} bytes does not fit its frame")]
    Extension(usize),
}

impl Frame {
    pub(crate) fn new(kind: Kind, id: u64, body: Vec<u8>) -> Self {
        Frame { kind, id, deadline_ms: 0, extension: Vec::new(), body }
    }

    /// Whether a body of this length fits a frame.
    pub(crate) fn fits(body: usize) -> bool {
        body <= 1 << 20
    }

    /// The frame as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Extensions are ours and short; a longer one is cut off rather than lying about its length.
        let extension = self.extension.get(..usize::from(u16::MAX)).unwrap_or(&self.extension);
        let len = FIXED + extension.len() + self.body.len();
        let mut bytes = Vec::with_capacity(4 + len);
        bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        bytes.push(WIRE_VERSION);
        bytes.push(self.kind as u8);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.deadline_ms.to_be_bytes());
        bytes.extend(u16::try_from(extension.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(extension);
        bytes.extend(&self.body);
        bytes
    }

    /// Checks a declared length.
    fn check_len(len: usize) -> Result<(), FrameError> {
        if len > FRAME_MAX {
            return Err(FrameError::TooLong(len));
        }
        if len < FIXED { Err(FrameError::TooShort(len)) } else { Ok(()) }
    }

    /// Takes what follows `len` apart.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        Frame::check_len(bytes.len())?;
        let (fixed, rest) = bytes.split_at(FIXED);
        let (version, kind) = (fixed[0], fixed[1]);
        if version != WIRE_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        let number = |at: std::ops::Range<usize>| {
            fixed.get(at).into_iter().flatten().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        let extension = usize::try_from(number(14..16)).unwrap_or(usize::MAX);
        let Some((extension, body)) = rest.split_at_checked(extension) else {
            return Err(FrameError::Extension(extension));
        };
        Ok(Frame {
            kind,
            id: number(2..10),
            deadline_ms: u32::try_from(number(10..14)).unwrap_or(u32::MAX),
            extension: extension.to_vec(),
            body: body.to_vec(),
        })
    }
}

/// Reads one frame; `None` when the stream ended between frames.
pub(crate) async fn read<R: AsyncRead + Unpin + ?Sized>(reader: &mut R) -> Result<Option<Frame>, FrameError> {
    let mut len = [0_u8; 4];
    let first = reader.read(&mut len).await?;
    if first == 0 {
        return Ok(None);
    }
    if let Some(rest) = len.get_mut(first..) {
        reader.read_exact(rest).await?;
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    Frame::check_len(len)?;
    // Grows as bytes come: a declared length alone costs nothing.
    let mut bytes = Vec::new();
    let got = reader.take(len as u64).read_to_end(&mut bytes).await?;
    if got < len {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(Frame::decode(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_what_is_written_above() {
        let frame =
            Frame { kind: Kind::Ask, id: 7, deadline_ms: 9, extension: vec![0xee], body: vec![0xbb, 0xbc] };
        let bytes = frame.encode();
        assert_eq!(bytes, [0, 0, 0, 19, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 1, 0xee, 0xbb, 0xbc]);
        assert_eq!(Frame::decode(&bytes[4..]).unwrap(), frame);
    }

    #[test]
    fn bad_frames_are_named() {
        let good = Frame::new(Kind::Tell, 0, vec![]).encode()[4..].to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Frame::decode(&bytes)
        };
        assert!(matches!(with(0, 9), Err(FrameError::Version(9))));
        assert!(matches!(with(1, 0), Err(FrameError::Kind(0))));
        assert!(matches!(with(14, 1), Err(FrameError::Extension(256))));
        assert!(matches!(Frame::decode(&good[1..]), Err(FrameError::TooShort(15))));
        assert!(matches!(Frame::decode(&vec![0; FRAME_MAX + 1]), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(&frame.encode()[4..], &bytes[..]);
            }
        }
    }

    #[tokio::test]
    async fn a_declared_length_allocates_nothing() {
        let mut hostile: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(matches!(read(&mut hostile).await, Err(FrameError::TooLong(_))));
        let mut cut: &[u8] = &[0, 0, 0, 16, 0, 3];
        assert!(matches!(read(&mut cut).await, Err(FrameError::Io(_))));
        let mut ended: &[u8] = &[];
        assert!(matches!(read(&mut ended).await, Ok(None)));
    }
}
