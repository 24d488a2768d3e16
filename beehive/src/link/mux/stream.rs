//! The halves of a stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;

/// Writes to a stream; dropped, it ends its half.
pub(super) struct StreamWriter {
    shared: Arc<Shared>,
    id: u32,
}

impl StreamWriter {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Self {
        StreamWriter { shared, id }
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.state().poll_write(self.id, bytes, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken goes by itself, in its turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.state().complete(self.id);
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.shared.state().complete(self.id);
    }
}

/// Reads from a stream; dropped, the other end is told to stop.
pub(super) struct StreamReader {
    shared: Arc<Shared>,
    id: u32,
}

impl StreamReader {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Self {
        StreamReader { shared, id }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.state().poll_read(self.id, into, cx)
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.shared.state().unread(self.id);
    }
}
