//! How much has come over a connection since the last request: a device that is silent and one that cannot be understood are mended in
//! different places.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes have come.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeardBytes(Arc<AtomicUsize>);

impl HeardBytes {
    /// How many since the last time.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A connection that counts what comes, and on which an end is an error: what is missing comes no more, and the client above takes the
/// system's last error for it, whatever that was about.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    stream: T,
    heard: HeardBytes,
}

impl<T> Counted<T> {
    pub(crate) fn of(stream: T, heard: HeardBytes) -> Self {
        Counted { stream, heard }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let has_room = into.remaining() > 0;
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let came = into.filled().len() - before;
        if came == 0 && has_room {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.heard.0.fetch_add(came, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_came_is_counted_and_an_end_is_an_error() {
        let (mut device, ours) = duplex(64);
        let heard = HeardBytes::default();
        let mut counted = Counted::of(ours, heard.clone());
        device.write_all(&[1, 2, 3]).await.unwrap();
        let mut two = [0; 2];
        counted.read_exact(&mut two).await.unwrap();
        assert_eq!((heard.take(), heard.take()), (2, 0));
        drop(device);
        let mut rest = [0; 8];
        assert_eq!(counted.read(&mut rest).await.unwrap(), 1);
        assert_eq!(counted.read(&mut rest).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(heard.take(), 1);
    }
}
