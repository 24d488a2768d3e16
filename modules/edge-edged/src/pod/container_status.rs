//! The status of one container as the kubelet would tell it. Pure.

use beehive::Moment;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::actuated;
use crate::pod::container_facts;
use crate::pod::lost_container::{LOST, LOST_CODE, LOST_RUNNING, RESTARTING, RESTARTING_WORDS, lost};
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::plan::{self, Intent};
use crate::pod::restart_policy;
use crate::pod::sync_state::{ImageState, SyncState, VolumeState};
use crate::runtime::pods::{RuntimeContainer, RuntimePod, RuntimeState};

/// What the status takes from outside the pod.
#[derive(Debug, Clone)]
pub(crate) struct NodeContext<'a> {
    /// `containerd`, as the runtime names itself.
    pub(crate) runtime: &'a str,
    pub(crate) host_ips: &'a [String],
    /// What the runtime can do.
    pub(crate) features: cri::Features,
    pub(crate) now: Moment,
    /// Wall time, whole seconds.
    pub(crate) wall: jiff::Timestamp,
}

/// What a container waits for whose last instance could not be started.
pub(crate) const RUN_FAILED: &str = "RunContainerError";

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
    if let Some(ended) = ended_before(pod, &spec.name, newest, state) {
        return ended.clone();
    }
    let lost = if newest.is_none() { known_container(state.known_status(pod), &spec.name) } else { None };
    let wanted = *intent == Intent::Run && !plan::is_done(pod, seen, state);
    let has_passed = newest.is_none() && init && !is_sidecar(spec) && has_begun(pod, seen);
    // An init container that was removed says so when those that came after it are gone, too.
    let reset = if newest.is_none() && !has_passed { reset(pod, &spec.name, state) } else { None };
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
        None if has_passed => {
            let known = lost.and_then(|known| known.state.clone());
            known.filter(|state| state.terminated.is_some()).unwrap_or_else(passed_unseen)
        }
        None => match intent {
            Intent::Hold { reason, message } => waiting_for(reason, Some(message.clone())),
            Intent::Run if reset.is_some_and(Reset::is_told) && fault(spec, state).is_none() => {
                waiting_for(RESTARTING, Some(RESTARTING_WORDS.to_owned()))
            }
            Intent::Run | Intent::Fail { .. } | Intent::Terminate => waiting(pod, spec, init, seen, state),
        },
    };
    let id = newest.map(|c| format!("{}://{}", around.runtime, c.id));
    let last = match reset {
        Some(Reset::Now) => Some(reset_state()),
        Some(Reset::Told | Reset::Waited) => lost.and_then(|known| known.last_state.clone()),
        None if has_passed => lost.and_then(|known| known.last_state.clone()),
        None => last.or_else(|| lost.and_then(last_state_of_lost)).or_else(|| {
            let known = known_container(state.known_status(pod), &spec.name)?;
            last_state_of_known(known, id.as_deref()?)
        }),
    };
    let completed = shown.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
    let started = newest.is_some_and(|instance| state.is_started(spec, instance));
    let ready = if init && !is_sidecar(spec) {
        completed
    } else {
        newest.is_some_and(|instance| state.is_ready(spec, instance))
    };
    let runs = newest.filter(|instance| instance.state == RuntimeState::Running);
    let has = match runs {
        Some(instance) => actuated::actuated(pod, spec, instance, state),
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
        restart_count: restarts.or(lost.map(|lost| count_of_lost(pod, lost, reset))).unwrap_or_default(),
        ready,
        started: Some(started),
        state: Some(shown),
        last_state: Some(last.unwrap_or_default()),
        allocated_resources: spec.resources.as_ref().and_then(|given| given.requests.clone()),
        resources: has.cloned(),
        user: newest.and_then(container_facts::user),
        volume_mounts: container_facts::mounts(
            spec,
            known_container(state.known_status(pod), &spec.name),
            around.features,
        ),
        ..ContainerStatus::default()
    }
}

/// How a container of a pod that has ended is known to have ended: whatever the runtime has lost of it since, that stays
/// (kubelet's `checkContainerStateTransition`).
fn ended_before<'a>(
    pod: &'a ParsedPod,
    name: &str,
    newest: Option<&RuntimeContainer>,
    state: &'a SyncState,
) -> Option<&'a ContainerStatus> {
    let end = state.end(pod)?;
    let lists = [&end.init_container_statuses, &end.container_statuses, &end.ephemeral_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|status| status.name == name)?;
    let has_ended = known.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let runs = newest.is_some_and(|instance| state.may_run(instance));
    (has_ended && !runs).then_some(known)
}

