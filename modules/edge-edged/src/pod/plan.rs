//! What to do next for one pod. Pure: the pod, what the runtime has of it, what was tried before, and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;
use k8s_openapi::api::core::v1::Container;

use crate::eviction::pressure::EVICTED;
use crate::pod::action::{Action, StopReason};
use crate::pod::parsed_pod::{ParsedPod, RestartPolicy, is_sidecar};
use crate::pod::sync_state::{ImageState, SyncState, VolumeState};
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

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// When to look again although nothing happens.
    pub(crate) wake: Option<Moment>,
    /// Nothing of the pod is left and nothing is to be done.
    pub(crate) gone: bool,
}

impl Plan {
    fn wake_at(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |old| old.min(at)));
    }
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
        Intent::Terminate => terminate(pod, seen, state, &mut plan),
        Intent::Fail { .. } | Intent::Hold { .. } => end(pod, seen, state, &mut plan),
        Intent::Run if is_done(pod, seen, state) => end(pod, seen, state, &mut plan),
        Intent::Run => run(pod, seen, state, now, &mut plan),
    }
    plan.actions.retain(|action| !state.busy.contains(action));
    plan
}

/// Whether all that the pod was to do is done, one way or the other. What has ended never runs again, whatever the runtime
/// has of it.
pub(crate) fn is_done(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> bool {
    if state.end(pod).is_some() {
        return true;
    }
    let policy = pod.restart_policy();
    if policy == RestartPolicy::Always {
        return false;
    }
    let over =
        |container: &Container| seen.newest(&container.name).filter(|instance| instance.state.has_ended());
    let init_failed = pod.init_containers().any(|container| {
        let failed = over(container).is_some_and(|instance| instance.exit_code != 0);
        failed && policy == RestartPolicy::Never && !is_sidecar(container)
    });
    init_failed
        || pod.spec().containers.iter().all(|container| {
            over(container).is_some_and(|instance| {
                policy == RestartPolicy::Never
                    || (instance.exit_code == 0 && instance.state == RuntimeState::Exited)
            }) && !changed(pod, over(container))
        })
}

fn changed(pod: &ParsedPod, instance: Option<&RuntimeContainer>) -> bool {
    instance.is_some_and(|instance| instance.hash.is_some_and(|hash| hash != pod.hash(&instance.name)))
}

/// Stops what runs, the main containers before the sidecars, then the sandboxes. True when nothing runs any more.
fn kill_pod(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, plan: &mut Plan) -> bool {
    let running: Vec<&RuntimeContainer> =
        seen.containers.iter().filter(|container| container.state == RuntimeState::Running).collect();
    let starting = state.is_busy(|action| matches!(action, Action::Start { .. } | Action::Sandbox { .. }));
    if !running.is_empty() || starting {
        let sidecars: Vec<&str> =
            pod.init_containers().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
        let (beside, main): (Vec<&RuntimeContainer>, Vec<&RuntimeContainer>) =
            running.into_iter().partition(|container| sidecars.contains(&container.name.as_str()));
        let stop = |container: &RuntimeContainer| Action::Stop {
            id: container.id.clone(),
            why: StopReason::Ending,
            grace: state.grace.unwrap_or_else(|| pod.grace()),
        };
        if main.is_empty() && !starting {
            // One after another, the last started first.
            let last = sidecars.iter().rev().find_map(|name| beside.iter().find(|c| c.name == **name));
            plan.actions.extend(last.map(|container| stop(container)));
        } else {
            plan.actions.extend(main.into_iter().map(stop));
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
    open.is_empty()
}

/// Ends what runs. Of a pod that had to go for what it took nothing stays but its status.
fn end(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, plan: &mut Plan) {
    let is_evicted = state.end(pod).is_some_and(|end| end.reason.as_deref() == Some(EVICTED));
    if kill_pod(pod, seen, state, plan) && is_evicted {
        clear(seen, state, plan);
    }
}

fn terminate(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, plan: &mut Plan) {
    if kill_pod(pod, seen, state, plan) {
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

fn run(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    volumes(state, now, plan);
    collect_garbage(pod, seen, state, now, plan);
    let candidates = candidates(pod, seen, state, plan);
    let sandbox = seen.ready_sandbox();
    if sandbox.is_none() && !candidates.is_empty() {
        replace_sandbox(pod.grace(), seen, state, now, plan);
    }
    for (container, attempt) in candidates {
        start(container, attempt, sandbox.is_some(), state, now, plan, seen);
    }
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
fn replace_sandbox(grace: Duration, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    let running = seen.containers.iter().filter(|container| container.state == RuntimeState::Running);
    let stops: Vec<Action> =
        running.map(|c| Action::Stop { id: c.id.clone(), why: StopReason::SandboxLost, grace }).collect();
    if !stops.is_empty() {
        plan.actions.extend(stops);
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

/// The containers that should start now, with their attempt, but for pauses and what they need.
fn candidates<'a>(
    pod: &'a ParsedPod,
    seen: &RuntimePod,
    state: &SyncState,
    plan: &mut Plan,
) -> Vec<(&'a Container, u32)> {
    let sandbox = seen.ready_sandbox().map_or("", |sandbox| sandbox.id.as_str());
    let here = |container: &Container| seen.newest_in(&container.name, sandbox);
    let initialized = pod.spec().containers.iter().any(|container| here(container).is_some());
    let mut found = Vec::new();
    if !initialized {
        for container in pod.init_containers() {
            let instance = here(container);
            let passed = match instance.map(|instance| instance.state) {
                Some(RuntimeState::Running) => is_sidecar(container),
                Some(RuntimeState::Exited) => {
                    !is_sidecar(container) && instance.is_some_and(|instance| instance.exit_code == 0)
                }
                Some(RuntimeState::Created | RuntimeState::Unknown) | None => false,
            };
            if passed {
                continue;
            }
            consider(pod, container, instance, seen, state, plan, &mut found);
            return found;
        }
    } else {
        for container in pod.init_containers().filter(|container| is_sidecar(container)) {
            consider(pod, container, here(container), seen, state, plan, &mut found);
        }
    }
    for container in &pod.spec().containers {
        consider(pod, container, here(container), seen, state, plan, &mut found);
    }
    found
}

fn consider<'a>(
    pod: &ParsedPod,
    container: &'a Container,
    instance: Option<&RuntimeContainer>,
    seen: &RuntimePod,
    state: &SyncState,
    plan: &mut Plan,
    found: &mut Vec<(&'a Container, u32)>,
) {
    if state.is_starting(&container.name) {
        return;
    }
    let newest = seen.newest(&container.name);
    let attempt = state.next_attempt(pod, &container.name, newest);
    match instance {
        None => {
            // One that ended with the sandbox before counts by the policy, init containers run again.
            let again = newest.is_none_or(|newest| {
                let main = pod.spec().containers.iter().any(|c| c.name == container.name);
                !main || !newest.state.has_ended() || restarts(pod, container, newest)
            });
            if again {
                found.push((container, attempt));
            }
        }
        Some(instance) => match instance.state {
            RuntimeState::Running => {
                if changed(pod, Some(instance)) {
                    let (id, grace) = (instance.id.clone(), pod.grace());
                    plan.actions.push(Action::Stop { id, why: StopReason::Changed, grace });
                }
            }
            // Made but never started: a start that was cut short. It makes room for a whole one.
            RuntimeState::Created => plan.actions.push(Action::RemoveContainer { id: instance.id.clone() }),
            RuntimeState::Exited | RuntimeState::Unknown => {
                if restarts(pod, container, instance) {
                    found.push((container, attempt));
                }
            }
        },
    }
}

/// Whether a container that has ended starts again, sooner or later.
pub(crate) fn restarts(pod: &ParsedPod, container: &Container, instance: &RuntimeContainer) -> bool {
    if is_sidecar(container) || changed(pod, Some(instance)) {
        return true;
    }
    let failed = instance.exit_code != 0 || instance.state == RuntimeState::Unknown;
    let init = pod.init_containers().any(|init| init.name == container.name);
    match pod.restart_policy() {
        RestartPolicy::Always => failed || !init,
        RestartPolicy::OnFailure => failed,
        RestartPolicy::Never => false,
    }
}

fn start(
    container: &Container,
    attempt: u32,
    sandbox_ready: bool,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
    seen: &RuntimePod,
) {
    let name = &container.name;
    let ended = seen.newest(name).filter(|instance| instance.state.has_ended());
    if let Some((_, until)) = ended.and_then(|instance| state.crash_until(instance))
        && until > now
    {
        return plan.wake_at(until);
    }
    if let Some(fault) = state.starts.get(name).filter(|fault| fault.until > now) {
        return plan.wake_at(fault.until);
    }
    match state.images.get(name) {
        None => plan.actions.push(Action::Image { container: name.clone() }),
        Some(ImageState::Failed(fault)) if fault.until > now => plan.wake_at(fault.until),
        Some(ImageState::Failed(_)) => plan.actions.push(Action::Image { container: name.clone() }),
        Some(ImageState::Ready(_)) => {
            let volumes_ready = matches!(state.volumes, VolumeState::Ready(_));
            if sandbox_ready && volumes_ready {
                plan.actions.push(Action::Start { container: name.clone(), attempt });
            }
        }
    }
}

/// Whether every init container has done its part.
pub(crate) fn initialized(pod: &ParsedPod, seen: &RuntimePod) -> bool {
    let started = pod.spec().containers.iter().any(|container| seen.newest(&container.name).is_some());
    started
        || pod.init_containers().all(|container| {
            seen.newest(&container.name).is_some_and(|instance| match instance.state {
                RuntimeState::Running => is_sidecar(container),
                RuntimeState::Exited => instance.exit_code == 0 && !is_sidecar(container),
                RuntimeState::Created | RuntimeState::Unknown => false,
            })
        })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(crate) mod tests;
