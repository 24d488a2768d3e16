//! The actor of one socket: moves cells between it and the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_web::web::Bytes;
use actix_web_actors::ws;
use beehive::link::PeerName;
use beehive::link::mux::{Inlet, Outlet};
use futures::Stream;

/// Moves the cells of one socket.
pub(super) struct Socket {
    pub(super) peer: PeerName,
    pub(super) inlet: Inlet,
    pub(super) outlet: Option<Outlet>,
}

/// A cell for the socket.
pub(super) struct Outgoing(Bytes);

impl Actor for Socket {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, cx: &mut Self::Context) {
        if let Some(outlet) = self.outlet.take() {
            cx.add_stream(OneCellPerPoll { outlet, rest: false });
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
struct OneCellPerPoll {
    outlet: Outlet,
    rest: bool,
}

impl Stream for OneCellPerPoll {
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
