use super::*;
use crate::pod::backoff::Failure;
use crate::pod::container_status::span;
use crate::pod::parsed_pod::tests::pod;
use crate::pod::plan::tests::{instance, sandbox};
use crate::pod::sync_state::ImageState;
use crate::runtime::pods::{RuntimeContainer, RuntimeState};
use beehive::Moment;
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn status(
    pod: &ParsedPod,
    intent: &Intent,
    seen: &RuntimePod,
    memory: &SyncState,
    reported: Option<&PodStatus>,
) -> Value {
    let reported = reported.cloned().map(std::sync::Arc::new);
    let state = SyncState { reported, ..memory.clone() };
    let ips = ["192.0.2.1".to_owned()];
    let wall = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let now = Moment(Duration::from_secs(1000));
    let around =
        NodeContext { runtime: "containerd", host_ips: &ips, features: cri::Features::default(), now, wall };
    serde_json::to_value(compute(pod, intent, seen, &state, &around)).unwrap()
}

pub(super) fn seen(containers: Vec<RuntimeContainer>) -> RuntimePod {
    RuntimePod { sandboxes: vec![sandbox("s", 1, true)], containers, ips: vec!["10.0.0.2".into()] }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap()
}

#[test]
fn a_running_pod_is_ready() {
    let pod = pod(json!({}));
    let mut running = instance(&pod, "c", "s", 2, RuntimeState::Running);
    running.started_at = 1_800_000_000_500_000_000;
    running.image_ref = "x@sha256:00".into();
    let status = status(&pod, &Intent::Run, &seen(vec![running]), &SyncState::default(), None);
    assert_eq!(
        (&status["phase"], &status["podIP"], &status["hostIP"]),
        (&json!("Running"), &json!("10.0.0.2"), &json!("192.0.2.1"))
    );
    let container = &status["containerStatuses"][0];
    assert_eq!(container["containerID"], "containerd://c-2");
    assert_eq!(
        (&container["restartCount"], &container["ready"], &container["started"]),
        (&json!(2), &json!(true), &json!(true))
    );
    assert_eq!(container["state"]["running"]["startedAt"], "2027-01-15T08:00:00Z");
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&status, kind)["status"], "True", "{kind}");
    }
    assert_eq!(status["qosClass"], "BestEffort");
}

#[test]
fn the_start_is_kept_whoever_forgot_it() {
    let mut pod = pod(json!({}));
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let first = status(&pod, &Intent::Run, &runs, &SyncState::default(), None);
    assert_eq!(first["startTime"], "2027-01-15T08:00:00Z", "nobody knows of an earlier one");
    let told: PodStatus = serde_json::from_value(json!({"startTime": "2023-01-01T00:00:00Z"})).unwrap();
    let kept = status(&pod, &Intent::Run, &runs, &SyncState::default(), Some(&told));
    assert_eq!(kept["startTime"], "2023-01-01T00:00:00Z");
    // A node that has lost its store is told what it reported.
    pod.pod.status = Some(told);
    let again = status(&pod, &Intent::Run, &runs, &SyncState::default(), None);
    assert_eq!(again["startTime"], "2023-01-01T00:00:00Z");
}

