//! Pods that files of the node describe, with and without a cloud.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use contract::UpReport;
use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, container_id, eventually, pod, run};

const NAME: &str = "web-edge-1";

struct Manifests(PathBuf);

impl Manifests {
    fn new(host: &Machine) -> Manifests {
        let folder = host.dir().join("manifests");
        fs::create_dir_all(&folder).unwrap();
        Manifests(folder)
    }

    /// A node on which only the kernel tells of changes.
    fn node(&self, host: &Machine) -> Node {
        let folder = self.0.clone();
        Node::start_set(host, |settings| {
            settings.static_pods = Some(folder);
            settings.static_look_every = Duration::from_secs(3600);
        })
    }

    fn write(&self, file: &str, script: &str) {
        let mut web = pod("web", script, json!({}));
        let metadata = web["metadata"].as_object_mut().unwrap();
        metadata.retain(|key, _| key == "name" || key == "labels");
        for field in ["serviceAccountName", "nodeName"] {
            web["spec"].as_object_mut().unwrap().remove(field);
        }
        fs::write(self.0.join(file), web.to_string()).unwrap();
    }
}

/// The mirror that the node asks for last; `None` within: that there be none.
fn asked(node: &Node) -> Option<Option<Value>> {
    node.reports().into_iter().rev().find_map(|report| match report {
        UpReport::MirrorPod { name, pod_json, .. } if name == NAME => {
            Some(pod_json.map(|text| serde_json::from_str(&text).unwrap()))
        }
        _ => None,
    })
}

async fn until_asked(node: &Node, holds: impl Fn(&Option<Value>) -> bool) -> Option<Value> {
    eventually(async || asked(node).filter(|asked| holds(asked))).await.expect("the cloud is asked")
}

/// As the API server has it once it is made.
fn made(mut mirror: Value, uid: &str) -> Value {
    mirror["metadata"]["uid"] = json!(uid);
    mirror
}

/// The ids of the containers of static pods that run.
async fn running(node: &Node) -> Vec<String> {
    let listed = node.runtime.list_containers(Default::default()).await.unwrap();
    let runs = listed.into_iter().filter(|c| c.state() == cri::v1::ContainerState::ContainerRunning);
    runs.filter(|c| c.labels["io.kubernetes.pod.name"] == NAME).map(|container| container.id).collect()
}

async fn until_one_runs(node: &Node, but: &[String]) -> Vec<String> {
    let one = async || {
        let found = running(node).await;
        (found.len() == 1 && !but.contains(&found[0])).then_some(found)
    };
    eventually(one).await.expect("one container runs")
}

/// Under which uid a status was reported last.
fn reported_as(node: &Node) -> Option<String> {
    node.reports().into_iter().rev().find_map(|report| match report {
        UpReport::PodStatus { name, uid, .. } if name == NAME => Some(uid),
        _ => None,
    })
}

