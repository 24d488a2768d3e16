//! Several CloudCores over one API: one has the node, none writes an older report over a newer one, and a node that loses
//! its CloudCore goes on with another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use cloud_devicecontroller::DeviceController;
use cloud_edgecontroller::EdgeController;
use cloud_edgecontroller::report_version;
use cloud_nodelease::NodeLease;
use cloud_nodelease::lease::CLOUDCORE_ANNOTATION;
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::ids::REPORTED_ANNOTATION;
use contract::nodelease::{NodeLeaseMsg, ReportVersion};
use contract::synccontroller::{SyncMsg, SyncState, SyncStatus};
use contract::{NodeName, Report, TwinValue, UpReport};
use futures::StreamExt;
use harness::{LONG, enter, resource, run};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};
use tokio::sync::Notify;

const NODE: &str = "edge-1";
const OTHER: &str = "edge-2";
/// The serial of both.
const CERTIFICATE: &str = "01";

fn node() -> NodeName {
    NodeName::parse(NODE).unwrap()
}

/// The API, and nothing over it.
struct Server {
    env: Env,
    api: cloud_apiserver::Running,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Server {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let settings = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let api = cloud_apiserver::start(settings, env.clone()).await.unwrap();
        cloud::apply_definitions(&api.client(), &env).await.unwrap();
        for node in [NODE, OTHER] {
            enter(api.client(), node, CERTIFICATE, env.wall()).await;
        }
        Server { env, api, _folder: folder }
    }

    fn objects(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = resource(api_version, kind);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.api.client(), namespace, &resource),
            None => Api::all_with(self.api.client(), &resource),
        }
    }

    async fn create(
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

    async fn lease(&self) -> DynamicObject {
        self.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease")).get(NODE).await.unwrap()
    }

    async fn node(&self) -> DynamicObject {
        self.objects("v1", "Node", None).get(NODE).await.unwrap()
    }

    async fn device_status(&self) -> DynamicObject {
        self.objects("devices.kubeedge.io/v1beta1", "DeviceStatus", Some("default"))
            .get("pump")
            .await
            .unwrap()
    }
}

fn annotation(object: &DynamicObject, name: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(name).cloned()
}

/// Which report a Node or a pod holds.
fn held(object: &DynamicObject) -> Option<ReportVersion> {
    report_version::held_by(&object.metadata)
}

fn version(session: u64, row: i64) -> Option<ReportVersion> {
    Some(ReportVersion { session, row })
}

/// The controllers of one CloudCore. A test is its hub and its nodes.
struct Cloud {
    lease: Address<NodeLeaseMsg>,
    edge: Address<EdgeControllerMsg>,
    device: Address<DeviceControllerMsg>,
    hub: Probe<CloudHubMsg>,
    _sync: Probe<SyncMsg>,
    _stream: Probe<CloudStreamMsg>,
    _hive: Hive,
}

impl Cloud {
    fn start(name: &'static str, client: kube::Client, env: &Env) -> Cloud {
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
        }
    }

    async fn claim(&self) -> u64 {
        self.claim_of(node()).await
    }

    async fn claim_of(&self, node: NodeName) -> u64 {
        let certificate = CERTIFICATE.to_owned();
        let claim = |reply| NodeLeaseMsg::Claim { node, certificate, reply };
        self.lease.ask(LONG, claim).await.unwrap().unwrap()
    }

    async fn holds(&self, session: u64) -> bool {
        let holds = |reply| NodeLeaseMsg::Holds { node: node(), session, reply };
        self.lease.ask(LONG, holds).await.unwrap().unwrap()
    }

    /// The rows that are confirmed.
    async fn say(&self, session: u64, reports: Vec<Report>) -> Vec<i64> {
        self.say_of(node(), session, reports).await
    }

    async fn say_of(&self, node: NodeName, session: u64, reports: Vec<Report>) -> Vec<i64> {
        let said = |reply| EdgeControllerMsg::Up {
            node,
            session,
            message: EdgeUp::Reports { reports: reports.into(), reply },
        };
        self.edge.ask(LONG, said).await.unwrap()
    }

    async fn say_of_a_device(&self, node: &str, session: u64, reports: Vec<Report>) -> Vec<i64> {
        let node = NodeName::parse(node).unwrap();
        let said = |reply| DeviceControllerMsg::Up {
            node,
            session,
            message: DeviceUp::Reports { reports: reports.into(), reply },
        };
        self.device.ask(LONG, said).await.unwrap()
    }

    async fn alive(&self, session: u64) {
        self.edge
            .tell(EdgeControllerMsg::Up { node: node(), session, message: EdgeUp::Alive })
            .await
            .unwrap();
    }

    async fn lost(&mut self) -> Option<u64> {
        let lost = |message| match message {
            CloudHubMsg::SessionOver { session, .. } => Some(session),
            _ => None,
        };
        self.hub.find(LONG, lost).await
    }

    async fn show(&self, state: SyncState, linked: bool) -> bool {
        let status =
            SyncStatus { state, waiting: 0, oldest: None, refusal: None, last_confirmed: None, linked };
        let show = |reply| NodeLeaseMsg::ShowSynced { node: node(), status, reply };
        self.lease.ask(LONG, show).await.unwrap()
    }
}

