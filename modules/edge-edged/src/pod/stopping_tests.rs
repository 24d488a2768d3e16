use super::*;
use crate::pod::parsed_pod::tests::pod;
use crate::pod::plan::tests::{instance, seen};
use crate::pod::plan::{Intent, plan};
use crate::pod::sync_state::{ImageReady, ImageState};
use crate::volumes::PreparedVolumes;
use serde_json::json;

const START: u64 = 1000;

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

/// A pod with a preStop hook, whose containers all run.
fn hooked() -> ParsedPod {
    let hook = json!({"preStop": {"exec": {"command": ["x"]}}});
    pod(json!({"terminationGracePeriodSeconds": 10,
        "initContainers": [
            {"name": "one", "image": "x", "restartPolicy": "Always", "lifecycle": hook},
            {"name": "two", "image": "x", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "x", "lifecycle": hook}]}))
}

fn all_run(pod: &ParsedPod, names: &[&str]) -> RuntimePod {
    seen(names.iter().map(|name| instance(pod, name, "s", 0, RuntimeState::Running)).collect())
}

fn hook_of(name: &str) -> Action {
    Action::PreStop { id: format!("{name}-0"), why: StopReason::Ending }
}

fn stop_of(name: &str) -> Action {
    Action::Stop { id: format!("{name}-0"), why: StopReason::Ending, grace: Duration::from_secs(10) }
}

/// Plans as the worker does, which notes what is begun.
fn next(
    pod: &ParsedPod,
    seen: &RuntimePod,
    state: &mut SyncState,
    now: Moment,
) -> (Vec<Action>, Option<Moment>) {
    let plan = plan(pod, &Intent::Terminate, seen, state, now);
    for stopping in plan.stopping {
        state.stopping.entry(stopping).or_insert(now);
    }
    state.busy.extend(plan.actions.iter().cloned());
    (plan.actions, plan.wake)
}

#[test]
fn hooks_run_at_once_and_sidecars_end_one_after_another_in_reverse() {
    let pod = hooked();
    let mut state = SyncState::default();
    let runs = all_run(&pod, &["one", "two", "c"]);
    let mut first = next(&pod, &runs, &mut state, at(START)).0;
    first.sort();
    assert_eq!(first, [hook_of("c"), hook_of("one")]);
    // The hook of one that must wait for its turn has ended, and then that of the main container.
    state.busy.remove(&hook_of("one"));
    state.pre_stopped.insert("one-0".into());
    assert_eq!(next(&pod, &runs, &mut state, at(START + 1)).0, []);
    state.busy.remove(&hook_of("c"));
    state.pre_stopped.insert("c-0".into());
    assert_eq!(next(&pod, &runs, &mut state, at(START + 3)).0, [stop_of("c")]);
    assert_eq!(next(&pod, &all_run(&pod, &["one", "two"]), &mut state, at(START + 4)).0, [stop_of("two")]);
    assert_eq!(next(&pod, &all_run(&pod, &["one"]), &mut state, at(START + 5)).0, [stop_of("one")]);
    let since = state.stopping_since("one-0", Duration::from_secs(10), at(START + 5));
    assert_eq!(left(Duration::from_secs(10), since, at(START + 5)), Duration::from_secs(5));
}

#[test]
fn a_hook_is_waited_for_as_long_as_the_grace_and_the_rest_is_two_seconds() {
    let pod = hooked();
    let mut state = SyncState::default();
    let runs = all_run(&pod, &["one", "two", "c"]);
    next(&pod, &runs, &mut state, at(START));
    let (none, wake) = next(&pod, &runs, &mut state, at(START + 9));
    assert_eq!((none, wake), (vec![], Some(at(START + 10))));
    // Everybody's grace is over.
    let mut all = next(&pod, &runs, &mut state, at(START + 10)).0;
    all.sort();
    assert_eq!(all, [stop_of("c"), stop_of("one"), stop_of("two")]);
    assert_eq!(left(Duration::from_secs(10), at(START), at(START + 10)), GRACE_MIN);
}

#[test]
fn a_shorter_grace_counts_from_when_it_is_heard_of() {
    let mut pod = hooked();
    pod.pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(600);
    let mut state = SyncState::default();
    let runs = all_run(&pod, &["c"]);
    assert_eq!(next(&pod, &runs, &mut state, at(START)).0, [hook_of("c")]);
    pod.pod.metadata.deletion_grace_period_seconds = Some(10);
    pod.pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap();
    assert_eq!(next(&pod, &runs, &mut state, at(START + 100)), (vec![], Some(at(START + 110))));
    assert_eq!(next(&pod, &runs, &mut state, at(START + 109)), (vec![], Some(at(START + 110))));
    assert_eq!(next(&pod, &runs, &mut state, at(START + 110)).0, [stop_of("c")]);
}

#[test]
fn a_pod_that_ends_has_a_second_at_least_for_its_hooks() {
    let mut pod = hooked();
    pod.pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(0);
    let mut state = SyncState::default();
    let runs = all_run(&pod, &["c"]);
    assert_eq!(next(&pod, &runs, &mut state, at(START)), (vec![hook_of("c")], None));
    let second = Duration::from_secs(1);
    let stop = Action::Stop { id: "c-0".into(), why: StopReason::Ending, grace: second };
    assert_eq!(next(&pod, &runs, &mut state, at(START + 1)).0, [stop]);
    assert_eq!(left(second, at(START), at(START + 1)), GRACE_MIN);
}

