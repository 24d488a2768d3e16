//! An edgecore to test mappers against: its socket, its memory of what mappers said, and its calls to them.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::device_manager_service_server::{DeviceManagerService, DeviceManagerServiceServer};
use dmi::v1beta1::device_mapper_service_client::DeviceMapperServiceClient;
use dmi::v1beta1::*;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// For everything that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What mappers said.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReceivedReports {
    pub(crate) registrations: Vec<MapperRegisterRequest>,
    /// Device, property, observed desired value, reported value; in the order in which they came.
    pub(crate) reports: Vec<(String, String, String, String)>,
    /// Device and state.
    pub(crate) states: Vec<(String, String)>,
    /// Why the device was in the state that was said last, by device.
    pub(crate) reasons: BTreeMap<String, Option<String>>,
    /// Whether the last registration said that it reads a DoubleValue.
    pub(crate) doubles: bool,
    /// By device and property, what was last said beside the sides: why there is no value, and why what is desired is not
    /// there.
    pub(crate) errors: BTreeMap<(String, String), (Option<String>, Option<String>)>,
}

impl ReceivedReports {
    /// What was last reported of a property: observed desired and reported value.
    pub(crate) fn last(&self, device: &str, property: &str) -> Option<(String, String)> {
        let mut reports = self.reports.iter().rev();
        let found = reports.find(|(of, name, ..)| of == device && name == property)?;
        Some((found.2.clone(), found.3.clone()))
    }

    /// Why there is no value, by the last report.
    pub(crate) fn fault(&self, device: &str, property: &str) -> Option<String> {
        self.errors.get(&(device.to_owned(), property.to_owned()))?.0.clone()
    }

    /// Why the desired value is not there, by the last report.
    pub(crate) fn refusal(&self, device: &str, property: &str) -> Option<String> {
        self.errors.get(&(device.to_owned(), property.to_owned()))?.1.clone()
    }

    pub(crate) fn count(&self, device: &str, property: &str) -> usize {
        self.reports.iter().filter(|(of, name, ..)| of == device && name == property).count()
    }
}

/// What edgecore would hand out, and which values it refuses.
#[derive(Debug, Clone, Default)]
pub(crate) struct EdgeCoreObjects {
    pub(crate) models: Vec<DeviceModel>,
    pub(crate) devices: Vec<Device>,
    pub(crate) refused_value: Option<(String, Code)>,
    pub(crate) refused_states: Option<Code>,
}

#[derive(Clone)]
pub(crate) struct EdgeCore {
    pub(crate) path: PathBuf,
    pub(crate) objects: Arc<Mutex<EdgeCoreObjects>>,
    heard: Arc<watch::Sender<ReceivedReports>>,
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl EdgeCore {
    /// Not running yet.
    pub(crate) fn at(folder: &Path) -> Self {
        EdgeCore {
            path: folder.join(dmi::SOCKET_NAME),
            objects: Arc::default(),
            heard: Arc::new(watch::channel(ReceivedReports::default()).0),
            running: Arc::default(),
        }
    }

    pub(crate) fn start(&self) {
        let listener = dmi::listen(&self.path).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let service = DeviceManagerServiceServer::new(self.clone()).max_decoding_message_size(dmi::CALL_MAX);
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder();
            let ended = async move { drop(ended.await) };
            server.serve_with_incoming_shutdown(service, dmi::incoming(listener), ended).await.unwrap();
        });
        *self.running.lock().unwrap() = Some(Running { end, task });
    }

    /// Its connections end with it, as they do when a process ends.
    pub(crate) async fn stop(&self) {
        let running = self.running.lock().unwrap().take().unwrap();
        drop(running.end);
        tokio::time::timeout(DEADLINE, running.task).await.unwrap().unwrap();
    }

    /// Waits until something was heard.
    #[track_caller]
    pub(crate) fn until<T, F>(&self, what: &str, mut fact: F) -> impl Future<Output = T> + use<T, F>
    where
        F: FnMut(&ReceivedReports) -> Option<T>,
    {
        let what = what.to_owned();
        let at = std::panic::Location::caller();
        let mut heard = self.heard.subscribe();
        async move {
            let wait = async {
                loop {
                    if let Some(found) = fact(&heard.borrow_and_update()) {
                        return found;
                    }
                    heard.changed().await.unwrap();
                }
            };
            match tokio::time::timeout(DEADLINE, wait).await {
                Ok(found) => found,
                Err(_) => panic!("{at}: {what} did not happen; heard {:#?}", heard.borrow()),
            }
        }
    }

    /// Waits until a property was last reported with this value.
    #[track_caller]
    pub(crate) fn until_value(
        &self,
        device: &str,
        property: &str,
        value: &str,
    ) -> impl Future<Output = ()> + use<> {
        let (of, name, wanted) = (device.to_owned(), property.to_owned(), value.to_owned());
        self.until(&format!("{device} {property} = {value}"), move |heard| {
            heard.last(&of, &name).filter(|(_, reported)| *reported == wanted).map(drop)
        })
    }

    /// Waits until a property has no value, for a reason with these words.
    #[track_caller]
    pub(crate) fn until_fault(
        &self,
        device: &str,
        property: &str,
        words: &str,
    ) -> impl Future<Output = ()> + use<> {
        let (of, name, words) = (device.to_owned(), property.to_owned(), words.to_owned());
        self.until(&format!("{device} {property}: {words}"), move |heard| {
            let has_no_value = heard.last(&of, &name)?.1.is_empty();
            (has_no_value && heard.fault(&of, &name)?.contains(&words)).then_some(())
        })
    }

    /// Waits until a desired value was refused, for a reason with these words.
    #[track_caller]
    pub(crate) fn until_refusal(
        &self,
        device: &str,
        property: &str,
        words: &str,
    ) -> impl Future<Output = ()> + use<> {
        let (of, name, words) = (device.to_owned(), property.to_owned(), words.to_owned());
        self.until(&format!("{device} {property} refused: {words}"), move |heard| {
            heard.refusal(&of, &name)?.contains(&words).then_some(())
        })
    }

    pub(crate) fn heard(&self) -> ReceivedReports {
        self.heard.borrow().clone()
    }
}

