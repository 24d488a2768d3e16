//! What a pod asks of the runtime: by which handler it runs, with which users, signals, images and bounds. On a runtime that can't
//! it is refused in a kubelet's words, and never started without.

use std::time::Duration;

use config::edge::{CgroupDriver, SwapBehavior};
use edge_store::{ObjectKey, Write};
use serde_json::{Value, json};

use crate::node::{
    Machine, Node, WAITS, condition, container, container_id, eventually, first, pod, run, text,
};

fn class(name: &str, handler: &str) -> Value {
    json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
        "metadata": {"name": name, "uid": format!("class-{name}")}, "handler": handler})
}

/// How many containers the runtime has of a pod.
async fn made(node: &Node, pod: &str) -> usize {
    let of_pod = [("io.kubernetes.pod.name".to_owned(), pod.to_owned())].into();
    let filter = cri::v1::ContainerFilter { label_selector: of_pod, ..Default::default() };
    node.runtime.list_containers(filter).await.unwrap().len()
}

#[test]
fn a_runtime_class_is_its_handler_and_what_that_takes_is_the_pods() {
    run(async {
        let host = Machine::new("classes");
        let node = Node::start(&host);
        let mut limited = container("c", WAITS);
        limited["resources"] = json!({"limits": {"cpu": "100m", "memory": "32Mi"}});
        node.apply(&[
            class("usual", "runc"),
            class("strange", "kata"),
            pod(
                "fine",
                "",
                json!({"runtimeClassName": "usual", "containers": [limited],
                "overhead": {"cpu": "50m", "memory": "16Mi"}}),
            ),
            pod("unknown", WAITS, json!({"runtimeClassName": "strange"})),
            pod("early", WAITS, json!({"runtimeClassName": "late"})),
        ])
        .await;
        let status = node.until_ready("fine").await;
        if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            let own = |controller: &str, file: &str| {
                let root = node.settings.cgroup_root.trim_matches('/');
                let path = format!("/sys/fs/cgroup/{controller}/{root}/poduid-of-fine/{file}");
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
            };
            assert_eq!(own("cpu", "cpu.cfs_quota_us").trim(), "15000");
            assert_eq!(own("memory", "memory.limit_in_bytes").trim(), (48 << 20).to_string());
        }
        assert_eq!(first(&status)["resources"]["limits"]["memory"], "32Mi", "the container has its own");
        let words = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: \
                     no runtime for \"kata\" is configured";
        node.until_event("unknown", "FailedCreatePodSandBox", words).await;
        let words = "Failed to create pod sandbox: runtimeclass.node.k8s.io \"late\" not found";
        node.until_event("early", "FailedCreatePodSandBox", words).await;
        for name in ["unknown", "early"] {
            assert_eq!(made(&node, name).await, 0, "{name}");
        }
        node.apply(&[class("late", "runc")]).await;
        let status = node.until_ready("early").await;
        // A class that has gone takes no container from the sandbox that was made by it.
        let key = ObjectKey::new("runtimeclasses", "", "late");
        node.store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
        node.runtime.stop_container(&container_id(&status), Duration::ZERO).await.unwrap();
        let restarts = |status: &Value| {
            first(status)["restartCount"] == 1 && condition(status, "Ready")["status"] == "True"
        };
        node.until("early", "a restart", restarts).await;
    });
}

