//! The service `DeviceManagerService` of the DMI: every call of a mapper becomes one message to the twin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Address, AskError, Clock, Refusal, Reply};
use contract::devicetwin::{DmiCall, DmiCaller, DmiRefusal, LackingSides, ObservedTwin, TwinMsg};
use dmi::methods::manager::{MAPPER_REGISTER, REPORT_DEVICE_STATES, REPORT_DEVICE_STATUS};
use dmi::v1beta1 as pb;
use futures::future::{Either, select};
use tonic::{Request, Status};
use unixgrpc::{Answering, Call};

use crate::connections::ConnectionCaller;
use crate::plan::TWINS_MAX;

/// 5 s for a call: the mailbox has room and the store has committed by then, or the mapper tries again.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// 5 ms before a full mailbox is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// The key of a side's metadata under which a mapper says why there is no such value.
const ERROR: &str = "error";

/// Why a side has no value, if the mapper says so.
fn said(metadata: &BTreeMap<String, String>) -> Option<String> {
    metadata.get(ERROR).filter(|error| !error.is_empty()).cloned()
}

/// Who called.
fn caller<T>(request: &Request<T>) -> Result<DmiCaller, Status> {
    let called = request.extensions().get::<ConnectionCaller>();
    called.map(|called| DmiCaller::clone(&called.caller)).ok_or_else(|| Status::internal("nobody called"))
}

/// A property of a report.
fn observed(twin: pb::Twin) -> ObservedTwin {
    let lacks = LackingSides { observed: twin.observed_desired.is_none(), reported: twin.reported.is_none() };
    let (observed, reported) = (twin.observed_desired.unwrap_or_default(), twin.reported.unwrap_or_default());
    let (refusal, fault) = (said(&observed.metadata), said(&reported.metadata));
    let (observed, reported) = (observed.value, reported.value);
    ObservedTwin { property: twin.property_name, observed, refusal, reported, fault, lacks }
}

/// Makes messages to the twin of calls.
#[derive(Clone)]
pub(crate) struct Manager {
    twin: Address<TwinMsg>,
    clock: Arc<dyn Clock>,
}

impl Manager {
    /// A service whose calls go to `twin`.
    pub(crate) fn new(twin: Address<TwinMsg>, clock: Arc<dyn Clock>) -> Self {
        Manager { twin, clock }
    }

    /// Hands the call to the actor and waits for its answer, both within the deadline.
    async fn call<T: prost::Message + Default>(&self, caller: DmiCaller, call: DmiCall) -> Result<T, Status> {
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
            Either::Left((Ok(Ok(bytes)), _)) => {
                T::decode(bytes.as_slice()).map_err(|error| Status::internal(error.to_string()))
            }
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

impl Manager {
    /// Answers one call of the service.
    pub(crate) fn answer(&self, call: Call) -> Answering {
        let manager = self.clone();
        let path = call.path();
        if path == MAPPER_REGISTER.path() {
            call.answer(MAPPER_REGISTER, |request| async move { manager.mapper_register(request).await })
        } else if path == REPORT_DEVICE_STATUS.path() {
            call.answer(
                REPORT_DEVICE_STATUS,
                |request| async move { manager.report_device_status(request).await },
            )
        } else if path == REPORT_DEVICE_STATES.path() {
            call.answer(
                REPORT_DEVICE_STATES,
                |request| async move { manager.report_device_states(request).await },
            )
        } else {
            call.reflected(&dmi::methods::INTERFACE)
        }
    }

    async fn mapper_register(
        &self,
        request: Request<pb::MapperRegisterRequest>,
    ) -> Result<pb::MapperRegisterResponse, Status> {
        let caller = caller(&request)?;
        let doubles = dmi::notes::doubles(&request);
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
            doubles,
        };
        self.call(caller, call).await
    }

    async fn report_device_status(
        &self,
        request: Request<pb::ReportDeviceStatusRequest>,
    ) -> Result<pb::ReportDeviceStatusResponse, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let Some(status) = request.reported_device else {
            return Err(Status::invalid_argument("the report has no reportedDevice"));
        };
        if status.twins.len() > TWINS_MAX {
            return Err(Status::invalid_argument("the report has more than 1024 twins"));
        }
        let twins = status.twins.into_iter().map(observed).collect();
        let (namespace, name) = (request.device_namespace, request.device_name);
        self.call(caller, DmiCall::Twins { namespace, name, twins }).await
    }

    async fn report_device_states(
        &self,
        request: Request<pb::ReportDeviceStatesRequest>,
    ) -> Result<pb::ReportDeviceStatesResponse, Status> {
        let caller = caller(&request)?;
        let reason = dmi::notes::state_reason(&request);
        let request = request.into_inner();
        let (namespace, name) = (request.device_namespace, request.device_name);
        self.call(caller, DmiCall::State { namespace, name, state: request.state, reason }).await
    }
}
