//! A call of an HTTP service on the node's loopback, from the stream that it comes on to the answer there.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use beehive::Env;
use beehive::link::{ByteStream, WireVersion};
use bytes::Bytes;
use contract::rule_stream::{ANSWER_MAX, BODY_MAX, Header, RuleStreamAnswer, passes};
use contract::servicebus::ServiceCall;
use contract::stream::StreamResponse;
use futures::future::LocalBoxFuture;
use futures::stream::LocalBoxStream;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::events;

/// 10 s for the service to begin its answer once it has the request, and then for each further piece (KubeEdge: for all of it).
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// 60 s in which nothing comes of a request's body.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// 16 KiB: what is passed at a time. A request whose body is no larger is sent with its length.
const PIECE: usize = 16 << 10;

type RequestBody = Either<Full<Bytes>, StreamBody<LocalBoxStream<'static, io::Result<Frame<Bytes>>>>>;

/// How far a request has come.
#[derive(Default)]
struct Sent {
    /// All of its body was read.
    whole: Notify,
    is_too_long: Cell<bool>,
}

/// A service that has begun to answer.
struct Called {
    answer: Response<Incoming>,
    /// Its connection, which goes on as long as it is polled and never completes.
    connection: LocalBoxFuture<'static, ()>,
}

/// Why a service has not answered, and what the caller is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unanswered {
    status: u16,
    text: String,
}

impl Unanswered {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Unanswered { status, text: text.into() }
    }

    /// KubeEdge's words, and why.
    fn service(status: u16, port: u16, why: impl std::fmt::Display) -> Self {
        Unanswered::new(status, format!("error to call service: 127.0.0.1:{port}: {why}\n"))
    }
}

/// Calls services.
pub(crate) struct LocalService {
    pub(crate) env: Env,
    /// Ports of `edgecore`'s own.
    pub(crate) own_ports: BTreeSet<u16>,
}

impl LocalService {
    /// Calls, and answers on the call's stream.
    pub(crate) async fn answer(&self, call: ServiceCall) {
        let ServiceCall { port, method, path, headers, user, stream } = call;
        let (reader, mut writer) = tokio::io::split(stream);
        let is_head = method == "HEAD";
        let called = self.call((port, &method, &path), headers, reader).await;
        let status = match &called {
            Ok(called) => called.answer.status().as_u16(),
            Err(unanswered) => unanswered.status,
        };
        events::called(&self.env, &user, port, &path, status);
        let passed = match called {
            Ok(called) => self.pass(called, port, is_head, &mut writer).await,
            Err(unanswered) => say(&unanswered, &mut writer).await,
        };
        if let Err(error) = passed {
            events::cut(&self.env, &error.to_string());
        }
    }

    /// Answers that it is not called.
    pub(crate) async fn refuse(&self, mut call: ServiceCall, why: Unanswered) {
        events::called(&self.env, &call.user, call.port, &call.path, why.status);
        if let Err(error) = say(&why, &mut call.stream).await {
            events::cut(&self.env, &error.to_string());
        }
    }

