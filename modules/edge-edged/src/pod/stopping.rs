//! How containers are stopped: their preStop hooks, their grace, and in which order. Pure.

use std::time::Duration;

use beehive::Moment;
use k8s_openapi::api::core::v1::{Container, Probe};

use crate::eviction::pressure::EVICTED;
use crate::pod::action::{Action, StopReason};
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::planned::Plan;
use crate::pod::restart_policy;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::{RuntimeContainer, RuntimePod, RuntimeState};
use crate::volumes::claims::has_external;

/// Every container has so much to end, whatever its hook and others took before (Kubernetes:
/// `minimumGracePeriodInSeconds`).
pub(crate) const GRACE_MIN: Duration = Duration::from_secs(2);
/// The shortest grace of a pod that ends.
const ENDING_MIN: Duration = Duration::from_secs(1);

/// How long a container has to end: its probe's own grace, else the pod's.
pub(crate) fn grace(pod: &ParsedPod, container: Option<&Container>, why: StopReason) -> Duration {
    if why == StopReason::RestartAll {
        // The least that any container has, and without its hook.
        return Duration::ZERO;
    }
    let probe = match why {
        StopReason::Liveness => container.and_then(|container| container.liveness_probe.as_ref()),
        StopReason::Startup => container.and_then(|container| container.startup_probe.as_ref()),
        StopReason::Ending
        | StopReason::Changed
        | StopReason::Resize
        | StopReason::RestartAll
        | StopReason::Asked
        | StopReason::SandboxLost
        | StopReason::PostStart
        | StopReason::Unknown => None,
    };
    let own = |probe: &Probe| u64::try_from(probe.termination_grace_period_seconds?).ok();
    match probe.and_then(own).filter(|_| !pod.is_terminating()) {
        Some(seconds) => Duration::from_secs(seconds),
        None => pod.grace(),
    }
}

/// The same, unless the pod ends: then it is the shortest that anybody asks for who ends it, and a second at least (kubelet's
/// `calculateEffectiveGracePeriod`).
fn own_grace(pod: &ParsedPod, container: Option<&Container>, why: StopReason, state: &SyncState) -> Duration {
    if why != StopReason::Ending {
        return grace(pod, container, why);
    }
    let asked = state.grace.into_iter().chain(pod.deletion_grace()).min();
    asked.unwrap_or_else(|| pod.grace()).max(ENDING_MIN)
}

/// What of a grace is left for the runtime: whole seconds that have passed are taken off.
pub(crate) fn left(grace: Duration, since: Moment, now: Moment) -> Duration {
    let passed = Duration::from_secs(now.since(since).as_secs());
    grace.saturating_sub(passed).max(GRACE_MIN)
}

/// The event's words for a stop.
pub(crate) fn killing_text(pod: &ParsedPod, name: &str, why: StopReason) -> String {
    let cause = match why {
        StopReason::Ending | StopReason::SandboxLost => return format!("Stopping container {name}"),
        StopReason::PostStart => return "FailedPostStartHook".to_owned(),
        StopReason::RestartAll => return "killing".to_owned(),
        StopReason::Unknown => {
            return "Container is in \"unknown\" state, try killing it before restart".to_owned();
        }
        StopReason::Resize => return format!("Container {name} resize requires restart"),
        StopReason::Changed => "definition changed",
        StopReason::Asked => "was asked to begin again on the node",
        StopReason::Liveness => "failed liveness probe",
        StopReason::Startup => "failed startup probe",
    };
    let container = pod.container(name);
    if pod.init_containers().any(|init| init.name == name) {
        return format!("Init container {name} {cause}");
    }
    let again = why == StopReason::Changed
        || container.is_some_and(|container| restart_policy::restarts_after_kill(pod, container));
    format!("Container {name} {cause}{}", if again { ", will be restarted" } else { "" })
}

/// Whether a container has a hook that runs before it is stopped.
pub(crate) fn has_pre_stop(container: &Container) -> bool {
    container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some())
}

/// Runs a container's preStop hook, once. True when it is not to be waited for: it has ended, or the grace has.
fn pre_stop(
    pod: &ParsedPod,
    instance: &RuntimeContainer,
    why: StopReason,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
) -> bool {
    let container = pod.container(&instance.name);
    let grace = own_grace(pod, container, why, state);
    plan.stopping.push((instance.id.clone(), grace));
    // Nothing can be run in one that the runtime has lost.
    let is_lost = instance.state == RuntimeState::Unknown;
    let has_hook = container.is_some_and(has_pre_stop) && !is_lost;
    if grace.is_zero() || !has_hook || state.pre_stopped.contains(&instance.id) {
        return true;
    }
    let runs = |action: &Action| matches!(action, Action::PreStop { id, .. } if *id == instance.id);
    if !state.is_busy(runs) {
        plan.actions.push(Action::PreStop { id: instance.id.clone(), why });
        return false;
    }
    let until = state.stopping_since(&instance.id, grace, now) + grace;
    if until > now {
        plan.wake_at(until);
    }
    until <= now
}

