//! A node that is short of something.

use std::time::Duration;

use config::Threshold;
use config::edge::TailoredKubeletConfig;
use contract::UpReport;
use edge_edged::{EvictionRules, Settings};
use serde_json::{Value, json};
use testhost::Image;

use crate::node::{Machine, Node, WAITS, condition, container, deleted, eventually, first, pod, run, text};

/// Rules by which all is well but for what `short` makes too little of.
fn rules(settings: &mut Settings, short: impl FnOnce(&mut TailoredKubeletConfig)) {
    let mut kubelet = TailoredKubeletConfig::default();
    let hard = &mut kubelet.eviction_hard;
    for bound in [
        &mut hard.memory_available,
        &mut hard.nodefs_available,
        &mut hard.nodefs_inodes_free,
        &mut hard.imagefs_available,
        &mut hard.imagefs_inodes_free,
        &mut hard.pid_available,
    ] {
        *bound = Threshold::Part(0);
    }
    short(&mut kubelet);
    settings.eviction_rules = EvictionRules::new(&kubelet);
    settings.eviction_rules.every = Duration::from_millis(300);
}

/// More has to be left than there can be.
const ALL: Threshold = Threshold::Part(9999);

fn node_condition(node: &Value, kind: &str) -> String {
    let list = node["status"]["conditions"].as_array().unwrap();
    text(&list.iter().find(|own| own["type"] == kind).unwrap()["status"])
}

async fn until_pressed(node: &Node, kind: &str) {
    let pressed = async || node.node().filter(|node| node_condition(node, kind) == "True").map(drop);
    eventually(pressed).await.expect("the node says that it is short of something");
}

fn critical(name: &str) -> Value {
    pod(name, WAITS, json!({"priority": 2_000_000_000}))
}

