use super::*;
use crate::pod::action::StopReason;
use crate::pod::cgroup_state::CgroupFault;
use crate::pod::plan::tests::{instance, ready, seen};
use crate::pod::plan::{Intent, plan};
use crate::pod::resize;
use crate::runtime::pods::RuntimeContainer;
use serde_json::{Value, json};
use std::time::Duration;

const NOW: Moment = Moment(Duration::from_secs(1000));

fn sized(name: &str, cpu: &str, memory: &str, policy: &str) -> Value {
    let policy = |resource: &str| json!({"resourceName": resource, "restartPolicy": policy});
    json!({"name": name, "image": "x", "resizePolicy": [policy("cpu"), policy("memory")],
        "resources": {"limits": {"cpu": cpu, "memory": memory}}})
}

fn of(containers: &[Value]) -> ParsedPod {
    crate::pod::parsed_pod::tests::pod(json!({"containers": containers}))
}

fn running(pod: &ParsedPod, name: &str) -> RuntimeContainer {
    instance(pod, name, "s", 0, RuntimeState::Running)
}

fn ended(pod: &ParsedPod, name: &str) -> RuntimeContainer {
    instance(pod, name, "s", 0, RuntimeState::Exited)
}

fn resize_of(name: &str) -> Action {
    Action::Resize { id: format!("{name}-0") }
}

fn stop_of(name: &str) -> Action {
    let (id, grace) = (format!("{name}-0"), Duration::from_secs(30));
    Action::Stop { id, why: StopReason::Resize, grace }
}

fn start_of(name: &str) -> Action {
    Action::Start { container: name.into(), attempt: 1 }
}

/// A worker that has made the pod as it was before, and hears of it as it is.
fn after(before: &ParsedPod, now: &ParsedPod) -> SyncState {
    let mut state = ready(&["a", "b"]);
    for (name, resources) in resize::resources_of(before) {
        state.actuated.insert(format!("{name}-0"), resources);
    }
    note_change(&mut state, before, now);
    state
}

/// What is done, and what the cgroup becomes by that: the quota and the memory.
fn next(
    pod: &ParsedPod,
    containers: &[RuntimeContainer],
    state: &mut SyncState,
) -> (Vec<Action>, Option<(i64, i64)>) {
    let seen = seen(containers.to_vec());
    let actions = plan(pod, &Intent::Run, &seen, state, NOW).actions;
    let bounds = actions.contains(&Action::BoundPod).then(|| wanted(pod, &seen, state));
    if let Some(bounds) = bounds {
        state.cgroup = PodCgroup::Bound(bounds);
    }
    (actions, bounds.map(|own| (own.quota.unwrap(), own.memory.unwrap() >> 20)))
}

#[test]
fn a_container_that_starts_again_for_more_finds_its_pod_raised() {
    let before = of(&[sized("a", "100m", "64Mi", "RestartContainer")]);
    let now = of(&[sized("a", "200m", "96Mi", "RestartContainer")]);
    let mut state = after(&before, &now);
    let raised = (vec![stop_of("a"), Action::BoundPod], Some((20_000, 96)));
    assert_eq!(next(&now, &[running(&before, "a")], &mut state), raised);
    // One that had ended already does not start in the smaller one.
    let mut state = after(&before, &now);
    assert_eq!(next(&now, &[ended(&before, "a")], &mut state), (vec![Action::BoundPod], Some((20_000, 96))));
    assert_eq!(next(&now, &[ended(&before, "a")], &mut state), (vec![start_of("a")], None));
}

#[test]
fn a_container_that_starts_again_with_less_leaves_its_pod_lowered() {
    let before = of(&[sized("a", "200m", "96Mi", "RestartContainer")]);
    let now = of(&[sized("a", "100m", "64Mi", "RestartContainer")]);
    let mut state = after(&before, &now);
    // It still has more.
    assert_eq!(next(&now, &[running(&before, "a")], &mut state), (vec![stop_of("a")], None));
    assert_eq!(next(&now, &[ended(&before, "a")], &mut state), (vec![Action::BoundPod], Some((10_000, 64))));
    assert_eq!(next(&now, &[ended(&before, "a")], &mut state), (vec![start_of("a")], None));
}

#[test]
fn a_running_container_has_more_after_its_pod_and_less_before_it() {
    let (small, big) =
        (of(&[sized("a", "100m", "64Mi", "NotRequired")]), of(&[sized("a", "200m", "96Mi", "NotRequired")]));
    let mut state = after(&small, &big);
    let runs = [running(&small, "a")];
    assert_eq!(next(&big, &runs, &mut state), (vec![Action::BoundPod], Some((20_000, 96))));
    assert_eq!(next(&big, &runs, &mut state), (vec![resize_of("a")], None));
    let mut state = after(&big, &small);
    assert_eq!(next(&small, &runs, &mut state), (vec![resize_of("a")], None));
    state.actuated.insert("a-0".into(), resize::resources_of(&small)["a"].clone());
    assert_eq!(next(&small, &runs, &mut state), (vec![Action::BoundPod], Some((10_000, 64))));
    assert_eq!(next(&small, &runs, &mut state), (vec![], None));
}

