use super::*;
use crate::pod::parsed_pod::tests::pod;
use crate::pod::plan::tests::{instance, ready, seen};
use crate::pod::plan::{Intent, plan};
use serde_json::json;
use std::time::Duration;

const NOW: Moment = Moment(Duration::from_secs(1000));

fn running(pod: &ParsedPod, name: &str) -> RuntimeContainer {
    instance(pod, name, "s", 0, RuntimeState::Running)
}

fn ended(pod: &ParsedPod, name: &str) -> RuntimeContainer {
    instance(pod, name, "s", 0, RuntimeState::Exited)
}

fn actions(pod: &ParsedPod, containers: Vec<RuntimeContainer>, state: &SyncState) -> Vec<Action> {
    plan(pod, &Intent::Run, &seen(containers), state, NOW).actions
}

fn start_of(name: &str, attempt: u32) -> Action {
    Action::Start { container: name.into(), attempt }
}

/// A memory in which the running containers were seen, and what their probes say.
fn told(
    names: &[&str],
    containers: &[RuntimeContainer],
    verdicts: &[(&str, ProbeKind, Verdict)],
) -> SyncState {
    let mut state = ready(names);
    state.probes.observe(&seen(containers.to_vec()), None);
    for (id, kind, verdict) in verdicts {
        state.probes.set(id, *kind, *verdict);
    }
    state
}

#[test]
fn a_sidecar_lets_the_next_start_when_its_startup_probe_has_succeeded() {
    let pod = pod(json!({"initContainers": [
        {"name": "side", "image": "x", "restartPolicy": "Always", "startupProbe": {}, "livenessProbe": {}},
        {"name": "init", "image": "x"}]}));
    let names = ["side", "init", "c"];
    let side = running(&pod, "side");
    let waits = told(&names, std::slice::from_ref(&side), &[]);
    assert_eq!(actions(&pod, vec![side.clone()], &waits), []);
    let started = [("side-0", ProbeKind::Startup, Verdict::Success)];
    let passed = told(&names, std::slice::from_ref(&side), &started);
    assert_eq!(actions(&pod, vec![side.clone()], &passed), [start_of("init", 0)]);
    assert_eq!(actions(&pod, vec![side.clone(), ended(&pod, "init")], &passed), [start_of("c", 0)]);
    // It fails instead, and is killed; its death begins it anew.
    let failed =
        told(&names, std::slice::from_ref(&side), &[("side-0", ProbeKind::Startup, Verdict::Failure)]);
    let stop = |why| Action::Stop { id: "side-0".into(), why, grace: Duration::from_secs(30) };
    assert_eq!(actions(&pod, vec![side.clone()], &failed), [stop(StopReason::Startup)]);
    assert_eq!(actions(&pod, vec![ended(&pod, "side")], &waits), [start_of("side", 1)]);
    // Its liveness gates nothing.
    let both = [started[0], ("side-0", ProbeKind::Liveness, Verdict::Failure)];
    let unwell = told(&names, std::slice::from_ref(&side), &both);
    assert_eq!(actions(&pod, vec![side], &unwell), [stop(StopReason::Liveness), start_of("init", 0)]);
}

#[test]
fn a_sidecar_that_dies_while_a_later_init_container_runs_is_restarted_and_holds_nothing_up() {
    let pod = pod(json!({"initContainers": [
        {"name": "side", "image": "x", "restartPolicy": "Always"},
        {"name": "i", "image": "x"}, {"name": "j", "image": "x"}]}));
    let state = ready(&["side", "i", "j", "c"]);
    let now = |last: RuntimeContainer| actions(&pod, vec![ended(&pod, "side"), last], &state);
    assert_eq!(now(running(&pod, "i")), [start_of("side", 1)]);
    assert_eq!(now(ended(&pod, "i")), [start_of("side", 1), start_of("j", 0)]);
    // One whose remains are gone, and whose successor ran, is not run again.
    assert_eq!(now(ended(&pod, "j")), [start_of("side", 1), start_of("c", 0)]);
    assert_eq!(now(running(&pod, "c")), [start_of("side", 1)]);
}

#[test]
fn a_sidecar_is_restarted_whatever_the_pods_policy_and_ends_with_the_pods_work() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always"}]}));
    let state = ready(&["side", "c"]);
    assert_eq!(actions(&pod, vec![ended(&pod, "side"), running(&pod, "c")], &state), [start_of("side", 1)]);
    let over = actions(&pod, vec![ended(&pod, "side"), ended(&pod, "c")], &state);
    assert_eq!(over, [Action::StopSandbox { id: "s".into() }]);
}

#[test]
fn a_failed_probe_kills_and_is_no_sentence_on_the_next_container() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [
        {"name": "c", "image": "x", "livenessProbe": {"terminationGracePeriodSeconds": 7}, "readinessProbe": {}}]}));
    let runs = running(&pod, "c");
    let unready =
        told(&["c"], std::slice::from_ref(&runs), &[("c-0", ProbeKind::Readiness, Verdict::Failure)]);
    assert_eq!(actions(&pod, vec![runs.clone()], &unready), []);
    let dead = told(&["c"], std::slice::from_ref(&runs), &[("c-0", ProbeKind::Liveness, Verdict::Failure)]);
    let stop = Action::Stop { id: "c-0".into(), why: StopReason::Liveness, grace: Duration::from_secs(7) };
    assert_eq!(actions(&pod, vec![runs.clone()], &dead), [stop]);
    let next = RuntimeContainer { id: "c-1".into(), ..runs };
    assert_eq!(actions(&pod, vec![next], &dead), []);
}

