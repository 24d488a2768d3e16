use super::*;
use crate::pod::backoff::Failure;
use crate::pod::parsed_pod::tests::pod;
use crate::pod::sync_state::{ImageReady, ImageState};
use crate::runtime::pods::{MadeOf, RuntimeSandbox};
use crate::volumes::PreparedVolumes;
use serde_json::json;
use std::time::Duration;

/// Kubernetes' default.
const GRACE: Duration = Duration::from_secs(30);
const NOW: Moment = Moment(Duration::from_secs(1000));

pub(crate) fn sandbox(id: &str, attempt: u32, ready: bool) -> RuntimeSandbox {
    RuntimeSandbox { id: id.into(), attempt, ready, handler: String::new() }
}

pub(crate) fn instance(
    pod: &ParsedPod,
    name: &str,
    sandbox: &str,
    attempt: u32,
    state: RuntimeState,
) -> RuntimeContainer {
    RuntimeContainer {
        id: format!("{name}-{attempt}"),
        sandbox: sandbox.into(),
        name: name.into(),
        attempt,
        state,
        started_at: 1,
        finished_at: if state.has_ended() { 2 } else { 0 },
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_ref: String::new(),
        hash: Some(MadeOf::Own(pod.hash(name))),
        message_path: String::new(),
        message_policy: String::new(),
        user: None,
    }
}

fn failed(pod: &ParsedPod, name: &str, attempt: u32) -> RuntimeContainer {
    RuntimeContainer { exit_code: 1, ..instance(pod, name, "s", attempt, RuntimeState::Exited) }
}

pub(crate) fn seen(mut containers: Vec<RuntimeContainer>) -> RuntimePod {
    containers.sort_by_key(|container| std::cmp::Reverse(container.attempt));
    RuntimePod { sandboxes: vec![sandbox("s", 1, true)], containers, ips: vec!["10.0.0.2".into()] }
}

/// A memory in which everything that can be ready is.
pub(crate) fn ready(names: &[&str]) -> SyncState {
    let image = ImageReady { reference: "x".into(), image: cri::v1::Image::default() };
    SyncState {
        volumes: VolumeState::Ready(PreparedVolumes::new()),
        images: names.iter().map(|name| ((*name).to_owned(), ImageState::Ready(image.clone()))).collect(),
        ..SyncState::default()
    }
}

fn image_of(name: &str, image: &str) -> Action {
    Action::Image { container: name.into(), image: image.into() }
}

fn start_of(name: &str, attempt: u32) -> Action {
    Action::Start { container: name.into(), attempt }
}

#[test]
fn a_new_pod_gets_volumes_and_sandbox_at_once_and_images_when_it_has_its_volumes() {
    let pod = pod(json!({}));
    let of = |volumes| {
        let state = SyncState { volumes, ..SyncState::default() };
        plan(&pod, &Intent::Run, &RuntimePod::default(), &state, NOW).actions
    };
    let sandbox = Action::Sandbox { attempt: 0 };
    assert_eq!(of(VolumeState::NotYet), [Action::Volumes, sandbox.clone()]);
    assert_eq!(of(VolumeState::Ready(PreparedVolumes::new())), [sandbox, image_of("c", "x:1")]);
}