/// 300m and 200m are 500m together, whichever of them starts again.
#[test]
fn of_two_containers_of_which_one_starts_again_both_count() {
    let pod = |a: &str, b: &str| {
        of(&[sized("a", a, "64Mi", "RestartContainer"), sized("b", b, "64Mi", "NotRequired")])
    };
    let (before, now) = (pod("200m", "200m"), pod("300m", "200m"));
    let mut state = after(&before, &now);
    let runs = [running(&before, "a"), running(&before, "b")];
    assert_eq!(next(&now, &runs, &mut state), (vec![stop_of("a"), Action::BoundPod], Some((50_000, 128))));
    // One has less and the other more: the one that runs is given less first, and all the while there is room for both.
    let now = pod("100m", "350m");
    let mut state = after(&before, &now);
    assert_eq!(next(&now, &runs, &mut state), (vec![stop_of("a"), Action::BoundPod], Some((45_000, 128))));
    assert_eq!(next(&now, &runs, &mut state), (vec![stop_of("a"), resize_of("b")], None));
}

#[test]
fn shrinking_goes_before_growing_also_where_it_fails_for_now() {
    let pod =
        |a: &str, b: &str| of(&[sized("a", a, "64Mi", "NotRequired"), sized("b", b, "64Mi", "NotRequired")]);
    let (before, now) = (pod("100m", "300m"), pod("300m", "100m"));
    let mut state = after(&before, &now);
    let runs = [running(&before, "a"), running(&before, "b")];
    assert_eq!(next(&now, &runs, &mut state), (vec![resize_of("b")], None));
    state.busy.insert(resize_of("b"));
    assert_eq!(next(&now, &runs, &mut state), (vec![], None));
    state.busy.clear();
    state.actuated.insert("b-0".into(), resize::resources_of(&now)["b"].clone());
    assert_eq!(next(&now, &runs, &mut state), (vec![resize_of("a")], None));
}

/// As after a release that never bound the pod anew: its container never started.
#[test]
fn a_start_of_edgecore_brings_the_cgroup_up_to_date_before_anything_starts() {
    let pod = of(&[sized("a", "200m", "96Mi", "RestartContainer")]);
    let mut state = ready(&["a"]);
    state.cgroup = PodCgroup::Unknown;
    let bound = (vec![Action::BoundPod], Some((20_000, 96)));
    assert_eq!(next(&pod, &[ended(&pod, "a")], &mut state), bound);
    assert_eq!(next(&pod, &[ended(&pod, "a")], &mut state), (vec![start_of("a")], None));
    state.cgroup = PodCgroup::Unknown;
    assert_eq!(next(&pod, &[running(&pod, "a")], &mut state), bound);
    assert_eq!(next(&pod, &[running(&pod, "a")], &mut state), (vec![], None));
}

#[test]
fn a_try_that_failed_is_one_again_later_and_holds_no_start_up() {
    let before = of(&[sized("a", "100m", "64Mi", "NotRequired")]);
    let now = of(&[sized("a", "200m", "96Mi", "NotRequired")]);
    let mut state = after(&before, &now);
    state.is_resizing = true;
    state.cgroup = PodCgroup::Unknown;
    let runs = seen(vec![running(&before, "a")]);
    let until = NOW + Duration::from_secs(5);
    let fault = |wanted| Some(CgroupFault { wanted, message: "refused".into(), until });
    state.cgroup_fault = fault(cgroup::bounds(now.spec()));
    let waits = plan(&now, &Intent::Run, &runs, &state, NOW);
    assert_eq!((waits.actions, waits.wake), (vec![], Some(until)), "a container has no more than its pod");
    assert!(resize::is_under_way(&now, &runs, &state));
    let dead = seen(vec![ended(&before, "a")]);
    assert_eq!(plan(&now, &Intent::Run, &dead, &state, NOW).actions, [start_of("a")]);
    assert_eq!(plan(&now, &Intent::Run, &runs, &state, until).actions, [Action::BoundPod]);
    // Other bounds are another thing.
    state.cgroup_fault = fault(cgroup::bounds(before.spec()));
    assert_eq!(plan(&now, &Intent::Run, &runs, &state, NOW).actions, [Action::BoundPod]);
}

#[test]
fn a_resize_is_over_when_the_pod_has_followed() {
    let before = of(&[sized("a", "200m", "96Mi", "NotRequired")]);
    let now = of(&[sized("a", "100m", "64Mi", "NotRequired")]);
    let mut state = after(&before, &now);
    state.is_resizing = true;
    let runs = seen(vec![running(&before, "a")]);
    state.actuated.insert("a-0".into(), resize::resources_of(&now)["a"].clone());
    assert!(resize::is_under_way(&now, &runs, &state));
    state.cgroup = PodCgroup::Bound(cgroup::bounds(now.spec()));
    assert!(!resize::is_under_way(&now, &runs, &state));
}

/// Sidecars count beside the containers, an init container only where it has more than all of them, and the overhead on top.
#[test]
fn init_containers_sidecars_and_overhead_count_as_they_run() {
    let pod = |side: &str| {
        let mut sidecar = sized("s", side, "64Mi", "NotRequired");
        sidecar["restartPolicy"] = json!("Always");
        crate::pod::parsed_pod::tests::pod(json!({
            "initContainers": [sidecar, sized("i", "250m", "64Mi", "NotRequired")],
            "containers": [sized("a", "100m", "64Mi", "NotRequired")],
            "overhead": {"cpu": "50m", "memory": "16Mi"}}))
    };
    let (before, now) = (pod("100m"), pod("200m"));
    let state = after(&before, &now);
    let runs = seen(vec![running(&before, "s"), ended(&before, "i"), running(&before, "a")]);
    let found = wanted(&now, &runs, &state);
    assert_eq!((found.quota, found.memory), (Some(50_000), Some(144 << 20)));
    let found = wanted(&before, &runs, &state);
    assert_eq!((found.quota, found.memory), (Some(40_000), Some(144 << 20)));
}