    async fn call(
        &self,
        (port, method, path): (u16, &str, &str),
        headers: Vec<Header>,
        reader: ReadHalf<ByteStream>,
    ) -> Result<Called, Unanswered> {
        if self.own_ports.contains(&port) {
            return Err(Unanswered::new(
                403,
                format!("port {port} is edgecore's own or a mapper's: no rule calls it\n"),
            ));
        }
        let state = Rc::<Sent>::default();
        let body = self
            .body(reader, &state)
            .await
            .map_err(|error| Unanswered::new(400, format!("the body of the call: {error}\n")))?;
        let request = request(port, method, path, headers, body)?;
        let failed = |error: &dyn std::fmt::Display| Unanswered::service(502, port, error);
        let connected =
            self.env.timeout(ANSWER_WITHIN, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await;
        let socket =
            connected.ok_or_else(|| failed(&"it takes no connection"))?.map_err(|error| failed(&error))?;
        let (mut sender, connection) = httpclient::handshake(socket).await.map_err(|error| failed(&error))?;
        let mut connection = Box::pin(async move {
            // What it ends with is seen by who waits for the answer.
            let _ = connection.await;
            std::future::pending::<()>().await
        });
        let asked = async {
            tokio::select! {
                answer = sender.send_request(request) => answer.map_err(|error| match state.is_too_long.get() {
                    true => Unanswered::new(413, format!("the body has more than {BODY_MAX} bytes\n")),
                    false => failed(&error),
                }),
                () = self.late(&state) => Err(Unanswered::service(504, port, "it has not answered within 10 s")),
            }
        };
        let answer = tokio::select! {
            answer = asked => answer?,
            () = &mut connection => return Err(failed(&"the connection has ended")),
        };
        Ok(Called { answer, connection })
    }

    /// Completes when the service has had its time after the request.
    async fn late(&self, state: &Sent) {
        state.whole.notified().await;
        self.env.sleep(ANSWER_WITHIN).await;
    }

    /// The body of the request: whole if it is small, and else as it comes.
    async fn body(&self, mut reader: ReadHalf<ByteStream>, state: &Rc<Sent>) -> io::Result<RequestBody> {
        let mut first = Vec::with_capacity(PIECE);
        while first.len() < PIECE {
            let room = PIECE - first.len();
            let read = async { (&mut reader).take(room as u64).read_buf(&mut first).await };
            let read = self.env.timeout(BODY_WITHIN, read).await.ok_or_else(too_slow)?;
            if read? == 0 {
                state.whole.notify_one();
                return Ok(Either::Left(Full::from(first)));
            }
        }
        let (state, env) = (Rc::clone(state), self.env.clone());
        let begun = (reader, Some(Bytes::from(first)), 0_u64);
        let pieces = futures::stream::unfold(Some(begun), move |sending| {
            let (state, env) = (Rc::clone(&state), env.clone());
            async move {
                let (mut reader, first, sent) = sending?;
                let piece = match first {
                    Some(first) => Ok(first),
                    None => next_piece(&mut reader, &env).await,
                };
                match piece {
                    Ok(piece) if piece.is_empty() => {
                        state.whole.notify_one();
                        None
                    }
                    Ok(piece) if sent + piece.len() as u64 > BODY_MAX => {
                        state.is_too_long.set(true);
                        Some((Err(io::Error::other("the body is too long")), None))
                    }
                    Ok(piece) => {
                        let sent = sent + piece.len() as u64;
                        Some((Ok(Frame::data(piece)), Some((reader, None, sent))))
                    }
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Either::Right(StreamBody::new(Box::pin(pieces))))
    }

    /// Passes an answer on. One that is longer than it may be is cut, if it has not said so before.
    async fn pass(
        &self,
        called: Called,
        port: u16,
        is_head: bool,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let Called { answer, mut connection } = called;
        let is_long = !is_head && answer.body().size_hint().lower() > ANSWER_MAX;
        let head = RuleStreamAnswer { status: answer.status().as_u16(), headers: passed_headers(&answer) };
        let encoded = match (is_long, head.encode(WireVersion::ONE)) {
            (true, _) => {
                let why = format!("it answered more than {ANSWER_MAX} bytes");
                return say(&Unanswered::service(502, port, why), writer).await;
            }
            (false, Err(error)) => return say(&Unanswered::service(502, port, error), writer).await,
            (false, Ok(encoded)) => encoded,
        };
        let taken = StreamResponse { status: 200, headers: Vec::new() };
        writer.write_all(&taken.encode(WireVersion::ONE).map_err(io::Error::other)?).await?;
        writer.write_all(&encoded).await?;
        let mut body = answer.into_body();
        let mut passed = 0_u64;
        loop {
            let frame = tokio::select! {
                frame = self.env.timeout(ANSWER_WITHIN, body.frame()) => frame.ok_or_else(too_slow)?,
                () = &mut connection => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            let Some(frame) = frame else { return writer.shutdown().await };
            let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() else { continue };
            passed += bytes.len() as u64;
            if passed > ANSWER_MAX {
                return Err(io::Error::other(format!("the service answered more than {ANSWER_MAX} bytes")));
            }
            writer.write_all(&bytes).await?;
        }
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "nothing has come for too long")
}

/// The next piece; empty at the end.
async fn next_piece(reader: &mut (impl AsyncRead + Unpin), env: &Env) -> io::Result<Bytes> {
    let mut piece = vec![0; PIECE];
    let read = env.timeout(BODY_WITHIN, reader.read(&mut piece)).await.ok_or_else(too_slow)??;
    piece.truncate(read);
    Ok(piece.into())
}

/// The request as the service gets it.
fn request(
    port: u16,
    method: &str,
    path: &str,
    headers: Vec<Header>,
    body: RequestBody,
) -> Result<Request<RequestBody>, Unanswered> {
    let wrong = |what: &str| Unanswered::new(400, format!("{what} of the call is none\n"));
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("the method"))?;
    *request.uri_mut() = path.parse().map_err(|_| wrong("the path"))?;
    for (name, value) in headers {
        let named = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_bytes(&value).ok());
        let (name, value) = named.ok_or_else(|| wrong("a header"))?;
        request.headers_mut().append(name, value);
    }
    let host = HeaderValue::from_str(&format!("127.0.0.1:{port}")).map_err(|_| wrong("the port"))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// What goes back: nothing that is of the service's own connection.
fn passed_headers(answer: &Response<Incoming>) -> Vec<Header> {
    let named = answer.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let headers = answer.headers().iter();
    let headers =
        headers.filter(|(name, _)| passes(name.as_str()) && !named.iter().any(|of| of == name.as_str()));
    headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// Says that a service was not called, or has not answered.
async fn say(unanswered: &Unanswered, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let head = StreamResponse { status: unanswered.status, headers: Vec::new() };
    writer.write_all(&head.encode(WireVersion::ONE).map_err(io::Error::other)?).await?;
    writer.write_all(unanswered.text.as_bytes()).await?;
    writer.shutdown().await
}
