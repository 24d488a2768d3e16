//! From a socket whose other end is known to a link: the request for the upgrade to WebSocket (RFC 6455), and the frames after it.
//!
//! actix-web answers the request, and an actor of actix-web-actors moves frames between the socket and [`mux`]. It is polled
//! only while the socket takes bytes; together with one frame a turn that is its back-pressure.
//!
//! actix-web-actors is no longer developed and stays within this folder; its successor is actix-ws.
//!
//! How many sockets come, and how long one may take until it is upgraded, is the caller's business.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_service::boxed::{self, BoxService};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::dev::AppConfig;
use actix_web::http::header::{RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{App, HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use beehive::Clock;
use beehive::link::mux::{self, MUX_FRAME_MAX, MuxConnection, Role};
use beehive::link::{PeerName, ws as link};
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, LocalBoxFuture, select};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frames::{BoundedSocket, Frames, ReadBound};
use super::socket::Socket;

/// 10 s for the request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// 1 s for the last words to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why no link came of a socket.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// What came was no HTTP, or more of it than 16 KiB.
    #[error("no request for an upgrade: {0}")]
    Request(#[source] DispatchError),
    /// The request was not for a link, or there was no room for it; that was the answer.
    #[error("the request for an upgrade was refused")]
    Refused,
    /// The library could not be set up.
    #[error("the HTTP service did not start")]
    Service,
}

/// Upgrades sockets. Stays on its thread.
pub struct Upgrader<S> {
    service: BoxService<(BoundedSocket<S, SocketState>, Option<SocketAddr>), (), DispatchError>,
    clock: Arc<dyn Clock>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Upgrader<S> {
    /// Needs a tokio runtime of one thread.
    ///
    /// # Errors
    /// [`UpgradeError::Service`].
    pub async fn new(clock: Arc<dyn Clock>) -> Result<Self, UpgradeError> {
        let app = App::new().route(link::PATH, web::get().to(answer)).into_factory();
        let service = HttpService::build()
            .client_request_timeout(HEAD_WITHIN)
            .client_disconnect_timeout(GOODBYE)
            .keep_alive(KeepAlive::Disabled)
            .on_connect_ext(|socket: &BoundedSocket<S, SocketState>, extensions| {
                extensions.insert(Rc::clone(&socket.with));
            })
            .h1(map_config(app, |()| AppConfig::default()));
        let service = service.new_service(()).await.map_err(|()| UpgradeError::Service)?;
        Ok(Upgrader { service: boxed::service(service), clock })
    }

    /// Reads the request of `peer` and answers it. `room` is asked last: with a wait, the other end is told to come again
    /// after that; what it yields otherwise is answered beside the connection. The third answer moves the connection's frames, and
    /// completes when the socket has ended: without it nothing moves.
    ///
    /// # Errors
    /// See [`UpgradeError`].
    pub async fn upgrade<P: 'static>(
        &self,
        socket: S,
        peer: PeerName,
        room: impl FnOnce() -> Result<P, Duration> + 'static,
    ) -> Result<(MuxConnection, P, LocalBoxFuture<'static, ()>), UpgradeError> {
        let place = Rc::new(Cell::new(None));
        let room = {
            let place = Rc::clone(&place);
            move || room().map(|granted| place.set(Some(granted)))
        };
        let (connected, connection) = oneshot::channel();
        let pending = PendingUpgrade { room: Box::new(room), clock: Arc::clone(&self.clock), connected };
        let bound = Rc::new(ReadBound::default());
        let pending = RefCell::new(Some(pending));
        let with = Rc::new(SocketState { peer, pending, bound: Rc::clone(&bound) });
        let socket = self.service.call((BoundedSocket { socket, bound, with }, None));
        let (UpgradedConnection { connection, over }, socket) = match select(connection, socket).await {
            Either::Left((Ok(connection), socket)) => (connection, socket),
            Either::Left((Err(_), socket)) => {
                // The answer still has to leave.
                return Err(socket.await.err().map_or(UpgradeError::Refused, UpgradeError::Request));
            }
            Either::Right((Err(error), _)) => return Err(UpgradeError::Request(error)),
            Either::Right((Ok(()), _)) => return Err(UpgradeError::Refused),
        };
        let clock = Arc::clone(&self.clock);
        let moving = Box::pin(async move {
            let late = pin!(async move {
                over.await;
                clock.sleep(GOODBYE).await;
            });
            // An end that reads nothing does not keep a socket that is over.
            let _ = select(socket, late).await;
        });
        Ok((connection, place.take().ok_or(UpgradeError::Refused)?, moving))
    }
}

/// The connection of an upgraded socket, and what waits for its end.
struct UpgradedConnection {
    connection: MuxConnection,
    over: BoxFuture<'static, ()>,
}

/// What it takes to answer one request.
struct PendingUpgrade {
    room: Box<dyn FnOnce() -> Result<(), Duration>>,
    clock: Arc<dyn Clock>,
    connected: oneshot::Sender<UpgradedConnection>,
}

/// One socket, as its request sees it.
struct SocketState {
    peer: PeerName,
    pending: RefCell<Option<PendingUpgrade>>,
    bound: Rc<ReadBound>,
}

async fn answer(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let state = request.conn_data::<Rc<SocketState>>();
    let pending = state.and_then(|state| Some((state, state.pending.borrow_mut().take()?)));
    let Some((SocketState { peer, bound, .. }, PendingUpgrade { room, clock, connected })) =
        pending.map(|(state, pending)| (&**state, pending))
    else {
        return Ok(HttpResponse::BadRequest().body("one request, and no other"));
    };
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    if !offered.any(|protocol| protocol.trim() == link::PROTOCOL) {
        return Ok(HttpResponse::BadRequest().body("this end speaks another link: upgrade the older end"));
    }
    let (connection, ingress, egress) = mux::over(Role::Accepted, peer.clone(), clock);
    let over = Box::pin(egress.over());
    let socket = Socket { peer: peer.clone(), ingress, egress: Some(egress) };
    let upgraded = ws::WsResponseBuilder::new(socket, &request, Frames::of(body, Rc::clone(bound)))
        .protocols(&[link::PROTOCOL])
        .frame_size(MUX_FRAME_MAX)
        .start()?;
    if let Err(wait) = room() {
        let busy = HttpResponse::ServiceUnavailable()
            .insert_header((RETRY_AFTER, wait.as_secs().max(1).to_string()))
            .body("too many arrive at once");
        return Ok(busy);
    }
    bound.upgraded();
    // Whoever has given up meanwhile drops the socket, too.
    let _ = connected.send(UpgradedConnection { connection, over });
    Ok(upgraded)
}