#[test]
fn later_containers_wait_for_a_post_start_hook() {
    let pod = pod(json!({"containers": [
        {"name": "a", "image": "x", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}},
        {"name": "b", "image": "x"}]}));
    let mut state = ready(&["a", "b"]);
    assert_eq!(actions(&pod, vec![], &state), [start_of("a", 0)]);
    state.busy.insert(start_of("a", 0));
    assert_eq!(actions(&pod, vec![running(&pod, "a")], &state), []);
    state.busy.clear();
    state.post_starts.insert("a-0".into());
    let hook = Action::PostStart { id: "a-0".into() };
    assert_eq!(actions(&pod, vec![running(&pod, "a")], &state), std::slice::from_ref(&hook));
    state.busy.insert(hook);
    assert_eq!(actions(&pod, vec![running(&pod, "a")], &state), []);
    assert!(!state.is_started(pod.container("a").unwrap(), &running(&pod, "a")));
    state.busy.clear();
    state.post_starts.clear();
    assert_eq!(actions(&pod, vec![running(&pod, "a")], &state), [start_of("b", 0)]);
    // One that fails is killed, and one that waits for its back-off holds nobody up.
    state.failed_hooks.insert("a-0".into());
    let stop = Action::Stop { id: "a-0".into(), why: StopReason::PostStart, grace: Duration::from_secs(30) };
    assert_eq!(actions(&pod, vec![running(&pod, "a")], &state), [stop]);
    // That it has failed is known for as long as the dead one lies there.
    let fault = crate::pod::backoff::Failure::steady("PostStartHookError", "m".into(), false, NOW);
    state.starts.insert("a".into(), fault);
    assert_eq!(actions(&pod, vec![ended(&pod, "a")], &state), [start_of("b", 0)]);
}

#[test]
fn containers_that_were_not_made_yet_go_before_one_that_begins_again_after_its_post_start_has_failed() {
    let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
    let pod = pod(json!({"containers": [{"name": "a", "image": "x"},
        {"name": "b", "image": "x", "lifecycle": hook}, {"name": "c", "image": "x"}, {"name": "d", "image": "x"}]}));
    let mut state = ready(&["a", "b", "c", "d"]);
    let again = |name: &str| instance(&pod, name, "s", 1, RuntimeState::Running);
    // Its grace has outlasted the back-off, so that it begins again at once.
    let dead = vec![running(&pod, "a"), ended(&pod, "b")];
    assert_eq!(actions(&pod, dead.clone(), &state), [start_of("c", 0), start_of("d", 0), start_of("b", 1)]);
    // What has no image yet does not wait for the second round either.
    state.images.remove("d");
    state.busy.extend([start_of("b", 1), start_of("c", 0)]);
    let image = Action::Image { container: "d".into(), image: "x".into() };
    assert_eq!(actions(&pod, dead, &state), std::slice::from_ref(&image));
    state = ready(&["a", "b", "c", "d"]);
    state.post_starts.insert("b-1".into());
    let hook = Action::PostStart { id: "b-1".into() };
    let round = |c: RuntimeContainer| vec![running(&pod, "a"), again("b"), ended(&pod, "b"), c];
    assert_eq!(actions(&pod, round(running(&pod, "c")), &state), [hook.clone(), start_of("d", 0)]);
    // One that was there waits, as in any round.
    assert_eq!(actions(&pod, round(ended(&pod, "c")), &state), [hook, start_of("d", 0)]);
}

#[test]
fn those_behind_a_second_post_start_hook_wait_for_that() {
    let hook = json!({"postStart": {"exec": {"command": ["x"]}}});
    let pod = pod(json!({"containers": [{"name": "b", "image": "x", "lifecycle": hook},
        {"name": "c", "image": "x", "lifecycle": hook}, {"name": "d", "image": "x"}]}));
    let mut state = ready(&["b", "c", "d"]);
    let dead = || vec![ended(&pod, "b")];
    assert_eq!(actions(&pod, dead(), &state), [start_of("c", 0)]);
    state.busy.insert(start_of("c", 0));
    assert_eq!(actions(&pod, dead(), &state), [start_of("b", 1)]);
    state.busy.insert(start_of("b", 1));
    assert_eq!(actions(&pod, dead(), &state), []);
}

#[test]
fn an_ephemeral_container_starts_once_whatever_the_others_do() {
    let pod = pod(json!({"initContainers": [{"name": "init", "image": "x"}],
        "ephemeralContainers": [{"name": "debug", "image": "x", "targetContainerName": "c"}]}));
    let state = ready(&["init", "debug", "c"]);
    assert_eq!(actions(&pod, vec![running(&pod, "init")], &state), [start_of("debug", 0)]);
    let beside = |debug| actions(&pod, vec![running(&pod, "c"), debug], &state);
    assert_eq!(beside(running(&pod, "debug")), []);
    let failed = RuntimeContainer { exit_code: 1, ..ended(&pod, "debug") };
    assert_eq!(beside(failed), []);
    // It needs a sandbox, and makes none.
    let lost = RuntimePod { containers: vec![ended(&pod, "c")], ..RuntimePod::default() };
    let plan = plan(&pod, &Intent::Run, &lost, &state, NOW);
    assert!(!plan.actions.iter().any(|action| matches!(action, Action::Start { .. })), "{plan:?}");
    // It keeps no pod alive.
    let mut done = pod.clone();
    done.pod.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
    let stop = Action::Stop { id: "debug-0".into(), why: StopReason::Ending, grace: Duration::from_secs(30) };
    assert_eq!(actions(&done, vec![ended(&done, "c"), running(&done, "debug")], &state), [stop]);
}
