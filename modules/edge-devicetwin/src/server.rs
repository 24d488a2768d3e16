//! The DMI server: every call of a mapper becomes one message to the twin.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, AskError, Capacity, Clock, Context, Fault, Message, Policy, Refusal, Reply};
use contract::devicetwin::{DmiCall, DmiCaller, DmiRefusal, TwinMsg};
use dmi::v1beta1 as pb;
use dmi::v1beta1::device_manager_service_server::{DeviceManagerService, DeviceManagerServiceServer};
use futures::StreamExt as _;
use futures::future::{Either, select};
use tonic::{Request, Response, Status};

use crate::connections::{Acceptor, CallLimit, Called, Callers, Connection};
use crate::events::Event;
use crate::mapper_connection::{Accepted, MapperConnection};
use crate::payload::PAYLOAD_MAX;
use crate::peer::Peers;
use crate::plan::TWINS_MAX;

/// 5 s for a call: the mailbox has room and the store has committed by then, or the mapper tries again.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// 5 ms before a full mailbox is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// 5 s before a socket that could not be served is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// Where mappers are served, and for whom.
#[derive(Clone)]
pub(crate) struct Place {
    /// The folder that mappers share.
    pub(crate) folder: PathBuf,
    /// Name or number of the group that may open it; empty: none.
    pub(crate) group: String,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) callers: Arc<Callers>,
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
    place: Place,
    twin: Address<TwinMsg>,
    connections: u64,
}

impl Server {
    /// A server at `place` whose calls go to `twin`.
    pub(crate) fn new(place: Place, twin: Address<TwinMsg>) -> Self {
        Server { place, twin, connections: 0 }
    }

    fn listen(&self, cx: &Context<ServerMsg>) {
        let (place, clock, myself) = (self.place.clone(), cx.env().clock(), cx.myself());
        cx.spawn(async move {
            let reason = match accept(place, clock, &myself).await {
                Ok(()) => "the listener has ended".to_owned(),
                Err(reason) => reason,
            };
            let _ = myself.tell(ServerMsg::Ended(reason)).await;
        });
    }

    fn serve(&mut self, connection: Connection, cx: &Context<ServerMsg>) {
        self.connections += 1;
        let manager = Manager { twin: self.twin.clone(), clock: cx.env().clock() };
        let calls =
            CallLimit(DeviceManagerServiceServer::new(manager).max_decoding_message_size(PAYLOAD_MAX));
        let accepted: Accepted = Rc::new(RefCell::new(Some(connection)));
        let policy = Policy { capacity: Capacity::new(1, "its own end"), ..Policy::default() };
        cx.child(("connection", self.connections.to_string()), policy, move || {
            MapperConnection::new(Rc::clone(&accepted), calls.clone())
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
                let folder = self.place.folder.to_string_lossy();
                Event::DmiNotServed { folder: &folder, reason: &reason }.happened(cx.env());
                cx.after(cx.env().jitter(LISTEN_PAUSE), ServerMsg::Listen);
            }
        }
        Ok(())
    }
}

async fn accept(place: Place, clock: Arc<dyn Clock>, server: &Address<ServerMsg>) -> Result<(), String> {
    let Place { folder, group, peers, callers } = place;
    let group = group_id(&group)?;
    let dmi::Taken { listener, aside } =
        dmi::take(&folder, group).map_err(|error| Fault::from_error(&error).reason)?;
    for thing in aside {
        let now = thing.display();
        tracing::warn!(%now, "something that is no socket stood in the place of dmi.sock; it was moved aside");
    }
    tracing::info!(folder = %folder.display(), socket = dmi::SOCKET_NAME, "mappers may register");
    let mut connections = std::pin::pin!(Acceptor { listener, peers, callers, clock }.connections());
    while let Some(connection) = connections.next().await {
        let connection = connection.map_err(|error| Fault::from_error(&error).reason)?;
        server.tell(ServerMsg::Accepted(connection)).await.map_err(|refusal| refusal.to_string())?;
    }
    Ok(())
}

/// The number of a group.
fn group_id(group: &str) -> Result<Option<u32>, String> {
    if group.is_empty() {
        return Ok(None);
    }
    if let Ok(number) = group.parse() {
        return Ok(Some(number));
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(Some(found.gid.as_raw())),
        Ok(None) => {
            Err(format!("modules.deviceTwin.dmiSockGroup is `{group}`, and this machine has no such group"))
        }
        Err(error) => Err(format!("group `{group}` was not found: {error}")),
    }
}

