//! The status of one container as the kubelet would tell it. Pure.

use beehive::Moment;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::plan::{self, Intent};
use crate::pod::resize;
use crate::pod::restart_all;
use crate::pod::restart_policy;
use crate::pod::sync_state::{ImageState, SyncState, VolumeState};
use crate::runtime::pods::{RuntimeContainer, RuntimePod, RuntimeState};

/// What the status takes from outside the pod.
#[derive(Debug, Clone)]
pub(crate) struct NodeContext<'a> {
    /// `containerd`, as the runtime names itself.
    pub(crate) runtime: &'a str,
    pub(crate) host_ips: &'a [String],
    pub(crate) now: Moment,
    /// Wall time, whole seconds.
    pub(crate) wall: jiff::Timestamp,
}

/// The reason of an instance that the runtime has lost.
const LOST: &str = "ContainerStatusUnknown";
/// What such an instance counts as: killed.
const LOST_CODE: i32 = 137;

pub(crate) fn time_of(nanos: i64) -> Option<Time> {
    if nanos <= 0 {
        return None;
    }
    jiff::Timestamp::from_second(nanos.div_euclid(1_000_000_000)).ok().map(Time)
}

pub(crate) fn container(
    pod: &ParsedPod,
    spec: &Container,
    init: bool,
    intent: &Intent,
    seen: &RuntimePod,
    state: &SyncState,
    around: &NodeContext<'_>,
) -> ContainerStatus {
    let newest = seen.newest(&spec.name);
    let lost = if newest.is_none() { known_container(state.known_status(pod), &spec.name) } else { None };
    let wanted = *intent == Intent::Run && !plan::is_done(pod, seen, state);
    let mut last =
        seen.previous(&spec.name).filter(|old| old.state.has_ended()).map(|old| terminated(old, around));
    let shown = match newest {
        Some(instance) => match instance.state {
            // Until its postStart hook has ended it is being made.
            RuntimeState::Running if state.is_held(instance) && wanted => {
                waiting(pod, spec, init, seen, state)
            }
            RuntimeState::Running => running(instance),
            RuntimeState::Created => waiting(pod, spec, init, seen, state),
            RuntimeState::Exited | RuntimeState::Unknown => {
                let ended = terminated(instance, around);
                match pause(pod, spec, instance, wanted, seen, state, around.now) {
                    Some(waiting) => {
                        last = Some(ended);
                        waiting
                    }
                    None => ended,
                }
            }
        },
        None => match intent {
            Intent::Hold { reason, message } => waiting_for(reason, Some(message.clone())),
            Intent::Run if is_reset(pod, &spec.name, state) && fault(spec, state).is_none() => {
                waiting_for(restart_all::RESTARTING, Some(restart_all::WORDS.to_owned()))
            }
            Intent::Run | Intent::Fail { .. } | Intent::Terminate => waiting(pod, spec, init, seen, state),
        },
    };
    let is_reset = newest.is_none() && is_reset(pod, &spec.name, state);
    let last = if is_reset {
        Some(reset_state())
    } else {
        last.or_else(|| lost.map(last_state_of_lost)).or_else(|| last_state_of_reset(pod, &spec.name, state))
    };
    let completed = shown.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    let started = newest.is_some_and(|instance| state.is_started(spec, instance));
    let ready = if init && !is_sidecar(spec) {
        completed
    } else {
        newest.is_some_and(|instance| state.is_ready(spec, instance))
    };
    let id = newest.map(|c| format!("{}://{}", around.runtime, c.id));
    let runs = newest.filter(|instance| instance.state == RuntimeState::Running);
    let has = match runs {
        Some(instance) => resize::actuated(pod, spec, instance, state),
        None => spec.resources.as_ref(),
    };
    let restarts = newest.map(|c| i32::try_from(c.attempt).unwrap_or(i32::MAX));
    ContainerStatus {
        name: spec.name.clone(),
        image: newest
            .map(|c| c.image.clone())
            .filter(|image| !image.is_empty())
            .unwrap_or_else(|| spec.image.clone().unwrap_or_default()),
        image_id: newest.map(|c| c.image_ref.clone()).unwrap_or_default(),
        container_id: id.or_else(|| lost.and_then(|lost| lost.container_id.clone())),
        restart_count: restarts.or(lost.map(|lost| lost.restart_count)).unwrap_or_default(),
        ready,
        started: Some(started),
        state: Some(shown),
        last_state: Some(last.unwrap_or_default()),
        allocated_resources: spec.resources.as_ref().and_then(|given| given.requests.clone()),
        resources: has.cloned(),
        ..ContainerStatus::default()
    }
}

/// What was known of a container that had been made.
fn known_container<'a>(known: Option<&'a PodStatus>, name: &str) -> Option<&'a ContainerStatus> {
    let known = known?;
    let mut all = known.init_container_statuses.iter().chain(&known.container_statuses).flatten();
    all.find(|status| status.name == name && status.container_id.is_some())
}

