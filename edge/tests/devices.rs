//! Pods with devices on a real runtime: Edged, ContainerManager and a strict plugin; either side starts anew in the middle, and
//! there is no cloud.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../modules/edge-containermanager/tests/plugin/mod.rs"]
mod plugin;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use contract::UpReport;
use contract::edged::EdgedMsg;
use contract::metamanager::MetaMsg;
use contract::rows;
use cri::{Grpc, Runtime};
use edge_containermanager::ContainerManager;
use edge_edged::Edged;
use edge_store::{ObjectKey, Options, Store, Write};
use kubeletapi::deviceplugin::{DeviceSpec, Mount};
use plugin::Plugin;
use serde_json::{Value, json};
use testhost::TestHost;

const SOON: Duration = Duration::from_secs(120);
const X: &str = "example.com/x";
const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

struct Node {
    plugins: PathBuf,
    runtime: Arc<dyn Runtime>,
    store: Store,
    edged: Address<EdgedMsg>,
    hive: Hive,
    // Somebody listens in MetaManager's place.
    _meta: Probe<MetaMsg>,
}

impl Node {
    async fn start(host: &TestHost) -> Node {
        Node::start_with(host, |_| {}).await
    }

    async fn start_with(host: &TestHost, set: impl FnOnce(&mut config::edge::TailoredKubeletConfig)) -> Node {
        let mut edged = config::edge::Edged {
            device_plugin_path: host.dir().join("plugins"),
            pod_resources_path: host.dir().join("pod-resources"),
            ..Default::default()
        };
        let hard = &mut edged.tailored_kubelet_config.eviction_hard;
        hard.nodefs_available = config::Threshold::Part(0);
        hard.imagefs_available = config::Threshold::Part(0);
        set(&mut edged.tailored_kubelet_config);
        let mut settings = edge_edged::Settings::new("edge-1", &edged);
        settings.image_collection.high_percent = 100;
        settings.root = host.dir().join("kubelet");
        settings.logs = host.dir().join("pods");
        settings.links = host.dir().join("containers");
        settings.homes = Vec::new();
        settings.node_ips = vec!["192.0.2.1".to_owned()];
        settings.cgroup_root = format!("/{}", host.netns());
        settings.report_node_every = Duration::from_millis(500);
        let runtime: Arc<dyn Runtime> =
            Arc::new(Grpc::new(&host.endpoint(), &host.endpoint(), Duration::from_secs(60)).unwrap());
        let path = host.dir().join("edge.db");
        let store = eventually("the store", async || Store::open(&path, Options::new([1; 16])).ok()).await;
        let env = Env::real();
        let (probe, meta) = Probe::new(&env, 4096);
        let mut hive = Hive::new("edgecore", env);
        let edged_box = hive.mailbox::<EdgedMsg>("edged", Capacity::new(128, "a test's choice"));
        let given_box = hive.mailbox("containers", Capacity::new(128, "a test's choice"));
        let to_given = hive.grant("edged", &given_box, Flow::Ask);
        let to_edged = hive.grant("containers", &edged_box, Flow::TryTell);
        let address = hive.grant("test", &edged_box, Flow::Tell);
        let given = edge_containermanager::Settings::new(&edged);
        let (pods_runtime, pods_store) = (Arc::clone(&runtime), store.clone());
        hive.supervise(edged_box, Policy::default(), move || {
            Edged::new(settings.clone(), Arc::clone(&pods_runtime), pods_store.clone(), meta.clone())
                .with_containers(to_given.clone())
        });
        let (kept, given_runtime) = (store.clone(), Arc::clone(&runtime));
        hive.supervise(given_box, Policy::default(), move || {
            ContainerManager::new(given.clone(), kept.clone(), to_edged.clone())
                .pinning("edge-1", Arc::clone(&given_runtime))
        });
        hive.open().unwrap();
        Node { plugins: edged.device_plugin_path, runtime, store, edged: address, hive, _meta: probe }
    }

