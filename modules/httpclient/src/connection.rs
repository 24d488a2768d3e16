//! One connection: the handshake, and requests on it.

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::HEAD_MAX;
use crate::guard::{Guard, Guarded, TooManyInformational, watch};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer has said too much before it.
    #[error(transparent)]
    Informational(#[from] TooManyInformational),
    /// The connection came to an end, or what came is not HTTP.
    #[error(transparent)]
    Exchange(hyper::Error),
    /// The same, and nothing of the request was sent.
    #[error(transparent)]
    Unsent(hyper::Error),
}

impl Error {
    /// Whether the head of the answer had more bytes or headers than its [`HeadBounds`].
    pub fn is_head_too_large(&self) -> bool {
        matches!(self, Error::Exchange(error) | Error::Unsent(error) if error.is_parse_too_large())
    }

    /// Whether the peer has ended the connection before its answer was whole.
    pub fn is_incomplete_message(&self) -> bool {
        matches!(self, Error::Exchange(error) | Error::Unsent(error) if error.is_incomplete_message())
    }

    /// Whether the peer has seen nothing of the request.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Error::Unsent(_))
    }
}

/// Sends requests on one connection, one after the other.
#[derive(Debug)]
pub struct SendRequest<B> {
    sender: http1::SendRequest<B>,
    guard: Guard,
}

impl<B: Body + 'static> SendRequest<B> {
    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// See [`Error`]. The connection is of no use then.
    pub async fn send_request(&mut self, mut request: Request<B>) -> Result<Response<Incoming>, Error> {
        let guard = self.guard.clone();
        watch(&mut request, move || Some(guard.clone()));
        let answered = self.sender.try_send_request(request).await;
        // Its answer may have come with the last heads that were read.
        if self.guard.is_tripped() {
            return Err(TooManyInformational.into());
        }
        answered.map_err(|mut error| {
            let is_unsent = error.take_message().is_some();
            let error = error.into_error();
            if is_unsent { Error::Unsent(error) } else { Error::Exchange(error) }
        })
    }

    /// Waits until the connection takes a request.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn ready(&mut self) -> Result<(), Error> {
        self.sender.ready().await.map_err(Error::Unsent)
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// How a peer is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As the standard has it.
    Plain,
    /// With names of headers as Go writes them (`User-Agent`), for servers that never met others; and an answer may have blanks between a
    /// header's name and its colon (`Server : x`), which RFC 9112 (5.1) forbids, Go reads, and old firmware writes. For devices and probes: behind
    /// what they ask there is nobody who would read it otherwise.
    AsGo,
}

/// How much the head of an answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadBounds {
    /// Bytes of the whole head.
    pub bytes: usize,
    /// How many headers; 16,384 at the most, since more find no place in a map of them.
    pub headers: usize,
}

impl Default for HeadBounds {
    /// [`HEAD_MAX`], and 100 headers.
    fn default() -> Self {
        HeadBounds { bytes: HEAD_MAX, headers: 100 }
    }
}

/// More than this would be no error of hyper's, but a panic.
const HEADERS_MAX: usize = 16_384;

/// Begins to speak HTTP/1.1 on a stream. The second is the connection, which does something only while it is polled, and ends with the
/// sender or with the peer's end of it.
///
/// # Errors
/// hyper names none; its own function may fail.
pub async fn handshake<T, B>(
    stream: T,
) -> Result<(SendRequest<B>, impl Future<Output = hyper::Result<()>> + use<T, B>), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    handshake_as(Dialect::Plain, stream).await
}

/// The same in one of the dialects.
///
/// # Errors
/// As [`handshake`].
pub async fn handshake_as<T, B>(
    dialect: Dialect,
    stream: T,
) -> Result<(SendRequest<B>, impl Future<Output = hyper::Result<()>> + use<T, B>), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    handshake_within(HeadBounds::default(), dialect, stream).await
}

