//! The DMI server: every call of a mapper becomes one message to the twin.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Address, AskError, Clock, Env, Fault, Reply};
use contract::devicetwin::{DmiCall, TwinMsg};
use dmi::v1beta1 as pb;
use dmi::v1beta1::device_manager_service_server::{DeviceManagerService, DeviceManagerServiceServer};
use futures::future::{Either, select};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::payload::PAYLOAD_MAX;
use crate::plan::TWINS_MAX;

/// 5 s for a call: the mailbox has room and the store has committed by then, or the mapper tries again.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// 64 calls of one connection at a time.
const CALLS_AT_ONCE: usize = 64;
/// 5 s before a socket that could not be served is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// Serves `socket` for ever.
pub(crate) async fn serve(socket: &Path, twin: Address<TwinMsg>, env: Env) {
    loop {
        if let Err(reason) = serve_once(socket, twin.clone(), env.clock()).await {
            tracing::error!(socket = %socket.display(), %reason, "mappers cannot reach this node");
        }
        env.sleep(env.jitter(LISTEN_PAUSE)).await;
    }
}

async fn serve_once(socket: &Path, twin: Address<TwinMsg>, clock: Arc<dyn Clock>) -> Result<(), String> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    }
    let listener = dmi::listen(socket).map_err(|error| Fault::from_error(&error).reason)?;
    tracing::info!(socket = %socket.display(), "mappers may register");
    let service =
        DeviceManagerServiceServer::new(Manager { twin, clock }).max_decoding_message_size(PAYLOAD_MAX);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(CALLS_AT_ONCE)
        .max_concurrent_streams(u32::try_from(CALLS_AT_ONCE).ok())
        .serve_with_incoming(service, dmi::incoming(listener))
        .await
        .map_err(|error| Fault::from_error(&error).reason)
}

struct Manager {
    twin: Address<TwinMsg>,
    clock: Arc<dyn Clock>,
}

impl Manager {
    /// Hands the call to the actor and waits for its answer, both within the deadline.
    async fn call<T: Message + Default>(&self, call: DmiCall) -> Result<Response<T>, Status> {
        let (reply, answer) = Reply::channel();
        let exchange = async {
            self.twin.tell(TwinMsg::Dmi { call, reply }).await.map_err(AskError::from)?;
            answer.await.unwrap_or(Err(AskError::Crashed))
        };
        let exchange = std::pin::pin!(exchange);
        match select(exchange, self.clock.sleep(CALL_DEADLINE)).await {
            Either::Left((Ok(Ok(bytes)), _)) => T::decode(bytes.as_slice())
                .map(Response::new)
                .map_err(|error| Status::internal(error.to_string())),
            Either::Left((Ok(Err(reason)), _)) => Err(Status::failed_precondition(reason)),
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
        let request = request.into_inner();
        let mapper = request.mapper.ok_or_else(|| Status::invalid_argument("the request has no mapper"))?;
        let address = String::from_utf8(mapper.address)
            .map_err(|_| Status::invalid_argument("the mapper's address is not UTF-8"))?;
        let version = format!("{} {}", mapper.version, mapper.api_version);
        self.call(DmiCall::Register {
            name: mapper.name,
            protocol: mapper.protocol,
            address,
            version: version.trim().chars().take(128).collect(),
            with_data: request.with_data,
        })
        .await
    }

    async fn report_device_status(
        &self,
        request: Request<pb::ReportDeviceStatusRequest>,
    ) -> Result<Response<pb::ReportDeviceStatusResponse>, Status> {
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
        self.call(DmiCall::Twins { namespace, name, twins }).await
    }

    async fn report_device_states(
        &self,
        request: Request<pb::ReportDeviceStatesRequest>,
    ) -> Result<Response<pb::ReportDeviceStatesResponse>, Status> {
        let request = request.into_inner();
        let (namespace, name) = (request.device_namespace, request.device_name);
        self.call(DmiCall::State { namespace, name, state: request.state }).await
    }
}
