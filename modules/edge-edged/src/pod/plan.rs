//! What to do next for one pod. Pure: the pod, what the runtime has of it, what was tried before, and the time.

use std::collections::BTreeMap;

use beehive::Moment;
use k8s_openapi::api::core::v1::Container;

use crate::eviction::pressure::EVICTED;
use crate::pod::action::{Action, StopReason};
use crate::pod::parsed_pod::{ParsedPod, RestartPolicy, is_sidecar};
use crate::pod::planned::Plan;
use crate::pod::pod_cgroup;
use crate::pod::restart_all;
use crate::pod::restart_asked;
use crate::pod::restart_policy;
use crate::pod::starting::{candidates, has_post_start, start};
use crate::pod::stopping::{end, stop, terminate};
use crate::pod::sync_state::{SyncState, VolumeState};
use crate::runtime::pods::{RuntimeContainer, RuntimePod, RuntimeState};

/// What is to become of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// It should run.
    Run,
    /// It has failed; its object stays until the cloud deletes it.
    Fail { reason: String, message: String },
    /// It must not run as it is: nothing of it is started.
    Hold { reason: String, message: String },
    /// It should end and leave nothing behind.
    Terminate,
}

/// Works out what to do.
pub(crate) fn plan(
    pod: &ParsedPod,
    intent: &Intent,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
) -> Plan {
    let mut plan = Plan::default();
    match intent {
        Intent::Terminate => terminate(pod, seen, state, now, &mut plan),
        Intent::Fail { reason, .. } => {
            // One that goes for the room that it takes does not wait for room to write that down.
            let makes_room = reason == EVICTED && state.is_unkept;
            end(pod, seen, state, now, makes_room, &mut plan);
        }
        Intent::Hold { .. } => end(pod, seen, state, now, false, &mut plan),
        Intent::Run if is_done(pod, seen, state) => end(pod, seen, state, now, false, &mut plan),
        Intent::Run => run(pod, seen, state, now, &mut plan),
    }
    plan.actions.retain(|action| !state.busy.contains(action));
    plan
}

/// Whether all that the pod was to do is done, one way or the other. What has ended never runs again, whatever the runtime
/// has of it.
pub(crate) fn is_done(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> bool {
    if state.end(pod).is_some() || has_lost_its_sandbox(pod, seen) {
        return true;
    }
    if restart_all::is_wanted(pod, seen) {
        return false;
    }
    let over =
        |container: &Container| seen.newest(&container.name).filter(|instance| instance.state.has_ended());
    let for_good = |container: &Container| {
        over(container).is_some_and(|instance| !restart_policy::restarts(pod, container, instance))
    };
    let failed = |container: &Container| over(container).is_some_and(restart_policy::has_failed);
    let init_failed = pod
        .init_containers()
        .any(|container| !is_sidecar(container) && failed(container) && for_good(container));
    init_failed || pod.spec().containers.iter().all(for_good)
}

/// Whether a pod that never restarts has lost the sandbox in which its containers were made: there is no other for it
/// (kubelet's `computePodActions`). One in which none was made yet is made anew.
pub(crate) fn has_lost_its_sandbox(pod: &ParsedPod, seen: &RuntimePod) -> bool {
    pod.restart_policy() == RestartPolicy::Never
        && !seen.sandboxes.is_empty()
        && seen.ready_sandbox().is_none()
        && !seen.containers.is_empty()
}

fn run(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    volumes(state, now, plan);
    if restart_all::plan(pod, seen, state, now, plan) || restart_asked::plan(pod, seen, state, now, plan) {
        return;
    }
    collect_garbage(pod, seen, state, now, plan);
    let candidates = candidates(pod, seen, state, now, plan);
    let sandbox = seen.ready_sandbox();
    if sandbox.is_none() && !candidates.is_empty() {
        replace_sandbox(pod, seen, state, now, plan);
    }
    for (container, attempt) in candidates {
        let comes = start(container, attempt, sandbox.is_some(), state, now, plan, seen);
        // The next one waits for its postStart hook.
        if comes && has_post_start(container) {
            break;
        }
    }
    pod_cgroup::order(pod, seen, state, now, plan);
}

fn volumes(state: &SyncState, now: Moment, plan: &mut Plan) {
    let due = match &state.volumes {
        VolumeState::NotYet => true,
        VolumeState::Ready(_) => state.refresh_volumes || state.refresh_at.is_some_and(|at| at <= now),
        VolumeState::Failed(fault) => {
            if fault.until > now {
                plan.wake_at(fault.until);
            }
            fault.until <= now
        }
    };
    if due {
        plan.actions.push(Action::Volumes);
    } else if let Some(at) = state.refresh_at {
        plan.wake_at(at);
    }
}

/// The dead sandbox is cleared away, then a new one is made.
fn replace_sandbox(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    let running: Vec<&RuntimeContainer> =
        seen.containers.iter().filter(|container| state.may_run(container)).collect();
    if !running.is_empty() {
        for container in running {
            stop(pod, container, StopReason::SandboxLost, state, now, plan);
        }
        return;
    }
    let unstopped: Vec<Action> = seen
        .sandboxes
        .iter()
        .filter(|sandbox| !state.stopped.contains(&sandbox.id))
        .map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() })
        .collect();
    if !unstopped.is_empty() {
        plan.actions.extend(unstopped);
        return;
    }
    if state.is_busy(|action| matches!(action, Action::Sandbox { .. })) {
        return;
    }
    match &state.sandbox {
        Some(fault) if fault.until > now => plan.wake_at(fault.until),
        Some(_) | None => {
            let latest = seen.sandboxes.iter().map(|sandbox| sandbox.attempt).max();
            let attempt = latest.map_or(0, |latest| latest.saturating_add(1));
            plan.actions.push(Action::Sandbox { attempt });
        }
    }
}

/// Keeps the newest of each container and as many before as are wanted; the rest goes, and sandboxes that hold nothing.
fn collect_garbage(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    for container in &seen.containers {
        let count = kept.entry(container.name.as_str()).or_default();
        *count += 1;
        let known = pod.container(&container.name).is_some();
        if container.state.has_ended() && (*count > 1 + state.dead_kept.max(1) || !known) {
            let due = state.ended.get(&container.id).map_or(now, |ended| *ended + state.dead_min_age);
            if due > now {
                plan.wake_at(due);
                continue;
            }
            plan.actions.push(Action::RemoveContainer { id: container.id.clone() });
        }
    }
    for sandbox in seen.sandboxes.iter().skip(1) {
        let empty = !seen.containers.iter().any(|container| container.sandbox == sandbox.id);
        if empty && (!sandbox.ready || state.stopped.contains(&sandbox.id)) {
            plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
        } else if sandbox.ready {
            // Two at once: the older one is left over from a start that was cut short.
            plan.actions.push(Action::StopSandbox { id: sandbox.id.clone() });
        }
    }
}

/// Whether every init container has done its part.
pub(crate) fn initialized(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> bool {
    let started = pod.spec().containers.iter().any(|container| seen.newest(&container.name).is_some());
    started
        || pod.init_containers().all(|container| {
            seen.newest(&container.name).is_some_and(|instance| match instance.state {
                RuntimeState::Running => is_sidecar(container) && state.is_started(container, instance),
                RuntimeState::Exited => instance.exit_code == 0 && !is_sidecar(container),
                RuntimeState::Created | RuntimeState::Unknown => false,
            })
        })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
