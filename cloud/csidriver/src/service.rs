//! What sidecars call.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Clock, Metrics};
use contract::csi_call::{BODY_MAX, CsiCall, METHODS, WITHIN};
use csi::v1::plugin_capability::{self, Service as OfPlugin};
use csi::v1::{
    ControllerGetCapabilitiesResponse, ControllerServiceCapability, GetPluginCapabilitiesResponse,
    GetPluginInfoResponse, PluginCapability, ProbeResponse, controller_service_capability,
};
use csi::{controller, identity, web};
use prost::bytes::Bytes;
use tonic::{Request, Status};
use unixgrpc::{Answering, Call, Calls};

use crate::way::Way;
use crate::{events, plan};

/// 1 KiB of a body is for what is around its message.
const MESSAGE_MAX: usize = BODY_MAX - (1 << 10);
/// 15 s beyond the driver's time, for the way there and back.
const BEYOND: Duration = Duration::from_secs(15);

/// Answers calls.
pub(crate) struct Service {
    pub(crate) node: String,
    pub(crate) driver: String,
    pub(crate) way: Way,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

/// The calls of a connection.
pub(crate) fn calls(service: Arc<Service>) -> Calls {
    Rc::new(move |request| answer(&service, Call::new(request, MESSAGE_MAX)))
}

fn answer(service: &Arc<Service>, call: Call) -> Answering {
    let path = call.path().to_owned();
    if let Some(method) = METHODS.into_iter().find(|method| *method == path) {
        let service = Arc::clone(service);
        return call.answer_bytes(move |request| async move { service.forward(method, request).await });
    }
    if path == identity::GET_PLUGIN_INFO.path() {
        let info = GetPluginInfoResponse {
            name: service.driver.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        return call.answer(identity::GET_PLUGIN_INFO, |_| async { Ok(info) });
    }
    if path == identity::GET_PLUGIN_CAPABILITIES.path() {
        return call.answer(identity::GET_PLUGIN_CAPABILITIES, |_| async { Ok(of_plugin()) });
    }
    if path == identity::PROBE.path() {
        return call.answer(identity::PROBE, |_| async { Ok(ProbeResponse {}) });
    }
    if path == controller::CONTROLLER_GET_CAPABILITIES.path() {
        return call.answer(controller::CONTROLLER_GET_CAPABILITIES, |_| async { Ok(of_controller()) });
    }
    call.unknown()
}

/// As KubeEdge's. Sidecars ask once, when they begin: the node may be offline then.
fn of_plugin() -> GetPluginCapabilitiesResponse {
    let service = OfPlugin { r#type: plugin_capability::service::Type::ControllerService.into() };
    let capability = PluginCapability { r#type: Some(plugin_capability::Type::Service(service)) };
    GetPluginCapabilitiesResponse { capabilities: vec![capability] }
}

/// As KubeEdge's: what is carried, whether or not the driver there does it.
fn of_controller() -> ControllerGetCapabilitiesResponse {
    use controller_service_capability::rpc::Type;
    let one = |can: Type| ControllerServiceCapability {
        r#type: Some(controller_service_capability::Type::Rpc(controller_service_capability::Rpc {
            r#type: can.into(),
        })),
    };
    let capabilities = [Type::CreateDeleteVolume, Type::PublishUnpublishVolume].map(one);
    ControllerGetCapabilitiesResponse { capabilities: capabilities.into() }
}

impl Service {
    /// Brings a call to the node, and its answer back.
    async fn forward(&self, method: &'static str, request: Request<Bytes>) -> Result<Bytes, Status> {
        let answered = self.ask(method, request).await;
        match &answered {
            Ok(_) => events::answered(&self.metrics, method),
            Err(status) => events::failed(&self.metrics, method, status),
        }
        answered
    }

    async fn ask(&self, method: &'static str, request: Request<Bytes>) -> Result<Bytes, Status> {
        let within = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let within = within.and_then(plan::timeout).unwrap_or(WITHIN);
        let call = CsiCall::new(&self.driver, method, within)
            .map_err(|error| Status::internal(error.to_string()))?;
        let (target, body) = (call.target(), web::request(&request.into_inner()));
        let answered = tokio::select! {
            answered = self.way.ask(&self.node, &target, body) => answered.map_err(Status::unavailable)?,
            () = self.clock.sleep(call.within() + BEYOND) => {
                return Err(Status::deadline_exceeded(format!("node {} has not answered in time", self.node)));
            }
        };
        let http = (answered.status, answered.content_type.as_deref(), &answered.body[..]);
        plan::answered(http, &self.node, self.way.is_socket())
    }
}