fn of_node(row: i64, version: &str) -> Report {
    let status = json!({
        "nodeInfo": {
            "kubeletVersion": version, "architecture": "", "bootID": "", "containerRuntimeVersion": "",
            "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
            "systemUUID": "",
        },
    });
    let node_json = json!({ "metadata": { "labels": {} }, "spec": {}, "status": status }).to_string();
    Report { row, repeat: false, report: UpReport::Node { node_json }.into() }
}

fn of_pod(row: i64, uid: &str, message: &str) -> Report {
    let status_json = json!({ "phase": "Running", "message": message }).to_string();
    let report = UpReport::PodStatus {
        namespace: "default".into(),
        name: "web".into(),
        uid: uid.to_owned(),
        status_json,
    };
    Report { row, repeat: false, report: report.into() }
}

fn of_pump(row: i64, property: &str, value: &str) -> Report {
    let report = UpReport::Twin {
        namespace: "default".into(),
        name: "pump".into(),
        property: property.into(),
        reported: Some(TwinValue { value: value.into(), metadata: Default::default() }),
        observed_desired: None,
    };
    Report { row, repeat: false, report: report.into() }
}

async fn kubelet_version(server: &Server) -> Value {
    server.node().await.data["status"]["nodeInfo"]["kubeletVersion"].clone()
}

async fn renewed(server: &Server) -> Value {
    server.lease().await.data["spec"]["renewTime"].clone()
}

