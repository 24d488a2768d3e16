//! Streams of QUIC, whose errors are said in words for whoever reads a log or runs `kubectl`: s2n-quic's are for who wrote it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use s2n_quic::stream::{BidirectionalStream, ReceiveStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::{Reader, Writer};

/// Both halves of a stream.
pub(super) fn halves(stream: BidirectionalStream) -> (Writer, Reader) {
    let (receive, send) = stream.split();
    (Box::new(SayingWriter(send)), Box::new(SayingReader(receive)))
}

/// The error of a connection or of one of its streams, in our words.
pub(super) fn said(error: io::Error) -> io::Error {
    use s2n_quic::connection::Error;
    use s2n_quic::stream::Error as StreamError;
    let inner = error.get_ref();
    let of_connection = inner.and_then(|inner| inner.downcast_ref::<Error>());
    let of_stream = inner.and_then(|inner| inner.downcast_ref::<StreamError>());
    let of_connection = of_connection.or(match of_stream {
        Some(StreamError::ConnectionError { error, .. }) => Some(error),
        _ => None,
    });
    let words = match (of_connection, of_stream) {
        (Some(Error::Closed { initiator, .. } | Error::Application { initiator, .. }), _) => {
            if initiator.is_local() {
                "this end closed the connection"
            } else {
                "the other end closed the connection"
            }
        }
        (Some(Error::StatelessReset { .. }), _) => "the other end does not know the connection any more",
        (Some(Error::IdleTimerExpired { .. }), _) => "nothing came over the connection for too long",
        (Some(Error::NoValidPath { .. }), _) => "no way leads to the other end any more",
        (None, Some(StreamError::StreamReset { .. })) => "the other end broke the stream off",
        // A rule of QUIC's or TLS's that was broken, with its number; a certificate that was refused.
        _ => return error,
    };
    io::Error::new(error.kind(), words)
}

struct SayingReader(ReceiveStream);

impl AsyncRead for SayingReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), cx, into).map_err(said)
    }
}

struct SayingWriter(SendStream);

impl AsyncWrite for SayingWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.0), cx, bytes).map_err(said)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.0), cx).map_err(said)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx).map_err(said)
    }
}
