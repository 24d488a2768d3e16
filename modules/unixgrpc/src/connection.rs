//! Serving one connection, with bounds on what it may take.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, Stream as _};
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Calls;
use crate::authority::AnyAuthority;

/// What one connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Calls at a time.
    pub calls_at_once: u32,
    /// Bytes of a call's head, names and values together.
    pub head_max: u32,
    /// Bytes that may arrive before they are read: of one call, and of all of the connection.
    pub window: u32,
    /// Between the signs of life that a silent connection is asked for.
    pub keep_alive: Duration,
}

impl Bounds {
    /// 64 calls, heads of 8 KiB, a window of 64 KiB (RFC 9113's own), a sign of life each 30 s.
    pub const DEFAULT: Bounds = Bounds {
        calls_at_once: 64,
        head_max: 8 << 10,
        window: 64 << 10,
        keep_alive: Duration::from_secs(30),
    };
}

/// A connection's bytes, whatever carries them.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// Serves one connection, within the bounds, until it is closed; its client may name any `:authority`. Its calls run in this
/// very future, so that a panic in one is a panic here.
pub fn serve_connection(
    connection: impl AsyncRead + AsyncWrite + Unpin + 'static,
    bounds: Bounds,
    calls: Calls,
) -> LocalBoxFuture<'static, ()> {
    // One type for all, since an HTTP/2 server is compiled for each type of connection and of service.
    Box::pin(serve(Box::new(connection), bounds, calls))
}

async fn serve(connection: Box<dyn Duplex>, bounds: Bounds, calls: Calls) {
    let streams = Streams::default();
    let service = service_fn(move |request| {
        let answer = calls(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.calls_at_once)
        .max_header_list_size(bounds.head_max)
        .initial_stream_window_size(bounds.window)
        .initial_connection_window_size(bounds.window)
        .keep_alive_interval(bounds.keep_alive)
        .serve_connection(TokioIo::new(AnyAuthority::new(connection)), service);
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