#[test]
fn containers_start_together_and_init_containers_one_after_another() {
    let two = pod(json!({"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}]}));
    let first = plan(&two, &Intent::Run, &seen(vec![]), &ready(&["a", "b"]), NOW);
    assert_eq!(first.actions, [start_of("a", 0), start_of("b", 0)]);

    let init = pod(json!({"initContainers": [{"name": "i", "image": "x:1"}, {"name": "j", "image": "x:1"}]}));
    let memory = ready(&["i", "j", "c"]);
    let first = plan(&init, &Intent::Run, &seen(vec![]), &memory, NOW);
    assert_eq!(first.actions, [start_of("i", 0)]);
    let runs = seen(vec![instance(&init, "i", "s", 0, RuntimeState::Running)]);
    assert!(plan(&init, &Intent::Run, &runs, &memory, NOW).actions.is_empty());
    let done = seen(vec![instance(&init, "i", "s", 0, RuntimeState::Exited)]);
    assert_eq!(plan(&init, &Intent::Run, &done, &memory, NOW).actions, [start_of("j", 0)]);
    let all = seen(vec![
        instance(&init, "i", "s", 0, RuntimeState::Exited),
        instance(&init, "j", "s", 0, RuntimeState::Exited),
    ]);
    assert_eq!(plan(&init, &Intent::Run, &all, &memory, NOW).actions, [start_of("c", 0)]);
}

#[test]
fn a_sidecar_lets_the_next_pass_when_it_runs_and_always_restarts() {
    let pod = pod(json!({"restartPolicy": "OnFailure",
        "initContainers": [{"name": "side", "image": "x:1", "restartPolicy": "Always"}]}));
    let memory = ready(&["side", "c"]);
    let runs = seen(vec![instance(&pod, "side", "s", 0, RuntimeState::Running)]);
    assert_eq!(plan(&pod, &Intent::Run, &runs, &memory, NOW).actions, [start_of("c", 0)]);
    let ended = seen(vec![
        instance(&pod, "side", "s", 0, RuntimeState::Exited),
        instance(&pod, "c", "s", 0, RuntimeState::Running),
    ]);
    assert_eq!(plan(&pod, &Intent::Run, &ended, &memory, NOW).actions, [start_of("side", 1)]);
    let main_done = seen(vec![
        instance(&pod, "side", "s", 0, RuntimeState::Running),
        instance(&pod, "c", "s", 0, RuntimeState::Exited),
    ]);
    let stop = Action::Stop { id: "side-0".into(), why: StopReason::Ending, grace: GRACE };
    assert_eq!(plan(&pod, &Intent::Run, &main_done, &memory, NOW).actions, [stop]);
}

#[test]
fn a_running_pod_is_left_alone() {
    let pod = pod(json!({}));
    let runs = seen(vec![instance(&pod, "c", "s", 3, RuntimeState::Running)]);
    let plan = plan(&pod, &Intent::Run, &runs, &ready(&[]), NOW);
    assert_eq!(plan, Plan::default());
}

#[test]
fn after_a_restart_of_edgecore_only_the_volumes_are_looked_at() {
    let pod = pod(json!({}));
    let runs = seen(vec![instance(&pod, "c", "s", 3, RuntimeState::Running)]);
    assert_eq!(plan(&pod, &Intent::Run, &runs, &SyncState::default(), NOW).actions, [Action::Volumes]);
}

#[test]
fn the_policy_decides_about_a_container_that_ended() {
    for (policy, failed_one, want) in [
        ("Always", true, true),
        ("Always", false, true),
        ("OnFailure", true, true),
        ("OnFailure", false, false),
        ("Never", true, false),
    ] {
        let pod = pod(json!({"restartPolicy": policy}));
        let mut ended = instance(&pod, "c", "s", 0, RuntimeState::Exited);
        ended.exit_code = i32::from(failed_one);
        let plan = plan(&pod, &Intent::Run, &seen(vec![ended]), &ready(&["c"]), NOW);
        assert_eq!(plan.actions.contains(&start_of("c", 1)), want, "{policy} {failed_one}");
        // What does not restart is done, and its sandbox goes.
        assert_eq!(
            plan.actions.contains(&Action::StopSandbox { id: "s".into() }),
            !want,
            "{policy} {failed_one}"
        );
    }
}

#[test]
fn a_container_that_crashed_before_waits() {
    let pod = pod(json!({}));
    let mut memory = ready(&["c"]);
    let crashed = failed(&pod, "c", 1);
    memory.crashes.insert("c".into(), Duration::from_secs(20));
    memory.ended.insert("c-1".into(), Moment(Duration::from_secs(995)));
    let waits = plan(&pod, &Intent::Run, &seen(vec![crashed.clone()]), &memory, NOW);
    assert_eq!((waits.actions.len(), waits.wake), (0, Some(Moment(Duration::from_secs(1015)))));
    let later = Moment(Duration::from_secs(1015));
    let starts = plan(&pod, &Intent::Run, &seen(vec![crashed.clone()]), &memory, later);
    assert_eq!(starts.actions, [start_of("c", 2)]);
    // How long it ran is measured here: the runtime's clock may have been set meanwhile.
    let jumped = RuntimeContainer { finished_at: 700_000_000_000, ..crashed.clone() };
    assert!(plan(&pod, &Intent::Run, &seen(vec![jumped]), &memory, NOW).actions.is_empty());
    memory.running.insert("c-1".into(), Moment(Duration::from_secs(395)));
    let back = RuntimeContainer { started_at: 9, finished_at: 3, ..crashed };
    assert_eq!(plan(&pod, &Intent::Run, &seen(vec![back]), &memory, NOW).actions, [start_of("c", 2)]);
}

#[test]
fn a_changed_image_restarts_its_container_only() {
    let with = |image: &str| {
        pod(json!({"restartPolicy": "Never", "containers": [
            {"name": "a", "image": image}, {"name": "b", "image": "x:1"}]}))
    };
    let (before, pod) = (with("x:1"), with("x:2"));
    let mut memory = ready(&["a", "b"]);
    memory.forget_changed(&before, &pod);
    let old = instance(&before, "a", "s", 0, RuntimeState::Running);
    let other = instance(&before, "b", "s", 0, RuntimeState::Running);
    let stops = plan(&pod, &Intent::Run, &seen(vec![old.clone(), other.clone()]), &memory, NOW);
    assert_eq!(stops.actions, [Action::Stop { id: "a-0".into(), why: StopReason::Changed, grace: GRACE }]);
    let ended = RuntimeContainer { state: RuntimeState::Exited, ..old };
    let all = seen(vec![ended, other]);
    assert_eq!(plan(&pod, &Intent::Run, &all, &memory, NOW).actions, [image_of("a", "x:2")]);
    // One that is pulled still is another's.
    memory.busy.insert(image_of("a", "x:1"));
    assert_eq!(plan(&pod, &Intent::Run, &all, &memory, NOW).actions, [image_of("a", "x:2")]);
    memory.images.extend(ready(&["a"]).images);
    assert_eq!(plan(&pod, &Intent::Run, &all, &memory, NOW).actions, [start_of("a", 1)]);
}

#[test]
fn what_was_tried_with_another_image_or_other_resources_holds_nothing_up() {
    let with = |image: &str, cpu: &str| {
        pod(json!({"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}]}))
    };
    let first = with("x:typo", "1");
    let mut memory = ready(&[]);
    let failure = Failure::after(None, "ErrImagePull", "m".into(), NOW);
    memory.images.insert("c".into(), ImageState::Failed(failure.clone()));
    memory.starts.insert("c".into(), failure);
    memory.crashes.insert("c".into(), Duration::from_secs(300));
    memory.forget_changed(&first, &first.clone());
    assert_eq!((memory.images.len(), memory.starts.len(), memory.crashes.len()), (1, 1, 1));
    let smaller = with("x:typo", "500m");
    memory.forget_changed(&first, &smaller);
    assert_eq!((memory.images.len(), memory.starts.len(), memory.crashes.len()), (1, 0, 0));
    memory.forget_changed(&smaller, &with("x:1", "500m"));
    assert_eq!(
        plan(&with("x:1", "500m"), &Intent::Run, &seen(vec![]), &memory, NOW).actions,
        [image_of("c", "x:1")]
    );
}

#[test]
fn one_that_the_runtime_has_lost_is_killed_before_another_takes_its_place() {
    let unknown = |pod: &ParsedPod| seen(vec![instance(pod, "c", "s", 0, RuntimeState::Unknown)]);
    let mut memory = ready(&["c"]);
    let always = pod(json!({}));
    let stop = |why| Action::Stop { id: "c-0".into(), why, grace: GRACE };
    let killed = plan(&always, &Intent::Run, &unknown(&always), &memory, NOW);
    assert_eq!(killed.actions, [stop(StopReason::Unknown)]);
    let never = pod(json!({"restartPolicy": "Never"}));
    for (pod, intent) in [(&never, Intent::Run), (&always, Intent::Terminate)] {
        assert_eq!(plan(pod, &intent, &unknown(pod), &memory, NOW).actions, [stop(StopReason::Ending)]);
    }
    let mut lost = unknown(&always);
    lost.sandboxes[0].ready = false;
    assert_eq!(plan(&always, &Intent::Run, &lost, &memory, NOW).actions, [stop(StopReason::SandboxLost)]);
    // Where the runtime never says more, that it was killed is enough.
    memory.stopped.insert("c-0".into());
    assert_eq!(plan(&always, &Intent::Run, &unknown(&always), &memory, NOW).actions, [start_of("c", 1)]);
    let leaves = plan(&always, &Intent::Terminate, &unknown(&always), &memory, NOW);
    assert_eq!(leaves.actions, [Action::StopSandbox { id: "s".into() }]);
}

#[test]
fn a_sandbox_is_removed_when_its_stop_has_ended_whatever_the_runtime_calls_it_meanwhile() {
    let pod = pod(json!({}));
    let mut memory = ready(&["c"]);
    let mut stopping = seen(vec![]);
    stopping.sandboxes[0].ready = false;
    memory.busy.insert(Action::StopSandbox { id: "s".into() });
    let next = |memory: &SyncState| plan(&pod, &Intent::Terminate, &stopping, memory, NOW).actions;
    assert_eq!(next(&memory), []);
    memory.busy.clear();
    memory.stopped.insert("s".into());
    assert_ne!(next(&memory), []);
}

#[test]
fn a_pod_that_never_restarts_gets_no_other_sandbox_once_a_container_was_made() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}]}));
    let mut memory = ready(&["a", "b"]);
    memory.stopped.insert("s".into());
    let mut dead = RuntimePod { sandboxes: vec![sandbox("s", 3, false)], ..RuntimePod::default() };
    assert_eq!(plan(&pod, &Intent::Run, &dead, &memory, NOW).actions, [Action::Sandbox { attempt: 4 }]);
    dead.containers.push(instance(&pod, "a", "s", 0, RuntimeState::Exited));
    assert_eq!(plan(&pod, &Intent::Run, &dead, &memory, NOW).actions, []);
    assert!(is_done(&pod, &dead, &memory));
}

