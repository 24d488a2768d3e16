//! The checks of a node's machine while edgecore runs: faults that are really made, in the files of a machine that is a folder and in the node's
//! own store, are found at the start and later, said in the Node's condition, and no more when they are mended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node_alone;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use beehive::Env;
use contract::NodeName;
use edge_edged::MachineChecks;
use edge_store::Store;
use nodechecks::Host;
use serde_json::{Value, json};
use testnode::Reports;

use node_alone::{LONG, LOOK_EVERY, NODE, object, settings, start};

/// What the checks promise: a fault is found within 10 s.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
const RESOLV_CONF: &str = "etc/resolv.conf";
const CONTROLLERS: &str = "sys/fs/cgroup/cgroup.controllers";

fn write(machine: &Path, path: &str, text: &str) {
    let path = machine.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A machine that lacks nothing.
fn machine(at: &Path) {
    write(at, CONTROLLERS, "cpuset cpu io memory pids\n");
    write(at, RESOLV_CONF, "nameserver 192.0.2.53\n");
    write(at, "proc/filesystems", "nodev\toverlay\n");
    write(at, "usr/sbin/iptables", "");
}

/// The node's condition as it waits for the cloud, once it says what it is to say.
async fn until_told(store: &Store, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let told = async {
        loop {
            let node = Reports::of(store).node().unwrap_or_default();
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.into_iter().find(|own| own["type"] == contract::pod_status::CHECKS);
            if let Some(found) = found.filter(&is_it) {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(LONG, told).await.unwrap_or_else(|_| panic!("the condition never said {what}"))
}

fn says(told: &Value, words: &str) -> bool {
    told["message"].as_str().unwrap_or_default().contains(words)
}

#[test]
fn faults_of_the_machine_are_a_condition_at_the_start_and_later_until_they_are_mended() {
    actix_rt::System::new().block_on(async {
        let (folder, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        machine(host.path());
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = settings(folder.path(), address.port());
        // The memory controller off as on a Raspberry Pi, and kube-proxy on the node.
        write(host.path(), CONTROLLERS, "cpuset cpu io pids\n");
        let proxy = json!({"metadata": {"namespace": "shop", "name": "kube-proxy-x", "uid": "u-proxy",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "kube-proxy", "uid": "u"}]},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "registry.example/proxy:1"}]}});
        {
            let store = edge::open_store(&settings, &NodeName::parse(NODE).unwrap(), &Env::real()).unwrap();
            store.commit(vec![object(contract::ids::PODS, "kube-proxy-x", &proxy)]).await.unwrap();
        }
        let checks = MachineChecks {
            host: Host::in_folder(host.path()),
            settings: Arc::new(settings.clone()),
            every: LOOK_EVERY,
            again_after: LOOK_EVERY,
        };
        let begun = Instant::now();
        let (core, store) = start(&settings, Some(checks)).await;
        // No runtime is there either, which is the gravest by its place.
        let told = until_told(&store, "what is wrong", |told| told["status"] == "False").await;
        assert!(begun.elapsed() < FOUND_WITHIN, "{:?}", begun.elapsed());
        assert_eq!(told["reason"], "RuntimeEndpoint", "{told}");
        assert!(says(&told, "RuntimeEndpoint: nobody answers at"), "{told}");
        for named in ["MemoryCgroup", "DaemonSets"] {
            assert!(says(&told, named), "{named}: {told}");
        }
        assert!(!says(&told, "ResolvConf"), "{told}");

        // One comes, as systemd-resolved is switched on; and goes.
        write(host.path(), RESOLV_CONF, "nameserver 127.0.0.53\n");
        until_told(&store, "the resolver", |told| says(told, "ResolvConf")).await;
        write(host.path(), RESOLV_CONF, "nameserver 192.0.2.53\n");
        write(host.path(), CONTROLLERS, "cpuset cpu io memory pids\n");
        let mended = |told: &Value| !says(told, "ResolvConf") && !says(told, "MemoryCgroup");
        let told = until_told(&store, "that they are mended", mended).await;
        assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("RuntimeEndpoint")), "{told}");
        core.stop(LONG).await;
    });
}
