//! One connection of a mapper, as a child of the DMI server: a panic in one of its calls ends that connection alone, and the
//! hive catches and counts it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Clock, Context, Fault, Message};
use dmi::v1beta1::device_manager_service_server::DeviceManagerServiceServer;
use futures::future::{Either, select};
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tower::Service as _;
use unixgrpc::Bounds;

use crate::connections::{CallLimit, Connection};
use crate::device_manager_service::Manager;

/// 10 s for all of a call, from its head on: a message that comes in drops does not hold its caller's turn for ever.
const WHOLE_CALL_WITHIN: Duration = Duration::from_secs(10);

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
    unixgrpc::serve_connection(connection, Bounds::DEFAULT, service).await;
}
