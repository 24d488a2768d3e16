//! Pods that are given other resources while they run.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use testnode::uid;

use crate::node::{Machine, Node, WAITS, condition, container_id, first, pod, put, run};

fn sized(name: &str, generation: u64, cpu: &str, memory: &str, policy: Value) -> Value {
    let resources =
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    let mut own = pod(name, WAITS, json!({}));
    own["metadata"]["generation"] = json!(generation);
    own["spec"]["containers"][0]["resources"] = resources;
    own["spec"]["containers"][0]["resizePolicy"] = policy;
    own
}

fn settled(status: &Value, generation: u64, cpu: &str) -> bool {
    status["observedGeneration"] == generation
        && first(status)["resources"]["limits"]["cpu"] == cpu
        && condition(status, "PodResizeInProgress").is_null()
        && first(status)["ready"] == true
}

/// The quota that the kernel has, in thousandths of a CPU.
async fn quota(node: &Node, status: &Value) -> i64 {
    let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max";
    let text = node.exec(status, &["/bin/sh", "-c", script]).await;
    text.split_whitespace().next().unwrap().parse::<i64>().unwrap_or_else(|_| panic!("{text}")) / 100
}

#[test]
fn a_container_is_given_more_and_less_while_it_runs_also_after_a_restart_of_edgecore() {
    run(async {
        let host = Machine::new("resize");
        let node = Node::start(&host);
        node.apply(&[sized("web", 1, "100m", "64Mi", json!(null))]).await;
        let before = node.until_ready("web").await;
        assert_eq!(quota(&node, &before).await, 100);
        node.apply(&[sized("web", 2, "200m", "128Mi", json!(null))]).await;
        let after = node.until("web", "the resize", |status| settled(status, 2, "200m")).await;
        assert_eq!((container_id(&after), quota(&node, &after).await), (container_id(&before), 200));
        assert_eq!(first(&after)["allocatedResources"], json!({"cpu": "200m", "memory": "128Mi"}));
        assert_eq!(first(&after)["restartCount"], 0);
        let whole = json!({"cpu": "200m", "memory": "128Mi"});
        assert_eq!(after["resources"], json!({"requests": whole, "limits": whole}));
        assert_eq!(after["allocatedResources"], whole);
        for (reason, words) in
            [("ResizeStarted", "Pod resize started: {"), ("ResizeCompleted", "\"generation\":2")]
        {
            node.until_event("web", reason, words).await;
        }
        // The cloud is away, EdgeCore is not there when the change comes to its store, and there is less.
        let node = node
            .restart(&host, async |store, _| {
                put(store, &[sized("web", 3, "150m", "96Mi", json!(null))]).await
            })
            .await;
        let after = node.until("web", "the resize", |status| settled(status, 3, "150m")).await;
        assert_eq!((container_id(&after), quota(&node, &after).await), (container_id(&before), 150));

        // More than the node has: it waits, and a restart makes nothing of it.
        node.apply(&[sized("web", 4, "4000", "96Mi", json!(null))]).await;
        let deferred = |status: &Value| condition(status, "PodResizePending")["reason"] == "Deferred";
        let waits = node.until("web", "to wait", deferred).await;
        let words = condition(&waits, "PodResizePending")["message"].as_str().unwrap().to_owned();
        assert!(
            words.starts_with("Node didn't have enough resource: cpu, requested: 4000000, used: 0,"),
            "{words}"
        );
        let node = node.restart(&host, async |_, _| {}).await;
        let waits =
            node.until("web", "to wait", |status| deferred(status) && first(status)["ready"] == true).await;
        assert_eq!((container_id(&waits), quota(&node, &waits).await), (container_id(&before), 150));
        node.apply(&[sized("web", 5, "150m", "96Mi", json!(null))]).await;
        node.until("web", "nothing to wait for", |status| condition(status, "PodResizePending").is_null())
            .await;
    });
}

