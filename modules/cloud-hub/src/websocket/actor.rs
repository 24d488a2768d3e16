//! The listener's actor: owns the server at the port of the link's WebSocket.

use std::rc::Rc;
use std::time::Duration;

use beehive::link::accept_limiter::PER_SECOND;
use beehive::link::tls::{self, EndpointError, LiveCredentials};
use beehive::link::{Acceptor, Connection, ws};
use beehive::{Actor, Context, Fault, Message, Metrics};
use futures::future::BoxFuture;
use https::{Event, Limits, Peer, Port, Protocol, Rate, Server, ServerContext, Stream, Tls};
use thiserror::Error;
use tokio::sync::{OnceCell, mpsc};

use super::upgrade::{UpgradeError, Upgrader};
use crate::known_certificates::KnownCertificates;

const LIMITS: Limits = Limits {
    // 512 handshakes at once, 128 of one address. One that takes more than 3 s yields to another of its address; one of the
    // address with most yields to any of an address that holds less.
    strangers: 512,
    strangers_per_address: 128,
    yields_after: Duration::from_secs(3),
    // 4096 sockets at once: above any node limit; the hub counts nodes. 16 of one certificate that the register takes for good, and of all
    // others of a name together: more than the hub lets them have.
    users: 4096,
    connections_per_user: 16,
    reserved: 0,
    // A handshake costs this thread a millisecond, which all links share.
    handshakes: Some(Rate { per_second: PER_SECOND, burst: 200.0 }),
    // The worst link that is used takes a few round trips of 600 ms.
    handshake_within: Duration::from_secs(10),
    credential_within: None,
    head_within: Duration::from_secs(10),
    answer_within: None,
    // The link was given up long before.
    taken_within: Duration::from_secs(30),
    head_bytes: 16 << 10,
    header_fields: 32,
    keep_alive: false,
    // HTTP/1.1 alone is spoken.
    streams_per_connection: 1,
};
/// 64: sockets that wait for the hub.
const BACKLOG: usize = 64;
/// 5 s: what a client is asked to wait that finds the backlog full.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// 1 s for links to say goodbye when the listener stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

type ConnectionSender = mpsc::Sender<Box<dyn Connection>>;

/// What the listener's actors send, and the hub accepts: it outlives the incarnations of both.
pub fn queue() -> (ConnectionSender, WebSocketAcceptor) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (sender, WebSocketAcceptor(receiver))
}

/// The hub's end of [`queue`].
pub struct WebSocketAcceptor(mpsc::Receiver<Box<dyn Connection>>);

impl Acceptor for WebSocketAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>> {
        Box::pin(self.0.recv())
    }
}

/// Messages to the listener: from itself.
#[derive(Debug)]
pub enum WebSocketMsg {
    /// Its server has ended by itself.
    ServerEnded,
}

impl Message for WebSocketMsg {
    fn name(&self) -> &'static str {
        match self {
            WebSocketMsg::ServerEnded => "ServerEnded",
        }
    }
}

/// See the module. Its sockets are of one incarnation, and the links on them end with it.
pub struct WebSocketListener {
    port: Rc<Port>,
    tls: Tls,
    connections: ConnectionSender,
    known: KnownCertificates,
    limits: Limits,
    server: Option<Server>,
}

impl WebSocketListener {
    /// TLS with the link's credentials, as they are at each handshake: a certificate of ours is asked for.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn tls(credentials: &LiveCredentials) -> Result<Tls, EndpointError> {
        Ok(Tls::from(tls::server_by(credentials, ws::ALPN)?))
    }

    /// A listener at `port`, whose connections go to `connections`.
    pub fn new(port: Rc<Port>, tls: Tls, connections: ConnectionSender) -> Self {
        let known = KnownCertificates::default();
        WebSocketListener { port, tls, connections, known, limits: LIMITS, server: None }
    }

    /// The same, which goes by what the hub knows of certificates.
    #[must_use]
    pub fn knowing(self, known: KnownCertificates) -> Self {
        WebSocketListener { known, ..self }
    }

    /// The same with this many connections at once that have not been upgraded, and of one address.
    #[must_use]
    pub fn with_strangers(mut self, all: usize, of_address: usize) -> Self {
        (self.limits.strangers, self.limits.strangers_per_address) = (all, of_address);
        self
    }
}

