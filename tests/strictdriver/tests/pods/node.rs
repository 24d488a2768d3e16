//! A node of Edged and EdgeCsi: pods come from a store, reports go into it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Ended, Env, Flow, Hive, Policy};
use contract::csi::CsiMsg;
use contract::edged::EdgedMsg;
use contract::metamanager::{MetaMsg, NoToken};
use contract::{UpReport, rows};
use cri::{Grpc, Runtime};
use edge_csi::EdgeCsi;
use edge_edged::{Edged, Settings};
use edge_store::{ObjectKey, Options, Store, Write};
use serde_json::{Value, json};
use testhost::TestHost;

/// Longer than anything takes on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A script that runs until it is asked to end, and ends well.
pub(crate) const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

pub(crate) struct Node {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) store: Store,
    settings: Settings,
    edged: Address<EdgedMsg>,
    hive: Hive,
}

/// Runs a test on one thread, as a daemon's hive does.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

impl Node {
    /// A node on what the host's folder holds. Its cloud is out of reach.
    pub(crate) fn start(host: &TestHost) -> Node {
        let env = Env::real();
        let mut edged = config::edge::Edged::default();
        // The disk of the machine that runs the tests may be as full as it likes.
        let hard = &mut edged.tailored_kubelet_config.eviction_hard;
        hard.nodefs_available = config::Threshold::Part(0);
        hard.imagefs_available = config::Threshold::Part(0);
        let mut settings = Settings::new("edge-1", &edged);
        settings.image_collection.high_percent = 100;
        settings.root = host.dir().join("kubelet");
        settings.logs = host.dir().join("pods");
        settings.links = host.dir().join("containers");
        settings.homes = Vec::new();
        settings.node_ips = vec!["192.0.2.1".to_owned()];
        settings.cgroup_root = format!("/{}", host.netns());
        settings.report_node_every = Duration::from_millis(500);
        let runtime: Arc<dyn Runtime> =
            Arc::new(Grpc::new(&host.endpoint(), &host.endpoint(), SOON).unwrap());
        let store = Store::open(host.dir().join("edge.db"), Options::new([1; 16])).unwrap();
        let (mut probe, meta) = Probe::<MetaMsg>::new(&env, 64);
        actix_rt::spawn(async move {
            while let Some(message) = probe.next(Duration::from_secs(3600)).await {
                if let MetaMsg::Token { reply, .. } = message {
                    reply.send(Err(NoToken::OutOfReach));
                }
            }
        });
        let mut hive = Hive::new("edgecore", env);
        let mailbox = hive.mailbox::<EdgedMsg>("edge-edged", Capacity::new(128, "a test's choice"));
        let volumes = hive.mailbox::<CsiMsg>("edge-csi", Capacity::new(128, "a test's choice"));
        let edged = hive.grant("test", &mailbox, Flow::Tell);
        let csi = hive.grant("edge-edged", &volumes, Flow::Ask);
        let from_csi = hive.grant("edge-csi", &mailbox, Flow::TryTell);
        let of_csi = edge_csi::Settings::new(settings.root.clone(), &settings.node_name)
            .times(Duration::from_secs(5), Duration::from_millis(100));
        let (of_edged, own, kept) = (settings.clone(), Arc::clone(&runtime), store.clone());
        hive.supervise(mailbox, Policy::default(), move || {
            let edged = Edged::new(of_edged.clone(), Arc::clone(&own), kept.clone(), meta.clone());
            edged.mounting_by(csi.clone())
        });
        hive.supervise(volumes, Policy::default(), move || EdgeCsi::new(of_csi.clone(), from_csi.clone()));
        hive.open().unwrap();
        Node { runtime, store, settings, edged, hive }
    }

    /// Ends the node as a daemon ends.
    pub(crate) async fn stop(self, host: &TestHost) {
        let Node { hive, store, edged, .. } = self;
        assert_eq!(hive.shutdown(Duration::from_secs(10)).await, Ended::InOrder);
        drop((store, edged));
        let path = host.dir().join("edge.db");
        // Tasks that were ended let go of the file a moment later.
        eventually(async || Store::open(&path, Options::new([1; 16])).ok().map(drop)).await.unwrap();
    }

    /// Puts objects into the store as MetaManager does, and says so.
    pub(crate) async fn apply(&self, objects: &[Value]) {
        self.store.commit(objects.iter().map(put).collect()).await.unwrap();
        self.edged.tell(EdgedMsg::Reconcile).await.unwrap();
    }

    fn reports(&self) -> Vec<UpReport> {
        let rows = self.store.outbox_head(10_000, 64 << 20).unwrap();
        rows.iter().map(|row| rows::decode_report(&row.body).unwrap()).collect()
    }

