//! One connection of a mapper, as a child of the DMI server: a panic in one of its calls ends that connection alone, and the
//! hive catches and counts it.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Clock, Context, Fault, Message};
use futures::future::{Either, select};
use tonic::Status;
use unixgrpc::{Bounds, Calls};

use crate::connections::{Connection, in_turn};
use crate::device_manager_service::Manager;

/// 10 s for all of a call, from its head on: a message that comes in drops does not hold its caller's turn for ever.
const WHOLE_CALL_WITHIN: Duration = Duration::from_secs(10);

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
    manager: Manager,
}

impl MapperConnection {
    /// Serves what was `accepted`.
    pub(crate) fn new(accepted: Accepted, manager: Manager) -> Self {
        MapperConnection { accepted, manager }
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
        let (manager, clock, myself) = (self.manager.clone(), cx.env().clock(), cx.myself());
        cx.spawn(async move {
            serve(connection, manager, clock).await;
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

async fn serve(connection: Connection, manager: Manager, clock: Arc<dyn Clock>) {
    let called = connection.called();
    let calls: Calls = Rc::new(move |mut request| {
        let (called, manager, deadline) = (called.clone(), manager.clone(), clock.sleep(WHOLE_CALL_WITHIN));
        request.extensions_mut().insert(called.clone());
        Box::pin(async move {
            let call =
                pin!(in_turn(called, move || manager.answer(unixgrpc::Call::new(request, dmi::CALL_MAX))));
            match select(call, deadline).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), _)) => Status::cancelled("the call took longer than 10 s").into_http(),
            }
        })
    });
    unixgrpc::serve_connection(connection, Bounds::DEFAULT, calls).await;
}