/// Whether a container was made that waits for the init containers: they have done their part, also those of which nothing is left.
fn has_begun(pod: &ParsedPod, seen: &RuntimePod) -> bool {
    pod.spec().containers.iter().any(|container| seen.newest(&container.name).is_some())
}

/// An init container of which the runtime has nothing any more, and the pod has gone on.
fn passed_unseen() -> ContainerState {
    let words = "Unable to get init container status from container runtime and pod has been initialized, \
                 treat it as exited normally";
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 0,
            reason: Some("Completed".to_owned()),
            message: Some(words.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// What was known of a container that had been made.
fn known_container<'a>(known: Option<&'a PodStatus>, name: &str) -> Option<&'a ContainerStatus> {
    let known = known?;
    let mut all = known.init_container_statuses.iter().chain(&known.container_statuses).flatten();
    all.find(|status| status.name == name && status.container_id.is_some())
}

fn has_run(known: &ContainerStatus) -> bool {
    known.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// The last state of a container of which the runtime has nothing any more, as after all its state was lost: how it is known
/// to have ended, or that nobody knows, of one that ran.
fn last_state_of_lost(known: &ContainerStatus) -> Option<ContainerState> {
    if has_run(known) {
        return Some(lost(LOST_RUNNING));
    }
    let states = [known.state.as_ref(), known.last_state.as_ref()];
    states.into_iter().flatten().find(|state| state.terminated.is_some()).cloned()
}

/// How often it has started again. One that ran and is gone does so now, unless the pod leaves; so does one that was removed to start
/// again with all others.
fn count_of_lost(pod: &ParsedPod, known: &ContainerStatus, reset: Option<Reset>) -> i32 {
    let again = match reset {
        Some(Reset::Now) => true,
        Some(Reset::Told | Reset::Waited) => false,
        None => has_run(known),
    };
    known.restart_count.saturating_add(i32::from(again && !pod.is_terminating()))
}

/// A container that was removed to start again with all others, by what was reported of it last (kubelet's
/// `convertToAPIContainerStatuses`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// It ran, or had ended: that it starts again with all others is told now, as its last end, and counts.
    Now,
    /// That was told.
    Told,
    /// It waited, after a crash say: its last end is still the one that it had.
    Waited,
}

impl Reset {
    /// Whether it is said to wait for that.
    fn is_told(self) -> bool {
        matches!(self, Reset::Now | Reset::Told)
    }
}

/// Whether a container was removed to start again with all others, also before a restart of EdgeCore.
fn reset(pod: &ParsedPod, name: &str, state: &SyncState) -> Option<Reset> {
    let known = known_container(state.known_status(pod), name);
    let waiting = known.and_then(|known| known.state.as_ref()?.waiting.as_ref());
    match waiting {
        Some(waiting) if waiting.reason.as_deref() == Some(RESTARTING) => Some(Reset::Told),
        Some(_) => state.reset.contains(name).then_some(Reset::Waited),
        None => state.reset.contains(name).then_some(Reset::Now),
    }
}

/// The last state of a container of which the runtime has nothing but the newest instance: those that start again with all others
/// leave none behind, and dead ones are collected. What was reported of the one before is its end, or what was told of the same one.
fn last_state_of_known(known: &ContainerStatus, id: &str) -> Option<ContainerState> {
    let has_ended = |state: &&ContainerState| state.terminated.is_some();
    let ended = known.state.as_ref().filter(has_ended).filter(|_| known.container_id.as_deref() != Some(id));
    ended.or(known.last_state.as_ref().filter(has_ended)).cloned()
}

fn reset_state() -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: LOST_CODE,
            reason: Some(RESTARTING.to_owned()),
            message: Some(RESTARTING_WORDS.to_owned()),
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
            // An end is told with a beginning, also of one that never ran.
            started_at: time_of(instance.started_at)
                .or_else(|| (instance.finished_at > 0).then_some(Time(jiff::Timestamp::UNIX_EPOCH))),
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
    if let Some(message) = state.run_failures.get(&spec.name) {
        return Some(waiting_for(RUN_FAILED, Some(message.clone())));
    }
    let elsewhere = seen.ready_sandbox().is_none_or(|sandbox| sandbox.id != instance.sandbox);
    elsewhere.then(|| waiting_for("ContainerCreating", None))
}

/// As Go writes a duration: `10s`, `1m20s`, `5m0s`.
pub(crate) fn span(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