#[test]
fn a_dead_sandbox_is_replaced_and_the_counts_go_on() {
    let pod = pod(json!({}));
    let mut memory = ready(&["c"]);
    let dead = RuntimePod {
        sandboxes: vec![sandbox("s", 3, false)],
        containers: vec![instance(&pod, "c", "s", 4, RuntimeState::Exited)],
        ips: vec![],
    };
    assert_eq!(
        plan(&pod, &Intent::Run, &dead, &memory, NOW).actions,
        [Action::StopSandbox { id: "s".into() }]
    );
    memory.stopped.insert("s".into());
    assert_eq!(plan(&pod, &Intent::Run, &dead, &memory, NOW).actions, [Action::Sandbox { attempt: 4 }]);
    let new = RuntimePod { sandboxes: vec![sandbox("t", 4, true), sandbox("s", 3, false)], ..dead };
    // The old instance is kept for its count and its last state.
    assert_eq!(plan(&pod, &Intent::Run, &new, &memory, NOW).actions, [start_of("c", 5)]);
}

#[test]
fn only_the_last_dead_instance_is_kept() {
    let pod = pod(json!({}));
    let all = seen(vec![
        instance(&pod, "c", "s", 3, RuntimeState::Running),
        failed(&pod, "c", 2),
        failed(&pod, "c", 1),
    ]);
    let plan = plan(&pod, &Intent::Run, &all, &ready(&[]), NOW);
    assert_eq!(plan.actions, [Action::RemoveContainer { id: "c-1".into() }]);
}