/// The last state of a container of which the runtime has nothing any more, as after all its state was lost: how it is known
/// to have ended, else that nobody knows.
fn last_state_of_lost(known: &ContainerStatus) -> ContainerState {
    let states = [known.state.as_ref(), known.last_state.as_ref()];
    let ended = states.into_iter().flatten().find(|state| state.terminated.is_some());
    ended.cloned().unwrap_or_else(|| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: known.container_id.clone(),
            exit_code: LOST_CODE,
            reason: Some(LOST.to_owned()),
            message: Some("The container runtime no longer has the container".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    })
}

/// Whether a container was removed to start again with all others, also before a restart of EdgeCore.
fn is_reset(pod: &ParsedPod, name: &str, state: &SyncState) -> bool {
    let reported = || {
        let known = known_container(state.known_status(pod), name)?;
        let waiting = known.state.as_ref()?.waiting.as_ref()?;
        Some(waiting.reason.as_deref() == Some(restart_all::RESTARTING))
    };
    state.reset.contains(name) || reported().unwrap_or(false)
}

/// The last state of a container that has started again with all others: nothing else is left of the instance before.
fn last_state_of_reset(pod: &ParsedPod, name: &str, state: &SyncState) -> Option<ContainerState> {
    let known = known_container(state.known_status(pod), name)?.last_state.clone()?;
    let reason = known.terminated.as_ref()?.reason.as_deref();
    (reason == Some(restart_all::RESTARTING)).then_some(known)
}

fn reset_state() -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: LOST_CODE,
            reason: Some(restart_all::RESTARTING.to_owned()),
            message: Some(restart_all::WORDS.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn running(instance: &RuntimeContainer) -> ContainerState {
    let started_at = time_of(instance.started_at);
    ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
}

fn terminated(instance: &RuntimeContainer, around: &NodeContext<'_>) -> ContainerState {
    let lost = instance.state == RuntimeState::Unknown;
    let exit_code = if lost { LOST_CODE } else { instance.exit_code };
    let fallback = if exit_code == 0 { "Completed" } else { "Error" };
    let reason = match (lost, instance.reason.as_str()) {
        (true, _) => LOST,
        (false, "") => fallback,
        (false, told) => told,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{}://{}", around.runtime, instance.id)),
            exit_code,
            reason: Some(reason.to_owned()),
            message: Some(instance.message.clone()).filter(|message| !message.is_empty()),
            started_at: time_of(instance.started_at),
            finished_at: time_of(instance.finished_at),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn waiting_for(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

/// Why a container that should start has not started.
fn fault(spec: &Container, state: &SyncState) -> Option<ContainerState> {
    if let Some(fault) = state.starts.get(&spec.name) {
        return Some(waiting_for(fault.reason, Some(fault.message.clone())));
    }
    match state.images.get(&spec.name) {
        Some(ImageState::Failed(fault)) => Some(waiting_for(fault.reason, Some(fault.message.clone()))),
        Some(ImageState::Ready(_)) | None => None,
    }
}

/// What a container waits for that has never run.
fn waiting(
    pod: &ParsedPod,
    spec: &Container,
    init: bool,
    seen: &RuntimePod,
    state: &SyncState,
) -> ContainerState {
    if let Some(fault) = fault(spec, state) {
        return fault;
    }
    let has_init = pod.init_containers().next().is_some();
    if !init && has_init && !plan::initialized(pod, seen, state) {
        return waiting_for("PodInitializing", None);
    }
    let message = match (&state.volumes, &state.sandbox) {
        (VolumeState::Failed(fault), _) | (_, Some(fault)) => Some(fault.message.clone()),
        (VolumeState::NotYet | VolumeState::Ready(_), None) => None,
    };
    waiting_for(if init { "PodInitializing" } else { "ContainerCreating" }, message)
}

/// Why a container that has ended and should run again does not run yet; `None`: its end is its state.
fn pause(
    pod: &ParsedPod,
    spec: &Container,
    instance: &RuntimeContainer,
    wanted: bool,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
) -> Option<ContainerState> {
    if !wanted || !restart_policy::restarts(pod, spec, instance) {
        return None;
    }
    if let Some((pause, until)) = state.crash_until(instance)
        && until > now
    {
        let (seconds, name, id) = (pause.as_secs(), &spec.name, &pod.id);
        let text = format!(
            "back-off {} restarting failed container={name} pod={}_{}({})",
            span(seconds),
            id.name,
            id.namespace,
            id.uid
        );
        return Some(waiting_for("CrashLoopBackOff", Some(text)));
    }
    if let Some(fault) = fault(spec, state) {
        return Some(fault);
    }
    let elsewhere = seen.ready_sandbox().is_none_or(|sandbox| sandbox.id != instance.sandbox);
    elsewhere.then(|| waiting_for("ContainerCreating", None))
}

/// As Go writes a duration: `10s`, `1m20s`, `5m0s`.
pub(crate) fn span(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
