//! The actor of one socket: moves frames between it and the connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_web::web::Bytes;
use actix_web_actors::ws;
use beehive::link::PeerName;
use beehive::link::mux::{Egress, Ingress};
use futures::Stream;

/// Moves the frames of one socket.
pub(super) struct Socket {
    pub(super) peer: PeerName,
    pub(super) ingress: Ingress,
    pub(super) egress: Option<Egress>,
}

/// A frame for the socket.
pub(super) struct Outgoing(Bytes);

impl Actor for Socket {
    type Context = ws::WebsocketContext<Self>;

    fn started(&mut self, cx: &mut Self::Context) {
        if let Some(egress) = self.egress.take() {
            cx.add_stream(OneFramePerPoll { egress, rest: false });
        }
    }
}

impl StreamHandler<Outgoing> for Socket {
    fn handle(&mut self, Outgoing(frame): Outgoing, cx: &mut Self::Context) {
        cx.binary(frame);
    }

    /// The connection was closed.
    fn finished(&mut self, cx: &mut Self::Context) {
        cx.close(None);
        cx.stop();
    }
}

impl StreamHandler<Result<ws::Message, ws::ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, cx: &mut Self::Context) {
        let taken = match message {
            Ok(ws::Message::Binary(frame)) => self.ingress.take(frame),
            Ok(ws::Message::Ping(body)) => self.ingress.nothing().map(|()| cx.pong(&body)),
            Ok(ws::Message::Pong(_)) => self.ingress.nothing(),
            Ok(ws::Message::Nop) => Ok(()),
            Ok(ws::Message::Close(_)) => return cx.stop(),
            Ok(ws::Message::Text(_) | ws::Message::Continuation(_)) => {
                tracing::warn!(peer = %self.peer, "a message that is no frame; its socket is ended");
                return cx.stop();
            }
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "socket broke off");
                return cx.stop();
            }
        };
        if let Err(error) = taken {
            tracing::warn!(peer = %self.peer, %error, "breaks the rules; its socket is ended");
            cx.stop();
        }
    }

    fn finished(&mut self, cx: &mut Self::Context) {
        cx.stop();
    }
}

/// Yields one frame each time that the socket's actor is polled: what is chosen later may be more urgent.
struct OneFramePerPoll {
    egress: Egress,
    rest: bool,
}

impl Stream for OneFramePerPoll {
    type Item = Outgoing;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if std::mem::take(&mut self.rest) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.egress).poll_next(cx);
        self.rest = matches!(next, Poll::Ready(Some(_)));
        next.map(|frame| frame.map(Outgoing))
    }
}
