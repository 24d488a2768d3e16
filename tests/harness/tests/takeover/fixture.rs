//! An API server, and the controllers of CloudCores over it. A test is their hub and their nodes.

use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use cloud_devicecontroller::DeviceController;
use cloud_edgecontroller::EdgeController;
use cloud_edgecontroller::report_version;
use cloud_nodelease::NodeLease;
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::downlink::DeviceDown;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::nodelease::{NodeLeaseMsg, ReportVersion};
use contract::synccontroller::{SyncMsg, SyncState, SyncStatus};
use contract::{NodeName, Report, TwinValue, UpReport};
use harness::{LONG, StandAlone, enter};
use kube::api::{Api, DynamicObject, PostParams};
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};

pub(crate) const NODE: &str = "edge-1";
pub(crate) const OTHER: &str = "edge-2";
/// The serial of both.
pub(crate) const CERTIFICATE: &str = "01";

pub(crate) fn node() -> NodeName {
    NodeName::parse(NODE).unwrap()
}

/// The API, and nothing over it.
pub(crate) struct Server {
    pub(crate) env: Env,
    pub(crate) api: StandAlone,
}

impl Server {
    pub(crate) async fn start() -> Server {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        for node in [NODE, OTHER] {
            enter(api.client(), node, CERTIFICATE, env.wall()).await;
        }
        Server { env, api }
    }

    pub(crate) fn objects(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        harness::objects(self.api.client(), api_version, kind, namespace)
    }

