//! The link where UDP is blocked: WebSocket (RFC 6455) over TLS, verified both ways, carrying the same frames.
//!
//! Each binary message is one frame of [`super::mux`]. Here is the end that dials; who accepts listens and bounds who comes.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use futures::{Sink, SinkExt, Stream, StreamExt};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::heard_stream::HeardStream;
use super::mux::{self, Egress, Ingress, MUX_FRAME_MAX, Role};
use super::tls::{self, Credentials, EndpointError, LiveCredentials};
use super::transport::{Connection, DialError, Dialer, PeerName};
use crate::{Clock, Lookups};

/// The path of the upgrade request.
pub const PATH: &str = "/link";
/// What this link speaks above WebSocket (`Sec-WebSocket-Protocol`): the frames of [`super::mux`]. Which version of the
/// frames is in them is agreed in the hello, as on every link.
pub const PROTOCOL: &str = "hive-link.1";
/// What both ends speak above TLS (ALPN): upgrades are of HTTP/1.1.
pub const ALPN: &[u8] = b"http/1.1";

/// 3 s without an answer from TCP, and then without a byte over it: nobody is there, something on the way drops packets, or the kernel
/// has taken a connection for a process that stands still.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// 10 s for TLS and the upgrade.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// 30 s for one frame: a socket that takes longer belongs to a link that was given up long before.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// 1 s for the last words to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// 5 s: what is waited when the other end says that it takes nobody, and not for how long.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// 3600: no other end is believed that asks for more seconds.
const WAIT_MAX: u64 = 3600;
/// 16 KiB of reading at a time: two frames.
const READ_AT_ONCE: usize = 16 << 10;
/// 64 messages: then the other sockets of the thread have their turn.
const MESSAGES_A_TURN: usize = 64;

type Socket = WebSocketStream<TlsStream<HeardStream>>;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_AT_ONCE)
        .write_buffer_size(0)
        .max_message_size(Some(MUX_FRAME_MAX))
        .max_frame_size(Some(MUX_FRAME_MAX))
}

/// Dials one `host:port`.
pub struct WebSocketDialer {
    tls: TlsConnector,
    credentials: LiveCredentials,
    host: String,
    name: ServerName<'static>,
    port: u16,
    lookups: Lookups,
    clock: Arc<dyn Clock>,
}