#[test]
fn a_start_that_was_cut_short_is_cleared_away() {
    let pod = pod(json!({}));
    let half = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Created)]);
    assert_eq!(
        plan(&pod, &Intent::Run, &half, &ready(&["c"]), NOW).actions,
        [Action::RemoveContainer { id: "c-0".into() }]
    );
    let mut memory = ready(&["c"]);
    memory.busy.insert(start_of("c", 0));
    assert!(plan(&pod, &Intent::Run, &half, &memory, NOW).actions.is_empty());
}

#[test]
fn leaving_goes_step_by_step() {
    let pod = pod(json!({}));
    let mut memory = ready(&["c"]);
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let stop = Action::Stop { id: "c-0".into(), why: StopReason::Ending, grace: GRACE };
    assert_eq!(plan(&pod, &Intent::Terminate, &runs, &memory, NOW).actions, [stop]);
    let ended = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Exited)]);
    assert_eq!(
        plan(&pod, &Intent::Terminate, &ended, &memory, NOW).actions,
        [Action::StopSandbox { id: "s".into() }]
    );
    memory.stopped.insert("s".into());
    assert_eq!(
        plan(&pod, &Intent::Terminate, &ended, &memory, NOW).actions,
        [Action::RemoveSandbox { id: "s".into() }]
    );
    assert_eq!(
        plan(&pod, &Intent::Terminate, &RuntimePod::default(), &memory, NOW).actions,
        [Action::Teardown]
    );
    memory.torn_down = true;
    assert!(plan(&pod, &Intent::Terminate, &RuntimePod::default(), &memory, NOW).gone);
}