    pub(crate) async fn create(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        mut object: Value,
    ) -> DynamicObject {
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.objects(api_version, kind, namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn lease(&self) -> DynamicObject {
        self.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease")).get(NODE).await.unwrap()
    }

    pub(crate) async fn node(&self) -> DynamicObject {
        self.objects("v1", "Node", None).get(NODE).await.unwrap()
    }

    pub(crate) async fn device_status(&self) -> DynamicObject {
        self.objects("devices.kubeedge.io/v1beta1", "DeviceStatus", Some("default"))
            .get("pump")
            .await
            .unwrap()
    }
}

pub(crate) fn annotation(object: &DynamicObject, name: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(name).cloned()
}

/// Which report a Node or a pod holds.
pub(crate) fn held(object: &DynamicObject) -> Option<ReportVersion> {
    report_version::held_by(&object.metadata)
}

pub(crate) fn version(session: u64, row: i64) -> Option<ReportVersion> {
    Some(ReportVersion { session, row })
}

/// The controllers of one CloudCore. A test is its hub and its nodes.
pub(crate) struct Cloud {
    pub(crate) lease: Address<NodeLeaseMsg>,
    pub(crate) edge: Address<EdgeControllerMsg>,
    pub(crate) device: Address<DeviceControllerMsg>,
    pub(crate) hub: Probe<CloudHubMsg>,
    pub(crate) _sync: Probe<SyncMsg>,
    pub(crate) _stream: Probe<CloudStreamMsg>,
    pub(crate) _hive: Hive,
    env: Env,
}

impl Cloud {
    pub(crate) fn start(name: &'static str, client: kube::Client, env: &Env) -> Cloud {
        let mut hive = Hive::new(name, env.clone());
        let capacity = || Capacity::new(256, "a test's choice");
        let lease = hive.mailbox("lease", capacity());
        let (edge, device) = (hive.mailbox("edge", capacity()), hive.mailbox("device", capacity()));
        let ((sync, to_sync), (hub, to_hub)) = (Probe::new(env, 4096), Probe::new(env, 256));
        let (stream, to_stream) = Probe::new(env, 16);
        let lease_to = hive.grant("a test", &lease, Flow::Ask);
        let (edge_to, device_to) =
            (hive.grant("a test", &edge, Flow::Ask), hive.grant("a test", &device, Flow::Ask));
        let interruptions = Interruptions::default();
        let lease_dependencies = cloud_nodelease::Dependencies {
            client: client.clone(),
            hub: to_hub.clone(),
            cloudcore: name.to_owned(),
            address: None,
            lease_period: Duration::ZERO,
            interruptions: interruptions.clone(),
        };
        hive.supervise(lease, Policy::default(), move || NodeLease::new(lease_dependencies.clone()));
        let edge_dependencies = cloud_edgecontroller::Dependencies {
            client: client.clone(),
            sync: to_sync.clone(),
            lease: lease_to.clone(),
            hub: to_hub.clone(),
            stream: to_stream,
            interruptions: interruptions.clone(),
            read_as: ReadAs::CloudCore,
            pod_addresses: cloud_edgecontroller::PodAddresses::Any,
            is_kubelet_endpoint: true,
        };
        hive.supervise(edge, Policy::default(), move || EdgeController::new(edge_dependencies.clone()));
        let lease = lease_to.clone();
        let device_dependencies =
            cloud_devicecontroller::Dependencies { client, sync: to_sync, lease, hub: to_hub, interruptions };
        hive.supervise(device, Policy::default(), move || DeviceController::new(device_dependencies.clone()));
        hive.open().unwrap();
        Cloud {
            lease: lease_to,
            edge: edge_to,
            device: device_to,
            hub,
            _sync: sync,
            _stream: stream,
            _hive: hive,
            env: env.clone(),
        }
    }

    pub(crate) async fn claim(&self) -> u64 {
        self.claim_of(node()).await
    }

    pub(crate) async fn claim_of(&self, node: NodeName) -> u64 {
        let certificate = CERTIFICATE.to_owned();
        let claim = |reply| NodeLeaseMsg::Claim { node, certificate, reply };
        self.lease.ask(LONG, claim).await.unwrap().unwrap()
    }

    pub(crate) async fn holds(&self, session: u64) -> bool {
        let holds = |reply| NodeLeaseMsg::Holds { node: node(), session, reply };
        self.lease.ask(LONG, holds).await.unwrap().unwrap()
    }

    /// The rows that are confirmed.
    pub(crate) async fn say(&self, session: u64, reports: Vec<Report>) -> Vec<i64> {
        self.say_of(node(), session, reports).await
    }

    pub(crate) async fn say_of(&self, node: NodeName, session: u64, reports: Vec<Report>) -> Vec<i64> {
        let said = |reply| EdgeControllerMsg::Up {
            node,
            session,
            message: EdgeUp::Reports { reports: reports.into(), reply },
        };
        self.edge.ask(LONG, said).await.unwrap()
    }

    pub(crate) async fn say_of_a_device(&self, node: &str, session: u64, reports: Vec<Report>) -> Vec<i64> {
        let node = NodeName::parse(node).unwrap();
        let said = |reply| DeviceControllerMsg::Up {
            node,
            session,
            message: DeviceUp::Reports { reports: reports.into(), reply },
        };
        self.device.ask(LONG, said).await.unwrap()
    }

    /// A session has opened, as the hub tells it. Answers the node's DeviceTwin.
    pub(crate) async fn link(&self, node: &str, session: u64) -> Probe<DeviceDown> {
        let (probe, twin) = Probe::new(&self.env, 16);
        let node = NodeName::parse(node).unwrap();
        self.device.tell(DeviceControllerMsg::NodeUp { node, session, twin }).await.unwrap();
        probe
    }

    /// A session has closed.
    pub(crate) async fn unlink(&self, node: &str, session: u64) {
        let node = NodeName::parse(node).unwrap();
        self.device.tell(DeviceControllerMsg::NodeDown { node, session }).await.unwrap();
    }

    pub(crate) async fn alive(&self, session: u64) {
        self.edge
            .tell(EdgeControllerMsg::Up { node: node(), session, message: EdgeUp::Alive })
            .await
            .unwrap();
    }

    pub(crate) async fn lost(&mut self) -> Option<u64> {
        let lost = |message| match message {
            CloudHubMsg::SessionOver { session, .. } => Some(session),
            _ => None,
        };
        self.hub.find(LONG, lost).await
    }

    pub(crate) async fn show(&self, state: SyncState, linked: bool) -> bool {
        let status =
            SyncStatus { state, waiting: 0, oldest: None, refusal: None, last_confirmed: None, linked };
        let show = |reply| NodeLeaseMsg::ShowSynced { node: node(), status, reply };
        self.lease.ask(LONG, show).await.unwrap()
    }
}

pub(crate) fn of_node(row: i64, version: &str) -> Report {
    let status = json!({
        "conditions": [
            { "type": "Ready", "status": "True", "reason": "EdgeReady" },
            { "type": "MemoryPressure", "status": "False", "reason": "Enough" },
        ],
        "nodeInfo": {
            "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "",
            "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
            "systemUUID": "",
        },
    });
    let node_json = json!({ "metadata": { "labels": {} }, "spec": {}, "status": status }).to_string();
    Report { row, repeat: false, report: UpReport::Node { node_json }.into() }
}

pub(crate) fn of_pod(row: i64, uid: &str, message: &str) -> Report {
    let status_json = json!({ "phase": "Running", "message": message }).to_string();
    let report = UpReport::PodStatus {
        namespace: "default".into(),
        name: "web".into(),
        uid: uid.to_owned(),
        status_json,
    };
    Report { row, repeat: false, report: report.into() }
}

pub(crate) fn of_pump(row: i64, property: &str, value: &str) -> Report {
    let report = UpReport::Twin {
        namespace: "default".into(),
        name: "pump".into(),
        property: property.into(),
        reported: Some(TwinValue { value: value.into(), metadata: Default::default() }),
        observed_desired: None,
    };
    Report { row, repeat: false, report: report.into() }
}

pub(crate) async fn kubelet_version(server: &Server) -> Value {
    server.node().await.data["status"]["nodeInfo"]["kubeletVersion"].clone()
}

pub(crate) async fn renewed(server: &Server) -> Value {
    server.lease().await.data["spec"]["renewTime"].clone()
}
