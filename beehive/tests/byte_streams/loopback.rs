//! Connections over real sockets on loopback, through a relay that can be slow or cut.

use std::net::SocketAddr;
use std::sync::Arc;

use beehive::link::mux::{Egress, Ingress, Role, over};
use beehive::link::quic::QuicAcceptor;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::tls;
use beehive::link::ws::{ALPN, PROTOCOL, WebSocketDialer};
use beehive::link::{Acceptor, Connection, Dialer};
use beehive::{Env, TokioClock};
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use crate::authority::Ca;
use crate::relay::{Relay, Slow};

/// Real time, real sockets.
pub(crate) fn run(test: impl AsyncFnOnce(Env)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Quic,
    WebSocket,
}

enum Ends {
    Quic(Box<tokio::sync::Mutex<QuicAcceptor>>, QuicDialer),
    WebSocket(TcpListener, TlsAcceptor, WebSocketDialer),
}

/// A place that is dialled through a relay.
pub(crate) struct Wires {
    ends: Ends,
    relay: Relay,
}

impl Wires {
    pub(crate) async fn new(kind: Kind, slow: Option<Slow>) -> Wires {
        let ca = Ca::new();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (cloud, edge) = (ca.issue("cloud"), ca.issue("edge-1"));
        match kind {
            Kind::Quic => {
                let acceptor = QuicAcceptor::bind(any, &cloud).unwrap();
                let relay = Relay::udp(acceptor.address(), slow).await;
                let dialer = QuicDialer::new("127.0.0.1", relay.port, &edge).unwrap();
                Wires { ends: Ends::Quic(Box::new(tokio::sync::Mutex::new(acceptor)), dialer), relay }
            }
            Kind::WebSocket => {
                let listener = TcpListener::bind(any).await.unwrap();
                let relay = Relay::tcp(listener.local_addr().unwrap(), slow).await;
                let tls = TlsAcceptor::from(Arc::new(tls::server(&cloud, ALPN).unwrap()));
                let clock = Arc::new(TokioClock::real());
                let dialer = WebSocketDialer::new("127.0.0.1", relay.port, &edge, clock).unwrap();
                Wires { ends: Ends::WebSocket(listener, tls, dialer), relay }
            }
        }
    }

    /// The end that dialled, and the one that accepted.
    pub(crate) async fn connect(&self) -> (Box<dyn Connection>, Box<dyn Connection>) {
        match &self.ends {
            Ends::Quic(acceptor, dialer) => {
                let mut acceptor = acceptor.lock().await;
                let (edge, cloud) = futures::join!(dialer.dial(), acceptor.accept());
                (edge.unwrap(), cloud.unwrap())
            }
            Ends::WebSocket(listener, tls, dialer) => {
                let accept = async { upgrade(tls, listener.accept().await.unwrap().0).await };
                let (edge, cloud) = futures::join!(dialer.dial(), accept);
                (edge.unwrap(), cloud)
            }
        }
    }

    /// From now on nothing arrives.
    pub(crate) fn cut(&self) {
        self.relay.cut();
    }
}

async fn upgrade(tls: &TlsAcceptor, socket: TcpStream) -> Box<dyn Connection> {
    socket.set_nodelay(true).unwrap();
    let socket = tls.accept(socket).await.unwrap();
    let leaf = socket.get_ref().1.peer_certificates().unwrap()[0].clone();
    let peer = tls::peer_of(&leaf).unwrap();
    #[allow(clippy::result_large_err, reason = "as the library wants it")]
    let agree = |_: &Request, mut answer: Response| -> Result<Response, ErrorResponse> {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, PROTOCOL.parse().unwrap());
        Ok(answer)
    };
    let socket = accept_hdr_async(socket, agree).await.unwrap();
    let (connection, ingress, egress): (_, Ingress, Egress) =
        over(Role::Accepted, peer, Arc::new(TokioClock::real()));
    let (mut sink, mut stream) = socket.split();
    tokio::task::spawn_local(async move {
        let mut egress = egress;
        while let Some(frame) = egress.next().await {
            if sink.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(frame) = message
                && ingress.take(frame).is_err()
            {
                return;
            }
        }
    });
    Box::new(connection)
}