/// Who called.
fn caller<T>(request: &Request<T>) -> Result<DmiCaller, Status> {
    let called = request.extensions().get::<Called>();
    called.map(|called| DmiCaller::clone(&called.caller)).ok_or_else(|| Status::internal("nobody called"))
}

/// Makes messages to the twin of calls.
#[derive(Clone)]
pub(crate) struct Manager {
    twin: Address<TwinMsg>,
    clock: Arc<dyn Clock>,
}

impl Manager {
    /// Hands the call to the actor and waits for its answer, both within the deadline.
    async fn call<T: prost::Message + Default>(
        &self,
        caller: DmiCaller,
        call: DmiCall,
    ) -> Result<Response<T>, Status> {
        let exchange = async {
            loop {
                let (reply, answer) = Reply::channel();
                let message = TwinMsg::Dmi { caller: caller.clone(), call: call.clone(), reply };
                match self.twin.try_tell(message) {
                    Ok(()) => return answer.await.unwrap_or(Err(AskError::Crashed)),
                    // Its own parent is never waited for.
                    Err(Refusal::Full) => self.clock.sleep(FULL_PAUSE).await,
                    Err(refusal) => return Err(AskError::from(refusal)),
                }
            }
        };
        let exchange = std::pin::pin!(exchange);
        match select(exchange, self.clock.sleep(CALL_DEADLINE)).await {
            Either::Left((Ok(Ok(bytes)), _)) => T::decode(bytes.as_slice())
                .map(Response::new)
                .map_err(|error| Status::internal(error.to_string())),
            Either::Left((Ok(Err(refusal)), _)) => Err(match refusal {
                DmiRefusal::Refused(reason) => Status::failed_precondition(reason),
                DmiRefusal::Unfit(reason) => Status::invalid_argument(reason),
                DmiRefusal::Denied(reason) => Status::permission_denied(reason),
                DmiRefusal::UsedUp(reason) => Status::resource_exhausted(reason),
            }),
            Either::Left((Err(error), _)) => Err(Status::unavailable(error.to_string())),
            Either::Right(((), _)) => Err(Status::deadline_exceeded("edgecore is busy; try again")),
        }
    }
}

#[tonic::async_trait]
impl DeviceManagerService for Manager {
    async fn mapper_register(
        &self,
        request: Request<pb::MapperRegisterRequest>,
    ) -> Result<Response<pb::MapperRegisterResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mapper = request.mapper.ok_or_else(|| Status::invalid_argument("the request has no mapper"))?;
        let address = String::from_utf8(mapper.address)
            .map_err(|_| Status::invalid_argument("the mapper's address is not UTF-8"))?;
        let version = format!("{} {}", mapper.version, mapper.api_version);
        let call = DmiCall::Register {
            name: mapper.name,
            protocol: mapper.protocol,
            address,
            version: version.trim().chars().filter(|c| !c.is_control()).take(128).collect(),
            with_data: request.with_data,
        };
        self.call(caller, call).await
    }

    async fn report_device_status(
        &self,
        request: Request<pb::ReportDeviceStatusRequest>,
    ) -> Result<Response<pb::ReportDeviceStatusResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let Some(status) = request.reported_device else {
            return Err(Status::invalid_argument("the report has no reportedDevice"));
        };
        if status.twins.len() > TWINS_MAX {
            return Err(Status::invalid_argument("the report has more than 1024 twins"));
        }
        let mut twins = Vec::with_capacity(status.twins.len());
        for twin in status.twins {
            let (Some(observed), Some(reported)) = (twin.observed_desired, twin.reported) else {
                return Err(Status::invalid_argument("a twin has no observedDesired or no reported"));
            };
            twins.push((twin.property_name, observed.value, reported.value));
        }
        let (namespace, name) = (request.device_namespace, request.device_name);
        self.call(caller, DmiCall::Twins { namespace, name, twins }).await
    }

    async fn report_device_states(
        &self,
        request: Request<pb::ReportDeviceStatesRequest>,
    ) -> Result<Response<pb::ReportDeviceStatesResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let (namespace, name) = (request.device_namespace, request.device_name);
        self.call(caller, DmiCall::State { namespace, name, state: request.state }).await
    }
}