#[test]
fn nothing_is_removed_before_the_end_is_told_to_who_waits_for_it() {
    let pod = pod(json!({}));
    let ended = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Exited)]);
    let with = |tells_end, reported| {
        let stopped = ["s".to_owned()].into();
        let state = SyncState { tells_end, reported, stopped, ..ready(&["c"]) };
        plan(&pod, &Intent::Terminate, &ended, &state, NOW).actions
    };
    let removes = [Action::RemoveSandbox { id: "s".into() }];
    assert_eq!(with(true, known(json!({"phase": "Pending"})).reported), []);
    assert_eq!(with(true, None), []);
    assert_eq!(with(true, known(json!({"phase": "Failed"})).reported), removes);
    assert_eq!(with(false, None), removes, "nobody waits");
}

#[test]
fn a_shorter_grace_overtakes_a_longer_one() {
    let mut pod = pod(json!({}));
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let mut memory = ready(&["c"]);
    memory.busy.insert(Action::Stop { id: "c-0".into(), why: StopReason::Ending, grace: GRACE });
    assert!(plan(&pod, &Intent::Terminate, &runs, &memory, NOW).actions.is_empty());
    pod.pod.metadata.deletion_grace_period_seconds = Some(1);
    pod.pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap();
    let sooner = Action::Stop { id: "c-0".into(), why: StopReason::Ending, grace: Duration::from_secs(1) };
    assert_eq!(plan(&pod, &Intent::Terminate, &runs, &memory, NOW).actions, [sooner]);
}

#[test]
fn a_pod_that_leaves_while_it_starts_waits_for_the_start() {
    let pod = pod(json!({}));
    let mut memory = ready(&["c"]);
    memory.busy.insert(start_of("c", 0));
    let plan = plan(&pod, &Intent::Terminate, &seen(vec![]), &memory, NOW);
    assert_eq!((plan.actions.len(), plan.gone), (0, false));
}

fn known(status: serde_json::Value) -> SyncState {
    let reported = Some(std::sync::Arc::new(serde_json::from_value(status).unwrap()));
    SyncState { reported, ..SyncState::default() }
}