#[tonic::async_trait]
impl DeviceManagerService for EdgeCore {
    async fn mapper_register(
        &self,
        request: Request<MapperRegisterRequest>,
    ) -> Result<Response<MapperRegisterResponse>, Status> {
        let objects = self.objects.lock().unwrap().clone();
        let doubles = dmi::notes::doubles(&request);
        self.heard.send_modify(|heard| {
            heard.doubles = doubles;
            heard.registrations.push(request.into_inner());
        });
        Ok(Response::new(MapperRegisterResponse { model_list: objects.models, device_list: objects.devices }))
    }

    async fn report_device_status(
        &self,
        request: Request<ReportDeviceStatusRequest>,
    ) -> Result<Response<ReportDeviceStatusResponse>, Status> {
        let request = request.into_inner();
        let twins = request.reported_device.map(|status| status.twins).unwrap_or_default();
        let (mut said, mut errors) = (Vec::new(), Vec::new());
        let refused = self.objects.lock().unwrap().refused_value.clone();
        for twin in twins {
            let side = |side: Option<TwinProperty>| side.map(|side| (side.value, side.metadata));
            let (Some((observed, wanted)), Some((reported, metadata))) =
                (side(twin.observed_desired), side(twin.reported))
            else {
                return Err(Status::invalid_argument("a twin has only one side"));
            };
            if let Some((_, code)) = refused.as_ref().filter(|(value, _)| *value == reported) {
                return Err(Status::new(*code, "bad value"));
            }
            assert!(metadata["timestamp"].parse::<u64>().unwrap() > 0 && !metadata["type"].is_empty());
            let error = |side: &BTreeMap<String, String>| side.get("error").cloned();
            let of = (request.device_name.clone(), twin.property_name.clone());
            errors.push((of, (error(&metadata), error(&wanted))));
            said.push((request.device_name.clone(), twin.property_name, observed, reported));
        }
        self.heard.send_modify(|heard| {
            heard.reports.extend(said);
            heard.errors.extend(errors);
        });
        Ok(Response::new(ReportDeviceStatusResponse {}))
    }

    async fn report_device_states(
        &self,
        request: Request<ReportDeviceStatesRequest>,
    ) -> Result<Response<ReportDeviceStatesResponse>, Status> {
        let reason = dmi::notes::state_reason(&request);
        let request = request.into_inner();
        if let Some(code) = self.objects.lock().unwrap().refused_states {
            return Err(Status::new(code, "no states"));
        }
        self.heard.send_modify(|heard| {
            heard.reasons.insert(request.device_name.clone(), reason);
            heard.states.push((request.device_name, request.state));
        });
        Ok(Response::new(ReportDeviceStatesResponse {}))
    }
}

