//! One connection of a mapper, as a child of the DMI server: a panic in one of its calls ends that connection alone, and the
//! hive catches and counts it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use beehive::{Actor, Clock, Context, Fault, Message};
use dmi::v1beta1::device_manager_service_server::DeviceManagerServiceServer;
use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::{FuturesUnordered, Stream as _};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tower::Service as _;

use crate::connections::{CallLimit, Connection};
use crate::server::Manager;

/// 64 calls of one connection at a time.
const CALLS_AT_ONCE: u32 = 64;
/// 10 s for all of a call, from its head on: a message that comes in drops does not hold its caller's turn for ever.
const WHOLE_CALL_WITHIN: Duration = Duration::from_secs(10);
/// 30 s between the signs of life that a silent connection is asked for.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// 8 KiB of a call's head.
const HEADERS_MAX: u32 = 8 << 10;
/// 64 KiB that may arrive on a connection before they are read (RFC 9113's own).
const WINDOW: u32 = 64 << 10;

/// The service that every connection is served with.
pub(crate) type Calls = CallLimit<DeviceManagerServiceServer<Manager>>;

/// An accepted connection, until the first incarnation takes it.
pub(crate) type Accepted = Rc<RefCell<Option<Connection>>>;

/// Messages of a connection to itself.
#[derive(Debug)]
pub(crate) enum ConnectionMsg {
    /// It is closed.
    Closed,
}

impl Message for ConnectionMsg {
    fn name(&self) -> &'static str {
        match self {
            ConnectionMsg::Closed => "Closed",
        }
    }
}

/// Serves one connection.
pub(crate) struct MapperConnection {
    accepted: Accepted,
    calls: Calls,
}

impl MapperConnection {
    /// Serves what was `accepted`.
    pub(crate) fn new(accepted: Accepted, calls: Calls) -> Self {
        MapperConnection { accepted, calls }
    }
}

impl Actor for MapperConnection {
    type Message = ConnectionMsg;

    async fn started(&mut self, cx: &mut Context<ConnectionMsg>) -> Result<(), Fault> {
        // What panicked has lost its connection, and its caller comes again.
        let Some(connection) = self.accepted.borrow_mut().take() else {
            cx.stop();
            return Ok(());
        };
        let (calls, clock, myself) = (self.calls.clone(), cx.env().clock(), cx.myself());
        cx.spawn(async move {
            serve(connection, calls, clock).await;
            let _ = myself.tell(ConnectionMsg::Closed).await;
        });
        Ok(())
    }

    async fn handle(&mut self, message: ConnectionMsg, cx: &mut Context<ConnectionMsg>) -> Result<(), Fault> {
        match message {
            ConnectionMsg::Closed => cx.stop(),
        }
        Ok(())
    }
}

async fn serve(connection: Connection, calls: Calls, clock: Arc<dyn Clock>) {
    let called = connection.called();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (mut calls, deadline) = (calls.clone(), clock.sleep(WHOLE_CALL_WITHIN));
        request.extensions_mut().insert(called.clone());
        async move {
            let call = pin!(calls.call(request));
            let answer: Result<Response<Body>, Infallible> = match select(call, deadline).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), _)) => Ok(Status::cancelled("the call took longer than 10 s").into_http()),
            };
            answer
        }
    });
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

/// The calls of a connection that hyper begins: they run in the connection's own task, and so a panic in one is a fault of
/// its actor.
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
