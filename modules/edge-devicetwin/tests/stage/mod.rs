//! DeviceTwin between a real store, probes for its neighbours and stand-in mappers on real sockets.
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod callers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::metamanager::MetaMsg;
use contract::{NodeName, UpReport, rows};
use dmi::v1beta1 as pb;
use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use dmi::v1beta1::device_mapper_service_server::{DeviceMapperService, DeviceMapperServiceServer};
use edge_devicetwin::{DeviceTwin, Kernel, Peers};
use edge_store::{ObjectKey, Options, Store, Table, Write};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) hive: Hive,
    pub(crate) store: Store,
    pub(crate) twin: Address<TwinMsg>,
    pub(crate) bus: Probe<EventBusMsg>,
    pub(crate) meta: Probe<MetaMsg>,
    pub(crate) folder: PathBuf,
}

pub(crate) fn run<F: Future>(test: impl FnOnce(PathBuf) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(folder.path().to_owned()).await });
}

pub(crate) fn options() -> Options {
    Options::new([1; 16])
}

pub(crate) fn start(folder: &Path, options: Options) -> Node {
    let settings = config::edge::DeviceTwin { dmi_sock_path: folder.to_owned(), ..Default::default() };
    start_with_peers(folder, options, settings, Arc::new(Kernel))
}

pub(crate) fn start_with_peers(
    folder: &Path,
    options: Options,
    settings: config::edge::DeviceTwin,
    peers: Arc<dyn Peers>,
) -> Node {
    let env = Env::seeded(1);
    let store = Store::open(folder.join("edgecore.db"), options).unwrap();
    let (bus, bus_address) = Probe::new(&env, 64);
    let (meta, meta_address) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<TwinMsg>("edge-devicetwin", Capacity::new(64, "a test's choice"));
    let twin = hive.grant("tester", &mailbox, Flow::Ask);
    let kept = store.clone();
    hive.supervise(mailbox, Policy::default(), move || {
        let node = NodeName::parse("edge-1").unwrap();
        DeviceTwin::new(node, &settings, kept.clone(), bus_address.clone(), meta_address.clone())
            .with_peers(Arc::clone(&peers))
    });
    hive.open().unwrap();
    Node { hive, store, twin, bus, meta, folder: folder.to_owned() }
}

impl Node {
    pub(crate) async fn put(&self, resource: &str, name: &str, uid: &str, json: Value) {
        let write = Write::PutObject {
            key: ObjectKey::new(resource, "default", name),
            uid: uid.to_owned(),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: json.to_string().into_bytes(),
        };
        self.store.commit(vec![write]).await.unwrap();
        self.twin.tell(TwinMsg::ObjectsChanged(contract::ChangedObjects::Any)).await.unwrap();
    }

    pub(crate) async fn delete(&self, resource: &str, name: &str) {
        let key = ObjectKey::new(resource, "default", name);
        self.store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
        self.twin.tell(TwinMsg::ObjectsChanged(contract::ChangedObjects::Any)).await.unwrap();
    }

    pub(crate) async fn pump(&self, desired: &str) {
        let model = json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [
            { "name": "speed", "type": "INT", "visitors": { "configData": { "register": "HoldingRegister" } } }] } });
        let device = json!({ "metadata": { "name": "pump", "labels": { "description": "a-pump" } }, "spec": {
            "deviceModelRef": { "name": "pumps" }, "nodeName": "edge-1",
            "properties": [{ "name": "speed", "desired": { "value": desired }, "visitors": { "configData": { "offset": 3 } } }],
            "protocol": { "protocolName": "modbus", "configData": { "port": 502 } } } });
        self.put(DEVICE_MODELS, "pumps", "m1", model).await;
        self.put(DEVICES, "pump", "u1", device).await;
    }

    pub(crate) async fn mqtt(&self, topic: &str, payload: impl Into<Bytes>) -> Result<(), String> {
        let (topic, payload) = (topic.to_owned(), payload.into());
        self.twin.ask(SOON, |reply| TwinMsg::Mqtt { topic, payload, reply }).await.unwrap()
    }

    pub(crate) async fn update(&self, twin: Value) -> Result<(), String> {
        let payload = json!({ "event_id": "7c1f", "timestamp": 1, "twin": twin }).to_string();
        self.mqtt("$hw/events/device/default/pump/twin/update", payload).await
    }

    /// The next payload on a topic that ends so.
    pub(crate) async fn published(&mut self, end: &str) -> Value {
        let wanted = |message| {
            let EventBusMsg::Publish { topic, payload, qos: 1, retain: false } = message else { return None };
            topic.ends_with(end).then_some(payload)
        };
        let payload = self.bus.find(SOON, wanted).await;
        serde_json::from_slice(&payload.unwrap_or_else(|| panic!("nothing on …{end}"))).unwrap()
    }

    pub(crate) fn reports(&self) -> Vec<UpReport> {
        let rows = self.store.outbox_head(1000, 1 << 20).unwrap();
        rows.iter().map(|row| rows::decode_report(&row.body).unwrap()).collect()
    }

    pub(crate) async fn manager(&self) -> DeviceManagerServiceClient<tonic::transport::Channel> {
        let socket = self.folder.join(dmi::SOCKET_NAME);
        until(|| socket.exists()).await;
        DeviceManagerServiceClient::new(dmi::channel(socket.to_str().unwrap()))
    }

    /// What the actor shows of itself.
    pub(crate) async fn snapshot(&self) -> Value {
        let report = serde_json::to_value(self.hive.inspector().report(SOON).await).unwrap();
        report["actors"].as_array().unwrap().iter().find(|actor| actor["name"] == "edge-devicetwin").unwrap()
            ["snapshot"]
            .clone()
    }

    pub(crate) async fn stop(self) {
        assert_eq!(self.hive.shutdown(SOON).await, beehive::Ended::InOrder);
    }
}

