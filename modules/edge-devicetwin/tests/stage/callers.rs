//! Callers who are whoever the test says.

use std::path::Path;
use std::sync::{Arc, Mutex};

use config::edge::{DeviceTwin as Settings, MapperRule};
use contract::devicetwin::DmiCaller;
use contract::ids::PODS;
use dmi::v1beta1 as pb;
use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use edge_devicetwin::Peers;
use serde_json::json;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Node, options, registration, start_with_peers, status_report};

pub(crate) type Manager = DeviceManagerServiceClient<Channel>;

/// Whoever connects is who the test says.
#[derive(Default)]
pub(crate) struct Face(Mutex<Option<DmiCaller>>);

impl Face {
    pub(crate) fn put_on(&self, pod: Option<&str>, uid: u32, process: &str) {
        let caller = DmiCaller { pod: pod.map(str::to_owned), uid, process: process.to_owned() };
        *self.0.lock().unwrap() = Some(caller);
    }
}

impl Peers for Face {
    fn identify(&self, _: &UnixStream) -> Result<DmiCaller, String> {
        self.0.lock().unwrap().clone().ok_or_else(|| "nobody".to_owned())
    }
    fn runs(&self, process: &str) -> bool {
        process == "alive"
    }
}

pub(crate) struct Masked {
    pub(crate) node: Node,
    pub(crate) face: Arc<Face>,
}

impl Masked {
    pub(crate) async fn start(folder: &Path, mappers: Vec<MapperRule>) -> Self {
        let face = Arc::new(Face::default());
        let peers: Arc<dyn Peers> = Arc::<Face>::clone(&face);
        let settings = Settings { dmi_sock_path: folder.to_owned(), mappers, ..Default::default() };
        let node = start_with_peers(folder, options(), settings, peers);
        node.pump("7").await;
        Masked { node, face }
    }

    /// A mapper's pod, of a DaemonSet with that name.
    pub(crate) async fn pod(&self, uid: &str, set: &str) {
        let pod = json!({ "metadata": { "namespace": "mappers", "name": format!("{set}-{uid}"), "uid": uid,
                "ownerReferences": [{ "kind": "DaemonSet", "name": set, "controller": true }] },
            "spec": { "serviceAccountName": set } });
        self.node.put(PODS, &format!("{set}-{uid}"), uid, pod).await;
    }

    /// A client in a pod.
    pub(crate) async fn in_pod(&self, uid: &str) -> Manager {
        let manager = self.node.manager().await;
        self.face.put_on(Some(uid), 0, "alive");
        manager
    }
}

pub(crate) async fn register(manager: &mut Manager, folder: &Path, protocol: &str) -> Result<usize, Status> {
    let mut request = registration(folder, true);
    protocol.clone_into(&mut request.mapper.as_mut().unwrap().protocol);
    manager.mapper_register(request).await.map(|answer| answer.into_inner().device_list.len())
}

pub(crate) async fn report(manager: &mut Manager) -> Result<(), Status> {
    manager.report_device_status(status_report("", "1")).await.map(drop)
}

pub(crate) async fn state(manager: &mut Manager, namespace: &str, name: &str) -> Result<(), Status> {
    let request = pb::ReportDeviceStatesRequest {
        device_namespace: namespace.to_owned(),
        device_name: name.to_owned(),
        state: "online".to_owned(),
    };
    manager.report_device_states(request).await.map(drop)
}

#[track_caller]
pub(crate) fn denied<T: std::fmt::Debug>(answer: Result<T, Status>) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    status.message().to_owned()
}
