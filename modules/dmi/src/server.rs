//! Servers of both services, with bounds on what one connection may take.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, Stream as _};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::transport::Server;

/// 64 calls of one connection at a time.
const CALLS_AT_ONCE: u32 = 64;
/// 30 s between the signs of life that a silent connection is asked for.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// 8 KiB of a call's head.
const HEADERS_MAX: u32 = 8 << 10;
/// 64 KiB that may arrive on a connection before they are read (RFC 9113's own).
const WINDOW: u32 = 64 << 10;

/// A server of tonic's with the bounds: for a socket that only edgecore dials.
pub fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(CALLS_AT_ONCE)
        .http2_max_header_list_size(HEADERS_MAX)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
}

/// Serves one connection, within the bounds, until it is closed. Its calls run in this very future, so that a panic in one
/// is a panic here.
pub async fn serve_connection<I, S>(connection: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let streams = Streams::default();
    let connection = Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_AT_ONCE)
        .max_header_list_size(HEADERS_MAX)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(KEEP_ALIVE)
        .serve_connection(TokioIo::new(connection), service);
    let mut connection = pin!(connection);
    let mut running = FuturesUnordered::new();
    std::future::poll_fn(|cx| {
        loop {
            let ended = connection.as_mut().poll(cx).is_ready();
            running.extend(streams.take());
            while let Poll::Ready(Some(())) = Pin::new(&mut running).poll_next(cx) {}
            if ended {
                return Poll::Ready(());
            }
            if streams.is_empty() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// The calls that hyper begins.
#[derive(Clone, Default)]
struct Streams(Rc<RefCell<Vec<LocalBoxFuture<'static, ()>>>>);

impl Streams {
    fn take(&self) -> Vec<LocalBoxFuture<'static, ()>> {
        std::mem::take(&mut *self.0.borrow_mut())
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.borrow_mut().push(Box::pin(stream));
    }
}
