//! A server at a port: accepts, gives places, makes handshakes, and ends in order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use beehive::link::accept_limiter::{RateLimiter, address_prefix};
use beehive::{Clock, Context, Message, Moment};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::acceptor::{Acceptor, ListeningSocket, NO_ADDRESS, Socket};
use crate::events::Event;
use crate::peer::{ConnectionPermit, Connections};
use crate::plain_http;
use crate::slowed::Slowed;
use crate::stream::{MaybeTls, WriteTimeout};
use crate::{Counts, Limits, Peer, Port, Stream, Tls};

/// 100 ms: the pause after the system had no socket for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// One line a minute about what a stranger can cause as often as he likes.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// 1 s for connections that were told to end at once.
const END_WITHIN: Duration = Duration::from_secs(1);
/// 64: ports that were opened and are not listened at yet; more wait for their turn.
const OPENING_MAX: usize = 64;

/// What is done with a connection. Lives on the server's thread.
pub trait Protocol: 'static {
    /// Serves one connection to its end. It is dropped when the connection has to end at once.
    fn serve(&self, stream: Stream, peer: Peer, context: &ServerContext) -> impl Future<Output = ()>;

    /// Whether a connection is served at all, by what its handshake has shown: of one that is not, no byte is read. Its address makes
    /// handshakes more slowly for a while.
    fn admits(&self, _peer: &Peer) -> bool {
        true
    }
}

pub(crate) type EventHandler = Arc<dyn Fn(Event) + Send + Sync>;

/// What a server knows that a protocol may need.
pub struct ServerContext {
    /// The server's name in the log.
    pub name: &'static str,
    /// Its bounds.
    pub limits: Limits,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    pub(crate) on_event: EventHandler,
    /// When a line about an event was written last.
    said: RefCell<BTreeMap<&'static str, Moment>>,
}

impl ServerContext {
    /// Counts an event and tells the owner; a flood of events makes no flood of lines.
    fn event(&self, connections: &Connections, event: Event, what: &'static str) {
        let count = connections.counters.event(event);
        (self.on_event)(event);
        let now = self.clock.now();
        let mut said = self.said.borrow_mut();
        if said.get(what).is_none_or(|at| now.since(*at) >= LINE_EVERY) {
            said.insert(what, now);
            tracing::warn!(server = self.name, count, "{what}");
        }
    }
}

/// A running server. It ends when this is dropped.
pub struct Server {
    opening: mpsc::Sender<Opened>,
    /// The port that it was started at, if it was started at one.
    first: Option<Listening>,
    connections: Arc<Connections>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    cut: CancellationToken,
    over: CancellationToken,
    thread: Arbiter,
}

/// A port that a server listens at, until this is dropped: then it takes no connection there any more, idle ones end, and
/// what is in hand is answered.
#[derive(Debug)]
pub struct Listening {
    _close: DropGuard,
}

/// A port on its way to the server's thread.
struct Opened {
    listener: ListeningSocket,
    address: SocketAddr,
    close: CancellationToken,
}