#[test]
fn the_pod_that_takes_the_most_memory_beyond_its_request_goes_and_the_systems_stay() {
    run(async {
        let host = Machine::new("memory");
        let node = Node::start(&host);
        // 32 MiB in memory of the pod's own.
        let hog =
            pod("b-hog", &format!("x=$(dd if=/dev/zero bs=1M count=32 | tr '\\0' x); {WAITS}"), json!({}));
        let mut modest = container("c", WAITS);
        modest["resources"] = json!({"requests": {"memory": "64Mi"}});
        node.apply(&[hog.clone(), critical("system"), pod("a-modest", "", json!({"containers": [modest]}))])
            .await;
        for name in ["b-hog", "a-modest", "system"] {
            node.until_ready(name).await;
        }
        let stopped = node.stop(&host).await;
        let node = stopped
            .set(|settings| rules(settings, |kubelet| kubelet.eviction_hard.memory_available = ALL))
            .start();
        until_pressed(&node, "MemoryPressure").await;
        let report = node.node().unwrap();
        let list = report["status"]["conditions"].as_array().unwrap();
        let message = text(&list.iter().find(|own| own["type"] == "MemoryPressure").unwrap()["message"]);
        assert!(
            message.starts_with("edged has insufficient memory available: memory.available fell to "),
            "{message}"
        );
        // Nobody is taken but those who may.
        node.apply(&[pod("late", WAITS, json!({}))]).await;
        let late = node.until("late", "its refusal", |status| status["reason"] == "Evicted").await;
        assert_eq!(late["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
        assert_eq!(late["phase"], "Failed");
        let status = node.until("b-hog", "its eviction", |status| status["reason"] == "Evicted").await;
        let message = text(&status["message"]);
        assert!(
            message.starts_with("The node was low on resource: memory. Threshold quantity: "),
            "{message}"
        );
        assert!(
            message.contains("Container c was using ")
                && message.contains(", request is 0, has larger consumption of memory. "),
            "{message}"
        );
        assert_eq!(status["phase"], "Failed");
        let status = node
            .until("b-hog", "the end of its container", |status| {
                status["reason"] == "Evicted" && !first(status)["state"]["terminated"].is_null()
            })
            .await;
        assert_eq!(condition(&status, "Ready")["status"], "False");
        let told = node.events("b-hog");
        assert!(told.iter().any(|(reason, text)| reason == "Evicted" && *text == message), "{told:?}");
        let met = ("EvictionThresholdMet".to_owned(), "Attempting to reclaim memory".to_owned());
        assert!(node.events("edge-1").contains(&met));
        // The one that keeps to its request goes next, the system's never.
        node.until("a-modest", "its eviction", |status| status["reason"] == "Evicted").await;
        let system = node.status("system").unwrap();
        assert_eq!(system["phase"], "Running");
        // Nothing but its status is left of it, also after a restart, and then it goes for good.
        let cleared = async || (!node.pod_folder("b-hog").exists()).then_some(());
        eventually(cleared).await.expect("what it took is free");
        let node = node.restart(&host, async |_, _| {}).await;
        node.apply(&[deleted(&hog, 1)]).await;
        node.until_gone("b-hog").await;
        let status = node.status("b-hog").unwrap();
        assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
        assert_eq!(node.status("system").unwrap()["containerStatuses"], system["containerStatuses"]);
    });
}

/// 1 GiB of the machine is for pods, whatever else runs on it.
const FOR_PODS: u64 = 1 << 30;

#[test]
fn a_hog_of_the_nodes_memory_goes_alone_and_the_node_recovers_by_itself() {
    run(async {
        let host = Machine::new("reserve");
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
        let total = total.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10;
        let node = Node::start_set(&host, |settings| {
            settings.reserved.memory = total - FOR_PODS;
            rules(settings, |kubelet| {
                kubelet.eviction_hard.memory_available = Threshold::Amount(FOR_PODS / 2);
                kubelet.eviction_pressure_transition_period = config::KubeletDuration::from_secs(3);
            });
        });
        let mut modest = container("c", WAITS);
        modest["resources"] = json!({"requests": {"memory": "16Mi"}});
        node.apply(&[pod("a-modest", "", json!({"containers": [modest]}))]).await;
        node.until_ready("a-modest").await;
        assert!(!node.events("edge-1").iter().any(|(reason, _)| reason == "EvictionThresholdMet"));
        // What lies in memory is its own: 640 MiB of 1 GiB.
        let mut hog = container("c", &format!("dd if=/dev/zero of=/fast/f bs=1M count=640; {WAITS}"));
        hog["volumeMounts"] = json!([{"name": "fast", "mountPath": "/fast"}]);
        let volumes = json!([{"name": "fast", "emptyDir": {"medium": "Memory"}}]);
        let hog = pod("b-hog", "", json!({"containers": [hog], "volumes": volumes}));
        node.apply(std::slice::from_ref(&hog)).await;
        until_pressed(&node, "MemoryPressure").await;
        let status = node.until("b-hog", "its eviction", |status| status["reason"] == "Evicted").await;
        let message = text(&status["message"]);
        let words = "The node was low on resource: memory. Threshold quantity: 512Mi, available: ";
        assert!(message.starts_with(words), "{message}");
        let over =
            async || node.node().filter(|node| node_condition(node, "MemoryPressure") == "False").map(drop);
        eventually(over).await.expect("the pressure ends by itself");
        let modest = node.until_ready("a-modest").await;
        assert_eq!(first(&modest)["restartCount"], 0);
        assert!(!node.events("a-modest").iter().any(|(reason, _)| reason == "Evicted"));
        node.apply(&[pod("c-late", WAITS, json!({}))]).await;
        node.until_ready("c-late").await;
        node.apply(&[deleted(&hog, 1)]).await;
        node.until_gone("b-hog").await;
    });
}

#[test]
fn a_full_disk_takes_unused_images_first_and_then_who_has_the_most_on_it() {
    run(async {
        let host = Machine::new("disk");
        let mut extra = Image::busybox("kubehive.test/extra:1").unwrap();
        extra.env.push("EXTRA=1".to_owned());
        host.import(&extra).unwrap();
        let node = Node::start(&host);
        let writes = |name: &str, mebibytes: u32| {
            let script = format!("dd if=/dev/zero of=/data/f bs=1M count={mebibytes}; {WAITS}");
            let mut own = container("c", &script);
            own["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
            pod(
                name,
                "",
                json!({"containers": [own], "volumes": [{"name": "data", "emptyDir": {}}], "priority": 2_000_000_000 - 1}),
            )
        };
        node.apply(&[writes("a-small", 1), writes("b-large", 16)]).await;
        for name in ["a-small", "b-large"] {
            node.until_ready(name).await;
        }
        let stopped = node.stop(&host).await;
        let node = stopped
            .set(|settings| {
                settings.image_collection.min_age = Duration::from_millis(100);
                rules(settings, |kubelet| {
                    kubelet.eviction_soft.nodefs_available = Some(ALL);
                    kubelet.eviction_soft_grace_period.nodefs_available =
                        Some(config::KubeletDuration::from_secs(3));
                });
            })
            .start();
        until_pressed(&node, "DiskPressure").await;
        let status = node.until("b-large", "its eviction", |status| status["reason"] == "Evicted").await;
        let message = text(&status["message"]);
        assert!(
            message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "),
            "{message}"
        );
        // The bound stays met, so the other one goes after it: the order is in the reports.
        let evicted = node.reports().into_iter().find_map(|report| match report {
            UpReport::Event { event_json, .. } => {
                let event: Value = serde_json::from_str(&event_json).unwrap();
                (event["reason"] == "Evicted").then(|| text(&event["involvedObject"]["name"]))
            }
            _ => None,
        });
        assert_eq!(evicted.as_deref(), Some("b-large"));
        let tags: Vec<String> =
            node.runtime.list_images().await.unwrap().into_iter().flat_map(|image| image.repo_tags).collect();
        assert!(!tags.contains(&"kubehive.test/extra:1".to_owned()), "{tags:?}");
        assert!(tags.contains(&testhost::BUSYBOX.to_owned()));
        let cleared = async || (!node.pod_folder("b-large").exists()).then_some(());
        eventually(cleared).await.expect("what it took is free");
    });
}

/// A runtime that does not say what pods use leaves nobody to choose by.
#[test]
fn nobody_goes_while_it_is_not_known_what_pods_use() {
    run(async {
        let host = Machine::new("nostats");
        let node = Node::start(&host);
        let hog =
            pod("b-hog", &format!("x=$(dd if=/dev/zero bs=1M count=32 | tr '\\0' x); {WAITS}"), json!({}));
        node.apply(&[pod("a-small", WAITS, json!({})), hog]).await;
        for name in ["a-small", "b-hog"] {
            node.until_ready(name).await;
        }
        let stopped = node.stop(&host).await;
        let node = stopped
            .set(|settings| rules(settings, |kubelet| kubelet.eviction_hard.memory_available = ALL))
            .without_stats()
            .start();
        let asked = async || (node.runtime_faults.stats_asked() >= 6).then_some(());
        eventually(asked).await.expect("it is asked again and again");
        for name in ["a-small", "b-hog"] {
            assert!(!node.events(name).iter().any(|(reason, _)| reason == "Evicted"), "{name}");
        }
        node.runtime_faults.give_stats();
        node.until("b-hog", "its eviction", |status| status["reason"] == "Evicted").await;
        let first = node.reports().into_iter().find_map(|report| match report {
            UpReport::Event { event_json, .. } => {
                let event: Value = serde_json::from_str(&event_json).unwrap();
                (event["reason"] == "Evicted").then(|| text(&event["involvedObject"]["name"]))
            }
            _ => None,
        });
        assert_eq!(first.as_deref(), Some("b-hog"));
    });
}

#[test]
fn a_pod_that_takes_more_of_the_disk_than_it_may_goes_whatever_is_left() {
    run(async {
        let host = Machine::new("limits");
        let stopped = Node::start(&host).stop(&host).await;
        let node = stopped.set(|settings| rules(settings, |_| {})).start();
        let writes = |name: &str, size: &str, storage: &str| {
            let script = format!("dd if=/dev/zero of=/data/f bs=1M count=4; {WAITS}");
            let mut own = container("c", &script);
            own["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
            own["resources"] = json!({"limits": {"ephemeral-storage": storage}});
            let volumes = json!([{"name": "data", "emptyDir": {"sizeLimit": size}}]);
            pod(name, "", json!({"containers": [own], "volumes": volumes}))
        };
        let pods = [
            writes("a-within", "8Mi", "1Gi"),
            writes("b-volume", "1Mi", "1Gi"),
            writes("c-pod", "8Mi", "2Mi"),
        ];
        node.apply(&pods).await;
        for (name, message) in [
            ("b-volume", "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". "),
            ("c-pod", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        ] {
            let status = node.until(name, "its eviction", |status| status["reason"] == "Evicted").await;
            assert_eq!((&status["phase"], &status["message"]), (&json!("Failed"), &json!(message)));
        }
        node.until_ready("a-within").await;
        assert!(node.status("a-within").is_some_and(|status| status["reason"] != "Evicted"));
    });
}