#[test]
fn one_cloudcore_has_the_node_and_every_session_has_a_number_of_its_own() {
    run(async || {
        let server = Server::start().await;
        let (a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        assert_eq!((a.claim().await, b.claim().await, a.claim().await), (1, 2, 3));
        let (mut last, mut sessions) = (3, Vec::new());
        for _ in 0..10 {
            let (one, other) = futures::join!(a.claim(), b.claim());
            assert!(one > last && other > last, "{one} and {other} after {last}");
            last = one.max(other);
            sessions.extend([one, other]);
            assert_eq!((a.holds(one).await, b.holds(other).await), (one > other, other > one));
            let lease = server.lease().await;
            let holder = if one > other { "cloudcore-a" } else { "cloudcore-b" };
            assert_eq!(annotation(&lease, CLOUDCORE_ANNOTATION).as_deref(), Some(holder));
            assert_eq!(lease.data["spec"]["leaseTransitions"], last);
            assert_eq!(lease.data["spec"]["holderIdentity"], NODE);
        }
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!(sessions.len(), 20);
    });
}

#[test]
fn a_link_is_no_sign_of_life_and_who_has_lost_the_node_does_not_renew() {
    run(async || {
        let server = Server::start().await;
        let (mut a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        let first = a.claim().await;
        let never = renewed(&server).await;
        assert!(never.as_str().unwrap().starts_with("1970-01-01T00:00:00"), "{never}");
        // A sign of life is one of a Node.
        a.say(first, vec![of_node(1, "v1")]).await;
        assert_eq!(renewed(&server).await, never);
        a.alive(first).await;
        let until = server.env.now() + LONG;
        while renewed(&server).await == never {
            assert!(server.env.now() < until, "never renewed");
            server.env.sleep(Duration::from_millis(10)).await;
        }
        let at = renewed(&server).await;
        let second = b.claim().await;
        assert_eq!(renewed(&server).await, at, "taking a node renews nothing");
        a.alive(first).await;
        assert_eq!(a.lost().await, Some(first));
        assert_eq!(renewed(&server).await, at);
        b.alive(second).await;
        while renewed(&server).await == at {
            assert!(server.env.now() < until, "never renewed by the new one");
            server.env.sleep(Duration::from_millis(10)).await;
        }
        assert!(b.holds(second).await);
    });
}

#[test]
fn an_older_report_is_dropped_and_confirmed() {
    run(async || {
        let server = Server::start().await;
        let a = Cloud::start("cloudcore-a", server.api.client(), &server.env);
        let session = a.claim().await;
        assert_eq!(a.say(session, vec![of_node(5, "v5")]).await, [5]);
        assert_eq!(held(&server.node().await), version(1, 5));
        assert_eq!(a.say(session, vec![of_node(4, "v4")]).await, [4]);
        assert_eq!(a.say(session, vec![of_node(5, "v5 again")]).await, [5]);
        assert_eq!(kubelet_version(&server).await, "v5");
        assert_eq!(a.say(session, vec![of_node(6, "v6")]).await, [6]);
        assert_eq!(
            (kubelet_version(&server).await, held(&server.node().await)),
            (json!("v6"), version(1, 6))
        );
        // Another CloudCore, which remembers nothing, goes by the object alone; the node's store counts anew.
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        let later = b.claim().await;
        assert_eq!(b.say(later, vec![of_node(2, "v2 of a new store")]).await, [2]);
        assert_eq!(b.say(later, vec![of_node(1, "v1 of a new store")]).await, [1]);
        assert_eq!(kubelet_version(&server).await, "v2 of a new store");
        assert!(
            a.say(session, vec![of_node(7, "v7")]).await.is_empty(),
            "the node says it again where it is now"
        );
        assert_eq!(held(&server.node().await), version(2, 2));
    });
}

/// A client that holds up the first patch of a status until it is let go.
fn gated(client: kube::Client) -> (kube::Client, Arc<Notify>, Arc<Notify>) {
    let (arrived, go, first) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
    let (told, waits) = (Arc::clone(&arrived), Arc::clone(&go));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, arrived, go, first) =
            (client.clone(), Arc::clone(&told), Arc::clone(&waits), Arc::clone(&first));
        async move {
            let is_status =
                request.method() == http::Method::PATCH && request.uri().path().ends_with("/status");
            if is_status && first.swap(false, Ordering::Relaxed) {
                arrived.notify_one();
                go.notified().await;
            }
            client.send(request).await
        }
    });
    (kube::Client::new(service, "default"), arrived, go)
}

async fn pod(server: &Server) -> String {
    let namespace = Some("default");
    let account = json!({ "metadata": { "name": "default" } });
    let accounts = server.objects("v1", "ServiceAccount", namespace);
    if accounts.get_opt("default").await.unwrap().is_none() {
        let account: DynamicObject = serde_json::from_value(account).unwrap();
        // The controllers may be first.
        let _ = accounts.create(&PostParams::default(), &account).await;
    }
    let spec = json!({ "nodeName": NODE, "containers": [{ "name": "web", "image": "web:1" }] });
    let object = json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": spec });
    server.create("v1", "Pod", namespace, object).await.metadata.uid.unwrap()
}