/// Where the kernel keeps what a Guaranteed pod may use: the quota of its CPUs and its memory.
fn files_of_pod(node: &Node, pod: &str) -> [PathBuf; 2] {
    let (sys, root) = (&node.settings.cgroups, node.settings.cgroup_root.trim_matches('/'));
    let own = format!("{root}/pod{}", uid(pod));
    if sys.join("cgroup.controllers").exists() {
        ["cpu.max", "memory.max"].map(|file| sys.join(&own).join(file))
    } else {
        [("cpu", "cpu.cfs_quota_us"), ("memory", "memory.limit_in_bytes")]
            .map(|(controller, file)| sys.join(controller).join(&own).join(file))
    }
}

/// The same as it is read, in thousandths of a CPU and in MiB.
fn of_pod(node: &Node, pod: &str) -> (i64, i64) {
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.split_whitespace().next().unwrap().parse::<i64>().unwrap_or(-1)
    };
    let [quota, memory] = files_of_pod(node, pod);
    (read(&quota) / 100, read(&memory) >> 20)
}

/// Waits until the resize has ended, and looks at the pod's cgroup and the container's.
async fn resized(node: &Node, generation: u64, cpu: &str, memory: &str) -> Value {
    let status = node
        .until("web", "the resize", |status| {
            settled(status, generation, cpu) && first(status)["resources"]["limits"]["memory"] == memory
        })
        .await;
    let amount = |text: &str| text.trim_end_matches(char::is_alphabetic).parse::<i64>().unwrap();
    assert_eq!(of_pod(node, "web"), (amount(cpu), amount(memory)), "the pod's, at {generation}");
    assert_eq!(quota(node, &status).await, amount(cpu), "the container's, at {generation}");
    status
}

#[test]
fn a_container_starts_again_where_its_policy_asks_for_it_and_its_pod_is_bound_anew() {
    run(async {
        let host = Machine::new("restarts");
        let node = Node::start(&host);
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        node.apply(&[sized("web", 1, "100m", "64Mi", policy.clone())]).await;
        let before = node.until_ready("web").await;
        node.apply(&[sized("web", 2, "200m", "64Mi", policy.clone())]).await;
        let after = resized(&node, 2, "200m", "64Mi").await;
        assert_eq!(container_id(&after), container_id(&before));
        node.apply(&[sized("web", 3, "200m", "128Mi", policy.clone())]).await;
        let after = resized(&node, 3, "200m", "128Mi").await;
        assert_eq!(first(&after)["restartCount"], 1);
        node.until_event("web", "Killing", "Container c resize requires restart").await;
        // In a pod of 200m the kernel refuses a container of 300m (version 1).
        node.apply(&[sized("web", 4, "300m", "160Mi", policy.clone())]).await;
        resized(&node, 4, "300m", "160Mi").await;
        node.apply(&[sized("web", 5, "100m", "96Mi", policy)]).await;
        let after = resized(&node, 5, "100m", "96Mi").await;
        assert_eq!(first(&after)["restartCount"], 3);
        // Whatever became of the pod's cgroup is put right when EdgeCore starts.
        let [quota, memory] = files_of_pod(&node, "web");
        let node = node
            .restart(&host, async |_, _| {
                fs::write(&quota, "40000").unwrap();
                fs::write(&memory, (200 << 20).to_string()).unwrap();
            })
            .await;
        let is_bound = async || (of_pod(&node, "web") == (100, 96)).then_some(());
        crate::node::eventually(is_bound).await.expect("the pod's cgroup is bound anew");
    });
}

/// The files of version 1 lie in a folder of the test's, where one that is a folder is refused.
#[test]
fn a_pod_whose_cgroup_cannot_be_raised_says_so_and_its_container_keeps_what_it_has() {
    run(async {
        let host = Machine::new("refused");
        let sys = host.dir().join("cgroups");
        for controller in ["cpu", "memory"] {
            fs::create_dir_all(sys.join(controller)).unwrap();
        }
        let node = Node::start_set(&host, |settings| settings.cgroups = sys);
        node.apply(&[sized("web", 1, "100m", "64Mi", json!(null))]).await;
        let before = node.until_ready("web").await;
        assert_eq!(of_pod(&node, "web"), (100, 64));
        let [file, _] = files_of_pod(&node, "web");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        node.apply(&[sized("web", 2, "200m", "96Mi", json!(null))]).await;
        let error = |status: &Value| condition(status, "PodResizeInProgress")["reason"] == "Error";
        let status = node.until("web", "the refusal", error).await;
        let words = condition(&status, "PodResizeInProgress")["message"].as_str().unwrap().to_owned();
        assert!(
            words.contains("20000 could not be written to") && words.contains("cpu.cfs_quota_us"),
            "{words}"
        );
        node.until_event("web", "ResizeError", "Pod resize error: {\"containers\":").await;
        assert_eq!(quota(&node, &status).await, 100, "it has no more than its pod");
        fs::remove_dir(&file).unwrap();
        fs::write(&file, "10000").unwrap();
        let after = resized(&node, 2, "200m", "96Mi").await;
        assert_eq!(container_id(&after), container_id(&before));
        node.until_event("web", "ResizeCompleted", "\"generation\":2").await;
    });
}