impl WebSocketDialer {
    /// Dials `host:port`, which has to be named in the other end's certificate. Each attempt looks the name up anew.
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn new(
        host: &str,
        port: u16,
        credentials: &Credentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EndpointError> {
        WebSocketDialer::by(host, port, &LiveCredentials::new(credentials)?, clock)
    }

    /// The same, where each dial goes by the credentials as they are then.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn by(
        host: &str,
        port: u16,
        credentials: &LiveCredentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EndpointError> {
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| EndpointError::Unreadable {
            what: "host to dial",
            reason: format!("`{}` is neither a DNS name nor an IP address", host.escape_debug()),
        })?;
        let tls = TlsConnector::from(Arc::new(tls::client_by(credentials, ALPN, Arc::clone(&clock))?));
        let credentials = credentials.clone();
        Ok(WebSocketDialer { tls, credentials, host, name, port, lookups: Lookups::at_most(1), clock })
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn failed(&self, reason: impl std::fmt::Display) -> DialError {
        DialError::Connect { target: self.target(), reason: reason.to_string() }
    }

    /// `None` when the limit passed first.
    async fn within<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        match select(std::pin::pin!(work), self.clock.sleep(limit)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    async fn connect(&self) -> Result<TcpStream, DialError> {
        let lookup = self.lookups.of("link", &self.host, self.port);
        let resolved = self.within(ANSWER_WITHIN, lookup).await.and_then(Result::ok);
        let addresses = resolved.ok_or_else(|| DialError::Resolve(self.host.clone()))?;
        let connect =
            async { TcpStream::connect(addresses.as_slice()).await.map_err(|error| self.failed(error)) };
        let socket = self.within(ANSWER_WITHIN, connect).await;
        let socket = socket.unwrap_or_else(|| Err(DialError::Unanswered { target: self.target() }))?;
        // Each frame is a message of its own; none must wait for the next.
        socket.set_nodelay(true).map_err(|error| self.failed(error))?;
        Ok(socket)
    }

    async fn handshake(&self, socket: HeardStream) -> Result<TlsStream<HeardStream>, DialError> {
        let handshake = self.tls.connect(self.name.clone(), socket);
        let Some(runtime) = self.credentials.handshakes_on().map_err(|error| self.failed(error))? else {
            return handshake.await.map_err(|error| self.failed(error));
        };
        // It ends with who waits for it.
        let mut beside = JoinSet::new();
        beside.spawn_on(handshake, &runtime);
        match beside.join_next().await {
            Some(Ok(made)) => made.map_err(|error| self.failed(error)),
            Some(Err(ended)) => Err(self.failed(ended)),
            None => Err(self.failed("the handshake was not begun")),
        }
    }

    /// The socket, and whose certificate was shown.
    async fn upgrade(&self, socket: HeardStream) -> Result<(Socket, PeerName), DialError> {
        let tls = self.handshake(socket).await?;
        let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = leaf
            .and_then(|leaf| tls::peer_of(leaf))
            .ok_or_else(|| self.failed("its certificate has no common name"))?;
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = format!("wss://{host}:{}{PATH}", self.port)
            .into_client_request()
            .map_err(|error| self.failed(error))?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        match client_async_with_config(request, tls, Some(config())).await {
            Ok((socket, _)) => Ok((socket, peer)),
            Err(Error::Http(answer)) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                let asked = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let wait = asked
                    .and_then(|seconds| seconds.parse().ok())
                    .map_or(BUSY_WAIT, |seconds: u64| Duration::from_secs(seconds.min(WAIT_MAX)));
                Err(DialError::Busy { target: self.target(), wait })
            }
            Err(error) => Err(self.failed(error)),
        }
    }
}

impl Dialer for WebSocketDialer {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        Box::pin(async {
            let (socket, heard) = HeardStream::new(self.connect().await?);
            let mut upgrade = std::pin::pin!(self.upgrade(socket));
            let upgraded = match self.within(ANSWER_WITHIN, &mut upgrade).await {
                None if !heard.is() => return Err(DialError::Unanswered { target: self.target() }),
                None => self.within(HANDSHAKE.saturating_sub(ANSWER_WITHIN), upgrade).await,
                upgraded => upgraded,
            };
            let (socket, peer) =
                upgraded.unwrap_or_else(|| Err(self.failed("no answer to the upgrade within 10 s")))?;
            let (connection, ingress, egress) = mux::over(Role::Dialled, peer, Arc::clone(&self.clock));
            tokio::spawn(carry(socket, ingress, egress, Arc::clone(&self.clock)));
            Ok(Box::new(connection) as Box<dyn Connection>)
        })
    }
}

/// Moves messages between the socket and the connection, until either ends.
async fn carry(socket: Socket, ingress: Ingress, egress: Egress, clock: Arc<dyn Clock>) {
    let over = egress.over();
    let (sink, stream) = socket.split();
    let (write, read) = (Box::pin(write(sink, egress, &*clock)), Box::pin(read(stream, ingress)));
    let carried = std::pin::pin!(async {
        // Whichever ends drops its ingress or egress, and so ends the connection; the last words still want to leave.
        match select(write, read).await {
            Either::Left(_) => {}
            Either::Right(((), write)) => write.await,
        }
    });
    let late = std::pin::pin!(async {
        over.await;
        clock.sleep(GOODBYE).await;
    });
    // An end that reads nothing does not keep a socket that is over.
    let _ = select(carried, late).await;
}

async fn write<S>(mut sink: S, mut egress: Egress, clock: &dyn Clock)
where
    S: Sink<Message, Error = Error> + Unpin,
{
    while let Some(frame) = egress.next().await {
        match select(sink.send(Message::Binary(frame)), clock.sleep(SEND_WITHIN)).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(error), _)) => {
                tracing::debug!(%error, "socket takes no more");
                return;
            }
            Either::Right(_) => return,
        }
    }
    let _ = sink.send(Message::Close(None)).await;
}

async fn read<S>(mut stream: S, ingress: Ingress)
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
{
    let mut turn = 0;
    while let Some(message) = stream.next().await {
        turn += 1;
        if turn % MESSAGES_A_TURN == 0 {
            tokio::task::yield_now().await;
        }
        let taken = match message {
            Ok(Message::Binary(frame)) => ingress.take(frame),
            // The library answers pings by itself.
            Ok(Message::Ping(_) | Message::Pong(_)) => ingress.nothing(),
            Ok(Message::Close(_)) => return,
            Ok(Message::Text(_) | Message::Frame(_)) => {
                tracing::warn!("a message that is not binary; the connection is ended");
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "socket broke off");
                return;
            }
        };
        if let Err(protocol_error) = taken {
            tracing::warn!(error = %protocol_error, "the other end breaks the rules; the connection is ended");
            return;
        }
    }
}
