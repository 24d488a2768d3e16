//! A byte stream in the hands of whoever reads and writes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;

/// Bytes in both directions beside the mailboxes of a link.
///
/// * `shutdown` ends this end's half: what was written arrives, and then the other end reads the end. Reading goes on.
/// * Dropped before that, the stream breaks off: at the other end reads and writes fail with
///   [`io::ErrorKind::ConnectionReset`]. Dropped after that, what was written still arrives, and the other end's writes fail
///   with [`io::ErrorKind::BrokenPipe`]. An end that is read is always a whole one.
/// * When the link ends, what has come may still be read; then reads and writes fail with
///   [`io::ErrorKind::ConnectionAborted`] and a sentence, those that wait at once.
/// * A write is taken as soon as there is room for it, and goes by itself when its turn has come; `flush` does nothing. An end
///   that does not read stops its writer after at most 256 KiB and 64 KiB that wait here.
pub struct ByteStream {
    shared: Arc<Shared>,
    id: u64,
}

impl ByteStream {
    pub(super) fn new(shared: Arc<Shared>, id: u64) -> Self {
        shared.state().handed_out(id);
        ByteStream { shared, id }
    }
}

impl std::fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ByteStream({} with {})", self.id, self.shared.core.peer)
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.state().poll_read(self.id, into, cx)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.state().poll_write(self.id, bytes, cx, self.shared.now())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was taken goes by itself, in its turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.state().poll_shutdown(self.id, cx)
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        self.shared.state().dropped(self.id, self.shared.now());
        self.shared.count();
    }
}
