//! A connection's bytes, whichever listener they come through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// See the module.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Over one of these.
    Layered(Pin<Box<dyn Layer>>),
}

/// What carries bytes over another connection: a WebSocket, or TLS of a client.
pub(crate) trait Layer: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Layer for T {}

pub(crate) type Reader = tokio::io::ReadHalf<Stream>;
pub(crate) type Writer = tokio::io::WriteHalf<Stream>;

macro_rules! on {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp(socket) => {
                let $inner = Pin::new(socket);
                $call
            }
            Stream::Unix(socket) => {
                let $inner = Pin::new(socket);
                $call
            }
            Stream::Tls(socket) => {
                let $inner = Pin::new(socket.as_mut());
                $call
            }
            Stream::Layered(layer) => {
                let $inner = layer.as_mut();
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on!(self, inner => inner.poll_read(cx, into))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        on!(self, inner => inner.poll_write(cx, from))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self, inner => inner.poll_write_vectored(cx, from))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, inner => inner.poll_shutdown(cx))
    }
}