#[test]
fn a_static_pod_runs_without_a_cloud_through_a_restart_until_its_file_goes() {
    run(async {
        let host = Machine::new("static");
        let manifests = Manifests::new(&host);
        manifests.write("web.json", WAITS);
        fs::write(manifests.0.join("bad.yaml"), "kind: Pod\nmetadata: [\n").unwrap();
        // From the first boot on, without ever having heard of a cloud.
        let node = manifests.node(&host);
        let first = until_one_runs(&node, &[]).await;
        node.until_event("edge-1", "FailedValidation", "bad.yaml").await;
        let mirror = until_asked(&node, Option::is_some).await.unwrap();
        let annotations = mirror["metadata"]["annotations"].clone();
        assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
        assert_eq!(reported_as(&node), None, "nobody in the cloud would know whose status it is");

        let node = node.restart(&host, async |_, _| {}).await;
        node.edged.tell(contract::edged::EdgedMsg::ReportNode).await.unwrap();
        node.until_node_is("True").await;
        assert_eq!(until_one_runs(&node, &[]).await, first, "a restart touches nothing");

        // The cloud has heard of it.
        node.apply(&[made(mirror.clone(), "api-1")]).await;
        let status = node.until_ready(NAME).await;
        assert_eq!((container_id(&status), reported_as(&node)), (first[0].clone(), Some("api-1".to_owned())));

        // Somebody deletes the mirror: the pod runs on, and the mirror is made again.
        let position = |node: &Node| {
            node.reports().iter().rposition(|report| matches!(report, UpReport::MirrorPod { .. }))
        };
        let others = node.reports().len();
        node.forget(NAME).await;
        let again = eventually(async || (position(&node) >= Some(others - 1)).then_some(())).await;
        again.expect("the mirror is asked for again");
        node.apply(&[made(mirror, "api-2")]).await;
        let told = eventually(async || (reported_as(&node).as_deref() == Some("api-2")).then_some(())).await;
        told.expect("the new mirror has the status");
        assert_eq!(running(&node).await, first);

        // Another content is another pod.
        manifests.write("web.json", &format!("true; {WAITS}"));
        let second = until_one_runs(&node, &first).await;
        let other = until_asked(&node, |asked| {
            let hash = |annotations: &Value| annotations["kubernetes.io/config.hash"].clone();
            asked.as_ref().is_some_and(|pod| hash(&pod["metadata"]["annotations"]) != hash(&annotations))
        });
        let other = other.await.unwrap();
        node.apply(&[made(other, "api-3")]).await;
        let status = node.until(NAME, "the second", |status| container_id(status) == second[0]).await;
        assert_eq!(status["containerStatuses"][0]["restartCount"], 0, "{status:#}");

        // The file goes while EdgeCore does not run.
        let file = manifests.0.join("web.json");
        let node = node.restart(&host, async |_, _| fs::remove_file(file).unwrap()).await;
        until_asked(&node, Option::is_none).await;
        let ended = eventually(async || running(&node).await.is_empty().then_some(())).await;
        ended.expect("it ends");
    });
}

#[test]
fn a_mirror_is_not_run_and_a_file_that_makes_no_sense_any_more_ends_nothing() {
    run(async {
        let host = Machine::new("mirror");
        let manifests = Manifests::new(&host);
        let node = manifests.node(&host);
        let mut fake = pod("fake", WAITS, json!({}));
        fake["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0a"});
        node.apply(&[fake]).await;
        let refused = |report: &UpReport| matches!(report, UpReport::MirrorPod { name, pod_json: None, .. } if name == "fake");
        let asked = eventually(async || node.reports().iter().any(refused).then_some(())).await;
        asked.expect("a mirror of nothing is to go");
        // It comes by the kernel's word.
        manifests.write("web.json", WAITS);
        let first = until_one_runs(&node, &[]).await;
        let fakes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert!(fakes.iter().all(|sandbox| sandbox.metadata.as_ref().unwrap().name != "fake"));
        fs::write(manifests.0.join("web.json"), "kind: Po").unwrap();
        node.until_event("edge-1", "FailedValidation", "web.json").await;
        assert_eq!(running(&node).await, first);
        fs::remove_file(manifests.0.join("web.json")).unwrap();
        let ended = eventually(async || running(&node).await.is_empty().then_some(())).await;
        ended.expect("it ends");
    });
}

#[test]
fn one_whose_file_changes_while_edgecore_is_away_ends_by_its_own_grace_before_the_new_one_begins() {
    run(async {
        let host = Machine::new("static-changed");
        let manifests = Manifests::new(&host);
        // Deaf to the end: only what it is given of grace is over before it is killed.
        let write = |says: &str| {
            let deaf = format!("trap '' TERM; echo {says}; while true; do sleep 0.2; done");
            manifests.write("web.json", &deaf);
            let file = manifests.0.join("web.json");
            let mut web: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            web["spec"]["terminationGracePeriodSeconds"] = json!(2);
            fs::write(file, web.to_string()).unwrap();
        };
        write("old");
        let node = manifests.node(&host);
        let old = until_one_runs(&node, &[]).await;
        let node = node.restart(&host, async |_, _| write("new")).await;
        let began = std::time::Instant::now();
        let new = async || {
            let found = running(&node).await;
            assert!(found.len() <= 1, "both run: {found:?}");
            (found.len() == 1 && found != old).then_some(())
        };
        eventually(new).await.expect("the new one runs");
        assert!(began.elapsed() < Duration::from_secs(25), "{:?}: not by a grace of 2 s", began.elapsed());
    });
}
