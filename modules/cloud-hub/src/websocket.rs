//! The link where UDP is blocked: WebSocket over TLS, for nodes with a certificate of ours and nobody else.
//!
//! A socket's actor moves cells between the socket and [`mux`], and nothing more. actix-web polls it only while the socket
//! takes bytes; together with one cell a turn that is its back-pressure.
//!
//! actix-web-actors is no longer developed and stays behind this file; its successor is actix-ws.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_web::dev::ServerHandle;
use actix_web::http::header::RETRY_AFTER;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_web_actors::ws;
use beehive::link::mux::{self, CELL_MAX, Inlet, Outlet, Role};
use beehive::link::tls::{self, Credentials, EndpointError};
use beehive::link::{Acceptor, Connection, PeerName, ws as link};
use beehive::{Clock, Env};
use futures::Stream;
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

/// 10 s for TLS, and 10 s for the request: the worst link that is used takes a few round trips of 600 ms.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// 4096 sockets at once: above any node limit; the hub counts nodes.
const SOCKETS_MAX: usize = 4096;
/// 64: sockets that wait for the hub.
const BACKLOG: usize = 64;
/// 5 s: what a client is asked to wait that finds the backlog full.
const BUSY_SECONDS: u64 = 5;
/// 30 s: bytes that the other end has not confirmed by then end the socket. The link was given up long before.
const UNCONFIRMED: Duration = Duration::from_secs(30);

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

/// Takes links over WebSocket.
pub struct WebSocketAcceptor {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: mpsc::Receiver<Box<dyn Connection>>,
    server: ServerHandle,
}

/// What the server's thread needs.
struct Desk {
    clock: Arc<dyn Clock>,
    arrivals: mpsc::Sender<Box<dyn Connection>>,
}

/// Who showed which certificate.
#[derive(Clone)]
struct Shown(PeerName);

impl WebSocketAcceptor {
    /// Listens at `address` (port 0: any). Needs an actix system.
    ///
    /// # Errors
    /// See [`WebSocketError`].
    pub fn start(address: SocketAddr, credentials: &Credentials, env: &Env) -> Result<Self, WebSocketError> {
        let config = tls::server(credentials, link::ALPN)?;
        let (sender, arrivals) = mpsc::channel(BACKLOG);
        let desk = web::Data::new(Desk { clock: env.clock(), arrivals: sender });
        let server = HttpServer::new(move || {
            App::new().app_data(desk.clone()).route(link::PATH, web::get().to(upgrade))
        })
        .workers(1)
        .max_connections(SOCKETS_MAX)
        .client_request_timeout(REQUEST_DEADLINE)
        .shutdown_timeout(1)
        .disable_signals()
        .on_connect(|connection, extensions| {
            let tls = connection.downcast_ref::<actix_tls::accept::rustls_0_23::TlsStream<TcpStream>>();
            let Some((socket, tls)) = tls.map(|tls| tls.get_ref()) else { return };
            tune(socket);
            let leaf = tls.peer_certificates().and_then(|chain| chain.first());
            if let Some(peer) = leaf.and_then(|leaf| tls::peer_of(leaf)) {
                extensions.insert(Shown(peer));
            }
        });
        let listening = |source| WebSocketError::Listen { address, source };
        let server = server.bind_rustls_0_23(address, config).map_err(listening)?;
        let address = server.addrs().first().copied().unwrap_or(address);
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "WebSocket server ended");
            }
        });
        Ok(WebSocketAcceptor { address, arrivals, server: handle })
    }
}

impl Drop for WebSocketAcceptor {
    fn drop(&mut self) {
        let server = self.server.clone();
        // Without a system there is no server either.
        if let Some(arbiter) = actix_rt::Arbiter::try_current() {
            arbiter.spawn(async move { server.stop(false).await });
        }
    }
}

impl Acceptor for WebSocketAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, Option<Box<dyn Connection>>> {
        Box::pin(self.arrivals.recv())
    }
}

fn tune(socket: &TcpStream) {
    let tuned = socket
        .set_nodelay(true)
        .and_then(|()| socket2::SockRef::from(socket).set_tcp_user_timeout(Some(UNCONFIRMED)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket not tuned");
    }
}

async fn upgrade(
    request: HttpRequest,
    body: web::Payload,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, actix_web::Error> {
    let Some(Shown(peer)) = request.conn_data::<Shown>() else {
        return Ok(HttpResponse::Forbidden().body("the certificate has no common name"));
    };
    let Ok(place) = desk.arrivals.try_reserve() else {
        let busy = HttpResponse::ServiceUnavailable()
            .insert_header((RETRY_AFTER, BUSY_SECONDS.to_string()))
            .body("too many nodes arrive at once");
        return Ok(busy);
    };
    let (connection, inlet, outlet) = mux::over(Role::Accepted, peer.clone(), Arc::clone(&desk.clock));
    let socket = Socket { peer: peer.clone(), inlet, outlet: Some(outlet) };
    let answer = ws::WsResponseBuilder::new(socket, &request, body)
        .protocols(&[link::PROTOCOL])
        .frame_size(CELL_MAX)
        .start()?;
    place.send(Box::new(connection));
    Ok(answer)
}

/// One socket.
struct Socket {
    peer: PeerName,
    inlet: Inlet,
    outlet: Option<Outlet>,
}

/// A cell for the socket.
struct Outgoing(web::Bytes);

impl Actor for Socket {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, cx: &mut Self::Context) {
        if let Some(outlet) = self.outlet.take() {
            cx.add_stream(OneATurn { outlet, rest: false });
        }
    }
}

impl StreamHandler<Outgoing> for Socket {
    fn handle(&mut self, Outgoing(cell): Outgoing, cx: &mut Self::Context) {
        cx.binary(cell);
    }

    /// The connection was closed.
    fn finished(&mut self, cx: &mut Self::Context) {
        cx.close(None);
        cx.stop();
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, cx: &mut Self::Context) {
        match message {
            Ok(ws::Message::Binary(cell)) => {
                if let Err(breach) = self.inlet.take(cell) {
                    tracing::warn!(peer = %self.peer, error = %breach, "breaks the rules; its socket is ended");
                    cx.stop();
                }
            }
            Ok(ws::Message::Ping(body)) => cx.pong(&body),
            Ok(ws::Message::Pong(_) | ws::Message::Nop) => {}
            Ok(ws::Message::Close(_)) => cx.stop(),
            Ok(ws::Message::Text(_) | ws::Message::Continuation(_)) => {
                tracing::warn!(peer = %self.peer, "a message that is no cell; its socket is ended");
                cx.stop();
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "socket broke off");
                cx.stop();
            }
        }
    }

    fn finished(&mut self, cx: &mut Self::Context) {
        cx.stop();
    }
}

/// Yields one cell each time that the socket's actor is polled: what is chosen later may be more urgent.
struct OneATurn {
    outlet: Outlet,
    rest: bool,
}

impl Stream for OneATurn {
    type Item = Outgoing;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if std::mem::take(&mut self.rest) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.outlet).poll_next(cx);
        self.rest = matches!(next, Poll::Ready(Some(_)));
        next.map(|cell| cell.map(Outgoing))
    }
}
