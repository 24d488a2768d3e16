//! From a socket whose other end is known to a link: the request for the upgrade to WebSocket (RFC 6455), and the cells after it.
//!
//! actix-web answers the request, and an actor of actix-web-actors moves cells between the socket and [`mux`]. It is polled
//! only while the socket takes bytes; together with one cell a turn that is its back-pressure.
//!
//! actix-web-actors is no longer developed and stays behind this file; its successor is actix-ws. It reads as much as comes,
//! and a frame to its end before it looks at its size. So it is fed by [`Frames`]: one frame at a time, and none that is
//! larger than a cell. And what is read of a socket before it is needed is bounded by [`Intake`], in the socket itself.
//!
//! How many sockets come, and how long one may take until it is upgraded, is the caller's business.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, StreamHandler};
use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive};
use actix_service::boxed::{self, BoxService};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, map_config};
use actix_web::dev::AppConfig;
use actix_web::error::PayloadError;
use actix_web::http::header::{RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use actix_web::web::Bytes;
use actix_web::{App, HttpRequest, HttpResponse, web};
use actix_web_actors::ws;
use beehive::Clock;
use beehive::link::mux::{self, CELL_MAX, Inlet, MuxConnection, Outlet, Role};
use beehive::link::{PeerName, ws as link};
use futures::Stream;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// 16 KiB for all that comes before the upgrade: a request for it has some 300 bytes.
const HEAD_MAX: usize = 16 << 10;
/// 16 KiB of reading ahead after it: two cells.
const READ_AHEAD: usize = 16 << 10;
/// 10 s for the request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// 1 s for the last words to leave.
const GOODBYE: Duration = Duration::from_secs(1);
/// 14 bytes at most are in front of a frame (RFC 6455 section 5.2).
const FRAME_HEAD_MAX: usize = 14;

/// Why no link came of a socket.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// What came was no HTTP, or more than [`HEAD_MAX`] bytes of it.
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
pub struct Upgrades<S> {
    service: BoxService<(Caller<S>, Option<SocketAddr>), (), DispatchError>,
    clock: Arc<dyn Clock>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Upgrades<S> {
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
            .on_connect_ext(|caller: &Caller<S>, extensions| {
                extensions.insert(Rc::clone(&caller.visit));
            })
            .h1(map_config(app, |()| AppConfig::default()));
        let service = service.new_service(()).await.map_err(|()| UpgradeError::Service)?;
        Ok(Upgrades { service: boxed::service(service), clock })
    }

    /// Reads the request of `peer` and answers it. `room` is asked last: with a wait, the other end is told to come again
    /// after that; what it yields otherwise is answered beside the connection. What is given as `keep` is dropped when the
    /// socket has ended.
    ///
    /// # Errors
    /// See [`UpgradeError`].
    pub async fn upgrade<P: 'static, K: 'static>(
        &self,
        socket: S,
        peer: PeerName,
        room: impl FnOnce() -> Result<P, Duration> + 'static,
        keep: K,
    ) -> Result<(MuxConnection, P), UpgradeError> {
        let place = Rc::new(Cell::new(None));
        let room = {
            let place = Rc::clone(&place);
            move || room().map(|granted| place.set(Some(granted)))
        };
        let (granted, grant) = oneshot::channel();
        let desk = Desk { room: Box::new(room), clock: Arc::clone(&self.clock), granted };
        let intake = Rc::new(Intake::default());
        let visit = Rc::new(Visit { peer, desk: RefCell::new(Some(desk)), intake });
        let socket = self.service.call((Caller { socket, visit }, None));
        let (Grant { connection, over }, socket) = match select(grant, socket).await {
            Either::Left((Ok(grant), socket)) => (grant, socket),
            Either::Left((Err(_), socket)) => {
                // The answer still has to leave.
                return Err(socket.await.err().map_or(UpgradeError::Refused, UpgradeError::Request));
            }
            Either::Right((Err(error), _)) => return Err(UpgradeError::Request(error)),
            Either::Right((Ok(()), _)) => return Err(UpgradeError::Refused),
        };
        let clock = Arc::clone(&self.clock);
        let late = async move {
            over.await;
            clock.sleep(GOODBYE).await;
        };
        actix_rt::spawn(async move {
            // An end that reads nothing does not keep a socket that is over.
            let _ = select(socket, pin!(late)).await;
            drop(keep);
        });
        Ok((connection, place.take().ok_or(UpgradeError::Refused)?))
    }
}

/// What was granted to a request.
struct Grant {
    connection: MuxConnection,
    over: BoxFuture<'static, ()>,
}

/// What it takes to answer one request.
struct Desk {
    room: Box<dyn FnOnce() -> Result<(), Duration>>,
    clock: Arc<dyn Clock>,
    granted: oneshot::Sender<Grant>,
}

/// One socket, as its request sees it.
struct Visit {
    peer: PeerName,
    desk: RefCell<Option<Desk>>,
    intake: Rc<Intake>,
}

async fn answer(request: HttpRequest, body: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    let visit = request.conn_data::<Rc<Visit>>();
    let desk = visit.and_then(|visit| Some((visit, visit.desk.borrow_mut().take()?)));
    let Some((Visit { peer, intake, .. }, Desk { room, clock, granted })) =
        desk.map(|(visit, desk)| (&**visit, desk))
    else {
        return Ok(HttpResponse::BadRequest().body("one request, and no other"));
    };
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    if !offered.any(|protocol| protocol.trim() == link::PROTOCOL) {
        return Ok(HttpResponse::BadRequest().body("this end speaks another link: upgrade the older end"));
    }
    let (connection, inlet, outlet) = mux::over(Role::Accepted, peer.clone(), clock);
    let over = Box::pin(outlet.over());
    let socket = Socket { peer: peer.clone(), inlet, outlet: Some(outlet) };
    let upgraded = ws::WsResponseBuilder::new(socket, &request, Frames::of(body, Rc::clone(intake)))
        .protocols(&[link::PROTOCOL])
        .frame_size(CELL_MAX)
        .start()?;
    if let Err(wait) = room() {
        let busy = HttpResponse::ServiceUnavailable()
            .insert_header((RETRY_AFTER, wait.as_secs().max(1).to_string()))
            .body("too many arrive at once");
        return Ok(busy);
    }
    intake.upgraded();
    // Whoever has given up meanwhile drops the socket, too.
    let _ = granted.send(Grant { connection, over });
    Ok(upgraded)
}

/// How much more may be read of a socket. Before the upgrade that is all there is; after it, what was used may come again.
#[derive(Default)]
struct Intake {
    upgraded: Cell<bool>,
    /// Read and not used.
    ahead: Cell<usize>,
    /// The other end has said all it will.
    ended: Cell<bool>,
    waits: RefCell<Option<Waker>>,
}

impl Intake {
    /// What was read so far was its head, and is used.
    fn upgraded(&self) {
        self.upgraded.set(true);
        self.ahead.set(0);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.upgraded.get() && self.ahead.get() >= READ_AHEAD {
            *self.waits.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if !self.upgraded.get() && self.ahead.get() >= HEAD_MAX {
            let error = io::Error::new(io::ErrorKind::InvalidData, "more than 16 KiB and no upgrade");
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    fn read(&self, bytes: usize) {
        self.ahead.set(self.ahead.get() + bytes);
    }

    fn used(&self, bytes: usize) {
        self.ahead.set(self.ahead.get().saturating_sub(bytes));
        if let Some(waits) = self.waits.borrow_mut().take() {
            waits.wake();
        }
    }
}

/// A socket with its [`Intake`].
struct Caller<S> {
    socket: S,
    visit: Rc<Visit>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Caller<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.visit.intake.poll_room(cx))?;
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, into))?;
        let (intake, read) = (&self.visit.intake, into.filled().len() - before);
        intake.read(read);
        if read == 0 && !intake.upgraded.get() {
            // The library would wait for the rest of a request. What came before is answered first.
            if intake.ended.replace(true) {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Caller<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The bytes of a socket after the upgrade, up to the end of one frame at a time.
struct Frames<B> {
    bytes: B,
    intake: Rc<Intake>,
    /// Came and was not yielded.
    held: Bytes,
    /// What was seen of the current frame's head.
    head: Vec<u8>,
    /// How much of its body is still to come. `None`: its head is not whole.
    left: Option<usize>,
}

impl<B> Frames<B> {
    fn of(bytes: B, intake: Rc<Intake>) -> Self {
        let head = Vec::with_capacity(FRAME_HEAD_MAX);
        Frames { bytes, intake, held: Bytes::new(), head, left: None }
    }

    /// What of the current frame is held, or `None` when the frame is larger than a cell.
    fn piece(&mut self) -> Option<Bytes> {
        let wanted = match self.left {
            Some(left) => left,
            None => head_len(&self.head) - self.head.len(),
        };
        let piece = self.held.split_to(wanted.min(self.held.len()));
        self.left = match self.left {
            Some(left) => Some(left - piece.len()),
            None => {
                self.head.extend_from_slice(&piece);
                (self.head.len() == head_len(&self.head)).then(|| body_len(&self.head))
            }
        };
        self.left.is_none_or(|left| left <= CELL_MAX).then_some(piece)
    }
}

/// How long a frame's head is, as far as what came of it tells.
fn head_len(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

/// How long the body is that a whole head announces.
fn body_len(head: &[u8]) -> usize {
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let len = match head.get(1).map_or(0, |second| second & 0x7f) {
        126 => head.get(2..4).map_or(0, number),
        127 => head.get(2..10).map_or(0, number),
        short => u64::from(short),
    };
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl<B> Stream for Frames<B>
where
    B: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == Some(0) {
            // The frame has ended: it is looked at before the next is asked for.
            self.left = None;
            self.head.clear();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.held.is_empty() {
            match ready!(Pin::new(&mut self.bytes).poll_next(cx)) {
                Some(Ok(bytes)) => self.held = bytes,
                other => return Poll::Ready(other),
            }
        }
        let piece = self.piece().ok_or(PayloadError::Overflow);
        self.intake.used(piece.as_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(piece))
    }
}

/// Moves the cells of one socket.
struct Socket {
    peer: PeerName,
    inlet: Inlet,
    outlet: Option<Outlet>,
}

/// A cell for the socket.
struct Outgoing(Bytes);

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

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::ws::{Codec, Message};
    use futures::{FutureExt, StreamExt};
    use tokio_util::codec::Encoder;

    fn frame(len: usize) -> Vec<u8> {
        let mut bytes = web::BytesMut::new();
        Codec::new().client_mode().encode(Message::Binary(vec![7; len].into()), &mut bytes).unwrap();
        bytes.to_vec()
    }

    /// What is yielded between two rests.
    fn turns(chunks: Vec<Vec<u8>>) -> Vec<Result<Vec<u8>, PayloadError>> {
        let intake = Rc::new(Intake::default());
        intake.read(chunks.iter().map(Vec::len).sum());
        let chunks = futures::stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
        let (mut frames, mut turns) = (Frames::of(chunks, Rc::clone(&intake)), Vec::new());
        let mut turn = Vec::new();
        loop {
            match frames.next().now_or_never() {
                None => turns.push(Ok(std::mem::take(&mut turn))),
                Some(Some(Ok(piece))) => turn.extend_from_slice(&piece),
                Some(Some(Err(error))) => {
                    turns.push(Err(error));
                    return turns;
                }
                Some(None) => break,
            }
        }
        assert_eq!(intake.ahead.get(), 0, "all was used");
        turns
    }

    #[test]
    fn one_frame_a_turn_however_its_bytes_come() {
        let frames: Vec<Vec<u8>> = [0, 1, 125, 126, 700, CELL_MAX].map(frame).into();
        let bytes = frames.concat();
        for size in [1, 2, 3, 13, 500, bytes.len()] {
            let turns: Vec<_> = turns(bytes.chunks(size).map(<[u8]>::to_vec).collect());
            let turns: Vec<Vec<u8>> = turns.into_iter().map(Result::unwrap).collect();
            assert_eq!(turns, frames, "in chunks of {size}");
        }
    }

    #[test]
    fn a_frame_that_is_larger_than_a_cell_is_refused_at_its_head() {
        let long = frame(CELL_MAX + 1);
        let turns = turns(vec![frame(3), long[..FRAME_HEAD_MAX].to_vec()]);
        assert!(matches!(&turns[..], [Ok(_), Err(PayloadError::Overflow)]), "{turns:?}");
        let endless = [&[0x82, 0xff][..], &[0xff; 12]].concat();
        assert!(matches!(&turns_of(endless)[..], [Err(PayloadError::Overflow)]));
    }

    fn turns_of(bytes: Vec<u8>) -> Vec<Result<Vec<u8>, PayloadError>> {
        turns(vec![bytes])
    }

    #[test]
    fn no_more_is_read_than_was_used_and_two_cells() {
        let intake = Intake::default();
        let mut cx = Context::from_waker(Waker::noop());
        intake.read(HEAD_MAX);
        assert!(matches!(intake.poll_room(&mut cx), Poll::Ready(Err(_))), "no head is that long");
        intake.upgraded();
        assert!(matches!(intake.poll_room(&mut cx), Poll::Ready(Ok(()))));
        intake.read(READ_AHEAD);
        assert!(intake.poll_room(&mut cx).is_pending());
        intake.used(1);
        assert!(intake.waits.borrow().is_none(), "woken");
        assert!(matches!(intake.poll_room(&mut cx), Poll::Ready(Ok(()))));
    }
}
