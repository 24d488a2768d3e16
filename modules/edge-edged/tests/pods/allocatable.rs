//! What pods together have of their node, by the kernel and by what is counted.

use std::fs;

use edge_edged::Reserved;
use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, condition, deleted, eventually, first, pod, run};

/// What the kernel says in a file of the cgroup of all pods.
fn of_all(node: &Node, controller: &str, old: &str, new: &str) -> String {
    let (sys, root) = (&node.settings.cgroups, node.settings.cgroup_root.trim_matches('/'));
    let file = match sys.join("cgroup.controllers").exists() {
        true => sys.join(root).join(new),
        false => sys.join(controller).join(root).join(old),
    };
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_owned()
}

fn processors() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let own = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    u64::try_from(own.count()).unwrap()
}

fn reserved_but(milli: u64) -> Reserved {
    Reserved { cpu_milli: processors() * 1000 - milli, memory: 256 << 20, ephemeral_storage: 0 }
}

#[test]
fn all_pods_together_have_what_is_not_reserved() {
    run(async {
        let host = Machine::new("allocatable");
        let node = Node::start_set(&host, |settings| settings.reserved = reserved_but(500));
        node.apply(&[pod("web", WAITS, json!({}))]).await;
        node.until_ready("web").await;
        let name = node.settings.node_name.clone();
        let words = "Updated Node Allocatable limit across pods";
        node.until_event(&name, "NodeAllocatableEnforced", words).await;
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let all: u64 = meminfo.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10;
        let wanted = (all - (256 << 20)) / 65_536 * 65_536;
        let memory = |node: &Node| of_all(node, "memory", "memory.limit_in_bytes", "memory.max");
        assert_eq!(memory(&node), wanted.to_string());
        let shares = of_all(&node, "cpu", "cpu.shares", "cpu.weight");
        assert!(["512", "20"].contains(&shares.as_str()), "{shares}");
        assert_ne!(of_all(&node, "pids", "pids.max", "pids.max"), "max");
        // Whatever became of it is put right, with the next report at the latest.
        let file = node.settings.cgroups.join("memory").join(node.settings.cgroup_root.trim_matches('/'));
        if file.join("memory.limit_in_bytes").exists() {
            fs::write(file.join("memory.limit_in_bytes"), "-1").unwrap();
        }
        eventually(async || (memory(&node) == wanted.to_string()).then_some(()))
            .await
            .expect("it is bounded again");
    });
}

#[test]
fn a_resize_waits_until_a_pod_that_ends_is_gone() {
    run(async {
        let host = Machine::new("ends");
        let node = Node::start_set(&host, |settings| settings.reserved = reserved_but(1000));
        let asks = |name: &str, generation: u64, cpu: &str, script: &str| {
            let mut own = pod(name, script, json!({}));
            own["metadata"]["generation"] = json!(generation);
            own["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
            own
        };
        let go = host.dir().join("go");
        fs::create_dir_all(&go).unwrap();
        let stays = "trap '' TERM; until test -f /go/on; do sleep 0.1; done";
        let mut slow = asks("slow", 1, "600m", stays);
        slow["spec"]["terminationGracePeriodSeconds"] = json!(600);
        slow["spec"]["volumes"] = json!([{"name": "go", "hostPath": {"path": &go}}]);
        slow["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "go", "mountPath": "/go"}]);
        node.apply(&[slow.clone(), asks("web", 1, "300m", WAITS)]).await;
        node.until_ready("slow").await;
        node.until_ready("web").await;
        node.apply(&[deleted(&slow, 600)]).await;
        node.until_event("slow", "Killing", "Stopping container c").await;
        node.apply(&[asks("web", 2, "500m", WAITS)]).await;
        let deferred = |status: &Value| condition(status, "PodResizePending")["reason"] == "Deferred";
        let waits = node.until("web", "to wait", deferred).await;
        let words = condition(&waits, "PodResizePending")["message"].as_str().unwrap();
        assert_eq!(words, "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000");
        // Whose object stays: the cloud is not told yet, or away.
        fs::write(go.join("on"), "").unwrap();
        let has = |status: &Value| {
            condition(status, "PodResizePending").is_null()
                && first(status)["allocatedResources"]["cpu"] == "500m"
        };
        node.until("web", "what the other one had", has).await;
    });
}