#[test]
fn a_write_of_the_new_owner_between_read_and_write_of_the_old_one_stays() {
    run(async || {
        let server = Server::start().await;
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        let before = b.claim().await;
        b.say(before, vec![of_node(1, "v1")]).await;
        let uid = pod(&server).await;
        let (client, arrived, go) = gated(server.api.client());
        let mut a = Cloud::start("cloudcore-a", client, &server.env);
        let first = a.claim().await;
        let old = a.say(first, vec![of_pod(7, &uid, "of the old owner")]);
        let new = async {
            arrived.notified().await;
            let second = b.claim().await;
            assert_eq!(b.say(second, vec![of_pod(8, &uid, "of the new owner")]).await, [8]);
            go.notify_one();
        };
        let (confirmed, ()) = futures::join!(old, new);
        assert!(confirmed.is_empty());
        assert_eq!(a.lost().await, Some(first), "its session is ended");
        let pod = server.objects("v1", "Pod", Some("default")).get("web").await.unwrap();
        assert_eq!((&pod.data["status"]["message"], held(&pod)), (&json!("of the new owner"), version(3, 8)));
        // Of one session: one of two writes waits and comes last, and whichever it is, the newer one stays.
        let (client, arrived, go) = gated(server.api.client());
        let c = Cloud::start("cloudcore-c", client, &server.env);
        let third = c.claim().await;
        let both = c.say(third, vec![of_pod(11, &uid, "eleven"), of_pod(12, &uid, "twelve")]);
        let pods = server.objects("v1", "Pod", Some("default"));
        let other = async {
            arrived.notified().await;
            let until = server.env.now() + LONG;
            while pods.get("web").await.unwrap().data["status"]["message"] == "of the new owner" {
                assert!(server.env.now() < until, "the other one is never written");
                server.env.sleep(Duration::from_millis(10)).await;
            }
            go.notify_one();
        };
        let (mut confirmed, ()) = futures::join!(both, other);
        confirmed.sort_unstable();
        assert_eq!(confirmed, [11, 12]);
        assert_eq!(pods.get("web").await.unwrap().data["status"]["message"], "twelve");
    });
}

#[test]
fn whoever_writes_and_whenever_the_report_version_of_an_object_only_grows() {
    run(async || {
        let server = Server::start().await;
        let clouds =
            ["cloudcore-a", "cloudcore-b"].map(|name| Cloud::start(name, server.api.client(), &server.env));
        let sessions = [Cell::new(clouds[0].claim().await), Cell::new(clouds[1].claim().await)];
        clouds[1].say(sessions[1].get(), vec![of_node(1, "v1")]).await;
        let nodes = server.objects("v1", "Node", None);
        let begin = server.node().await.metadata.resource_version.unwrap();
        let events = nodes.watch(&WatchParams::default(), &begin).await.unwrap();
        let all = futures::stream::iter(2..80).for_each_concurrent(7, async |row| {
            let which = usize::try_from(row).unwrap() % 2;
            if row % 5 == 0 {
                sessions[which].set(clouds[which].claim().await);
            }
            let text = format!("v{row}");
            clouds[which].say(sessions[which].get(), vec![of_node(row, &text)]).await;
        });
        all.await;
        // What does not fit into a node's queue is turned away, and a node says it again: the last session has the last word.
        let last = usize::from(sessions[1].get() > sessions[0].get());
        clouds[last].say(sessions[last].get(), vec![of_node(80, "v80")]).await;
        let end = server.node().await;
        let mut seen = Vec::new();
        let mut events = std::pin::pin!(events);
        while let Some(event) = server.env.timeout(LONG, events.next()).await.expect("the end is not told") {
            let WatchEvent::Modified(object) = event.unwrap() else { continue };
            seen.push(held(&object).unwrap());
            if object.metadata.resource_version == end.metadata.resource_version {
                break;
            }
        }
        assert!(seen.is_sorted(), "{seen:?}");
        assert!(seen.len() > 10, "{seen:?}");
        let highest = sessions.iter().map(Cell::get).max().unwrap();
        assert_eq!(seen.last().unwrap().session, highest);
    });
}

#[test]
fn a_lease_that_was_removed_stops_nothing() {
    run(async || {
        let server = Server::start().await;
        let a = Cloud::start("cloudcore-a", server.api.client(), &server.env);
        let leases = server.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
        let mut session = a.claim().await;
        session = session.max(a.claim().await);
        a.say(session, vec![of_node(5, "v5")]).await;
        leases.delete(NODE, &DeleteParams::default()).await.unwrap();
        // The next life of a CloudCore: the Node remembers the sessions.
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        assert_eq!(b.claim().await, session + 1);
        // Or nothing does, and the Lease that is there decides.
        let nodes = server.objects("v1", "Node", None);
        let far = format!("900.1/{}", server.node().await.metadata.uid.unwrap());
        let far = json!({ "metadata": { "annotations": { REPORTED_ANNOTATION: far } } });
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(far)).await.unwrap();
        assert_eq!(b.say(session + 1, vec![of_node(6, "v6")]).await, [6]);
        assert_eq!(kubelet_version(&server).await, "v6");
        assert_eq!(held(&server.node().await), version(session + 1, 6));
        // A renewal makes it again, in the same session.
        leases.delete(NODE, &DeleteParams::default()).await.unwrap();
        b.alive(session + 1).await;
        let until = server.env.now() + LONG;
        while leases.get_opt(NODE).await.unwrap().is_none() {
            assert!(server.env.now() < until, "never made again");
            server.env.sleep(Duration::from_millis(10)).await;
        }
        assert!(b.holds(session + 1).await);
    });
}