    async fn stop(self) {
        self.hive.shutdown(Duration::from_secs(10)).await;
    }

    async fn apply(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let json = serde_json::to_vec(&pod).unwrap();
        let write = Write::PutObject {
            key: ObjectKey::new("pods", "default", name),
            uid: format!("uid-of-{name}"),
            content_hash: name.to_owned(),
            resource_version: "1".to_owned(),
            json,
        };
        self.store.commit(vec![write]).await.unwrap();
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

    async fn until(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let seen = async || self.status(pod).filter(|status| holds(status));
        eventually(&format!("{what} of {pod}"), seen).await
    }

    async fn until_runs(&self, pod: &str, restarts: u64) -> Value {
        self.until(pod, "its container", |status| {
            let first = &status["containerStatuses"][0];
            first["ready"] == true && first["restartCount"] == restarts
        })
        .await
    }

    /// Waits until the node says that it has so many of the resource.
    async fn until_has(&self, capacity: &str, allocatable: &str) {
        let said = |report: UpReport| match report {
            UpReport::Node { node_json } => {
                let node: Value = serde_json::from_str(&node_json).ok()?;
                let of = |list: &str| node["status"][list][X].clone();
                (of("capacity") == capacity && of("allocatable") == allocatable).then_some(())
            }
            _ => None,
        };
        eventually("the node's devices", async || self.reports().into_iter().find_map(said)).await;
    }

    async fn exec(&self, status: &Value, script: &str) -> String {
        let id = status["containerStatuses"][0]["containerID"].as_str().unwrap();
        let id = id.trim_start_matches("containerd://");
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let done = self.runtime.exec_sync(id, command, Duration::from_secs(30)).await.unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }
}

fn pod(name: &str, count: u64) -> Value {
    pod_of(name, json!({"limits": {X: count}}))
}

fn pod_of(name: &str, resources: Value) -> Value {
    let container = json!({"name": "c", "image": testhost::BUSYBOX, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", WAITS], "env": [{"name": "OWN", "value": "x"}],
        "resources": resources});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [container], "restartPolicy": "Always", "nodeName": "edge-1",
            "terminationGracePeriodSeconds": 1, "serviceAccountName": "default", "dnsPolicy": "Default"},
    })
}