/// The kernel would end it at once.
#[test]
fn memory_is_not_lowered_below_what_is_used() {
    run(async {
        let host = Machine::new("shrinks");
        let node = Node::start(&host);
        let fills = format!("dd if=/dev/zero of=/big/x bs=1M count=40; {WAITS}");
        let with = |generation: u64, memory: &str| {
            let mut own = sized("web", generation, "500m", memory, json!(null));
            own["spec"]["containers"][0]["command"][2] = json!(fills);
            own["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "big", "mountPath": "/big"}]);
            own["spec"]["volumes"] = json!([{"name": "big", "emptyDir": {"medium": "Memory"}}]);
            own
        };
        node.apply(&[with(1, "128Mi")]).await;
        let before = node.until_ready("web").await;
        let filled = async || {
            let size = node.exec(&before, &["/bin/sh", "-c", "wc -c < /big/x"]).await;
            (size.trim() == (40 << 20).to_string()).then_some(())
        };
        crate::node::eventually(filled).await.expect("it fills its memory");
        node.apply(&[with(2, "16Mi")]).await;
        let error = |status: &Value| condition(status, "PodResizeInProgress")["reason"] == "Error";
        let status = node.until("web", "the refusal", error).await;
        let words = condition(&status, "PodResizeInProgress")["message"].as_str().unwrap().to_owned();
        assert!(words.contains("cannot decrease memory limits"), "{words}");
        assert_eq!(first(&status)["resources"]["limits"]["memory"], "128Mi");
        node.apply(&[with(3, "96Mi")]).await;
        let after = node.until("web", "a smaller step", |status| settled(status, 3, "500m")).await;
        assert_eq!(container_id(&after), container_id(&before));
    });
}

#[test]
fn what_a_pod_has_as_a_whole_bounds_its_containers_and_a_start_of_the_node_is_told() {
    run(async {
        let host = Machine::new("whole");
        let node = Node::start(&host);
        let whole = |cpu: &str| json!({"resources": {"limits": {"cpu": cpu, "memory": "64Mi"}}});
        let mut own = pod("web", WAITS, whole("100m"));
        own["metadata"]["generation"] = json!(1);
        node.apply(&[own.clone()]).await;
        let status = node.until_ready("web").await;
        assert_eq!((status["qosClass"].as_str(), quota(&node, &status).await), (Some("Guaranteed"), 100));
        let amounts = json!({"cpu": "100m", "memory": "64Mi"});
        assert_eq!(status["resources"], json!({"requests": amounts, "limits": amounts}));
        assert_eq!(status["allocatedResources"], amounts);
        // An API server of 1.36 refuses this, since the node does not declare that it can.
        own["metadata"]["generation"] = json!(2);
        own["spec"]["resources"] = whole("200m")["resources"].clone();
        node.apply(&[own]).await;
        let infeasible = |status: &Value| condition(status, "PodResizePending")["reason"] == "Infeasible";
        let status = node.until("web", "the refusal", infeasible).await;
        assert_eq!(quota(&node, &status).await, 100);
        node.until_event("web", "ResizeInfeasible", "Pod resize Infeasible: {\"containers\":").await;

        let name = node.settings.node_name.clone();
        for (reason, words) in [
            ("Starting", "Starting kubelet."),
            ("NodeHasSufficientMemory", "status is now: NodeHasSufficientMemory"),
            ("NodeReady", "status is now: NodeReady"),
        ] {
            node.until_event(&name, reason, words).await;
        }
    });
}
