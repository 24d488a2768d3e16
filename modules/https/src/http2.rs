//! HTTP/2 over a connection, for clients that choose it: the same requests to the same handler, many at once.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::body::Body;
use crate::server::ServerContext;
use crate::{Limits, Peer, Stream};

/// 64 KiB: what may be on its way of a request's body, and what waits of an answer's, per request.
const WINDOW: u32 = 64 << 10;
/// 30 s: a client that is silent for so long is asked whether it is there, and has as long to say so.
const ASK_AFTER: Duration = Duration::from_secs(30);

/// Runs what hyper starts beside a connection, which is its requests, in the connection's own task: they end with it.
#[derive(Clone, Default)]
struct Beside<'a>(Rc<RefCell<Vec<LocalBoxFuture<'a, ()>>>>);

impl<'a, F: Future + 'a> Executor<F> for Beside<'a> {
    fn execute(&self, work: F) {
        self.0.borrow_mut().push(Box::pin(async move { drop(work.await) }));
    }
}

/// Requests that are in hand, and how many there were.
#[derive(Default)]
struct Requests {
    in_hand: Cell<usize>,
    begun: Cell<u64>,
}

/// One that is in hand, until its head is answered or it is given up.
struct InHand<'a>(&'a Requests);

impl Requests {
    fn begin(&self) -> InHand<'_> {
        self.begun.set(self.begun.get().wrapping_add(1));
        self.in_hand.set(self.in_hand.get().saturating_add(1));
        InHand(self)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.in_hand.set(self.0.in_hand.get().saturating_sub(1));
    }
}

/// Serves a connection to its end. `answer`: to one request.
pub(crate) async fn serve<A>(
    answer: impl Fn(Request<Incoming>) -> A,
    stream: Stream,
    peer: &Peer,
    context: &ServerContext,
) where
    A: Future<Output = Response<Body>>,
{
    let requests = Requests::default();
    let service = service_fn(|request| {
        let (answer, requests) = (answer(request), &requests);
        async move {
            let _in_hand = requests.begin();
            Ok::<_, Infallible>(answer.await)
        }
    });
    let beside = Beside::default();
    let Limits { head_bytes, streams_per_connection, .. } = context.limits;
    let connection = hyper::server::conn::http2::Builder::new(beside.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_per_connection)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(WINDOW as usize)
        .keep_alive_interval(ASK_AFTER)
        .keep_alive_timeout(ASK_AFTER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut over = std::pin::pin!(over(peer, &requests, context));
    let mut is_over = false;
    let mut work = FuturesUnordered::new();
    let ended = poll_fn(|cx| {
        if !is_over && over.as_mut().poll(cx).is_ready() {
            is_over = true;
            // What is in hand is answered; an idle connection ends at once.
            connection.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let new = beside.0.take();
            let has_new = !new.is_empty();
            work.extend(new);
            let mut has_ended = false;
            while let Poll::Ready(Some(())) = work.poll_next_unpin(cx) {
                has_ended = true;
            }
            // A request that is new or has ended is news for the connection.
            if !has_new && !has_ended {
                return Poll::Pending;
            }
        }
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(server = context.name, %error, "connection broke off");
    }
}

/// When nothing more is to be asked: the server stops, or there was nothing to do for as long as a connection may be idle.
async fn over(peer: &Peer, requests: &Requests, context: &ServerContext) {
    let idle = async {
        loop {
            let before = requests.begun.get();
            context.clock.sleep(context.limits.head_within).await;
            let is_stranger = !peer.is_identified();
            if requests.in_hand.get() == 0 && (requests.begun.get() == before || is_stranger) {
                return;
            }
        }
    };
    tokio::select! {
        () = peer.stopping() => {}
        () = idle => {}
    }
}