#[test]
fn a_pod_has_its_device_and_keeps_it_when_either_side_starts_anew_without_a_cloud() {
    if let Some(missing) = testhost::missing() {
        panic!("{missing}");
    }
    run(async {
        let host = TestHost::new("devices").unwrap();
        let node = Node::start(&host).await;
        let data = host.dir().join("plugin-data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("word"), "from the plugin").unwrap();
        eventually("the socket", async || node.plugins.join("kubelet.sock").exists().then_some(())).await;
        let mut plugin = Plugin::new(&node.plugins, "x", X, "a b");
        {
            let mut book = plugin.book.lock().unwrap();
            book.response.devices = vec![DeviceSpec {
                container_path: "/dev/thing".into(),
                host_path: "/dev/zero".into(),
                permissions: "rw".into(),
            }];
            book.response.mounts = vec![Mount {
                container_path: "/plugin-data".into(),
                host_path: data.to_string_lossy().into_owned(),
                read_only: true,
            }];
        }
        plugin.begin().await;
        node.until_has("2", "2").await;

        node.apply(pod("user", 1)).await;
        let status = node.until_runs("user", 0).await;
        let seen = node
            .exec(&status, "echo $DEVICES $OWN; cat /plugin-data/word; head -c 4 /dev/thing | wc -c")
            .await;
        assert_eq!(
            seen.split_whitespace().collect::<Vec<_>>(),
            ["a", "x", "from", "the", "plugin4"],
            "{seen}"
        );
        let status = node
            .until("user", "the health of its device", |status| {
                status["containerStatuses"][0]["allocatedResourcesStatus"].is_array()
            })
            .await;
        assert_eq!(
            status["containerStatuses"][0]["allocatedResourcesStatus"],
            json!([{"name": X, "resources": [{"resourceID": "a", "health": "Healthy"}]}])
        );
        node.apply(pod("greedy", 2)).await;
        let refused = node.until("greedy", "its refusal", |status| status["phase"] == "Failed").await;
        assert_eq!(refused["reason"], "OutOfexample.com/x");

        // Both sides end; EdgeCore comes back alone.
        plugin.kill();
        node.stop().await;
        let node = Node::start(&host).await;
        let id = status["containerStatuses"][0]["containerID"].clone();
        let same = node.until_runs("user", 0).await;
        assert_eq!(same["containerStatuses"][0]["containerID"], id, "what runs is left alone");
        // What runs in a container that ends may end before it is answered.
        let own = id.as_str().unwrap().trim_start_matches("containerd://");
        let command = ["/bin/sh", "-c", "kill -9 1; kill -TERM 1"].map(str::to_owned).to_vec();
        drop(node.runtime.exec_sync(own, command, Duration::from_secs(30)).await);
        let again = node.until_runs("user", 1).await;
        assert_eq!(node.exec(&again, "echo $DEVICES; ls /dev/thing").await, "a\n/dev/thing\n");

        // A new pod waits for the plugin, and gets what is free.
        node.apply(pod("second", 1)).await;
        plugin.begin().await;
        let second = node.until_runs("second", 0).await;
        assert_eq!(node.exec(&second, "echo $DEVICES").await, "b\n");
        assert_eq!(plugin.allocated(), [["a"], ["b"]]);
        node.stop().await;
    });
}

/// The CPUs that a pod's container may run on.
async fn cpus_of(node: &Node, status: &Value) -> String {
    let seen = node.exec(status, "grep Cpus_allowed_list /proc/self/status").await;
    seen.split_whitespace().last().unwrap_or_default().to_owned()
}

// Whoever reads the test's output is told that nothing was looked at.
#[allow(clippy::print_stdout)]
#[test]
fn a_guaranteed_pod_has_its_cpu_for_itself_and_the_others_move_away() {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    if online.trim() == "0" {
        return println!("skipped: the machine has one CPU");
    }
    run(async {
        let host = TestHost::new("cpus").unwrap();
        let fixed = |kubelet: &mut config::edge::TailoredKubeletConfig| {
            kubelet.cpu_manager_policy = config::edge::CpuManagerPolicy::Static;
            kubelet.reserved_system_cpus = "0".to_owned();
            kubelet.cpu_manager_reconcile_period = config::KubeletDuration::from_secs(1);
        };
        let node = Node::start_with(&host, fixed).await;
        node.apply(pod_of("shared", json!({}))).await;
        let shared = node.until_runs("shared", 0).await;
        let before = cpus_of(&node, &shared).await;
        node.apply(pod_of("own", json!({"limits": {"cpu": "1", "memory": "32Mi"}}))).await;
        let own = node.until_runs("own", 0).await;
        let has = cpus_of(&node, &own).await;
        assert!(has.parse::<u32>().is_ok_and(|cpu| cpu > 0), "{has} of {before}");
        let moved = eventually("the others to move", async || {
            let now = cpus_of(&node, &shared).await;
            (now != before).then_some(now)
        })
        .await;
        assert!(!moved.split([',', '-']).any(|cpu| cpu == has), "{moved} and {has}");
        // A restart changes nothing of it.
        node.stop().await;
        let node = Node::start_with(&host, fixed).await;
        node.apply(pod_of("later", json!({}))).await;
        let later = node.until_runs("later", 0).await;
        assert_eq!(cpus_of(&node, &later).await, moved);
        assert_eq!(cpus_of(&node, &own).await, has);
        node.stop().await;
    });
}