#[test]
fn whoever_ends_a_pod_the_shortest_grace_counts() {
    let mut pod = hooked();
    let grace = |pod: &ParsedPod, evicted: Option<u64>| {
        let state = SyncState { grace: evicted.map(Duration::from_secs), ..SyncState::default() };
        own_grace(pod, pod.container("c"), StopReason::Ending, &state).as_secs()
    };
    assert_eq!((grace(&pod, None), grace(&pod, Some(3)), grace(&pod, Some(0))), (10, 3, 1));
    pod.pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap();
    pod.pod.metadata.deletion_grace_period_seconds = Some(5);
    assert_eq!((grace(&pod, None), grace(&pod, Some(30)), grace(&pod, Some(2))), (5, 5, 2));
    // As after a deletion by force that a finalizer holds up.
    pod.pod.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!((grace(&pod, None), grace(&pod, Some(30))), (1, 1));
}

#[test]
fn no_hook_is_run_in_one_that_the_runtime_has_lost() {
    let pod = hooked();
    let lost = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Unknown)]);
    assert_eq!(next(&pod, &lost, &mut SyncState::default(), at(START)).0, [stop_of("c")]);
}

#[test]
fn a_probes_own_grace_replaces_the_pods_unless_the_pod_is_deleted() {
    let mut pod = pod(json!({"terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "x",
        "livenessProbe": {"terminationGracePeriodSeconds": 60}, "startupProbe": {}}]}));
    let seconds = |pod: &ParsedPod, why| grace(pod, pod.container("c"), why).as_secs();
    assert_eq!(seconds(&pod, StopReason::Liveness), 60);
    assert_eq!(seconds(&pod, StopReason::Startup), 30);
    assert_eq!(seconds(&pod, StopReason::Ending), 30);
    pod.pod.metadata.deletion_grace_period_seconds = Some(5);
    pod.pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap();
    assert_eq!(seconds(&pod, StopReason::Liveness), 5);
}

#[test]
fn the_event_of_a_stop_is_the_kubelets() {
    let pod_of = |policy: &str| {
        pod(json!({"restartPolicy": policy, "initContainers": [
            {"name": "side", "image": "x", "restartPolicy": "Always"}]}))
    };
    let pod = pod_of("Always");
    let text = |why| killing_text(&pod, "c", why);
    assert_eq!(text(StopReason::Ending), "Stopping container c");
    assert_eq!(text(StopReason::Changed), "Container c definition changed, will be restarted");
    assert_eq!(text(StopReason::Liveness), "Container c failed liveness probe, will be restarted");
    assert_eq!(text(StopReason::Startup), "Container c failed startup probe, will be restarted");
    assert_eq!(text(StopReason::PostStart), "FailedPostStartHook");
    assert_eq!(killing_text(&pod, "side", StopReason::Liveness), "Init container side failed liveness probe");
    assert_eq!(
        killing_text(&pod_of("Never"), "c", StopReason::Liveness),
        "Container c failed liveness probe"
    );
}

/// The disk is full, and the node's own store lies on it.
#[test]
fn a_pod_that_goes_for_the_room_it_takes_does_not_wait_for_room_to_write_that_down() {
    let pod = pod(json!({}));
    let ended = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Exited)]);
    let next = |reason: &str, is_unkept, torn_down| {
        let intent = Intent::Fail { reason: reason.to_owned(), message: String::new() };
        let stopped = ["s".to_owned()].into();
        let state = SyncState { is_unkept, torn_down, stopped, ..SyncState::default() };
        plan(&pod, &intent, &ended, &state, at(START)).actions
    };
    assert_eq!(next(EVICTED, false, false), [], "its status is kept first");
    assert_eq!(next(EVICTED, true, false), [Action::Teardown]);
    assert_eq!(next(EVICTED, true, true), [Action::RemoveSandbox { id: "s".to_owned() }]);
    assert_eq!(next("DeadlineExceeded", true, false), []);
}

/// As of a shutdown of the node that is called off.
#[test]
fn a_pod_that_begins_again_mounts_anew_what_it_has_given_back() {
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let pod = pod(json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
        "volumes": [{"name": "v", "nfs": {"server": "nas", "path": "/x"}}]}));
    let ended = seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Exited)]);
    let mut state = SyncState::default();
    state.stopped.insert("s".into());
    state.has_volumes(PreparedVolumes::new(), None);
    let image = ImageReady { reference: "sha256:1".into(), image: cri::v1::Image::default() };
    state.images.insert("c".into(), ImageState::Ready(image));
    let fails = Intent::Fail { reason: "Terminated".into(), message: String::new() };
    let actions = |intent: &Intent, state: &SyncState| plan(&pod, intent, &ended, state, at(START)).actions;
    let starts = |action: &Action| matches!(action, Action::Start { .. });
    assert!(actions(&Intent::Run, &state).iter().any(starts), "it has all that it needs");
    assert_eq!(actions(&fails, &state), [Action::Unmount]);
    state.gives_volumes_back();
    state.unmounted = true;
    let again = actions(&Intent::Run, &state);
    assert!(again.contains(&Action::Volumes) && !again.iter().any(starts), "{again:?}");
    state.has_volumes(PreparedVolumes::new(), None);
    assert_eq!(actions(&fails, &state), [Action::Unmount], "they are given back once more");
}