#[test]
fn a_pod_that_has_ended_never_starts_again_whoever_knows_it() {
    for phase in ["Succeeded", "Failed"] {
        for policy in ["Never", "OnFailure", "Always"] {
            let mut pod = pod(json!({"restartPolicy": policy}));
            // The runtime has lost everything.
            let state = known(json!({"phase": phase}));
            assert_eq!(plan(&pod, &Intent::Run, &RuntimePod::default(), &state, NOW), Plan::default());
            // The node's store has, too.
            pod.pod.status = serde_json::from_value(json!({"phase": phase})).unwrap();
            let forgotten = SyncState::default();
            assert_eq!(plan(&pod, &Intent::Run, &RuntimePod::default(), &forgotten, NOW), Plan::default());
        }
    }
}

#[test]
fn what_still_runs_of_a_pod_that_has_ended_is_stopped() {
    let mut pod = pod(json!({}));
    pod.pod.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    let runs = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Running)]);
    let stop = Action::Stop { id: "c-0".into(), why: StopReason::Ending, grace: GRACE };
    assert_eq!(plan(&pod, &Intent::Run, &runs, &ready(&["c"]), NOW).actions, [stop]);
}

#[test]
fn counts_go_on_after_the_runtime_has_lost_everything() {
    let pod = pod(json!({}));
    let status = json!({"phase": "Running", "containerStatuses": [
        {"name": "c", "restartCount": 4, "containerID": "containerd://x"}]});
    let state = SyncState { reported: known(status.clone()).reported, ..ready(&["c"]) };
    assert_eq!(plan(&pod, &Intent::Run, &seen(vec![]), &state, NOW).actions, [start_of("c", 5)]);
    let one_that_was_never_made = json!({"containerStatuses": [{"name": "c", "restartCount": 0}]});
    let state = SyncState { reported: known(one_that_was_never_made).reported, ..ready(&["c"]) };
    assert_eq!(plan(&pod, &Intent::Run, &seen(vec![]), &state, NOW).actions, [start_of("c", 0)]);
    // The status counts the next one already where one that ran was lost.
    let words =
        "The container could not be located when the pod was deleted.  The container used to be Running";
    let counted = json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 5,
        "containerID": "containerd://x", "state": {"waiting": {"reason": "ContainerCreating"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": words}}}]});
    let state = SyncState { reported: known(counted).reported, ..ready(&["c"]) };
    assert_eq!(plan(&pod, &Intent::Run, &seen(vec![]), &state, NOW).actions, [start_of("c", 5)]);
    let mut told = pod.clone();
    told.pod.status = serde_json::from_value(status).unwrap();
    assert_eq!(plan(&told, &Intent::Run, &seen(vec![]), &ready(&["c"]), NOW).actions, [start_of("c", 5)]);
}

#[test]
fn the_attempt_of_a_sandbox_is_never_used_twice() {
    let pod = pod(json!({}));
    let mut state = ready(&["c"]);
    state.stopped.extend(["s".to_owned(), "t".to_owned()]);
    let dead = RuntimePod {
        sandboxes: vec![sandbox("t", 6, false), sandbox("s", 5, false)],
        containers: vec![instance(&pod, "c", "s", 0, RuntimeState::Exited)],
        ips: vec![],
    };
    let plan = plan(&pod, &Intent::Run, &dead, &state, NOW);
    assert!(plan.actions.contains(&Action::Sandbox { attempt: 7 }), "{plan:?}");
}

#[test]
fn how_long_an_instance_ran_is_counted_from_when_it_was_first_seen() {
    let pod = pod(json!({}));
    let mut state = SyncState::default();
    let at = |seconds| Moment(Duration::from_secs(seconds));
    let running = instance(&pod, "c", "s", 0, RuntimeState::Running);
    state.observe(&seen(vec![running.clone()]), at(10));
    state.observe(&seen(vec![running.clone()]), at(500));
    let ended = RuntimeContainer { state: RuntimeState::Exited, ..running };
    assert!(!state.ran_long(&ended));
    state.observe(&seen(vec![ended.clone()]), at(610));
    assert!(state.ran_long(&ended));
    state.observe(&seen(vec![]), at(620));
    assert!(state.running.is_empty() && state.ended.is_empty(), "forgotten with it");
}
