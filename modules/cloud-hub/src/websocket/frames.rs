//! What is read of a socket, and how much: up to the end of one frame at a time, and no more ahead than two frames of the mux.
//!
//! actix-web-actors reads as much as comes, and a frame to its end before it looks at its size. So it is fed by [`Frames`]: one
//! frame at a time, and none that is larger than a frame of the mux.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use beehive::link::mux::MUX_FRAME_MAX;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// 16 KiB for all that comes before the upgrade: a request for it has some 300 bytes.
const HEAD_MAX: usize = 16 << 10;
/// 16 KiB of reading ahead after it: two frames of the mux.
const READ_AHEAD: usize = 16 << 10;
/// 14 bytes at most are in front of a frame (RFC 6455 section 5.2).
const FRAME_HEAD_MAX: usize = 14;

/// How much more may be read of a socket. Before the upgrade that is all there is; after it, what was used may come again.
#[derive(Default)]
pub(super) struct ReadBound {
    upgraded: Cell<bool>,
    /// Read and not used.
    ahead: Cell<usize>,
    /// The other end has said all it will.
    ended: Cell<bool>,
    waits: RefCell<Option<Waker>>,
}

impl ReadBound {
    /// What was read so far was its head, and is used.
    pub(super) fn upgraded(&self) {
        self.upgraded.set(true);
        self.ahead.set(0);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.upgraded.get() && self.ahead.get() >= READ_AHEAD {
            *self.waits.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if !self.upgraded.get() && self.ahead.get() >= HEAD_MAX {
            let error = io::Error::new(io::ErrorKind::InvalidData, "more than 16 KiB and no upgrade");
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    fn read(&self, bytes: usize) {
        self.ahead.set(self.ahead.get() + bytes);
    }

    fn used(&self, bytes: usize) {
        self.ahead.set(self.ahead.get().saturating_sub(bytes));
        if let Some(waits) = self.waits.borrow_mut().take() {
            waits.wake();
        }
    }
}

/// A socket with its [`ReadBound`].
pub(super) struct BoundedSocket<S, T> {
    pub(super) socket: S,
    pub(super) bound: Rc<ReadBound>,
    /// What its request finds of it.
    pub(super) with: Rc<T>,
}

impl<S: AsyncRead + Unpin, T> AsyncRead for BoundedSocket<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.bound.poll_room(cx))?;
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, into))?;
        let (bound, read) = (&self.bound, into.filled().len() - before);
        bound.read(read);
        if read == 0 && !bound.upgraded.get() {
            // The library would wait for the rest of a request. What came before is answered first.
            if bound.ended.replace(true) {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T> AsyncWrite for BoundedSocket<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The bytes of a socket after the upgrade, up to the end of one frame at a time.
pub(super) struct Frames<B> {
    bytes: B,
    bound: Rc<ReadBound>,
    /// Came and was not yielded.
    held: Bytes,
    /// What was seen of the current frame's head.
    head: Vec<u8>,
    /// How much of its body is still to come. `None`: its head is not whole.
    left: Option<usize>,
}

impl<B> Frames<B> {
    pub(super) fn of(bytes: B, bound: Rc<ReadBound>) -> Self {
        let head = Vec::with_capacity(FRAME_HEAD_MAX);
        Frames { bytes, bound, held: Bytes::new(), head, left: None }
    }

    /// What of the current frame is held, or `None` when the frame is larger than a frame of the mux.
    fn piece(&mut self) -> Option<Bytes> {
        let wanted = match self.left {
            Some(left) => left,
            None => head_len(&self.head) - self.head.len(),
        };
        let piece = self.held.split_to(wanted.min(self.held.len()));
        self.left = match self.left {
            Some(left) => Some(left - piece.len()),
            None => {
                self.head.extend_from_slice(&piece);
                (self.head.len() == head_len(&self.head)).then(|| body_len(&self.head))
            }
        };
        self.left.is_none_or(|left| left <= MUX_FRAME_MAX).then_some(piece)
    }
}

/// How long a frame's head is, as far as what came of it tells.
fn head_len(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

/// How long the body is that a whole head announces.
fn body_len(head: &[u8]) -> usize {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let len = match head.get(1).map_or(0, |second| second & 0x7f) {
        126 => head.get(2..4).map_or(0, number),
        127 => head.get(2..10).map_or(0, number),
        short => u64::from(short),
    };
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl<B> Stream for Frames<B>
where
    B: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == Some(0) {
            // The frame has ended: it is looked at before the next is asked for.
            self.left = None;
            self.head.clear();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.held.is_empty() {
            match ready!(Pin::new(&mut self.bytes).poll_next(cx)) {
                Some(Ok(bytes)) => self.held = bytes,
                other => return Poll::Ready(other),
            }
        }
        let piece = self.piece().ok_or(PayloadError::Overflow);
        self.bound.used(piece.as_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::ws::{Codec, Message};
    use actix_web::web;
    use futures::{FutureExt, StreamExt};
    use tokio_util::codec::Encoder;

    fn frame(len: usize) -> Vec<u8> {
        let mut bytes = web::BytesMut::new();
        Codec::new().client_mode().encode(Message::Binary(vec![7; len].into()), &mut bytes).unwrap();
        bytes.to_vec()
    }

    /// What is yielded between two rests.
    fn turns(chunks: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, PayloadError>> {
        let bound = Rc::new(ReadBound::default());
        bound.read(chunks.iter().map(Vec::len).sum());
        let chunks = futures::stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
        let (mut frames, mut turns) = (Frames::of(chunks, Rc::clone(&bound)), Vec::new());
        let mut turn = Vec::new();
        loop {
            match frames.next().now_or_never() {
                None => turns.push(Ok(std::mem::take(&mut turn))),
                Some(Some(Ok(piece))) => turn.extend_from_slice(&piece),
                Some(Some(Err(error))) => {
                    turns.push(Err(error));
                    return turns;
                }
                Some(None) => break,
            }
        }
        assert_eq!(bound.ahead.get(), 0, "all was used");
        turns
    }

    #[test]
    fn one_frame_a_turn_however_its_bytes_come() {
        let frames: Vec<Vec<u8>> = [0, 1, 125, 126, 700, MUX_FRAME_MAX].map(frame).into();
        let bytes = frames.concat();
        for size in [1, 2, 3, 13, 500, bytes.len()] {
            let turns: Vec<_> = turns(bytes.chunks(size).map(<[u8]>::to_vec).collect());
            let turns: Vec<Vec<u8>> = turns.into_iter().map(Result::unwrap).collect();
            assert_eq!(turns, frames, "in chunks of {size}");
        }
    }

    #[test]
    fn a_frame_that_is_larger_than_a_mux_frame_is_refused_at_its_head() {
        let long = frame(MUX_FRAME_MAX + 1);
        let turns = turns(vec![frame(3), long[..FRAME_HEAD_MAX].to_vec()]);
        assert!(matches!(&turns[..], [Ok(_), Err(PayloadError::Overflow)]), "{turns:?}");
        let endless = [&[0x82, 0xff][..], &[0xff; 12]].concat();
        assert!(matches!(&turns_of(endless)[..], [Err(PayloadError::Overflow)]));
    }

    fn turns_of(bytes: Vec<u8>) -> Vec<Result<Vec<u8>, PayloadError>> {
        turns(vec![bytes])
    }

    #[test]
    fn no_more_is_read_than_was_used_and_two_mux_frames() {
        let bound = ReadBound::default();
        let mut cx = Context::from_waker(Waker::noop());
        bound.read(HEAD_MAX);
        assert!(matches!(bound.poll_room(&mut cx), Poll::Ready(Err(_))), "no head is that long");
        bound.upgraded();
        assert!(matches!(bound.poll_room(&mut cx), Poll::Ready(Ok(()))));
        bound.read(READ_AHEAD);
        assert!(bound.poll_room(&mut cx).is_pending());
        bound.used(1);
        assert!(bound.waits.borrow().is_none(), "woken");
        assert!(matches!(bound.poll_room(&mut cx), Poll::Ready(Ok(()))));
    }
}
