//! Counts informational heads, and ends the connection on which too many come.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::Request;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As many informational heads may come before one answer (Go: `max1xxResponses`).
pub const INFORMATIONAL_MAX: usize = 5;
/// 16 KiB of a stream are read at a time: the most that is parsed before the guard is asked again.
pub const READ_MAX: usize = 16 << 10;

/// The peer goes on and on before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer answers with more than {INFORMATIONAL_MAX} informational heads")]
pub struct TooManyInformational;

/// Whether a connection has had too many informational heads. Its clones are one.
#[derive(Debug, Clone, Default)]
pub struct Guard(Arc<AtomicBool>);

impl Guard {
    /// Whether too many have come for one request. It stays so: nothing more is read of the connection.
    pub fn is_tripped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn trip(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts the informational heads that come for a request, and trips the guard of the connection on which they do. `guard` is asked
/// when it has to be tripped: a pool knows the connection no sooner.
pub fn watch<B>(request: &mut Request<B>, guard: impl Fn() -> Option<Guard> + Send + Sync + 'static) {
    let came = AtomicUsize::new(0);
    hyper::ext::on_informational(request, move |_| {
        if came.fetch_add(1, Ordering::Relaxed) >= INFORMATIONAL_MAX
            && let Some(guard) = guard()
        {
            guard.trip();
        }
    });
}

/// A stream of which nothing more is read once its guard is tripped, and never more than [`READ_MAX`] at a time.
#[derive(Debug)]
pub struct Guarded<T> {
    stream: T,
    guard: Guard,
}

impl<T> Guarded<T> {
    /// With a guard of its own.
    pub fn new(stream: T) -> Self {
        Guarded { stream, guard: Guard::default() }
    }

    /// Its guard.
    pub fn guard(&self) -> Guard {
        self.guard.clone()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.guard.is_tripped() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TooManyInformational)));
        }
        let room = into.remaining().min(READ_MAX);
        let mut part = ReadBuf::new(into.initialize_unfilled_to(room));
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let read = part.filled().len();
        into.advance(read);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
