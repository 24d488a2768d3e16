//! Frames: a header of fixed size, an extension block, a body. Sizes are checked before anything is allocated.
//!
//! ```text
//! len u32 | version u8 | kind u8 | id u64 | amount u32 | ext_len u16 | extension | body      (big-endian)
//! ```
//! `len` counts what follows it. `id` and `amount` are what the kind says, 0 where it says nothing of them.
//! The extension is of `Tell` and `Ask` ([`crate::trace`] has its layout) and empty in all others; an end that does not know what stands there
//! passes it over.
//!
//! The layout is frozen with its version (see [`super::version`]): `tests/frames-1.txt` holds every kind byte by byte. The
//! frames of the hello (`Hello`, `HelloAck`, `Refuse`) are spoken before a version was agreed on: they carry 0, which no
//! version has. All others carry the agreed one.

use std::io;

use bytes::BufMut;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::version::WireVersion;

/// 1 MiB: the largest body.
pub const BODY_MAX: usize = 1 << 20;
/// 1 MiB of body and 4 KiB around it: the largest frame.
pub const FRAME_MAX: usize = BODY_MAX + (4 << 10);
/// What follows `len` at the least.
pub(crate) const FIXED: usize = 1 + 1 + 8 + 4 + 2;
/// What the frames of the hello carry where others carry their version.
const BEFORE_VERSIONS: u8 = 0;
/// 8 KiB: memory for the first bytes of a frame.
const FIRST_PIECE: usize = 8 << 10;

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
    /// `id` more messages may be sent on this stream, and `amount` more bytes after the fixed header.
    Credit = 6,
    /// First on the first stream. Body: the greeting.
    Hello = 7,
    /// The greeting was accepted. Body: the agreed version, one byte, and the capabilities of this end.
    HelloAck = 8,
    /// The greeting was not accepted. Body: a sentence; `amount`: how many ms to wait, 0 for no advice.
    Refuse = 9,
    /// Are you there? `amount`: for how many ms the sender has heard nothing.
    Ping = 10,
    /// Yes.
    Pong = 11,
    /// The sender ends the link in order.
    Bye = 12,
    /// First on a byte stream: `id` is its number, odd from the end that dialled, even from the other. Body: its header.
    StreamOpen = 13,
    /// The byte stream `id` was accepted: chunks follow, in both directions.
    StreamAccept = 14,
    /// The byte stream `id` was not accepted, and ends. `amount`: a code. Body: a sentence.
    StreamRefuse = 15,
    /// On the link's own stream, as the next three: `id` bytes of byte streams have arrived in all. `amount`: when, in
    /// milliseconds of the sender's own clock, which may begin anywhere.
    StreamArrived = 16,
    /// `amount` more bytes may be sent on the byte stream `id`.
    StreamWindow = 17,
    /// `amount` bytes of what may be sent on the byte stream `id` are not needed now and given back.
    StreamWindowReturn = 18,
    /// The sender reads no more of the byte stream `id`.
    StreamStop = 19,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Ask, Bye, Credit, Hello, HelloAck, Nack, Open, Ping, Pong, Refuse, Reply, Tell};
        use Kind::{
            StreamAccept, StreamArrived, StreamOpen, StreamRefuse, StreamStop, StreamWindow,
            StreamWindowReturn,
        };
        let mailboxes = [Open, Tell, Ask, Reply, Nack, Credit, Hello, HelloAck, Refuse, Ping, Pong, Bye];
        let streams = [
            StreamOpen,
            StreamAccept,
            StreamRefuse,
            StreamArrived,
            StreamWindow,
            StreamWindowReturn,
            StreamStop,
        ];
        mailboxes.into_iter().chain(streams).find(|kind| *kind as u8 == byte)
    }

    /// The number of the version that a frame of this kind carries where `agreed` is spoken.
    fn version(self, agreed: WireVersion) -> u8 {
        use Kind::{Ask, Bye, Credit, Hello, HelloAck, Nack, Open, Ping, Pong, Refuse, Reply, Tell};
        use Kind::{
            StreamAccept, StreamArrived, StreamOpen, StreamRefuse, StreamStop, StreamWindow,
            StreamWindowReturn,
        };
        match self {
            Hello | HelloAck | Refuse => BEFORE_VERSIONS,
            Open | Tell | Ask | Reply | Nack | Credit | Ping | Pong | Bye | StreamOpen | StreamAccept
            | StreamRefuse | StreamArrived | StreamWindow | StreamWindowReturn | StreamStop => {
                agreed.number()
            }
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) amount: u32,
    pub(crate) extension: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("stream broke off")]
    Io(#[from] io::Error),
    #[error("frame of {len} bytes; at most {most} are read here")]
    TooLong { len: usize, most: usize },
    #[error("frame of {0} bytes is shorter than a header")]
    TooShort(usize),
    #[error("frame of wire version {found} where {agreed} is spoken")]
    Version { found: u8, agreed: u8 },
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    #[error("extension of {0} bytes does not fit its frame")]
    Extension(usize),
}

