//! What a node knows of its pods' statuses: from its own store, and from the cloud when that is lost. On a real containerd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use contract::Change;
use contract::ids::PODS;
use contract::metamanager::{MetaDown, MetaMsg};
use contract::wire::META_MAILBOX;
use cri::v1::ContainerFilter;
use cri::{Grpc, Runtime};
use harness::{Cluster, LinkTransport, Node, Recorded, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testhost::{BUSYBOX, TestHost};

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

/// A cluster, a host with a containerd, and a node on it.
struct Fixture {
    cluster: Cluster,
    node: Node,
    runtime: Arc<dyn Runtime>,
    // Ends last.
    host: TestHost,
}

impl Fixture {
    async fn new(name: &str) -> Fixture {
        let host = TestHost::new(name).unwrap();
        let runtime: Arc<dyn Runtime> =
            Arc::new(Grpc::new(&host.endpoint(), &host.endpoint(), ANSWERS_WITHIN).unwrap());
        let mut cluster = Cluster::over(LinkTransport::Quic).await;
        let node = cluster.node_over("edge-1", Arc::clone(&runtime)).await;
        cluster.until_ready(&node).await;
        Fixture { cluster, node, runtime, host }
    }

    /// A pod of one container `c` that runs `script`, with `spec` merged over it.
    async fn pod(&self, name: &str, script: &str, spec: Value) {
        let mut own = json!({
            "nodeName": "edge-1", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "dnsPolicy": "Default",
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["/bin/sh", "-c", script]}],
        });
        for (key, value) in spec.as_object().cloned().unwrap_or_default() {
            own[key] = value;
        }
        let metadata = json!({"name": name, "namespace": "default"});
        self.cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": own})).await;
    }

    async fn status(&self, pod: &str) -> Value {
        let pods = self.cluster.objects("v1", "Pod", Some("default"));
        pods.get_opt(pod).await.unwrap().map(|pod| pod.data["status"].clone()).unwrap_or_default()
    }

    async fn until(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.cluster.until_async(&format!("{pod}: {what}"), async || holds(&self.status(pod).await)).await;
        self.status(pod).await
    }

    async fn until_phase(&self, pod: &str, phase: &str) -> Value {
        self.until(pod, phase, |status| status["phase"] == phase).await
    }

    async fn patch_status(&self, pod: &str, status: Value) {
        let pods = self.cluster.objects("v1", "Pod", Some("default"));
        let patch = json!({"apiVersion": "v1", "kind": "Pod", "status": status});
        pods.patch_status(pod, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Names of the pods of which the runtime has a container, whatever its state.
    async fn in_runtime(&self) -> Vec<String> {
        let all = self.runtime.list_containers(ContainerFilter::default()).await.unwrap();
        let mut names: Vec<String> =
            all.into_iter().map(|container| container.labels["io.kubernetes.pod.name"].clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Waits until the node does everything that it has to: a pod that comes after all others runs.
    async fn until_caught_up(&self, marker: &str) {
        self.pod(marker, WAITS, json!({})).await;
        self.until_phase(marker, "Running").await;
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|one| one["type"] == kind)).unwrap_or(&Value::Null)
}

/// The names of the pods that the node is sent.
fn pods_sent(node: &Node) -> Recorded<Vec<String>> {
    node.probe(META_MAILBOX, |message: &MetaMsg| match message {
        MetaMsg::Down(MetaDown::Apply { changes, .. }) => {
            let pods = changes.iter().filter_map(|change| match change {
                Change::Upsert(object) if object.key.resource == PODS => Some(object.key.name.clone()),
                Change::Upsert(_) | Change::Delete { .. } => None,
            });
            Some(pods.collect::<Vec<_>>()).filter(|pods| !pods.is_empty())
        }
        _ => None,
    })
}

const ENDED: [(&str, &str, &str, &str); 3] = [
    ("succeeded", "exit 0", "Never", "Succeeded"),
    ("succeeded-on-failure", "exit 0", "OnFailure", "Succeeded"),
    ("failed", "exit 3", "Never", "Failed"),
];

#[test]
fn a_pod_that_has_ended_never_runs_again_though_the_runtime_and_then_the_store_lost_everything() {
    run(async || {
        let mut fixture = Fixture::new("ended").await;
        for (name, script, policy, _) in ENDED {
            fixture.pod(name, script, json!({"restartPolicy": policy})).await;
        }
        fixture.pod("goes-on", WAITS, json!({})).await;
        let mut before = Vec::new();
        for (name, _, _, phase) in ENDED {
            // Its sandbox is stopped, which is the last that is reported.
            let over = |status: &Value| {
                let sandbox = &condition(status, "PodReadyToStartContainers")["status"];
                status["phase"] == phase && sandbox == "False"
            };
            before.push((name, fixture.until(name, phase, over).await));
        }
        fixture.until_phase("goes-on", "Running").await;
        assert_eq!(fixture.in_runtime().await.len(), ENDED.len() + 1);

        fixture.node.stop().await;
        fixture.host.wipe_runtime().unwrap();
        fixture.node.start().await;
        fixture.until_caught_up("after-wipe").await;
        let restarted = |status: &Value| {
            status["phase"] == "Running" && status["containerStatuses"][0]["restartCount"] == 1
        };
        fixture.until("goes-on", "it runs again, and is counted", restarted).await;
        assert_eq!(fixture.in_runtime().await, ["after-wipe", "goes-on"]);

        fixture.node.stop().await;
        fixture.host.wipe_runtime().unwrap();
        fixture.node.lose_store();
        fixture.node.start().await;
        fixture.until_caught_up("after-loss").await;
        let restarted = |status: &Value| {
            status["phase"] == "Running" && status["containerStatuses"][0]["restartCount"] == 2
        };
        fixture.until("goes-on", "it runs again, and is counted", restarted).await;
        assert_eq!(fixture.in_runtime().await, ["after-loss", "after-wipe", "goes-on"]);
        for (name, before) in before {
            assert_eq!(fixture.status(name).await, before, "{name}");
        }
    });
}

#[test]
fn a_pod_that_a_controller_has_failed_is_stopped_and_stays_so() {
    run(async || {
        let mut fixture = Fixture::new("decided").await;
        fixture.pod("web", WAITS, json!({})).await;
        fixture.until_phase("web", "Running").await;
        let sent = pods_sent(&fixture.node);
        fixture
            .patch_status("web", json!({"phase": "Failed", "reason": "Decided", "message": "by a test"}))
            .await;
        let stopped = fixture
            .until("web", "its container is stopped", |status| {
                status["containerStatuses"][0]["state"]["terminated"].is_object()
            })
            .await;
        assert_eq!((&stopped["phase"], &stopped["reason"]), (&json!("Failed"), &json!("Decided")));
        assert_eq!(sent.take(), [["web"]], "the word of the controller, and no echo of the node's own");

        fixture.node.stop().await;
        fixture.host.wipe_runtime().unwrap();
        fixture.node.lose_store();
        fixture.node.start().await;
        fixture.until_caught_up("after").await;
        assert_eq!(fixture.in_runtime().await, ["after"]);
        assert_eq!(fixture.status("web").await["reason"], "Decided");
    });
}

#[test]
fn times_survive_restarts_of_edgecore_and_of_cloudcore_and_the_loss_of_the_store() {
    run(async || {
        let mut fixture = Fixture::new("times").await;
        fixture.pod("web", WAITS, json!({})).await;
        let ready = |status: &Value| condition(status, "Ready")["status"] == "True";
        let before = fixture.until("web", "Ready", ready).await;
        let times = |status: &Value| {
            let mut of_conditions: Vec<String> = status["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| format!("{} {} {}", one["type"], one["status"], one["lastTransitionTime"]))
                .collect();
            of_conditions.sort();
            (status["startTime"].clone(), of_conditions)
        };
        // Times are whole seconds: a later one would differ.
        let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for (round, loses_store) in [(1, false), (2, true)] {
            let begun = second();
            fixture.cluster.until("a second passes", || second() > begun + 1).await;
            fixture.cluster.stop_cloud().await;
            fixture.cluster.start_cloud().await;
            fixture.node.stop().await;
            if loses_store {
                fixture.node.lose_store();
            }
            fixture.node.start().await;
            // The node reports anew after a restart, and this after that.
            fixture.until_caught_up(&format!("after-{round}")).await;
            let kill = fixture.status("web").await["containerStatuses"][0]["containerID"].clone();
            let id = kill.as_str().unwrap().trim_start_matches("containerd://").to_owned();
            fixture.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
            let after = fixture
                .until("web", "restarted", |status| {
                    ready(status) && status["containerStatuses"][0]["restartCount"] == round
                })
                .await;
            assert_eq!(times(&after).0, times(&before).0, "the start after round {round}");
            let unmoved = |kind: &str| {
                assert_eq!(condition(&after, kind), condition(&before, kind), "{kind} after round {round}");
            };
            for kind in ["Initialized", "PodScheduled", "PodReadyToStartContainers"] {
                unmoved(kind);
            }
        }
    });
}

#[test]
fn what_others_write_over_the_nodes_reports_of_its_pods_is_reported_again() {
    run(async || {
        let fixture = Fixture::new("overruled").await;
        fixture.pod("web", WAITS, json!({})).await;
        let is_ready = |status: &Value| condition(status, "Ready")["status"] == "True";
        let before = fixture.until("web", "is ready", is_ready).await;
        let unready: Vec<Value> = before["conditions"].as_array().unwrap().clone();
        let unready: Vec<Value> = unready
            .into_iter()
            .map(|mut condition| {
                if condition["type"] == "Ready" {
                    condition["status"] = json!("False");
                }
                condition
            })
            .collect();
        for _ in 0..2 {
            // As Kubernetes' node lifecycle controller does (MarkPodsNotReady): it changes the status and nothing else.
            fixture.patch_status("web", json!({"conditions": unready})).await;
            fixture.until("web", "is ready again", is_ready).await;
        }
        fixture.patch_status("web", json!({"phase": "Pending", "podIP": "192.0.2.7"})).await;
        let healed = |status: &Value| status["phase"] == "Running" && status["podIP"] == before["podIP"];
        fixture.until("web", "has its phase and its address again", healed).await;
    });
}

#[test]
fn why_a_pod_waited_is_no_more_said_once_it_runs() {
    run(async || {
        let fixture = Fixture::new("heldpod").await;
        fixture.cluster.apply("v1", "Pod", held("true")).await;
        let status = fixture.until("held", "is held", |status| status["reason"] == "HeldUpgrade").await;
        assert!(status["message"].is_string(), "{status}");
        let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
        let released = json!({"metadata": {"annotations": {HOLD: "false"}}});
        pods.patch("held", &PatchParams::default(), &Patch::Merge(released)).await.unwrap();
        let status = fixture.until_phase("held", "Running").await;
        assert!(status["reason"].is_null() && status["message"].is_null(), "{status}");
        // So it is with what others wrote there, as soon as the node has something to say.
        let lost = json!({"reason": "NodeLost", "message": "nothing is heard", "podIP": "192.0.2.1"});
        fixture.patch_status("held", lost).await;
        fixture.until("held", "its node says how it is", |status| status["reason"].is_null()).await;
    });
}

/// KubeEdge's hold of upgrades.
const HOLD: &str = "edge.kubeedge.io/hold-upgrade";

fn held(hold: &str) -> Value {
    json!({
        "metadata": {"name": "held", "namespace": "default", "annotations": {HOLD: hold}},
        "spec": {
            "nodeName": "edge-1", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "dnsPolicy": "Default",
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["/bin/sh", "-c", WAITS]}],
        },
    })
}

#[test]
fn a_readiness_gate_that_a_controller_sets_makes_the_pod_ready() {
    run(async || {
        let fixture = Fixture::new("gates").await;
        fixture.pod("web", WAITS, json!({"readinessGates": [{"conditionType": "example.com/lb"}]})).await;
        let waits = fixture
            .until("web", "waits for its gate", |status| {
                condition(status, "ContainersReady")["status"] == "True"
            })
            .await;
        assert_eq!(condition(&waits, "Ready")["reason"], "ReadinessGatesNotReady");
        let sent = pods_sent(&fixture.node);
        for gate in ["True", "False", "True"] {
            let mut conditions = fixture.status("web").await["conditions"].as_array().unwrap().clone();
            conditions.retain(|one| one["type"] != "example.com/lb");
            conditions.push(json!({"type": "example.com/lb", "status": gate}));
            fixture.patch_status("web", json!({"conditions": conditions})).await;
            fixture
                .until("web", "Ready follows the gate", |status| condition(status, "Ready")["status"] == gate)
                .await;
            assert_eq!(
                condition(&fixture.status("web").await, "example.com/lb")["status"],
                gate,
                "it stays theirs"
            );
        }
        fixture.until_caught_up("after").await;
        let of_web = sent.take().into_iter().flatten().filter(|pod| pod == "web").count();
        assert_eq!(of_web, 3, "each change of the gate, and no report of the node");
    });
}