/// The same with other bounds of a head.
///
/// # Errors
/// As [`handshake`].
pub async fn handshake_within<T, B>(
    head: HeadBounds,
    dialect: Dialect,
    stream: T,
) -> Result<(SendRequest<B>, impl Future<Output = hyper::Result<()>> + use<T, B>), Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(head.bytes).max_header_size(head.bytes);
    builder.max_headers(head.headers.min(HEADERS_MAX));
    builder.title_case_headers(dialect == Dialect::AsGo);
    builder.allow_spaces_after_header_name_in_responses(dialect == Dialect::AsGo);
    let stream = Guarded::new(stream);
    let guard = stream.guard();
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(Error::Unsent)?;
    Ok((SendRequest { sender, guard }, connection))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::guard::{INFORMATIONAL_MAX, READ_MAX};

    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// A peer that answers each request with `heads` informational ones and then with [`ANSWER`], in one piece.
    async fn peer(heads: usize) -> TcpStream {
        saying([HINTS.repeat(heads), ANSWER.to_vec()].concat()).await
    }

    /// A peer that answers each request with this.
    async fn saying(answer: Vec<u8>) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            while socket.read(&mut asked).await.is_ok_and(|count| count > 0) {
                socket.write_all(&answer).await.unwrap();
            }
        });
        TcpStream::connect(at).await.unwrap()
    }

    fn request() -> Request<Empty<Bytes>> {
        Request::get("/").header("host", "peer").body(Empty::new()).unwrap()
    }

    #[tokio::test]
    async fn a_few_informational_heads_are_passed_over_for_each_request() {
        let (mut sender, connection) = handshake(peer(INFORMATIONAL_MAX).await).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..3 {
            sender.ready().await.unwrap();
            let answer = sender.send_request(request()).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        }
    }

    #[tokio::test]
    async fn one_more_is_an_error_even_with_the_answer_behind_it() {
        let (mut sender, connection) = handshake(peer(INFORMATIONAL_MAX + 1).await).await.unwrap();
        tokio::spawn(connection);
        let error = sender.send_request(request()).await.unwrap_err();
        assert_eq!(error.to_string(), "the peer answers with more than 5 informational heads");
    }

    #[tokio::test]
    async fn a_device_may_write_a_blank_before_a_colon_and_others_may_not() {
        const ODD: &[u8] = b"HTTP/1.1 200 OK\r\nServer : gSOAP/2.8\r\nContent-Length : 2\r\n\r\nok";
        let (mut sender, connection) = handshake_as(Dialect::AsGo, saying(ODD.to_vec()).await).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request()).await.unwrap();
        assert_eq!(answer.headers().get("server").unwrap(), "gSOAP/2.8");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        let (mut sender, connection) = handshake(saying(ODD.to_vec()).await).await.unwrap();
        tokio::spawn(connection);
        assert!(sender.send_request(request()).await.is_err());
    }

    #[tokio::test]
    async fn a_head_has_the_bounds_of_whoever_asks() {
        let head = |headers: usize, letters: usize| {
            let one = format!("X-A: {}\r\n", "a".repeat(letters));
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok", one.repeat(headers)).into_bytes()
        };
        let asked = async |bounds: HeadBounds, head: Vec<u8>| {
            let made = handshake_within(bounds, Dialect::Plain, saying(head).await).await;
            let (mut sender, connection) = made.unwrap();
            tokio::spawn(connection);
            sender.send_request(request()).await.map(|answer| answer.status().as_u16())
        };
        let wide = HeadBounds { bytes: 256 << 10, headers: usize::MAX };
        assert_eq!(asked(wide, head(1000, 200)).await.unwrap(), 200);
        for (bounds, bytes) in [
            (HeadBounds::default(), head(10, 10_000)),
            (HeadBounds::default(), head(101, 1)),
            (wide, head(1000, 300)),
            (wide, head(HEADERS_MAX + 1, 1)),
        ] {
            let error = asked(bounds, bytes).await.unwrap_err();
            assert!(error.is_head_too_large(), "{error}");
        }
    }

    /// A stream that has more and more informational heads once something was written, and says how much was read of it.
    struct Endless {
        read: Arc<AtomicUsize>,
        is_asked: bool,
        reader: Option<Waker>,
    }

    /// As much is the end of the test, where nothing else is.
    const ENOUGH: usize = 64 << 20;

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.is_asked {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let before = self.read.load(Ordering::Relaxed);
            if before > ENOUGH {
                return Poll::Ready(Ok(()));
            }
            // Where it was left off: a read may end within a head.
            let begun = before % CONTINUE.len();
            let bytes = CONTINUE.iter().cycle().skip(begun).take(into.remaining()).copied();
            let bytes: Vec<u8> = bytes.collect();
            into.put_slice(&bytes);
            self.read.store(before + bytes.len(), Ordering::Relaxed);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.is_asked = true;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn endless_informational_heads_end_with_the_first_read() {
        let read = Arc::new(AtomicUsize::new(0));
        let stream = Endless { read: Arc::clone(&read), is_asked: false, reader: None };
        let (mut sender, connection) = handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let error = sender.send_request(request()).await.unwrap_err();
        assert!(matches!(error, Error::Informational(_)), "{error}");
        connection.await.unwrap().ok();
        assert!(read.load(Ordering::Relaxed) <= READ_MAX, "{read:?} bytes");
        assert!(sender.is_closed());
    }
}