impl Server {
    /// Takes connections at `port` on a thread of its own, as the server `name`. Without `tls` it is plain HTTP, for loopback and
    /// health alone. `protocol` is made there, and `on_event` hears there of each [`Event`]. Needs an actix system.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn start<P: Protocol>(
        name: &'static str,
        port: &Port,
        tls: Option<Tls>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        on_event: impl Fn(Event) + Send + Sync + 'static,
        protocol: impl FnOnce() -> P + Send + 'static,
    ) -> io::Result<Self> {
        let mut server = Self::without_port(name, tls, limits, clock, on_event, protocol);
        let (opened, listening) = server.open(ListeningSocket::Tcp(port.share()?), port.address());
        // The queue is empty yet.
        server.opening.try_send(opened).map_err(|_| io::Error::other("the server has ended"))?;
        server.first = Some(listening);
        Ok(server)
    }

    /// The same at a Unix socket, which never blocks. Who comes there has no address.
    ///
    /// # Errors
    /// When the server has ended at once.
    pub fn start_at_socket<P: Protocol>(
        name: &'static str,
        socket: std::os::unix::net::UnixListener,
        limits: Limits,
        clock: Arc<dyn Clock>,
        on_event: impl Fn(Event) + Send + Sync + 'static,
        protocol: impl FnOnce() -> P + Send + 'static,
    ) -> io::Result<Self> {
        let mut server = Self::without_port(name, None, limits, clock, on_event, protocol);
        let (opened, listening) = server.open(ListeningSocket::Unix(socket), NO_ADDRESS);
        // The queue is empty yet.
        server.opening.try_send(opened).map_err(|_| io::Error::other("the server has ended"))?;
        server.first = Some(listening);
        Ok(server)
    }

    /// The same at no port yet: [`Server::listen`] opens any number of them, which share the thread, the bounds and the
    /// protocol. [`Peer::port`] says where a connection came in.
    pub fn without_port<P: Protocol>(
        name: &'static str,
        tls: Option<Tls>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        on_event: impl Fn(Event) + Send + Sync + 'static,
        protocol: impl FnOnce() -> P + Send + 'static,
    ) -> Self {
        Self::of_any(name, tls, limits, clock, Arc::new(on_event), Box::new(protocol))
    }

    /// The same once for all of a protocol, whatever makes it.
    fn of_any<P: Protocol>(
        name: &'static str,
        tls: Option<Tls>,
        limits: Limits,
        clock: Arc<dyn Clock>,
        on_event: EventHandler,
        protocol: Box<dyn FnOnce() -> P + Send>,
    ) -> Self {
        let (connections, stop, cut) =
            (Connections::new(&limits), CancellationToken::new(), CancellationToken::new());
        let over = CancellationToken::new();
        let end = over.clone().drop_guard();
        let (opening, opened) = mpsc::channel(OPENING_MAX);
        let listener = {
            let (connections, stop, cut) = (Arc::clone(&connections), stop.clone(), cut.clone());
            let clock = Arc::clone(&clock);
            move || {
                let context = ServerContext { name, limits, clock, on_event, said: RefCell::default() };
                let handshakes = limits.handshakes.map(|rate| RateLimiter::new(rate.per_second, rate.burst));
                let protocol = protocol();
                Rc::new(Listener {
                    context,
                    tls,
                    connections,
                    protocol,
                    handshakes: RefCell::new(handshakes),
                    slowed: RefCell::default(),
                    stop,
                    cut,
                })
            }
        };
        let thread = Arbiter::new();
        thread.spawn_fn(move || {
            actix_rt::spawn(async move {
                // Its end is also seen when it panics: the guard goes with the task.
                let _end = end;
                listener().run(opened).await;
            });
        });
        Server { opening, first: None, connections, clock, stop, cut, over, thread }
    }

    fn open(&self, listener: ListeningSocket, address: SocketAddr) -> (Opened, Listening) {
        let close = self.stop.child_token();
        let listening = Listening { _close: close.clone().drop_guard() };
        (Opened { listener, address, close }, listening)
    }

    /// Takes connections at `port`, too. The port is the server's from now on, and free when it is not listened at any more.
    ///
    /// # Errors
    /// When the server has ended.
    pub async fn listen(&self, port: Port) -> io::Result<Listening> {
        let address = port.address();
        let (opened, listening) = self.open(ListeningSocket::Tcp(port.into_listener()), address);
        let sent = self.opening.send(opened).await;
        sent.map_err(|_| io::Error::other("the server has ended"))?;
        Ok(listening)
    }

    /// Its counters and open connections.
    pub fn counts(&self) -> Counts {
        self.connections.counts()
    }

    /// Completes when it has ended; without having been told to, that is a fault of its own.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.over.clone().cancelled_owned()
    }

    /// Tells the actor that owns the server `message` when it has ended.
    pub fn tell_end<M: Message>(&self, cx: &Context<M>, message: M) {
        let (ended, owner) = (self.ended(), cx.myself());
        cx.spawn(async move {
            ended.await;
            let _ = owner.tell(message).await;
        });
    }

    /// Takes no more connections, answers what is in hand within `grace`, and ends the rest.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        for within in [grace, END_WITHIN] {
            tokio::select! {
                () = self.over.cancelled() => return,
                () = self.clock.sleep(within) => self.cut.cancel(),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
        self.thread.stop();
    }
}

/// Both ends of a connection that comes in.
struct Side<'a> {
    address: SocketAddr,
    port: SocketAddr,
    close: &'a CancellationToken,
}