    fn status(&self, pod: &str) -> Option<Value> {
        self.reports().into_iter().rev().find_map(|report| match report {
            UpReport::PodStatus { name, status_json, .. } if name == pod => {
                serde_json::from_str(&status_json).ok()
            }
            _ => None,
        })
    }

    /// The newest report of the node.
    pub(crate) fn node(&self) -> Option<Value> {
        self.reports().into_iter().rev().find_map(|report| match report {
            UpReport::Node { node_json } => serde_json::from_str(&node_json).ok(),
            _ => None,
        })
    }

    /// The events of a pod: reason and message.
    pub(crate) fn events(&self, pod: &str) -> Vec<(String, String)> {
        let events = self.reports().into_iter().filter_map(|report| match report {
            UpReport::Event { event_json, .. } => serde_json::from_str::<Value>(&event_json).ok(),
            _ => None,
        });
        let own = events.filter(|event| event["involvedObject"]["name"] == pod);
        own.map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
    }

    pub(crate) async fn until_ready(&self, pod: &str) -> Value {
        let is_ready = |status: &Value| {
            let list = status["conditions"].as_array().cloned().unwrap_or_default();
            list.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        let found = eventually(async || self.status(pod).filter(is_ready)).await;
        found
            .unwrap_or_else(|| panic!("{pod} is not ready: {:#?}; {:#?}", self.status(pod), self.events(pod)))
    }

    pub(crate) async fn until_phase(&self, pod: &str, phase: &str) {
        let is_it = async || self.status(pod).filter(|status| status["phase"] == phase);
        let found = eventually(is_it).await;
        assert!(found.is_some(), "{pod} is not {phase}: {:#?}; {:#?}", self.status(pod), self.events(pod));
    }

    pub(crate) async fn until_gone(&self, pod: &str) {
        let gone = |report: &UpReport| matches!(report, UpReport::PodGone { name, .. } if name == pod);
        let found = eventually(async || self.reports().iter().any(gone).then_some(())).await;
        assert!(found.is_some(), "{pod} does not end; {:#?}", self.events(pod));
    }

    pub(crate) async fn until_event(&self, pod: &str, reason: &str, text: &str) {
        let told = || self.events(pod).iter().any(|(own, message)| own == reason && message.contains(text));
        let told = eventually(async || told().then_some(())).await;
        told.unwrap_or_else(|| panic!("no {reason} `{text}` among {:#?}", self.events(pod)));
    }

    /// Runs a script in a pod's container and answers what it printed.
    pub(crate) async fn shell(&self, status: &Value, script: &str) -> String {
        let id = text(&first(status)["containerID"]).trim_start_matches("containerd://").to_owned();
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let done = self.runtime.exec_sync(&id, command, Duration::from_secs(30)).await.unwrap();
        String::from_utf8_lossy(&done.stdout).trim().to_owned() + &String::from_utf8_lossy(&done.stderr)
    }

    pub(crate) fn pod_folder(&self, pod: &str) -> PathBuf {
        self.settings.root.join("pods").join(format!("uid-of-{pod}"))
    }
}

/// Looks again and again until there is something, or [`SOON`] is over.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.ok()
}

fn put(object: &Value) -> Write {
    let (resource, namespace) = match object["kind"].as_str().unwrap() {
        "Pod" => ("pods", "default"),
        "PersistentVolumeClaim" => ("persistentvolumeclaims", "default"),
        "PersistentVolume" => ("persistentvolumes", ""),
        "CSIDriver" => ("csidrivers.storage.k8s.io", ""),
        other => panic!("no resource for {other}"),
    };
    let metadata = &object["metadata"];
    let json = serde_json::to_vec(object).unwrap();
    Write::PutObject {
        key: ObjectKey::new(resource, namespace, text(&metadata["name"])),
        uid: text(&metadata["uid"]),
        // Any text that differs when the object does.
        content_hash: format!("{}-{}", json.len(), json.iter().map(|b| u64::from(*b)).sum::<u64>()),
        resource_version: "1".to_owned(),
        json,
    }
}

/// A pod with `spec` merged over it.
pub(crate) fn pod(name: &str, script: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "containers": [container("c", script)],
            "restartPolicy": "Always", "nodeName": "edge-1", "terminationGracePeriodSeconds": 2,
            "serviceAccountName": "default", "dnsPolicy": "Default",
        },
    });
    for (key, value) in spec.as_object().cloned().unwrap_or_default() {
        pod["spec"][key] = value;
    }
    pod
}

/// A busybox container that runs `script`.
pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": testhost::BUSYBOX, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script]})
}

/// The pod as the API server has it after `kubectl delete`.
pub(crate) fn deleted(pod: &Value, grace: u32) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod
}

/// The first container's status.
pub(crate) fn first(status: &Value) -> &Value {
    &status["containerStatuses"][0]
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