impl Actor for WebSocketListener {
    type Message = WebSocketMsg;

    async fn started(&mut self, cx: &mut Context<WebSocketMsg>) -> Result<(), Fault> {
        let (metrics, connections) = (cx.env().metrics().clone(), self.connections.clone());
        let (tls, clock, known) = (Some(self.tls.clone()), cx.env().clock(), self.known.clone());
        let server = Server::start(
            "websocket",
            &self.port,
            tls,
            self.limits,
            clock,
            move |event| count(&metrics, event),
            move || WebSocketProtocol { upgrader: OnceCell::new(), connections, known },
        );
        let server = server.map_err(|error| Fault::from_error(&error))?;
        server.tell_end(cx, WebSocketMsg::ServerEnded);
        tracing::info!(address = %self.port.address(), "the link's fallback listens");
        self.server = Some(server);
        Ok(())
    }

    async fn handle(&mut self, message: WebSocketMsg, _: &mut Context<WebSocketMsg>) -> Result<(), Fault> {
        match message {
            WebSocketMsg::ServerEnded => Err(Fault::new("the WebSocket server has ended by itself")),
        }
    }

    async fn stopping(&mut self, _: &mut Context<WebSocketMsg>) {
        if let Some(server) = self.server.take() {
            server.stop(STOP_GRACE).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let counts = self.server.as_ref().map(Server::counts);
        serde_json::json!({ "address": self.port.address().to_string(), "connections": counts })
    }
}

fn count(metrics: &Metrics, event: Event) {
    let name = match event {
        Event::Refused => "cloudhub_websocket_connections_refused",
        Event::Displaced => "cloudhub_websocket_connections_displaced",
        Event::HandshakeFailed => "cloudhub_websocket_handshakes_failed",
        Event::AnswerLate => "cloudhub_websocket_answers_late",
        Event::Panicked => "cloudhub_websocket_connections_panicked",
        Event::AcceptFailed => "cloudhub_websocket_accepts_failed",
    };
    metrics.add(name, 1);
}

/// Why no link came of a socket.
#[derive(Debug, Error)]
enum AcceptError {
    #[error("no certificate with a common name was shown")]
    Nameless,
    #[error("too many sockets are open, of this certificate's holder or in all")]
    Full,
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

/// Makes links of connections. Lives on the server's thread.
struct WebSocketProtocol {
    upgrader: OnceCell<Upgrader<Stream>>,
    connections: ConnectionSender,
    known: KnownCertificates,
}

impl Protocol for WebSocketProtocol {
    async fn serve(&self, stream: Stream, peer: Peer, context: &ServerContext) {
        if let Err(error) = self.link(stream, &peer, context).await {
            let reason = Fault::from_error(&error).reason;
            tracing::debug!(address = %peer.address(), reason, "no link");
        }
    }
}

impl WebSocketProtocol {
    async fn link(&self, stream: Stream, peer: &Peer, context: &ServerContext) -> Result<(), AcceptError> {
        let name = peer.certificate().and_then(|leaf| tls::peer_of(leaf)).ok_or(AcceptError::Nameless)?;
        peer.identify(&self.known.holder(&name).word(), false).map_err(|_| AcceptError::Full)?;
        let upgrader =
            self.upgrader.get_or_try_init(|| Upgrader::new(std::sync::Arc::clone(&context.clock))).await?;
        let connections = self.connections.clone();
        let room = move || connections.try_reserve_owned().map_err(|_| BUSY_WAIT);
        let (connection, place, moving) = upgrader.upgrade(stream, name, room).await?;
        place.send(Box::new(connection.from(peer.address().ip())));
        moving.await;
        Ok(())
    }
}
