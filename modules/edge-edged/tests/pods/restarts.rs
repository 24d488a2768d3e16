//! Edged and the pods' workers fail at every step, and the pods go on.

use std::fs;
use std::path::PathBuf;

use contract::edged::EdgedMsg;
use cri::v1::{ContainerFilter, ContainerState};
use serde_json::{Value, json};

use crate::faults::When::{After, Before};
use crate::node::{Machine, Node, condition, container_id, eventually, pod, run};

/// A pod that writes a line when it starts, into a file of the host's that outlives it.
struct Counted {
    pod: Value,
    starts: PathBuf,
}

fn counted(host: &Machine, name: &str) -> Counted {
    let dir = host.dir().join("starts").join(name);
    fs::create_dir_all(&dir).unwrap();
    let script = "trap 'exit 0' TERM; echo started >> /starts/of; while true; do sleep 0.1; done";
    let mut own = pod(name, script, json!({"volumes": [{"name": "starts", "hostPath": {"path": dir}}]}));
    own["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "starts", "mountPath": "/starts"}]);
    Counted { pod: own, starts: dir.join("of") }
}

impl Counted {
    fn name(&self) -> &str {
        self.pod["metadata"]["name"].as_str().unwrap()
    }

    /// How often its container has begun to run.
    fn starts(&self) -> usize {
        fs::read_to_string(&self.starts).unwrap_or_default().lines().count()
    }

    /// Waits until it is ready, and sees that it was started once and runs once.
    async fn until_runs_once(&self, node: &Node, what: &str) -> Value {
        let status = node.until_ready(self.name()).await;
        // It is ready once it runs, and writes a moment later.
        let written = eventually(async || (self.starts() > 0).then_some(())).await;
        written.unwrap_or_else(|| panic!("{what}: {} has written nothing", self.name()));
        assert_eq!(self.starts(), 1, "{what}: {status:#}");
        let list = node.runtime.list_containers(ContainerFilter::default()).await.unwrap();
        let own = list.iter().filter(|c| c.labels["io.kubernetes.pod.name"] == self.name());
        let states: Vec<ContainerState> = own.map(|container| container.state()).collect();
        assert_eq!(states, [ContainerState::ContainerRunning], "{what}");
        status
    }
}

async fn until_removed(node: &Node, pod: &str) {
    let removed = eventually(async || {
        let list = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        let runs = list.iter().any(|sandbox| sandbox.metadata.as_ref().unwrap().name == pod);
        (!runs && !node.pod_folder(pod).exists()).then_some(())
    });
    removed.await.unwrap_or_else(|| panic!("{pod} is not removed"));
}

async fn until_happened(node: &Node, what: &str) {
    let happened = eventually(async || {
        (node.edged_faults.has_happened() && node.runtime_faults.has_happened()).then_some(())
    });
    happened.await.unwrap_or_else(|| panic!("{what} did not happen"));
}

#[test]
fn edged_fails_at_each_of_its_messages_and_every_pod_is_started_once() {
    run(async {
        let host = Machine::new("fails");
        let node = Node::start(&host);
        let keeper = counted(&host, "keeper");
        let mut before = counted(&host, "p0");
        node.apply(&[keeper.pod.clone(), before.pod.clone()]).await;
        let kept = keeper.until_runs_once(&node, "at first").await;
        before.until_runs_once(&node, "at first").await;
        let messages = [
            "Reconcile",
            "RuntimeEvent",
            "RuntimeRelisted",
            "PodStopped",
            "PodRemoved",
            "ReportNode",
            "Tick",
        ];
        let cases = messages.into_iter().flat_map(|message| [(message, Before), (message, After)]);
        for (number, (message, when)) in cases.enumerate() {
            let what = format!("panic {when:?} {message}");
            let next = counted(&host, &format!("p{}", number + 1));
            node.edged_faults.arm(message, when);
            // One comes, one goes.
            node.forget(before.name()).await;
            node.apply(std::slice::from_ref(&next.pod)).await;
            node.edged.tell(EdgedMsg::ReportNode).await.unwrap();
            until_happened(&node, &what).await;
            next.until_runs_once(&node, &what).await;
            until_removed(&node, before.name()).await;
            assert_eq!(before.starts(), 1, "{what}");
            before = next;
        }
        assert_eq!(keeper.starts(), 1);
        assert_eq!(container_id(&node.status("keeper").unwrap()), container_id(&kept));
        let seen = node.runtime.container_status(&container_id(&kept)).await.unwrap();
        assert_eq!(seen.state(), ContainerState::ContainerRunning);
        let edged = node.actor("edged").await;
        assert_eq!(edged.restarts, 14, "{edged:?}");
    });
}

#[test]
fn a_pods_worker_fails_at_each_step_and_the_pod_is_started_once() {
    run(async {
        let host = Machine::new("steps");
        let node = Node::start(&host);
        let starting = [
            "image_status",
            "run_sandbox",
            "sandbox_status",
            "create_container",
            "start_container",
            "container_status",
        ];
        let cases = starting.into_iter().flat_map(|call| [(call, Before), (call, After)]);
        let mut running = Vec::new();
        for (number, (call, when)) in cases.enumerate() {
            let what = format!("panic {when:?} {call}");
            let own = counted(&host, &format!("s{number}"));
            node.runtime_faults.arm(call, when);
            node.apply(std::slice::from_ref(&own.pod)).await;
            until_happened(&node, &what).await;
            let status = own.until_runs_once(&node, &what).await;
            running.push((own, container_id(&status)));
        }
        let ending = ["stop_container", "stop_sandbox", "remove_sandbox"];
        let cases = ending.into_iter().flat_map(|call| [(call, Before), (call, After)]);
        for (call, when) in cases {
            let what = format!("panic {when:?} {call}");
            let (own, _) = running.pop().unwrap();
            node.runtime_faults.arm(call, when);
            node.forget(own.name()).await;
            until_happened(&node, &what).await;
            until_removed(&node, own.name()).await;
            assert_eq!(own.starts(), 1, "{what}");
        }
        // Those of the others were left alone, and Edged has failed at none of it.
        for (own, id) in &running {
            assert_eq!(own.starts(), 1);
            assert_eq!(&container_id(&node.status(own.name()).unwrap()), id);
        }
        assert_eq!(node.actor("edged").await.restarts, 0);
    });
}

#[test]
fn a_pods_worker_fails_at_each_of_its_messages_and_the_pod_is_started_once() {
    run(async {
        let host = Machine::new("worker");
        let node = Node::start(&host);
        let map = |value: &str| {
            json!({"kind": "ConfigMap", "metadata": {"name": "map", "namespace": "default", "uid": "map"},
                "data": {"key": value}})
        };
        node.apply(&[map("one")]).await;
        let messages = [
            "StatusRead",
            "ActionEnded",
            "Wake",
            "RuntimeChanged",
            "Updated",
            "ObjectsChanged",
            "EndReported",
        ];
        for (number, message) in messages.into_iter().enumerate() {
            let mut own = counted(&host, &format!("m{number}"));
            let volume = json!({"name": "map", "configMap": {"name": "map"}});
            own.pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
            let mount = json!({"name": "map", "mountPath": "/map"});
            own.pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
            let planned = node.plan_panic("pod-worker", message);
            node.apply(std::slice::from_ref(&own.pod)).await;
            let status = own.until_runs_once(&node, message).await;
            own.pod["metadata"]["annotations"] = json!({"changed": message});
            node.apply(&[own.pod.clone(), map(message)]).await;
            let id = container_id(&status);
            node.edged.tell(EdgedMsg::RuntimeEvent { id }).await.unwrap();
            let happened = || eventually(async || planned.has_happened().then_some(()));
            if message != "EndReported" {
                happened().await.unwrap_or_else(|| panic!("{message} was not told"));
            }
            let again = own.until_runs_once(&node, message).await;
            assert_eq!(container_id(&again), container_id(&status), "{message}");
            let file = node.pod_folder(own.name()).join("volumes/kubernetes.io~configmap/map/key");
            let written = eventually(async || {
                (fs::read_to_string(&file).ok().as_deref() == Some(message)).then_some(())
            });
            written.await.unwrap_or_else(|| panic!("{message}: the volume doesn't follow its config map"));
            node.forget(own.name()).await;
            happened().await.unwrap_or_else(|| panic!("{message} was not told"));
            until_removed(&node, own.name()).await;
            assert_eq!(own.starts(), 1, "{message}");
        }
        assert_eq!(node.actor("edged").await.restarts, 0);
    });
}

#[test]
fn a_call_that_is_under_way_when_edged_fails_is_waited_for_and_not_made_twice() {
    run(async {
        let host = Machine::new("underway");
        let node = Node::start(&host);
        *node.runtime_faults.slow_sandboxes.lock().unwrap() = Some(0);
        let own = counted(&host, "slow");
        node.apply(std::slice::from_ref(&own.pod)).await;
        let begun = || *node.runtime_faults.slow_sandboxes.lock().unwrap();
        let made = eventually(async || (begun() == Some(1)).then_some(())).await;
        made.expect("a sandbox is being made");
        let planned = node.plan_panic("edged", "Reconcile");
        node.edged.tell(EdgedMsg::Reconcile).await.unwrap();
        own.until_runs_once(&node, "Edged failed while the sandbox was being made").await;
        assert!(planned.has_happened());
        assert_eq!(begun(), Some(1), "the sandbox is asked for once: {:#?}", node.events("slow"));
        let sandboxes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert_eq!(sandboxes.len(), 1);
    });
}

#[test]
fn a_pod_that_no_worker_survives_holds_up_nobody_and_its_events_say_so() {
    run(async {
        let host = Machine::new("poison");
        let node = Node::start(&host);
        node.runtime_faults.arm_for("create_container", "poison");
        let (poison, good) = (counted(&host, "poison"), counted(&host, "good"));
        node.apply(std::slice::from_ref(&poison.pod)).await;
        let said = eventually(async || {
            let events = node.events("poison");
            let failed = events.iter().filter(|(reason, _)| reason == "FailedSync").count();
            (failed >= 2).then_some(events)
        });
        let events = said.await.expect("an event that names the worker's failures");
        assert!(events.iter().any(|(_, message)| message.contains("2 times")), "{events:#?}");
        node.apply(std::slice::from_ref(&good.pod)).await;
        good.until_runs_once(&node, "beside a pod that no worker survives").await;
        assert_eq!(node.actor("edged").await.restarts, 0);
        assert_eq!(poison.starts(), 0);
        // Whatever it was is mended, and the next restart of the worker gets the pod to run.
        node.runtime_faults.disarm();
        let status = poison.until_runs_once(&node, "when the fault is gone").await;
        assert_eq!(condition(&status, "Ready")["status"], "True");
    });
}
