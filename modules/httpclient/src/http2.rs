//! One connection of HTTP/2 to a peer that is ours: it is asked all the time whether it is there, so that one that hangs or has gone
//! without a word costs a known time, whatever it was asked.

use std::time::Duration;

use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::HEAD_MAX;

pub use hyper::client::conn::http2::SendRequest;

/// 64 KiB: what may be on its way of an answer's body, and what waits of a request's.
const WINDOW: u32 = 64 << 10;
/// 500 ms of silence, while something is asked, until the peer is asked whether it is there.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// 1500 ms for it to say so.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// 2 s: after so long a silence of the peer a connection has failed.
pub const SILENCE_MAX: Duration = Duration::from_millis(2000);

/// Begins to speak HTTP/2 on a stream. The second is the connection, which does something only while it is polled, and ends with the
/// sender, with the peer's end of it, or when the peer has been silent for [`SILENCE_MAX`]. Needs a tokio runtime with time.
///
/// # Errors
/// When the stream takes nothing.
pub async fn handshake<T, B>(
    stream: T,
) -> hyper::Result<(SendRequest<B>, impl Future<Output = hyper::Result<()>> + use<T, B>)>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize)
        .max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(ANSWER_WITHIN)
        .handshake(TokioIo::new(stream))
        .await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::Empty;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_silence_is_what_both_make() {
        assert_eq!(ASK_AFTER + ANSWER_WITHIN, SILENCE_MAX);
    }

    #[tokio::test]
    async fn a_peer_that_takes_everything_and_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_kept, _) = listener.accept().await.unwrap();
        let (mut sender, connection) = handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let began = Instant::now();
        let request = Request::get("https://peer/").body(Empty::<Bytes>::new()).unwrap();
        assert!(sender.send_request(request).await.is_err());
        // A busy machine is late, and never early.
        assert!(began.elapsed() >= ASK_AFTER, "{:?}", began.elapsed());
    }
}