/// The config of a mapper whose edgecore is in the same folder.
pub(crate) fn config(folder: &Path, protocol: &str) -> framework::Config {
    framework::Config {
        grpc_server: framework::GrpcServer { socket_path: folder.join("mapper.sock") },
        common: framework::Common {
            name: "test-mapper".to_owned(),
            version: "v1".to_owned(),
            api_version: "v1beta1".to_owned(),
            protocol: protocol.to_owned(),
            edgecore_sock: folder.join(dmi::SOCKET_NAME).display().to_string(),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// edgecore's way to call a mapper.
pub(crate) fn calls(config: &framework::Config) -> DeviceMapperServiceClient<Channel> {
    DeviceMapperServiceClient::new(dmi::channel(&config.grpc_server.socket_path.display().to_string()))
}

/// A mapper that a test runs, and edgecore's way to call it.
pub(crate) struct Mapper {
    pub(crate) calls: DeviceMapperServiceClient<Channel>,
    pub(crate) config: framework::Config,
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), framework::MapperError>>,
}

impl Mapper {
    pub(crate) fn start<P: framework::Protocol>(folder: &Path, protocol: P) -> Self {
        let config = config(folder, protocol.name());
        Mapper::start_with(config, protocol)
    }

    pub(crate) fn start_with<P: framework::Protocol>(config: framework::Config, protocol: P) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let task = tokio::spawn({
            let config = config.clone();
            async move { framework::run(&config, protocol, async move { drop(ended.await) }).await }
        });
        let calls = calls(&config);
        Mapper { calls, config, end: Some(end), task }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.end.take());
        tokio::time::timeout(DEADLINE, &mut self.task).await.unwrap().unwrap().unwrap();
    }
}

/// Settings as they travel.
pub(crate) fn settings(pairs: &[(&str, Scalar)]) -> Option<CustomizedValue> {
    let data: BTreeMap<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.to_any())).collect();
    Some(CustomizedValue { data })
}

/// A property of a model.
pub(crate) fn modelled(name: &str, kind: &str, mode: &str) -> ModelProperty {
    ModelProperty {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        access_mode: mode.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn model(name: &str, properties: Vec<ModelProperty>) -> DeviceModel {
    let spec = Some(DeviceModelSpec { properties, commands: Vec::new() });
    DeviceModel { name: name.to_owned(), namespace: "default".to_owned(), spec }
}

/// A property that is read every 20 ms and reported.
pub(crate) fn property(name: &str, protocol: &str, visitors: &[(&str, Scalar)]) -> DeviceProperty {
    DeviceProperty {
        name: name.to_owned(),
        desired: Some(TwinProperty::default()),
        visitors: Some(VisitorConfig { protocol_name: protocol.to_owned(), config_data: settings(visitors) }),
        collect_cycle: 20,
        report_to_cloud: true,
        ..Default::default()
    }
}

/// A device whose state is reported.
pub(crate) fn device(
    name: &str,
    model: &str,
    protocol: &str,
    address: &[(&str, Scalar)],
    properties: Vec<DeviceProperty>,
) -> Device {
    let config = ProtocolConfig { protocol_name: protocol.to_owned(), config_data: settings(address) };
    Device {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        spec: Some(DeviceSpec {
            device_model_reference: model.to_owned(),
            protocol: Some(config),
            properties,
            methods: Vec::new(),
        }),
        status: Some(DeviceStatus { report_to_cloud: true, ..Default::default() }),
    }
}

/// The same device with a desired value.
pub(crate) fn desiring(mut device: Device, property: &str, value: &str) -> Device {
    let properties = &mut device.spec.as_mut().unwrap().properties;
    let property = properties.iter_mut().find(|there| there.name == property).unwrap();
    property.desired = Some(TwinProperty { value: value.to_owned(), ..Default::default() });
    device
}

/// Waits until something is so that nobody tells about.
#[track_caller]
pub(crate) fn eventually<F, A>(what: &str, mut fact: F) -> impl Future<Output = ()> + use<F, A>
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    let (what, at) = (what.to_owned(), std::panic::Location::caller());
    async move {
        let wait = async {
            while !fact().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{at}: {what} did not happen");
    }
}
