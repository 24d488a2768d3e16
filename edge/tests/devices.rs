//! Pods with devices on a real runtime: Edged, ContainerManager and a strict plugin; either side starts anew in the middle, and
//! there is no cloud.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../modules/edge-containermanager/tests/plugin/mod.rs"]
mod plugin;

use kubeletapi::deviceplugin::{DeviceSpec, Mount};
use plugin::Plugin;
use std::time::Duration;

use serde_json::{Value, json};
use testnode::{Machine, Node, Plan, WAITS, eventually, run};

const X: &str = "example.com/x";

/// A node that gives devices.
fn start(host: &Machine) -> Node {
    Plan::of(host).giving().start(host)
}

async fn until_runs(node: &Node, pod: &str, restarts: u64) -> Value {
    node.until(pod, "its container", |status| {
        let first = &status["containerStatuses"][0];
        first["ready"] == true && first["restartCount"] == restarts
    })
    .await
}

/// Waits until the node says that it has so many of the resource.
async fn until_has(node: &Node, capacity: &str, allocatable: &str) {
    let of = |node: &Value, list: &str| node["status"][list][X].clone();
    let has = |node: &Value| of(node, "capacity") == capacity && of(node, "allocatable") == allocatable;
    node.said().until_node("its devices", has).await;
}

fn pod(name: &str, count: u64) -> Value {
    pod_of(name, json!({"limits": {X: count}}))
}

fn pod_of(name: &str, resources: Value) -> Value {
    let mut container = testnode::container("c", WAITS);
    container["env"] = json!([{"name": "OWN", "value": "x"}]);
    container["resources"] = resources;
    testnode::pod(name, WAITS, json!({"containers": [container], "terminationGracePeriodSeconds": 1}))
}

#[test]
fn a_pod_has_its_device_and_keeps_it_when_either_side_starts_anew_without_a_cloud() {
    if let Some(missing) = testhost::missing() {
        panic!("{missing}");
    }
    run(async {
        let host = Machine::new("devices");
        let node = start(&host);
        let data = host.dir().join("plugin-data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("word"), "from the plugin").unwrap();
        let socket = node.plugins().join("kubelet.sock");
        eventually(async || socket.exists().then_some(())).await.expect("the socket");
        let mut plugin = Plugin::new(&node.plugins(), "x", X, "a b");
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
        until_has(&node, "2", "2").await;

        node.apply(&[pod("user", 1)]).await;
        let status = until_runs(&node, "user", 0).await;
        let seen = node
            .shell(&status, "echo $DEVICES $OWN; cat /plugin-data/word; head -c 4 /dev/thing | wc -c")
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
        node.apply(&[pod("greedy", 2)]).await;
        let refused = node.until("greedy", "its refusal", |status| status["phase"] == "Failed").await;
        assert_eq!(refused["reason"], "OutOfexample.com/x");

        // Both sides end; EdgeCore comes back alone.
        plugin.kill();
        node.stop(&host).await;
        let node = start(&host);
        let id = status["containerStatuses"][0]["containerID"].clone();
        let same = until_runs(&node, "user", 0).await;
        assert_eq!(same["containerStatuses"][0]["containerID"], id, "what runs is left alone");
        // What runs in a container that ends may end before it is answered.
        let own = id.as_str().unwrap().trim_start_matches("containerd://");
        let command = ["/bin/sh", "-c", "kill -9 1; kill -TERM 1"].map(str::to_owned).to_vec();
        drop(node.runtime.exec_sync(own, command, Duration::from_secs(30)).await);
        let again = until_runs(&node, "user", 1).await;
        assert_eq!(node.shell(&again, "echo $DEVICES; ls /dev/thing").await, "a\n/dev/thing");

        // A new pod waits for the plugin, and gets what is free.
        node.apply(&[pod("second", 1)]).await;
        plugin.begin().await;
        let second = until_runs(&node, "second", 0).await;
        assert_eq!(node.shell(&second, "echo $DEVICES").await, "b");
        assert_eq!(plugin.allocated(), [["a"], ["b"]]);
        node.stop(&host).await;
    });
}

/// The CPUs that a pod's container may run on.
async fn cpus_of(node: &Node, status: &Value) -> String {
    let seen = node.shell(status, "grep Cpus_allowed_list /proc/self/status").await;
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
        let host = Machine::new("cpus");
        let fixed = |kubelet: &mut config::edge::TailoredKubeletConfig| {
            kubelet.cpu_manager_policy = config::edge::CpuManagerPolicy::Static;
            kubelet.reserved_system_cpus = "0".to_owned();
            kubelet.cpu_manager_reconcile_period = config::KubeletDuration::from_secs(1);
        };
        let node = Plan::configured(&host, fixed).giving().start(&host);
        node.apply(&[pod_of("shared", json!({}))]).await;
        let shared = until_runs(&node, "shared", 0).await;
        let before = cpus_of(&node, &shared).await;
        node.apply(&[pod_of("own", json!({"limits": {"cpu": "1", "memory": "32Mi"}}))]).await;
        let own = until_runs(&node, "own", 0).await;
        let has = cpus_of(&node, &own).await;
        assert!(has.parse::<u32>().is_ok_and(|cpu| cpu > 0), "{has} of {before}");
        let moved = eventually(async || {
            let now = cpus_of(&node, &shared).await;
            (now != before).then_some(now)
        })
        .await
        .expect("the others move");
        assert!(!moved.split([',', '-']).any(|cpu| cpu == has), "{moved} and {has}");
        // A restart changes nothing of it.
        node.stop(&host).await;
        let node = Plan::configured(&host, fixed).giving().start(&host);
        node.apply(&[pod_of("later", json!({}))]).await;
        let later = until_runs(&node, "later", 0).await;
        assert_eq!(cpus_of(&node, &later).await, moved);
        assert_eq!(cpus_of(&node, &own).await, has);
        node.stop(&host).await;
    });
}