/// What all connections of a server share.
struct Listener<P> {
    context: ServerContext,
    tls: Option<Tls>,
    connections: Arc<Connections>,
    protocol: P,
    handshakes: RefCell<Option<RateLimiter<std::net::IpAddr>>>,
    slowed: RefCell<Slowed>,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl<P: Protocol> Listener<P> {
    /// Listens at what is opened, until it is told to stop or a port fails.
    async fn run(self: Rc<Self>, mut opened: mpsc::Receiver<Opened>) {
        let mut ports = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = ports.join_next() => {
                    if ended.is_err() {
                        break tracing::error!(server = self.context.name, "what listens at a port failed");
                    }
                }
                Some(Opened { listener, address, close }) = opened.recv() => match Acceptor::new(listener) {
                    Ok(listener) => drop(ports.spawn_local(Rc::clone(&self).accept(listener, address, close))),
                    Err(error) => {
                        break tracing::error!(server = self.context.name, %address, %error, "the port cannot be listened at");
                    }
                },
                else => break,
            }
        }
        self.stop.cancel();
        while ports.join_next().await.is_some() {}
        // Those that were upgraded are not among these tasks.
        self.connections.empty().await;
    }

    async fn accept(self: Rc<Self>, listener: Acceptor, port: SocketAddr, close: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = close.cancelled() => break,
                Some(ended) = connections.join_next() => self.joined(ended),
                accepted = listener.accept() => match accepted {
                    Ok((socket, address)) => {
                        self.enter(socket, Side { address, port, close: &close }, &mut connections);
                        // A flood of connections does not keep those that are there from showing who they are.
                        tokio::task::yield_now().await;
                    }
                    Err(error) => {
                        // Out of descriptors, most often: others have to end first.
                        tracing::debug!(server = self.context.name, %error, "no connection taken");
                        self.context.event(&self.connections, Event::AcceptFailed, "the system has no socket for a connection");
                        self.context.clock.sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            self.joined(ended);
        }
    }

    fn joined(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.context.event(
                &self.connections,
                Event::Panicked,
                "a connection's task panicked; the connection has ended",
            );
        }
    }

    fn enter(self: &Rc<Self>, socket: Socket, side: Side<'_>, connections: &mut JoinSet<()>) {
        let Side { address, port, close } = side;
        let (end, close) = (self.cut.child_token(), close.clone());
        let permit = match self.connections.enter(address, self.context.clock.now(), end.clone()) {
            Ok((permit, displaced)) => {
                if displaced {
                    self.context.event(
                        &self.connections,
                        Event::Displaced,
                        "connections were closed for newer ones",
                    );
                }
                permit
            }
            Err(event) => {
                return self.context.event(
                    &self.connections,
                    event,
                    "connections were refused: one address holds all it may",
                );
            }
        };
        self.connections.counters.accepted();
        let listener = Rc::clone(self);
        connections.spawn_local(async move {
            let over = end.clone();
            tokio::select! {
                () = listener.connection(socket, (address, port), permit, (end, close)) => {}
                () = over.cancelled() => {}
            }
        });
    }

    async fn connection(
        &self,
        socket: Socket,
        (address, port): (SocketAddr, SocketAddr),
        permit: ConnectionPermit,
        (end, close): (CancellationToken, CancellationToken),
    ) {
        let Limits { handshake_within, taken_within, credential_within, .. } = self.context.limits;
        let clock = &self.context.clock;
        let mut certificate = None;
        let stream = match &self.tls {
            None => Stream(MaybeTls::Left(WriteTimeout::new(socket, taken_within, Arc::clone(clock)))),
            Some(tls) => {
                let handshake = async {
                    self.turn(address).await;
                    if socket.first_byte().await?.is_some_and(plain_http::begins_with) {
                        return Err(plain_http::answer(socket).await);
                    }
                    let socket = WriteTimeout::new(socket, taken_within, Arc::clone(clock));
                    tls.accept(socket, &**clock).await
                };
                let shaken = tokio::select! {
                    shaken = handshake => shaken.map_err(|error| error.to_string()),
                    () = clock.sleep(handshake_within) => Err("it took too long".to_owned()),
                };
                match shaken {
                    Ok((stream, shown)) => {
                        certificate = shown;
                        Stream(MaybeTls::Right(Box::new(stream)))
                    }
                    Err(reason) => {
                        self.connections.counters.event(Event::HandshakeFailed);
                        (self.context.on_event)(Event::HandshakeFailed);
                        return tracing::debug!(server = self.context.name, %address, reason, "no TLS");
                    }
                }
            }
        };
        let peer = Peer::new((address, port), certificate, permit, end, close);
        if !self.protocol.admits(&peer) {
            self.slowed.borrow_mut().add(address_prefix(address.ip()), clock.now());
            return tracing::debug!(server = self.context.name, %address, "not served");
        }
        let served = self.protocol.serve(stream, peer.clone(), &self.context);
        let Some(within) = credential_within else { return served.await };
        let stays_a_stranger = async {
            clock.sleep(within).await;
            if peer.is_identified() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = served => {}
            () = stays_a_stranger => {
                self.slowed.borrow_mut().add(address_prefix(address.ip()), clock.now());
                tracing::debug!(server = self.context.name, %address, "no credential in time");
            }
        }
    }

    /// Waits for the turn of an address.
    async fn turn(&self, address: SocketAddr) {
        let address = address_prefix(address.ip());
        loop {
            let now = self.context.clock.now();
            let turn = self.slowed.borrow_mut().turn(&address, now);
            let turn = turn.and_then(|()| match self.handshakes.borrow_mut().as_mut() {
                Some(rates) => rates.take(&address, now),
                None => Ok(()),
            });
            match turn {
                Ok(()) => return,
                Err(wait) => self.context.clock.sleep(wait).await,
            }
        }
    }
}
