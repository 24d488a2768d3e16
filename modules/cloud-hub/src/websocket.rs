//! The link where UDP is blocked: WebSocket over TLS, for nodes with a certificate of ours and nobody else.
//!
//! Who comes is known by an address at first. Each address has a rate of handshakes and a share of the places in which they
//! are made; what a socket may do after that is the business of [`ws`] and of the hub.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use beehive::link::door::{PER_SECOND, Places, Rates, origin};
use beehive::link::tls::{self, Credentials, EndpointError};
use beehive::link::{Acceptor, Connection, ws};
use beehive::{Clock, Env};
use futures::future::{AbortHandle, BoxFuture, Either, abortable, select};
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

/// 10 s for TLS and the request: the worst link that is used takes a few round trips of 600 ms.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// 4096 sockets at once: above any node limit; the hub counts nodes.
const SOCKETS_MAX: usize = 4096;
/// 512 handshakes at once, 128 of one address. One that takes more than 3 s yields to a newcomer who finds no place.
const PLACES: (usize, usize, Duration) = (512, 128, Duration::from_secs(3));
/// 200 handshakes at once of one address; further ones wait for their turn.
const BURST: f64 = 200.0;
/// 64: sockets that wait for the hub.
const BACKLOG: usize = 64;
/// 1024: sockets that wait for this end in the kernel.
const LISTEN_BACKLOG: i32 = 1024;
/// 5 s: what a client is asked to wait that finds the backlog full.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// 30 s: bytes that the other end has not confirmed by then end the socket. The link was given up long before.
const UNCONFIRMED: Duration = Duration::from_secs(30);
/// 100 ms until the next try when the machine gives no socket: most often it has no more files.
const NO_SOCKET: Duration = Duration::from_millis(100);

/// Why the listener could not be started.
#[derive(Debug, Error)]
pub enum WebSocketError {
    /// The port is taken or the address is not ours.
    #[error("cannot listen at {address} for WebSocket: free the port, or change modules.cloudHub.websocket")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server's certificate is not usable.
    #[error("server certificate")]
    Certificate(#[from] EndpointError),
}

/// Takes links over WebSocket, on a thread of its own.
pub struct WebSocketAcceptor {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: mpsc::Receiver<Box<dyn Connection>>,
    arbiter: Arbiter,
}

impl WebSocketAcceptor {
    /// Listens at `address` (port 0: any). Needs an actix system.
    ///
    /// # Errors
    /// See [`WebSocketError`].
    pub fn start(address: SocketAddr, credentials: &Credentials, env: &Env) -> Result<Self, WebSocketError> {
        let tls = TlsAcceptor::from(Arc::new(tls::server(credentials, ws::ALPN)?));
        let listening = |source| WebSocketError::Listen { address, source };
        let listener = listen(address).map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let (sender, arrivals) = mpsc::channel(BACKLOG);
        let (arbiter, clock) = (Arbiter::new(), env.clock());
        let serve = async move |listener| match TcpListener::from_std(listener) {
            Ok(listener) => Rc::new(Porch::new(tls, clock, sender)).serve(listener).await,
            Err(error) => tracing::error!(%error, "WebSocket server ended"),
        };
        // What it keeps stays on its thread.
        arbiter.spawn_fn(move || drop(actix_rt::spawn(async move { serve(listener).await })));
        Ok(WebSocketAcceptor { address, arrivals, arbiter })
    }
}

impl Drop for WebSocketAcceptor {
    fn drop(&mut self) {
        // Its sockets go with it.
        self.arbiter.stop();
    }
}

impl Acceptor for WebSocketAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>> {
        Box::pin(self.arrivals.recv())
    }
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn tune(socket: &TcpStream) {
    let tuned = socket
        .set_nodelay(true)
        .and_then(|()| socket2::SockRef::from(socket).set_tcp_user_timeout(Some(UNCONFIRMED)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket not tuned");
    }
}

/// Where sockets stand until they are upgraded.
struct Porch {
    tls: TlsAcceptor,
    clock: Arc<dyn Clock>,
    arrivals: mpsc::Sender<Box<dyn Connection>>,
    sockets: Arc<Semaphore>,
    places: RefCell<Places>,
    rates: RefCell<Rates<IpAddr>>,
    /// Ends a handshake that has to leave.
    shown_out: RefCell<BTreeMap<u64, AbortHandle>>,
}

impl Porch {
    fn new(tls: TlsAcceptor, clock: Arc<dyn Clock>, arrivals: mpsc::Sender<Box<dyn Connection>>) -> Self {
        let (most, each, yields_after) = PLACES;
        Porch {
            tls,
            clock,
            arrivals,
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
            places: RefCell::new(Places::new(most, each, yields_after)),
            rates: RefCell::new(Rates::new(PER_SECOND, BURST)),
            shown_out: RefCell::default(),
        }
    }

    async fn serve(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => self.enter(socket, from.ip()),
                Err(error) => {
                    tracing::warn!(%error, "no socket");
                    self.clock.sleep(NO_SOCKET).await;
                }
            }
        }
    }

    /// A socket that finds no place is closed: its address holds more than its share.
    fn enter(self: &Rc<Self>, socket: TcpStream, address: IpAddr) {
        let place = self.places.borrow_mut().enter(address, self.clock.now());
        let Some((id, leaves)) = place else {
            tracing::debug!(%address, "too many handshakes of one address; a socket was closed");
            return;
        };
        if let Some(other) = leaves.and_then(|id| self.shown_out.borrow_mut().remove(&id)) {
            other.abort();
        }
        let porch = Rc::clone(self);
        let (work, handle) = abortable(async move { porch.receive(socket, address).await });
        self.shown_out.borrow_mut().insert(id, handle);
        let porch = Rc::clone(self);
        actix_rt::spawn(async move {
            let _ = work.await;
            porch.places.borrow_mut().leave(id);
            porch.shown_out.borrow_mut().remove(&id);
        });
    }

    async fn receive(&self, socket: TcpStream, address: IpAddr) {
        tune(&socket);
        let upgrade = std::pin::pin!(self.upgrade(socket, address));
        match select(upgrade, self.clock.sleep(HANDSHAKE)).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(error), _)) => {
                tracing::debug!(%address, reason = %beehive::Fault::from_error(&error).reason, "no link");
            }
            Either::Right(_) => tracing::debug!(%address, "no link: no upgrade within 10 s"),
        }
    }

    async fn upgrade(&self, socket: TcpStream, address: IpAddr) -> Result<(), ws::AcceptError> {
        self.turn(address).await;
        let Ok(open) = Arc::clone(&self.sockets).try_acquire_owned() else { return Ok(()) };
        let mut place = None;
        let busy = || {
            place = self.arrivals.try_reserve().ok();
            place.is_none().then_some(BUSY_WAIT)
        };
        let connection =
            ws::accept((socket, address), &self.tls, Arc::clone(&self.clock), busy, open).await?;
        if let Some(place) = place {
            place.send(Box::new(connection));
        }
        Ok(())
    }

    /// Waits for the turn of an address: a handshake costs this thread a millisecond, which all links share.
    async fn turn(&self, address: IpAddr) {
        let address = origin(address);
        loop {
            let turn = self.rates.borrow_mut().take(&address, self.clock.now());
            match turn {
                Ok(()) => return,
                Err(wait) => self.clock.sleep(wait).await,
            }
        }
    }
}