/// Stops a container that runs.
pub(crate) fn stop(
    pod: &ParsedPod,
    instance: &RuntimeContainer,
    why: StopReason,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
) {
    if pre_stop(pod, instance, why, state, now, plan) {
        let grace = own_grace(pod, pod.container(&instance.name), why, state);
        plan.actions.push(Action::Stop { id: instance.id.clone(), why, grace });
    }
}

/// Stops what runs, the main containers before the sidecars, then the sandboxes. True when nothing runs any more.
pub(crate) fn kill_pod(
    pod: &ParsedPod,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
) -> bool {
    let running: Vec<&RuntimeContainer> =
        seen.containers.iter().filter(|container| state.may_run(container)).collect();
    let starting = state.is_busy(|action| matches!(action, Action::Start { .. } | Action::Sandbox { .. }));
    if !running.is_empty() || starting {
        let sidecars: Vec<&str> =
            pod.init_containers().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
        let (beside, main): (Vec<&RuntimeContainer>, Vec<&RuntimeContainer>) =
            running.into_iter().partition(|container| sidecars.contains(&container.name.as_str()));
        // One after another, the last started first.
        let next = sidecars.iter().rev().find(|name| beside.iter().any(|c| c.name == **name));
        let turn = next.filter(|_| main.is_empty() && !starting);
        for container in &main {
            stop(pod, container, StopReason::Ending, state, now, plan);
        }
        for container in &beside {
            if turn.is_some_and(|name| container.name == *name) {
                stop(pod, container, StopReason::Ending, state, now, plan);
            } else {
                wait_for_turn(pod, container, state, now, plan);
            }
        }
        return false;
    }
    let open: Vec<&str> = seen
        .sandboxes
        .iter()
        .filter(|sandbox| sandbox.ready && !state.stopped.contains(&sandbox.id))
        .map(|sandbox| sandbox.id.as_str())
        .collect();
    plan.actions.extend(open.iter().map(|id| Action::StopSandbox { id: (*id).to_owned() }));
    // The runtime calls one that it is still stopping not ready.
    let stops = state.busy.iter().any(|action| matches!(action, Action::StopSandbox { .. }));
    open.is_empty() && !stops
}

/// A sidecar whose turn has not come: its hook runs already, and its grace passes.
fn wait_for_turn(
    pod: &ParsedPod,
    instance: &RuntimeContainer,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
) {
    pre_stop(pod, instance, StopReason::Ending, state, now, plan);
    let grace = own_grace(pod, None, StopReason::Ending, state);
    let until = state.stopping_since(&instance.id, grace, now) + grace;
    if until > now {
        plan.wake_at(until);
    } else {
        plan.actions.push(Action::Stop { id: instance.id.clone(), why: StopReason::Ending, grace });
    }
}

/// Ends what runs, and gives back volumes that are not the pod's own. Of a pod that had to go for what it took nothing stays
/// but its status, and `makes_room` says that it is not to be waited for that to be kept.
pub(crate) fn end(
    pod: &ParsedPod,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
    makes_room: bool,
    plan: &mut Plan,
) {
    let is_evicted = makes_room || state.end(pod).is_some_and(|end| end.reason.as_deref() == Some(EVICTED));
    if !kill_pod(pod, seen, state, now, plan) {
        return;
    }
    if makes_room && !state.torn_down && !state.is_busy(|action| *action == Action::Volumes) {
        // What it has on the disk goes first: a runtime that finds no room removes nothing.
        plan.actions.push(Action::Teardown);
    } else if is_evicted {
        clear(seen, state, plan);
    } else if !state.unmounted && has_external(pod) && !state.is_busy(|action| *action == Action::Volumes) {
        // Another node may wait for them.
        plan.actions.push(Action::Unmount);
    }
}

/// Ends the pod and removes it.
pub(crate) fn terminate(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    if kill_pod(pod, seen, state, now, plan) {
        if state.tells_end && state.end(pod).is_none() {
            // Nothing of it is removed before it is told how it ended: who has it removed waits to hear that.
            return;
        }
        clear(seen, state, plan);
        let left = !seen.sandboxes.is_empty() || !seen.containers.is_empty();
        plan.gone = state.torn_down && !left && !state.is_busy(|action| *action == Action::Volumes);
    }
}

/// Removes all that the runtime and the disk have of a pod of which nothing runs.
fn clear(seen: &RuntimePod, state: &SyncState, plan: &mut Plan) {
    if state.is_busy(|action| *action == Action::Volumes) {
        return;
    }
    if !seen.sandboxes.is_empty() {
        plan.actions
            .extend(seen.sandboxes.iter().map(|sandbox| Action::RemoveSandbox { id: sandbox.id.clone() }));
    } else if !seen.containers.is_empty() {
        plan.actions.extend(seen.containers.iter().map(|c| Action::RemoveContainer { id: c.id.clone() }));
    } else if !state.torn_down {
        plan.actions.push(Action::Teardown);
    }
}

#[cfg(test)]
#[path = "stopping_tests.rs"]
mod tests;
