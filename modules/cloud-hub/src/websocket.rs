//! The link where UDP is blocked: WebSocket over TLS, for nodes with a certificate of ours and nobody else.
//!
//! Who comes is known by an address at first. Each address has a rate of handshakes and a share of the places in which they
//! are made; what a socket may do after that is the business of [`crate::upgrade`] and of the hub.

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
use tokio_rustls::server::TlsStream;

use crate::upgrade::{UpgradeError, Upgrades};

/// 10 s for TLS and the request: the worst link that is used takes a few round trips of 600 ms.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// 4096 sockets at once: above any node limit; the hub counts nodes.
const SOCKETS_MAX: usize = 4096;
/// 512 handshakes at once, 128 of one address. One that takes more than 3 s yields to another of its address; one of the
/// greediest address yields to any of an address that holds less.
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
            Ok(listener) => match Porch::new(tls, clock, sender).await {
                Ok(porch) => Rc::new(porch).serve(listener).await,
                Err(error) => tracing::error!(%error, "WebSocket server ended"),
            },
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

/// Why no link came of a socket.
#[derive(Debug, Error)]
enum NoLink {
    /// Most often a certificate that is not of the authority.
    #[error("no TLS: {0}")]
    Tls(#[source] std::io::Error),
    #[error("its certificate has no common name")]
    Nameless,
    #[error("4096 sockets are open")]
    Full,
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

/// Where sockets stand until they are upgraded.
struct Porch {
    tls: TlsAcceptor,
    upgrades: Upgrades<TlsStream<TcpStream>>,
    clock: Arc<dyn Clock>,
    arrivals: mpsc::Sender<Box<dyn Connection>>,
    sockets: Arc<Semaphore>,
    places: RefCell<Places>,
    rates: RefCell<Rates<IpAddr>>,
    /// Ends a handshake that has to leave.
    shown_out: RefCell<BTreeMap<u64, AbortHandle>>,
}

impl Porch {
    async fn new(
        tls: TlsAcceptor,
        clock: Arc<dyn Clock>,
        arrivals: mpsc::Sender<Box<dyn Connection>>,
    ) -> Result<Self, UpgradeError> {
        let (most, each, yields_after) = PLACES;
        Ok(Porch {
            tls,
            upgrades: Upgrades::new(Arc::clone(&clock)).await?,
            clock,
            arrivals,
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
            places: RefCell::new(Places::new(most, each, yields_after)),
            rates: RefCell::new(Rates::new(PER_SECOND, BURST)),
            shown_out: RefCell::default(),
        })
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

    /// A socket that finds no place is closed: no address holds more than its own.
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

    async fn upgrade(&self, socket: TcpStream, address: IpAddr) -> Result<(), NoLink> {
        self.turn(address).await;
        let open = Arc::clone(&self.sockets).try_acquire_owned().map_err(|_| NoLink::Full)?;
        let tls = self.tls.accept(socket).await.map_err(NoLink::Tls)?;
        let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = leaf.and_then(|leaf| tls::peer_of(leaf)).ok_or(NoLink::Nameless)?;
        let arrivals = self.arrivals.clone();
        let room = move || arrivals.try_reserve_owned().map_err(|_| BUSY_WAIT);
        let (connection, place) = self.upgrades.upgrade(tls, peer, room, open).await?;
        place.send(Box::new(connection.from(address)));
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rustls_pki_types::ServerName;
    use tokio::net::TcpSocket;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::Vault;

    const DAY: Duration = Duration::from_secs(86_400);
    const LONG: Duration = Duration::from_secs(20);

    /// The credentials of the cloud, and of a node.
    fn credentials(env: &Env) -> (Credentials, Credentials) {
        let authority = pki::Authority::create(env.wall(), env.random_id()).unwrap();
        let addresses = vec!["127.0.0.1".parse().unwrap()];
        let (certificate, key) = Vault::server_certificate(&authority, addresses, Vec::new(), env).unwrap();
        let ours = authority.cert_pem().to_owned();
        let cloud = Credentials { certificate, key, authority: ours.clone() };
        let request = pki::NodeRequest::new("a").unwrap();
        let issued = authority.sign_node(&request.csr_der, "a", env.wall(), DAY, env.random_id()).unwrap();
        (cloud, Credentials { certificate: issued.pem, key: request.key_pem.clone(), authority: ours })
    }

    async fn socket(from: u8, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, from], 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// Sockets that are silent, closed before they are old and opened again, of four addresses with more than all places.
    #[test]
    fn handshakes_of_a_few_addresses_leave_room_for_every_other_one() {
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let (cloud, node) = credentials(&env);
            let tls = TlsAcceptor::from(Arc::new(tls::server(&cloud, ws::ALPN).unwrap()));
            let (sender, _arrivals) = mpsc::channel(BACKLOG);
            let mut porch = Porch::new(tls, env.clock(), sender).await.unwrap();
            porch.places = RefCell::new(Places::new(32, 8, PLACES.2));
            let porch = Rc::new(porch);
            let listener = TcpListener::from_std(listen("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            actix_rt::spawn(Rc::clone(&porch).serve(listener));

            let connector = TlsConnector::from(Arc::new(tls::client(&node, ws::ALPN).unwrap()));
            let mut silent = VecDeque::new();
            for round in 0..40 {
                // The oldest are closed before they are old, and as many are opened as there are places again.
                while silent.len() > 28 {
                    silent.pop_front();
                }
                let full = async {
                    while porch.places.borrow().taken() < 32 {
                        for from in 2..6 {
                            silent.push_back(socket(from, address).await);
                        }
                        env.clock().sleep(Duration::from_millis(5)).await;
                    }
                };
                env.timeout(LONG, full).await.expect("the strangers do not fill the places");
                let name = ServerName::try_from("127.0.0.1").unwrap();
                let shaken = connector.connect(name, socket(1, address).await);
                let shaken = env.timeout(LONG, shaken).await.expect("nobody answers");
                assert!(shaken.is_ok(), "round {round}: {:?}", shaken.err());
            }
        });
    }
}
