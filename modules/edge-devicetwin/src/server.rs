//! The DMI server: takes the connections of mappers.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Clock, Context, Fault, Message, Policy};
use contract::devicetwin::TwinMsg;
use futures::StreamExt as _;

use crate::connections::{Acceptor, CallerQuotas, Connection};
use crate::device_manager_service::Manager;
use crate::events::Event;
use crate::mapper_connection::{Accepted, MapperConnection};
use crate::peer::PeerResolver;

/// 5 s before a socket that could not be served is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// Where mappers are served, and for whom.
#[derive(Clone)]
pub(crate) struct DmiEndpoint {
    /// The folder that mappers share.
    pub(crate) folder: PathBuf,
    /// Name or number of the group that may open it; empty: none.
    pub(crate) group: String,
    pub(crate) peers: Arc<dyn PeerResolver>,
    pub(crate) caller_quotas: Arc<CallerQuotas>,
}

/// Messages of the server to itself.
#[derive(Debug)]
pub(crate) enum ServerMsg {
    /// Time to try the socket again.
    Listen,
    /// A mapper has connected.
    Accepted(Connection),
    /// The socket is not served any more, for this reason.
    Ended(String),
}

impl Message for ServerMsg {
    fn name(&self) -> &'static str {
        match self {
            ServerMsg::Listen => "Listen",
            ServerMsg::Accepted(_) => "Accepted",
            ServerMsg::Ended(_) => "Ended",
        }
    }
}

/// Serves mappers, as a child of DeviceTwin. Each connection is a child of its own.
pub(crate) struct Server {
    endpoint: DmiEndpoint,
    twin: Address<TwinMsg>,
    connections: u64,
}

impl Server {
    /// A server at `endpoint` whose calls go to `twin`.
    pub(crate) fn new(endpoint: DmiEndpoint, twin: Address<TwinMsg>) -> Self {
        Server { endpoint, twin, connections: 0 }
    }

    fn listen(&self, cx: &Context<ServerMsg>) {
        let (endpoint, clock, myself) = (self.endpoint.clone(), cx.env().clock(), cx.myself());
        cx.spawn(async move {
            let reason = match accept(endpoint, clock, &myself).await {
                Ok(()) => "the listener has ended".to_owned(),
                Err(reason) => reason,
            };
            let _ = myself.tell(ServerMsg::Ended(reason)).await;
        });
    }

    fn serve(&mut self, connection: Connection, cx: &Context<ServerMsg>) {
        self.connections += 1;
        let manager = Manager::new(self.twin.clone(), cx.env().clock());
        let accepted: Accepted = Rc::new(RefCell::new(Some(connection)));
        let policy = Policy { capacity: Capacity::new(1, "its own end"), ..Policy::default() };
        cx.child(("connection", self.connections.to_string()), policy, move || {
            MapperConnection::new(Rc::clone(&accepted), manager.clone())
        });
    }
}

impl Actor for Server {
    type Message = ServerMsg;

    async fn started(&mut self, cx: &mut Context<ServerMsg>) -> Result<(), Fault> {
        self.listen(cx);
        Ok(())
    }

    async fn handle(&mut self, message: ServerMsg, cx: &mut Context<ServerMsg>) -> Result<(), Fault> {
        match message {
            ServerMsg::Listen => self.listen(cx),
            ServerMsg::Accepted(connection) => self.serve(connection, cx),
            ServerMsg::Ended(reason) => {
                let folder = self.endpoint.folder.to_string_lossy();
                Event::DmiNotServed { folder: &folder, reason: &reason }.happened(cx.env());
                cx.after(cx.env().jitter(LISTEN_PAUSE), ServerMsg::Listen);
            }
        }
        Ok(())
    }
}

async fn accept(
    endpoint: DmiEndpoint,
    clock: Arc<dyn Clock>,
    server: &Address<ServerMsg>,
) -> Result<(), String> {
    let DmiEndpoint { folder, group, peers, caller_quotas } = endpoint;
    let group =
        unixsocket::group_id(&group).map_err(|error| format!("modules.deviceTwin.dmiSockGroup: {error}"))?;
    let dmi::BoundSocket { listener, aside } =
        dmi::take(&folder, group).map_err(|error| Fault::from_error(&error).reason)?;
    for thing in aside {
        let now = thing.display();
        tracing::warn!(%now, "something that is no socket stood in the place of dmi.sock; it was moved aside");
    }
    tracing::info!(folder = %folder.display(), socket = dmi::SOCKET_NAME, "mappers may register");
    let mut connections = std::pin::pin!(Acceptor { listener, peers, caller_quotas, clock }.connections());
    while let Some(connection) = connections.next().await {
        let connection = connection.map_err(|error| Fault::from_error(&error).reason)?;
        server.tell(ServerMsg::Accepted(connection)).await.map_err(|refusal| refusal.to_string())?;
    }
    Ok(())
}