#[test]
fn of_a_resize_it_is_told_when_it_was_found_and_its_time_moves_with_its_reason() {
    let mut pod = pod(json!({}));
    pod.pod.metadata.generation = Some(2);
    let told = |reason: &str, generation: i64| -> PodStatus {
        let mut old = json!({"type": "PodResizeInProgress", "status": "True", "observedGeneration": generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z", "lastProbeTime": "2026-01-02T00:00:00Z"});
        if !reason.is_empty() {
            old["reason"] = json!(reason);
        }
        serde_json::from_value(json!({"conditions": [old]})).unwrap()
    };
    let state = SyncState { is_resizing: true, ..SyncState::default() };
    let times = |old: Option<&PodStatus>| {
        let status = status(&pod, &Intent::Run, &seen(vec![]), &state, old);
        assert!(condition(&status, "Ready").get("lastProbeTime").is_none(), "{status}");
        let resize = condition(&status, "PodResizeInProgress").clone();
        let time = |key: &str| resize[key].as_str().unwrap().to_owned();
        (time("lastTransitionTime"), time("lastProbeTime"))
    };
    let (now, first) = ("2027-01-15T08:00:00Z".to_owned(), "2026-01-01T00:00:00Z".to_owned());
    assert_eq!(times(None), (now.clone(), now.clone()));
    assert_eq!(
        times(Some(&told("", 2))),
        (first.clone(), "2026-01-02T00:00:00Z".into()),
        "no look is a report"
    );
    assert_eq!(times(Some(&told("", 1))), (first, now.clone()), "another spec");
    assert_eq!(times(Some(&told("Error", 2))), (now.clone(), now));
}

#[test]
fn the_time_of_a_condition_moves_with_its_truth_only() {
    let pod = pod(json!({}));
    let old: PodStatus = serde_json::from_value(json!({"conditions": [
        {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
    .unwrap();
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let status = status(&pod, &Intent::Run, &runs, &SyncState::default(), Some(&old));
    assert_eq!(condition(&status, "Initialized")["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(condition(&status, "Ready")["lastTransitionTime"], "2027-01-15T08:00:00Z");
}

#[test]
fn a_crash_loop_is_told_with_its_pause() {
    let pod = pod(json!({}));
    let mut ended = instance(&pod, "c", "s", 3, RuntimeState::Exited);
    ended.exit_code = 7;
    let mut memory = SyncState::default();
    memory.crashes.insert("c".into(), Duration::from_secs(80));
    memory.ended.insert("c-3".into(), Moment(Duration::from_secs(990)));
    let status = status(&pod, &Intent::Run, &seen(vec![ended]), &memory, None);
    let container = &status["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert!(
        container["state"]["waiting"]["message"].as_str().unwrap().starts_with("back-off 1m20s restarting")
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(status["phase"], "Running");
    assert_eq!(condition(&status, "Ready")["reason"], "ContainersNotReady");
}

#[test]
fn what_keeps_a_container_from_starting_is_its_reason() {
    let pod = pod(json!({"initContainers": [{"name": "i", "image": "x:1"}]}));
    let mut memory = SyncState::default();
    let fault = Failure::after(None, "ErrImagePull", "no such image".into(), Moment::default());
    memory.images.insert("i".into(), ImageState::Failed(fault));
    let status = status(&pod, &Intent::Run, &RuntimePod::default(), &memory, None);
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["initContainerStatuses"][0]["state"]["waiting"]["reason"], "ErrImagePull");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition(&status, "Initialized")["message"], "containers with incomplete status: [i]");
}

#[test]
fn the_phase_follows_the_policy() {
    for (policy, code, want) in [
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Always", 0, "Running"),
    ] {
        let pod = pod(json!({"restartPolicy": policy}));
        let mut ended = instance(&pod, "c", "s", 0, RuntimeState::Exited);
        ended.exit_code = code;
        let status = status(&pod, &Intent::Run, &seen(vec![ended]), &SyncState::default(), None);
        assert_eq!(status["phase"], want, "{policy} {code}");
    }
}

#[test]
fn a_refused_pod_has_failed_with_its_reason_and_fields_without_effect_are_named() {
    let pod = pod(json!({"containers": [{"name": "c", "image": "x", "brandNew": {"periodSeconds": 1}}]}));
    let words = "Pod was rejected: no room";
    let refused = Intent::Fail { reason: "OutOfpods".into(), message: words.into() };
    let status = status(&pod, &refused, &RuntimePod::default(), &SyncState::default(), None);
    assert_eq!(
        (&status["phase"], &status["reason"], &status["message"]),
        (&json!("Failed"), &json!("OutOfpods"), &json!(words))
    );
    assert_eq!(status["containerStatuses"], Value::Null);
    let named = condition(&status, contract::pod_status::FIELDS_NOT_HONOURED);
    assert!(named["message"].as_str().unwrap().contains("spec.containers[c].brandNew"));
}

#[test]
fn a_pod_that_must_not_run_waits_and_names_why() {
    let pod = pod(json!({"volumes": [{"name": "v", "iscsi": {"targetPortal": "x", "iqn": "y", "lun": 0}}]}));
    let hold = Intent::Hold { reason: "FieldsNotSupported".into(), message: "m".into() };
    let status = status(&pod, &hold, &RuntimePod::default(), &SyncState::default(), None);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Pending"), &json!("FieldsNotSupported")));
    let named = condition(&status, contract::pod_status::FIELDS_NOT_HONOURED);
    assert_eq!(named["reason"], "Refused");
    assert!(named["message"].as_str().unwrap().contains("spec.volumes[v].iscsi"));
}

#[test]
fn a_readiness_gate_makes_the_pod_ready_and_stays_its_controllers() {
    let mut pod = pod(json!({"readinessGates": [{"conditionType": "example.com/lb"}]}));
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    for (gate, ready) in [(None, "False"), (Some("False"), "False"), (Some("True"), "True")] {
        let conditions = gate.map(|gate| json!([{"type": "example.com/lb", "status": gate}]));
        pod.pod.status = serde_json::from_value(json!({"conditions": conditions})).unwrap();
        let status = status(&pod, &Intent::Run, &runs, &SyncState::default(), None);
        assert_eq!(condition(&status, "Ready")["status"], ready, "{gate:?}");
        assert_eq!(condition(&status, "ContainersReady")["status"], "True");
        let conditions = status["conditions"].as_array().unwrap();
        assert!(conditions.iter().all(|condition| condition["type"] != "example.com/lb"), "{conditions:?}");
    }
}

#[test]
fn a_container_that_the_runtime_has_lost_keeps_its_count_and_its_end() {
    let pod = pod(json!({"restartPolicy": "OnFailure"}));
    let told = |container: Value| -> PodStatus {
        serde_json::from_value(json!({"phase": "Running", "containerStatuses": [container]})).unwrap()
    };
    let ran = told(
        json!({"name": "c", "restartCount": 3, "containerID": "containerd://x", "state": {"running": {}}}),
    );
    let lost = status(&pod, &Intent::Run, &seen(vec![]), &SyncState::default(), Some(&ran));
    let container = &lost["containerStatuses"][0];
    assert_eq!(
        (&container["restartCount"], &container["containerID"]),
        (&json!(4), &json!("containerd://x"))
    );
    assert_eq!(container["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(container["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(lost["phase"], "Running");
    let ended = told(json!({"name": "c", "restartCount": 3, "containerID": "containerd://x",
        "state": {"terminated": {"exitCode": 7, "reason": "Error"}}}));
    let lost = status(&pod, &Intent::Run, &seen(vec![]), &SyncState::default(), Some(&ended));
    assert_eq!(lost["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(lost["containerStatuses"][0]["restartCount"], 3);
}

#[test]
fn a_pod_that_has_ended_keeps_its_phase_and_reason() {
    let pod = pod(json!({}));
    let told: PodStatus =
        serde_json::from_value(json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "m"}))
            .unwrap();
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let status = status(&pod, &Intent::Run, &runs, &SyncState::default(), Some(&told));
    let said = (&status["phase"], &status["reason"], &status["message"]);
    assert_eq!(said, (&json!("Failed"), &json!("DeadlineExceeded"), &json!("m")));
}

#[test]
fn durations_are_written_as_go_writes_them() {
    assert_eq!([span(10), span(80), span(300)], ["10s", "1m20s", "5m0s"]);
}

#[test]
fn fields_that_are_not_honoured_are_told_once_and_not_at_each_restart() {
    use crate::pod::conditions::has_told_of_fields;
    let one = pod(json!({"brandOld": 1}));
    assert!(!has_told_of_fields(&one, None), "nothing was reported yet");
    let status = status(&one, &Intent::Run, &seen(Vec::new()), &SyncState::default(), None);
    let kept: PodStatus = serde_json::from_value(status).unwrap();
    assert!(has_told_of_fields(&one, Some(&kept)), "the store has what was reported before the restart");
    let changed = pod(json!({"brandOld": 1, "brandNew": {"x": 1}}));
    assert!(!has_told_of_fields(&changed, Some(&kept)), "another field is news");
}

#[test]
fn started_and_ready_are_what_the_probes_say() {
    use crate::pod::probes::plan::{ProbeKind, Verdict};
    let pod = pod(json!({
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always", "readinessProbe": {}}],
        "containers": [{"name": "c", "image": "x", "startupProbe": {}, "readinessProbe": {}}]}));
    let running = |name| instance(&pod, name, "s", 0, RuntimeState::Running);
    let runs = seen(vec![running("side"), running("c")]);
    let mut state = SyncState::default();
    state.probes.observe(&runs, None);
    let says = |state: &SyncState| {
        let status = status(&pod, &Intent::Run, &runs, state, None);
        let own = |container: &Value| (container["started"] == true, container["ready"] == true);
        let message =
            condition(&status, "ContainersReady")["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(condition(&status, "Ready")["message"], condition(&status, "ContainersReady")["message"]);
        (own(&status["initContainerStatuses"][0]), own(&status["containerStatuses"][0]), message)
    };
    let unready = |names: &str| format!("containers with unready status: [{names}]");
    assert_eq!(says(&state), ((true, false), (false, false), unready("side c")));
    state.probes.set("c-0", ProbeKind::Startup, Verdict::Success);
    assert_eq!(says(&state), ((true, false), (true, false), unready("side c")));
    state.probes.set("c-0", ProbeKind::Readiness, Verdict::Success);
    assert_eq!(says(&state), ((true, false), (true, true), unready("side")));
    state.probes.set("side-0", ProbeKind::Readiness, Verdict::Success);
    assert_eq!(says(&state), ((true, true), (true, true), String::new()));
    state.probes.set("c-0", ProbeKind::Readiness, Verdict::Failure);
    assert_eq!(says(&state), ((true, true), (true, false), unready("c")));
}

#[test]
fn a_pod_is_initialized_when_its_sidecar_has_started() {
    use crate::pod::probes::plan::{ProbeKind, Verdict};
    let pod = pod(json!({
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always", "startupProbe": {}}]}));
    let runs = seen(vec![instance(&pod, "side", "s", 0, RuntimeState::Running)]);
    let mut state = SyncState::default();
    state.probes.observe(&runs, None);
    let before = status(&pod, &Intent::Run, &runs, &state, None);
    assert_eq!(condition(&before, "Initialized")["message"], "containers with incomplete status: [side]");
    assert_eq!(before["phase"], "Pending");
    assert_eq!(before["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    state.probes.set("side-0", ProbeKind::Startup, Verdict::Success);
    let after = status(&pod, &Intent::Run, &runs, &state, None);
    assert_eq!(condition(&after, "Initialized")["status"], "True");
}

#[test]
fn an_end_is_told_when_nothing_runs_any_more() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always"}]}));
    let main = instance(&pod, "c", "s", 0, RuntimeState::Exited);
    let side = |state| instance(&pod, "side", "s", 0, state);
    let told: PodStatus = serde_json::from_value(json!({"phase": "Running"})).unwrap();
    let at = |containers| status(&pod, &Intent::Run, &seen(containers), &SyncState::default(), Some(&told));
    let still = at(vec![side(RuntimeState::Running), main.clone()]);
    assert_eq!(
        (&still["phase"], &condition(&still, "Ready")["reason"]),
        (&json!("Running"), &json!("PodCompleted"))
    );
    // How a sidecar ended doesn't count.
    let killed = RuntimeContainer { exit_code: 137, ..side(RuntimeState::Exited) };
    assert_eq!(at(vec![killed, main.clone()])["phase"], "Succeeded");
    let fail = Intent::Fail { reason: "DeadlineExceeded".into(), message: "m".into() };
    let runs = seen(vec![side(RuntimeState::Running), main]);
    let failing = status(&pod, &fail, &runs, &SyncState::default(), Some(&told));
    assert_eq!((&failing["phase"], &failing["reason"]), (&json!("Running"), &Value::Null));
}

#[test]
fn a_post_start_hook_is_part_of_the_making() {
    let pod = pod(json!({}));
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let mut state = SyncState::default();
    state.post_starts.insert("c-0".into());
    let held = status(&pod, &Intent::Run, &runs, &state, None);
    let container = &held["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!((&container["started"], &container["ready"]), (&json!(false), &json!(false)));
    assert_eq!(held["phase"], "Pending");
}

#[test]
fn the_generation_that_was_seen_is_told() {
    let mut pod = pod(json!({}));
    pod.pod.metadata.generation = Some(7);
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let status = status(&pod, &Intent::Run, &runs, &SyncState::default(), None);
    assert_eq!(status["observedGeneration"], 7);
    let conditions = status["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["observedGeneration"] == 7), "{conditions:#?}");
}

#[test]
fn an_ephemeral_container_has_a_status_and_no_part_in_the_pods() {
    let pod =
        pod(json!({"restartPolicy": "Never", "ephemeralContainers": [{"name": "debug", "image": "x"}]}));
    let main = instance(&pod, "c", "s", 0, RuntimeState::Running);
    let debug = |state| instance(&pod, "debug", "s", 0, state);
    let failed = RuntimeContainer { exit_code: 3, ..debug(RuntimeState::Exited) };
    // As a kubelet has it, of one that runs, too: nothing probes it.
    let runs = debug(RuntimeState::Running);
    for containers in [vec![main.clone()], vec![main.clone(), failed], vec![main, runs]] {
        let status = status(&pod, &Intent::Run, &seen(containers), &SyncState::default(), None);
        let own = &status["ephemeralContainerStatuses"][0];
        assert_eq!(
            (&own["name"], &own["ready"], &own["started"]),
            (&json!("debug"), &json!(false), &Value::Null)
        );
        assert_eq!(
            (&status["phase"], &condition(&status, "Ready")["status"]),
            (&json!("Running"), &json!("True"))
        );
    }
}

#[test]
fn statuses_are_in_the_order_of_names_but_for_init_containers() {
    let two = json!([{"name": "z", "image": "x"}, {"name": "a", "image": "x"}]);
    let inits = json!([{"name": "y", "image": "x"}, {"name": "b", "image": "x"}]);
    let pod = pod(json!({"containers": two, "initContainers": inits}));
    let status = status(&pod, &Intent::Run, &seen(Vec::new()), &SyncState::default(), None);
    let names = |list: &str| -> Vec<String> {
        let all = status[list].as_array().unwrap().iter();
        all.map(|status| status["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("containerStatuses"), ["a", "z"]);
    assert_eq!(names("initContainerStatuses"), ["y", "b"]);
    assert_eq!(condition(&status, "ContainersReady")["message"], "containers with unready status: [z a]");
}

pub(super) fn told(status: Value) -> PodStatus {
    serde_json::from_value(status).unwrap()
}

#[test]
fn a_pod_that_is_deleted_before_it_has_run_has_failed() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}));
    let mut memory = SyncState::default();
    let leaves = |seen: &RuntimePod, memory: &SyncState| {
        let known = told(json!({"phase": "Pending"}));
        status(&pod, &Intent::Terminate, seen, memory, Some(&known))
    };
    let ends = |status: &Value| -> Vec<(Value, Value)> {
        let all = status["containerStatuses"].as_array().unwrap().iter();
        let ends = all.map(|status| status["state"]["terminated"].clone());
        ends.map(|end| (end["exitCode"].clone(), end["reason"].clone())).collect()
    };
    let unknown = (json!(137), json!("ContainerStatusUnknown"));
    let pulls = leaves(&seen(vec![]), &memory);
    assert_eq!((&pulls["phase"], ends(&pulls)), (&json!("Failed"), vec![unknown.clone(); 2]));
    assert_eq!(condition(&pulls, "Ready")["status"], "False");
    // One of two could not be made, and the other ended well.
    let half = seen(vec![instance(&pod, "a", "s", 0, RuntimeState::Exited)]);
    let left = leaves(&half, &memory);
    assert_eq!(
        (&left["phase"], ends(&left)),
        (&json!("Failed"), vec![(json!(0), json!("Completed")), unknown])
    );
    // Not while something runs, may run, or is being made.
    for state in [RuntimeState::Running, RuntimeState::Unknown] {
        assert_eq!(leaves(&seen(vec![instance(&pod, "a", "s", 0, state)]), &memory)["phase"], "Pending");
    }
    memory.busy.insert(crate::pod::action::Action::Sandbox { attempt: 0 });
    assert_eq!(leaves(&RuntimePod::default(), &memory)["phase"], "Pending");
}

#[test]
fn a_pod_that_fails_while_an_image_never_came_has_an_end_of_each_container() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "image": "x"}, {"name": "b", "image": "never"}]}));
    let failure = Failure::steady("ErrImagePull", "no such host".into(), false, Moment(Duration::ZERO));
    let mut memory = SyncState::default();
    memory.images.insert("b".to_owned(), ImageState::Failed(failure));
    let known = told(json!({"phase": "Pending"}));
    let ends = |intent: &Intent, seen: &RuntimePod, memory: &SyncState| -> (Value, Vec<Value>) {
        let status = status(&pod, intent, seen, memory, Some(&known));
        let all = status["containerStatuses"].as_array().cloned().unwrap_or_default();
        let ends = all.iter().map(|own| own["state"]["terminated"]["reason"].clone()).collect();
        (status["phase"].clone(), ends)
    };
    let evicted = Intent::Fail { reason: "Evicted".into(), message: "The node was low on resource".into() };
    let unknown = json!("ContainerStatusUnknown");
    let failed = |reasons: [&Value; 2]| (json!("Failed"), reasons.map(Value::clone).to_vec());
    // Neither was ever made.
    assert_eq!(ends(&evicted, &seen(vec![]), &memory), failed([&unknown, &unknown]));
    // The other ended well, or in a sandbox that is lost.
    let a = || instance(&pod, "a", "s", 0, RuntimeState::Exited);
    assert_eq!(ends(&evicted, &seen(vec![a()]), &memory), failed([&json!("Completed"), &unknown]));
    let lost = RuntimePod { sandboxes: vec![sandbox("s", 1, false)], ..seen(vec![a()]) };
    assert_eq!(ends(&Intent::Run, &lost, &memory), failed([&json!("Completed"), &unknown]));
    // Nothing of it is told while something is being made.
    memory.busy.insert(crate::pod::action::Action::Sandbox { attempt: 0 });
    assert_eq!(ends(&evicted, &RuntimePod::default(), &memory).0, "Pending");
}

#[test]
fn a_pod_that_is_deleted_while_it_initializes_has_failed_and_its_main_containers_have_not_run() {
    let pod = pod(json!({"initContainers": [{"name": "i", "image": "x"}, {"name": "j", "image": "x"}]}));
    let known = told(json!({"phase": "Pending"}));
    let leaves = |seen: &RuntimePod| {
        let status = status(&pod, &Intent::Terminate, seen, &SyncState::default(), Some(&known));
        let inits = status["initContainerStatuses"].as_array().unwrap().iter();
        let inits = inits.map(|own| own["state"]["terminated"]["exitCode"].clone()).collect::<Vec<_>>();
        (inits, status["containerStatuses"][0]["state"].clone(), status["phase"].clone())
    };
    let waits = json!({"waiting": {"reason": "PodInitializing"}});
    let pulls = leaves(&RuntimePod::default());
    assert_eq!(pulls, (vec![json!(137), Value::Null], waits.clone(), json!("Failed")));
    let first = instance(&pod, "i", "s", 0, RuntimeState::Exited);
    let killed = RuntimeContainer { exit_code: 143, ..instance(&pod, "j", "s", 0, RuntimeState::Exited) };
    let second = leaves(&seen(vec![first.clone(), killed]));
    assert_eq!(second, (vec![json!(0), json!(143)], waits, json!("Failed")));
    let done = leaves(&seen(vec![first, instance(&pod, "j", "s", 0, RuntimeState::Exited)]));
    assert_eq!((&done.1["terminated"]["exitCode"], done.2), (&json!(137), json!("Failed")));
}

#[test]
fn a_static_pod_that_leaves_is_not_said_to_have_failed() {
    let mut pod = pod(json!({}));
    pod.is_static = true;
    let left = status(&pod, &Intent::Terminate, &seen(vec![]), &SyncState::default(), None);
    assert_eq!(left["phase"], "Pending");
}

#[test]
fn what_the_runtime_loses_of_a_pod_that_has_ended_is_told_as_before() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "x"}],
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}));
    let ended = |name, code| {
        let ended = instance(&pod, name, "s", 1, RuntimeState::Exited);
        RuntimeContainer { exit_code: code, ..ended }
    };
    let before = seen(vec![ended("i", 0), ended("a", 3), ended("b", 0)]);
    let first = status(&pod, &Intent::Run, &before, &SyncState::default(), None);
    assert_eq!(first["phase"], "Failed");
    let known: PodStatus = serde_json::from_value(first.clone()).unwrap();
    let containers =
        |status: &Value| (status["initContainerStatuses"].clone(), status["containerStatuses"].clone());
    let older = RuntimeContainer { attempt: 0, id: "a-0".into(), ..ended("a", 9) };
    for left in [vec![ended("b", 0)], vec![older, ended("b", 0)], vec![ended("i", 0)]] {
        for intent in [Intent::Run, Intent::Terminate] {
            let later = status(&pod, &intent, &seen(left.clone()), &SyncState::default(), Some(&known));
            assert_eq!(containers(&later), containers(&first), "{left:?}");
        }
    }
}

#[test]
fn an_init_container_of_which_nothing_is_left_has_passed_once_the_pod_has_gone_on() {
    let pod = pod(json!({"initContainers": [{"name": "i", "image": "x"}]}));
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let end = |known: Option<&PodStatus>| {
        let now = status(&pod, &Intent::Run, &runs, &SyncState::default(), known);
        assert_eq!(
            (&now["phase"], &now["initContainerStatuses"][0]["ready"]),
            (&json!("Running"), &json!(true))
        );
        now["initContainerStatuses"][0]["state"]["terminated"].clone()
    };
    let unseen = end(None);
    assert_eq!((&unseen["exitCode"], &unseen["reason"]), (&json!(0), &json!("Completed")));
    assert!(unseen["message"].as_str().unwrap().starts_with("Unable to get init container status"));
    let known = told(json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "restartCount": 0,
        "containerID": "containerd://i", "state": {"terminated": {"exitCode": 0, "reason": "Completed",
        "finishedAt": "2026-01-01T00:00:00Z"}}}]}));
    assert_eq!(end(Some(&known))["finishedAt"], "2026-01-01T00:00:00Z");
}

#[test]
fn one_that_ran_and_is_gone_counts_as_started_again_once() {
    let pod = pod(json!({}));
    let mut known = told(json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 3,
        "containerID": "containerd://x", "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}]}));
    for _ in 0..2 {
        let now = status(&pod, &Intent::Run, &seen(vec![]), &SyncState::default(), Some(&known));
        let own = &now["containerStatuses"][0];
        assert_eq!((&own["restartCount"], &now["phase"]), (&json!(4), &json!("Running")));
        let words = own["lastState"]["terminated"]["message"].as_str().unwrap();
        assert!(words.ends_with("The container used to be Running"), "{words}");
        known = serde_json::from_value(now).unwrap();
    }
}

#[test]
fn a_pod_whose_init_containers_run_again_is_pending() {
    let pod = pod(json!({"initContainers": [{"name": "i", "image": "x"}]}));
    let old = |name| instance(&pod, name, "old", 0, RuntimeState::Exited);
    let again = instance(&pod, "i", "s", 1, RuntimeState::Running);
    let runs = seen(vec![again, old("i"), old("c")]);
    let status = status(&pod, &Intent::Run, &runs, &SyncState::default(), None);
    assert_eq!(status["phase"], "Pending");
}

#[test]
fn a_container_that_could_not_be_started_says_so_until_it_could() {
    let pod = pod(json!({}));
    let ended = RuntimeContainer {
        exit_code: 128,
        reason: "StartError".into(),
        started_at: 0,
        ..instance(&pod, "c", "s", 0, RuntimeState::Exited)
    };
    let mut memory = SyncState::default();
    memory.run_failures.insert("c".into(), "no such file".into());
    let own = |memory: &SyncState| {
        status(&pod, &Intent::Run, &seen(vec![ended.clone()]), memory, None)["containerStatuses"][0].clone()
    };
    let waits = own(&memory);
    let said = &waits["state"]["waiting"];
    assert_eq!((&said["reason"], &said["message"]), (&json!("RunContainerError"), &json!("no such file")));
    let last = &waits["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["startedAt"]), (&json!("StartError"), &json!("1970-01-01T00:00:00Z")));
    // Its pause is told before that.
    memory.crashes.insert("c".into(), Duration::from_secs(10));
    memory.ended.insert("c-0".into(), Moment(Duration::from_secs(999)));
    assert_eq!(own(&memory)["state"]["waiting"]["reason"], "CrashLoopBackOff");
}