#[test]
fn what_the_runtime_cannot_do_is_refused_and_never_left_out() {
    run(async {
        let host = Machine::new("abilities");
        let node = Node::start(&host);
        let mut bare = container("c", WAITS);
        bare["securityContext"] = json!({"procMount": "Unmasked"});
        let mut mounting = container("c", WAITS);
        mounting["volumeMounts"] = json!([{"name": "model", "mountPath": "/model"}]);
        let mut signalled = container("c", WAITS);
        signalled["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
        node.apply(&[
            pod("users", WAITS, json!({"hostUsers": false})),
            pod("proc", "", json!({"containers": [bare]})),
            pod(
                "image",
                "",
                json!({"containers": [mounting], "volumes": [{"name": "model", "image": {"reference": testhost::BUSYBOX}}]}),
            ),
            pod("signal", "", json!({"os": {"name": "linux"}, "containers": [signalled]})),
        ])
        .await;
        let version = node.runtime.version().await.unwrap().runtime_version;
        let is_old = version.trim_start_matches('v').starts_with("1.");
        let users = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
        let waits = |name: &str, words: &str| {
            let (name, words) = (name.to_owned(), words.to_owned());
            let node = &node;
            async move {
                let status = node.until(&name, "its refusal", |status| {
                    text(&first(status)["state"]["waiting"]["message"]).contains(&words)
                });
                status.await;
            }
        };
        waits("proc", "`hostUsers` must be false to use `Unmasked`").await;
        if is_old {
            node.until_event("users", "FailedCreatePodSandBox", users).await;
            let words = "MountVolume.SetUp failed for volume \"model\" : image volumes are not supported by the container runtime";
            node.until_event("image", "FailedMount", words).await;
            for name in ["users", "image"] {
                assert_eq!(made(&node, name).await, 0, "{name} was not started without");
            }
            // As with a kubelet the field is passed over; here it is said.
            node.until_ready("signal").await;
            node.until_event("signal", "StopSignalNotSupported", "lifecycle.stopSignal SIGUSR1").await;
        }
    });
}

#[test]
fn a_runtime_that_makes_cgroups_in_another_way_makes_the_node_not_ready() {
    run(async {
        let host = Machine::new("drivers");
        let node = Node::start_set(&host, |settings| settings.cgroup_driver = CgroupDriver::Systemd);
        node.apply(&[pod("p", WAITS, json!({}))]).await;
        let cure = "set modules.edged.tailoredKubeletConfig.cgroupDriver to cgroupfs";
        let told = eventually(async || {
            let ready = node.node().map(|node| condition(&node["status"], "Ready").clone());
            ready.filter(|ready| ready["reason"] == "CgroupDriverMismatch")
        });
        let ready = told.await.expect("the node says what is wrong");
        assert_eq!(ready["status"], "False");
        assert!(text(&ready["message"]).contains(cure), "{ready}");
        node.until_event("p", "FailedCreatePodSandBox", cure).await;
        assert_eq!(made(&node, "p").await, 0);
        let node = node.stop(&host).await.set(|settings| settings.cgroup_driver = CgroupDriver::Cgroupfs);
        let node = node.start();
        node.until_node_is("True").await;
        node.until_ready("p").await;
    });
}

#[test]
fn a_container_gets_no_swap_with_cgroups_of_version_1_whatever_is_configured() {
    run(async {
        let host = Machine::new("swap");
        let node = Node::start_set(&host, |settings| settings.swap_behavior = SwapBehavior::LimitedSwap);
        let mut limited = container("c", WAITS);
        limited["resources"] = json!({"requests": {"memory": "16Mi"}, "limits": {"memory": "32Mi"}});
        node.apply(&[pod("p", "", json!({"containers": [limited]}))]).await;
        let status = node.until_ready("p").await;
        let root = node.settings.cgroup_root.trim_matches('/');
        let file = format!(
            "/sys/fs/cgroup/memory/{root}/burstable/poduid-of-p/{}/memory.memsw.limit_in_bytes",
            container_id(&status)
        );
        if std::path::Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
            assert_eq!(std::fs::read_to_string(file).unwrap().trim(), (32 << 20).to_string());
        }
    });
}

#[test]
fn huge_pages_are_given_by_what_the_machine_has() {
    run(async {
        let host = Machine::new("hugepages");
        let node = Node::start(&host);
        let told = node.until_node_is("True").await;
        let mut greedy = container("c", WAITS);
        let amount = json!({"hugepages-2Mi": "1Ti", "memory": "16Mi", "cpu": "10m"});
        greedy["resources"] = json!({"limits": amount, "requests": amount});
        let mut mounting = container("c", WAITS);
        mounting["volumeMounts"] = json!([{"name": "huge", "mountPath": "/huge"}]);
        let volumes = json!([{"name": "huge", "emptyDir": {"medium": "HugePages"}}]);
        node.apply(&[
            pod("greedy", "", json!({"containers": [greedy]})),
            pod("without", "", json!({"containers": [mounting], "volumes": volumes})),
        ])
        .await;
        let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages").map(Iterator::count).unwrap_or(0);
        let capacity = told["status"]["capacity"].as_object().unwrap();
        assert_eq!(capacity.keys().filter(|name| name.starts_with("hugepages-")).count(), sizes);
        let status = node.until("greedy", "its refusal", |status| status["phase"] == "Failed").await;
        assert_eq!(status["reason"], "OutOfhugepages-2Mi");
        let words =
            "medium HugePages: hugePages storage requested, but there is no resource request for huge pages";
        node.until_event("without", "FailedMount", words).await;
    });
}