#[test]
fn only_who_has_the_node_says_whether_it_is_in_sync() {
    run(async || {
        let server = Server::start().await;
        let (a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        let reason = async || {
            let conditions = server.node().await.data["status"]["conditions"].clone();
            let all = conditions.as_array().cloned().unwrap_or_default();
            all.into_iter().find(|c| c["type"] == "kubehive.io/Synced").map(|c| c["reason"].clone())
        };
        let first = a.claim().await;
        a.say(first, vec![of_node(1, "v1")]).await;
        assert!(a.show(SyncState::InSync, true).await);
        assert_eq!(reason().await, Some(json!("InSync")));
        b.claim().await;
        assert!(a.show(SyncState::Waiting, true).await, "nothing is left to do here");
        assert!(a.show(SyncState::Waiting, false).await);
        assert_eq!(reason().await, Some(json!("InSync")));
        assert!(b.show(SyncState::Refused, true).await);
        assert_eq!(reason().await, Some(json!("EdgeRefused")));
        assert!(b.show(SyncState::Waiting, false).await, "it had the node last");
        assert_eq!(reason().await, Some(json!("Waiting")));
    });
}

#[test]
fn of_each_property_the_newest_stays_whoever_writes_last() {
    run(async || {
        let server = Server::start().await;
        let device = json!({
            "metadata": { "name": "pump", "namespace": "default" },
            "spec": { "nodeName": NODE, "deviceModelRef": { "name": "pumps" } },
        });
        server.create("devices.kubeedge.io/v1beta1", "Device", Some("default"), device).await;
        let (mut a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        let value = async |property: &str| {
            let twins = server.device_status().await.data["status"]["twins"].clone();
            let all = twins.as_array().cloned().unwrap_or_default();
            let twin = all.into_iter().find(|twin| twin["propertyName"] == property).unwrap_or_default();
            twin["reported"]["value"].as_str().map(str::to_owned)
        };
        let first = a.claim().await;
        assert_eq!(a.say(first, vec![of_node(1, "v1")]).await, [1]);
        assert_eq!(a.say_of_a_device(NODE, first, vec![of_pump(9, "speed", "nine")]).await, [9]);
        let older = vec![of_pump(8, "speed", "eight"), of_pump(7, "heat", "seven")];
        let mut confirmed = a.say_of_a_device(NODE, first, older).await;
        confirmed.sort_unstable();
        assert_eq!(confirmed, [7, 8]);
        assert_eq!((value("speed").await, value("heat").await), (Some("nine".into()), Some("seven".into())));
        let second = b.claim().await;
        assert_eq!(
            b.say_of_a_device(NODE, second, vec![of_pump(1, "heat", "one of a new store")]).await,
            [1]
        );
        assert!(a.say_of_a_device(NODE, first, vec![of_pump(10, "speed", "ten")]).await.is_empty());
        assert_eq!(a.lost().await, Some(first));
        assert_eq!(
            (value("speed").await, value("heat").await),
            (Some("nine".into()), Some("one of a new store".into()))
        );
        // The device moves to a node that has had fewer sessions.
        let devices = server.objects("devices.kubeedge.io/v1beta1", "Device", Some("default"));
        let moved = json!({ "spec": { "nodeName": OTHER } });
        devices.patch("pump", &PatchParams::default(), &Patch::Merge(moved)).await.unwrap();
        let other = NodeName::parse(OTHER).unwrap();
        let session = a.claim_of(other.clone()).await;
        assert_eq!(a.say_of(other, session, vec![of_node(1, "v1")]).await, [1]);
        assert_eq!(a.say_of_a_device(OTHER, session, vec![of_pump(1, "speed", "of edge-2")]).await, [1]);
        assert_eq!(value("speed").await, Some("of edge-2".into()));
        assert_eq!(
            b.say_of_a_device(NODE, second, vec![of_pump(2, "speed", "of edge-1")]).await,
            [2],
            "dropped"
        );
        assert_eq!(value("speed").await, Some("of edge-2".into()));
    });
}
