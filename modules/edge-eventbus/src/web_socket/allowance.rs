//! How much may be read of a connection whose client nobody knows yet.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes that may still be read; once it is lifted, any number.
#[derive(Clone)]
pub(crate) struct Allowance(Rc<Cell<usize>>);

impl Allowance {
    pub(super) fn new(bytes: usize) -> Self {
        Allowance(Rc::new(Cell::new(bytes)))
    }

    /// The client is known now.
    pub(crate) fn lift(&self) {
        self.0.set(usize::MAX);
    }

    /// Of what is read through this it is taken.
    pub(super) fn meter(&self, stream: Stream) -> Metered {
        Metered { stream: Rc::new(RefCell::new(stream)), left: self.clone() }
    }
}

/// See [`Allowance::meter`]. Its clones are one connection, so that there is a way to answer when tungstenite has given it up.
#[derive(Clone)]
pub(crate) struct Metered {
    stream: Rc<RefCell<Stream>>,
    left: Allowance,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.left.0.get();
        if left == usize::MAX {
            return Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, into);
        }
        if left == 0 {
            let what = "more than a CONNECT and nobody to whom it belongs";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let most = left.min(into.remaining());
        let mut part = ReadBuf::new(into.initialize_unfilled_to(most));
        ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        into.advance(count);
        self.left.0.set(left - count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}