impl Frame {
    pub(crate) fn new(kind: Kind, id: u64, body: Vec<u8>) -> Self {
        Frame { kind, id, amount: 0, extension: Vec::new(), body }
    }

    /// Whether a body of this length fits a frame.
    pub(crate) fn fits(body: usize) -> bool {
        body <= BODY_MAX
    }

    /// The frame as bytes, on a link that speaks `agreed`.
    pub(crate) fn encode(&self, agreed: WireVersion) -> Vec<u8> {
        // Extensions are ours and short; a longer one is cut off rather than lying about its length.
        let extension = self.extension.get(..usize::from(u16::MAX)).unwrap_or(&self.extension);
        let len = FIXED + extension.len() + self.body.len();
        let mut bytes = Vec::with_capacity(4 + len);
        bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        bytes.push(self.kind.version(agreed));
        bytes.push(self.kind as u8);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.amount.to_be_bytes());
        bytes.extend(u16::try_from(extension.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(extension);
        bytes.extend(&self.body);
        bytes
    }

    /// The frame that `bytes` are behind their length, as they are read from a stream.
    #[cfg(test)]
    pub(crate) fn decode(mut bytes: &[u8], agreed: WireVersion) -> Result<Frame, FrameError> {
        use futures::FutureExt;
        Frame::check_len(bytes.len(), FRAME_MAX)?;
        let len = bytes.len();
        read_rest(&mut bytes, len, agreed).now_or_never().unwrap()
    }

    /// Checks a declared length.
    fn check_len(len: usize, most: usize) -> Result<(), FrameError> {
        if len > most {
            return Err(FrameError::TooLong { len, most });
        }
        if len < FIXED { Err(FrameError::TooShort(len)) } else { Ok(()) }
    }
}

/// What stands before the extension and the body.
struct FrameHeader {
    kind: Kind,
    id: u64,
    amount: u32,
    extension: usize,
}

impl FrameHeader {
    /// Takes the fixed part of a frame apart, on a link that speaks `agreed`.
    fn decode(fixed: &[u8; FIXED], agreed: WireVersion) -> Result<FrameHeader, FrameError> {
        let (found, byte) = (fixed[0], fixed[1]);
        let kind = Kind::from_byte(byte);
        let agreed = kind.map_or(agreed.number(), |kind| kind.version(agreed));
        if found != agreed {
            return Err(FrameError::Version { found, agreed });
        }
        let kind = kind.ok_or(FrameError::Kind(byte))?;
        let number = |at: std::ops::Range<usize>| {
            fixed.get(at).into_iter().flatten().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        Ok(FrameHeader {
            kind,
            id: number(2..10),
            amount: u32::try_from(number(10..14)).unwrap_or(u32::MAX),
            extension: usize::try_from(number(14..16)).unwrap_or(usize::MAX),
        })
    }
}

/// Reads the declared length of the next frame; `None` when the stream ended between frames.
pub(crate) async fn read_len<R: AsyncRead + Unpin + ?Sized>(
    reader: &mut R,
    most: usize,
) -> Result<Option<usize>, FrameError> {
    let mut len = [0_u8; 4];
    let first = reader.read(&mut len).await?;
    if first == 0 {
        return Ok(None);
    }
    if let Some(rest) = len.get_mut(first..) {
        reader.read_exact(rest).await?;
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    Frame::check_len(len, most)?;
    Ok(Some(len))
}

/// Reads what follows a length that was checked.
pub(crate) async fn read_rest<R: AsyncRead + Unpin + ?Sized>(
    reader: &mut R,
    len: usize,
    agreed: WireVersion,
) -> Result<Frame, FrameError> {
    let mut fixed = [0; FIXED];
    reader.read_exact(&mut fixed).await?;
    // Before the rest is read: of what is no frame there is nothing to keep.
    let header = FrameHeader::decode(&fixed, agreed)?;
    let Some(body) = len.checked_sub(FIXED + header.extension) else {
        return Err(FrameError::Extension(header.extension));
    };
    let extension = read_piece(reader, header.extension).await?;
    let body = read_piece(reader, body).await?;
    Ok(Frame { kind: header.kind, id: header.id, amount: header.amount, extension, body })
}

/// Reads so many bytes. Memory doubles as they come and ends at what is needed: a declared length alone costs nothing.
async fn read_piece<R: AsyncRead + Unpin + ?Sized>(
    reader: &mut R,
    len: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        if bytes.len() == bytes.capacity() {
            bytes.reserve_exact((len - bytes.len()).min(bytes.len().max(FIRST_PIECE)));
        }
        let room = bytes.capacity().min(len) - bytes.len();
        if reader.read_buf(&mut (&mut bytes).limit(room)).await? == 0 {
            return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: WireVersion = WireVersion::ONE;

    #[test]
    fn the_layout_is_what_is_written_above() {
        let frame =
            Frame { kind: Kind::Ask, id: 7, amount: 9, extension: vec![0xee], body: vec![0xbb, 0xbc] };
        let bytes = frame.encode(ONE);
        assert_eq!(bytes, [0, 0, 0, 19, 1, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 1, 0xee, 0xbb, 0xbc]);
        assert_eq!(Frame::decode(&bytes[4..], ONE).unwrap(), frame);
    }

    #[test]
    fn bad_frames_are_named() {
        let good = Frame::new(Kind::Tell, 0, vec![]).encode(ONE)[4..].to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Frame::decode(&bytes, ONE)
        };
        assert!(matches!(with(0, 9), Err(FrameError::Version { found: 9, agreed: 1 })));
        // Only a hello carries 0.
        assert!(matches!(with(0, 0), Err(FrameError::Version { found: 0, agreed: 1 })));
        assert!(matches!(with(1, 0), Err(FrameError::Kind(0))));
        assert!(matches!(with(14, 1), Err(FrameError::Extension(256))));
        // And it carries nothing else, whatever is spoken.
        assert!(matches!(with(1, Kind::Hello as u8), Err(FrameError::Version { found: 1, agreed: 0 })));
        assert!(matches!(Frame::decode(&good[1..], ONE), Err(FrameError::TooShort(15))));
        let long = Frame::decode(&vec![0; FRAME_MAX + 1], ONE);
        assert!(matches!(long, Err(FrameError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            if let Ok(frame) = Frame::decode(&bytes, ONE) {
                prop_assert_eq!(&frame.encode(ONE)[4..], &bytes[..]);
            }
        }

        #[test]
        fn what_is_almost_a_frame_is_a_frame_or_refused(
            (kind, at, byte) in (1..=19_u8, 0..24_usize, any::<u8>())
        ) {
            let frame = Frame::new(Kind::from_byte(kind).unwrap(), 1, vec![0; 8]);
            let mut bytes = frame.encode(ONE)[4..].to_vec();
            bytes[at] = byte;
            if let Ok(frame) = Frame::decode(&bytes, ONE) {
                prop_assert_eq!(&frame.encode(ONE)[4..], &bytes[..]);
            }
        }
    }

    #[tokio::test]
    async fn a_declared_length_allocates_nothing() {
        let mut hostile: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(matches!(read_len(&mut hostile, FRAME_MAX).await, Err(FrameError::TooLong { .. })));
        let mut large: &[u8] = &[0, 0, 1, 0, 0];
        assert!(matches!(read_len(&mut large, 255).await, Err(FrameError::TooLong { len: 256, most: 255 })));
        let mut cut: &[u8] = &[0, 0, 0, 16, 0, 3];
        let len = read_len(&mut cut, FRAME_MAX).await.unwrap().unwrap();
        assert!(matches!(read_rest(&mut cut, len, ONE).await, Err(FrameError::Io(_))));
        let mut ended: &[u8] = &[];
        assert!(matches!(read_len(&mut ended, FRAME_MAX).await, Ok(None)));
    }
}