pub(crate) async fn until(fact: impl Fn() -> bool) {
    let wait = async {
        while !fact() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the fact comes about");
}

pub(crate) fn twin_rows(store: &Store) -> usize {
    store.list_rows(Table::Twins, Some("default/pump")).unwrap().len()
}

pub(crate) fn speed(reports: &[UpReport]) -> Option<(Option<&str>, Option<&str>)> {
    reports.iter().find_map(|report| {
        let UpReport::Twin { property, reported, observed_desired, .. } = report else { return None };
        let sides = (
            reported.as_ref().map(|v| v.value.as_str()),
            observed_desired.as_ref().map(|v| v.value.as_str()),
        );
        (property == "speed").then_some(sides)
    })
}

/// A mapper that takes everything and writes down what.
pub(crate) struct Mapper {
    calls: mpsc::Sender<String>,
    reject_updates: bool,
}

impl Mapper {
    /// Serves at `path` until the handle is aborted.
    pub(crate) fn serve(
        path: &Path,
        reject_updates: bool,
    ) -> (mpsc::Receiver<String>, tokio::task::JoinHandle<()>) {
        let (calls, seen) = mpsc::channel(64);
        let listener = dmi::listen(path).unwrap();
        let service = DeviceMapperServiceServer::new(Mapper { calls, reject_updates });
        let task = tokio::spawn(async move {
            let server = dmi::server().serve_with_incoming(service, dmi::incoming(listener));
            server.await.unwrap();
        });
        (seen, task)
    }

    pub(crate) async fn note<T: Default>(&self, what: String) -> Result<Response<T>, Status> {
        self.calls.send(what).await.unwrap();
        Ok(Response::new(T::default()))
    }
}

pub(crate) fn desired(device: Option<pb::Device>) -> String {
    let device = device.unwrap();
    let spec = device.spec.unwrap();
    let property = &spec.properties[0];
    assert!(property.visitors.as_ref().unwrap().config_data.as_ref().unwrap().data.contains_key("register"));
    format!(
        "{}/{} {}={}",
        device.namespace,
        device.name,
        property.name,
        property.desired.as_ref().unwrap().value
    )
}

#[tonic::async_trait]
impl DeviceMapperService for Mapper {
    async fn register_device(
        &self,
        request: Request<pb::RegisterDeviceRequest>,
    ) -> Result<Response<pb::RegisterDeviceResponse>, Status> {
        self.note(format!("register {}", desired(request.into_inner().device))).await
    }
    async fn remove_device(
        &self,
        request: Request<pb::RemoveDeviceRequest>,
    ) -> Result<Response<pb::RemoveDeviceResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("remove {}/{}", request.device_namespace, request.device_name)).await
    }
    async fn update_device(
        &self,
        request: Request<pb::UpdateDeviceRequest>,
    ) -> Result<Response<pb::UpdateDeviceResponse>, Status> {
        let what = format!("update {}", desired(request.into_inner().device));
        if self.reject_updates {
            self.calls.send(format!("rejected {what}")).await.unwrap();
            return Err(Status::unknown("no such device"));
        }
        self.note(what).await
    }
    async fn create_device_model(
        &self,
        request: Request<pb::CreateDeviceModelRequest>,
    ) -> Result<Response<pb::CreateDeviceModelResponse>, Status> {
        self.note(format!("create model {}", request.into_inner().model.unwrap().name)).await
    }
    async fn remove_device_model(
        &self,
        request: Request<pb::RemoveDeviceModelRequest>,
    ) -> Result<Response<pb::RemoveDeviceModelResponse>, Status> {
        self.note(format!("remove model {}", request.into_inner().model_name)).await
    }
    async fn update_device_model(
        &self,
        request: Request<pb::UpdateDeviceModelRequest>,
    ) -> Result<Response<pb::UpdateDeviceModelResponse>, Status> {
        self.note(format!("update model {}", request.into_inner().model.unwrap().name)).await
    }
    async fn get_device(
        &self,
        _: Request<pb::GetDeviceRequest>,
    ) -> Result<Response<pb::GetDeviceResponse>, Status> {
        Err(Status::unimplemented("never called"))
    }
}

pub(crate) async fn called(seen: &mut mpsc::Receiver<String>) -> String {
    tokio::time::timeout(SOON, seen.recv()).await.expect("the mapper is called").unwrap()
}

pub(crate) fn registration(folder: &Path, with_data: bool) -> pb::MapperRegisterRequest {
    let mapper = pb::MapperInfo {
        name: "modbus-mapper".to_owned(),
        version: "v1".to_owned(),
        api_version: "v1beta1".to_owned(),
        protocol: "modbus".to_owned(),
        address: folder.join("mapper.sock").to_str().unwrap().as_bytes().to_vec(),
        state: "ok".to_owned(),
    };
    pb::MapperRegisterRequest { with_data, mapper: Some(mapper) }
}

pub(crate) fn status_report(observed: &str, reported: &str) -> pb::ReportDeviceStatusRequest {
    let side = |value: &str| Some(pb::TwinProperty { value: value.to_owned(), ..Default::default() });
    let twin = pb::Twin {
        property_name: "speed".to_owned(),
        observed_desired: side(observed),
        reported: side(reported),
    };
    pb::ReportDeviceStatusRequest {
        device_name: "pump".to_owned(),
        device_namespace: "default".to_owned(),
        reported_device: Some(pb::DeviceStatus { twins: vec![twin], ..Default::default() }),
    }
}
