//! The conditions of a pod. Pure.

use beehive::Moment;
use contract::pod_status::{
    ALL_RESTARTING, BY_KUBELET, DISRUPTION_TARGET, FIELDS_NOT_HONOURED, HELD_BY_ANNOTATION, HELD_UPGRADE,
    RESIZE_IN_PROGRESS, RESIZE_PENDING, is_terminal,
};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::eviction::pressure::EVICTED;
use crate::pod::end_reason::TERMINATED;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::plan;
use crate::pod::preemption::PREEMPTED;
use crate::pod::resize_policy::Pending;
use crate::pod::restart_all;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::RuntimePod;

fn condition(kind: &str, truth: bool, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: if truth { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message).filter(|message| !message.is_empty()),
        ..PodCondition::default()
    }
}

/// The conditions of types that are the node's to report. Those of others are theirs, and CloudCore leaves them as they are.
pub(crate) fn all(
    pod: &ParsedPod,
    phase: &str,
    mains: &[ContainerStatus],
    inits: &[ContainerStatus],
    seen: &RuntimePod,
    state: &SyncState,
    (now, wall): (Moment, jiff::Timestamp),
) -> Vec<PodCondition> {
    let sandbox = seen.ready_sandbox().is_some() && (pod.host_network() || !seen.ips.is_empty());
    let mut list = resizes(phase, state);
    list.push(condition("PodReadyToStartContainers", sandbox, "", String::new()));
    list.push(initialized(pod, phase, inits, seen, state));
    let beside = pod.init_containers().zip(inits).filter(|(spec, _)| is_sidecar(spec)).map(|(_, told)| told);
    let containers = containers_ready(phase, beside.chain(mains));
    list.push(ready(pod, &containers));
    list.push(containers);
    list.push(condition("PodScheduled", true, "", String::new()));
    list.extend(all_restarting(pod, phase, seen, state, now));
    if let Some(message) = pod.review.message() {
        let reason = if pod.review.refused.is_empty() { "NotSupported" } else { "Refused" };
        list.push(condition(FIELDS_NOT_HONOURED, true, reason, message));
    }
    stamp(&mut list, pod, state, wall);
    list
}

/// Since when each of them holds, and for which spec. Of a resize also when that was found: a condition that says what it said
/// before keeps its time, for a time that moves with each look would be a report with each look.
fn stamp(list: &mut [PodCondition], pod: &ParsedPod, state: &SyncState, wall: jiff::Timestamp) {
    let known = state.known_status(pod).and_then(|old| old.conditions.as_ref());
    for own in list {
        own.observed_generation = pod.pod.metadata.generation;
        let same = |old: &&PodCondition| old.type_ == own.type_ && old.status == own.status;
        let old = known.into_iter().flatten().find(same);
        let is_resize = [RESIZE_PENDING, RESIZE_IN_PROGRESS].contains(&own.type_.as_str());
        // A resize that waits or fails for another reason is another step of it.
        let holds = old.filter(|old| !is_resize || old.reason == own.reason);
        let since = holds.and_then(|old| old.last_transition_time.clone());
        own.last_transition_time = Some(since.unwrap_or(Time(wall)));
        if is_resize {
            let says_the_same = |old: &&PodCondition| {
                old.message == own.message && old.observed_generation == own.observed_generation
            };
            let found = holds.filter(says_the_same).and_then(|old| old.last_probe_time.clone());
            own.last_probe_time = Some(found.unwrap_or(Time(wall)));
        }
    }
}

/// Of a pod with a rule that restarts all its containers whether that is under way.
fn all_restarting(
    pod: &ParsedPod,
    phase: &str,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
) -> Option<PodCondition> {
    if !restart_all::has_rule(pod) {
        return None;
    }
    let none = String::new();
    Some(match phase {
        "Succeeded" => condition(ALL_RESTARTING, false, "PodCompleted", none),
        "Failed" => condition(ALL_RESTARTING, false, "PodFailed", none),
        _ if restart_all::is_due(pod, seen, state, now) => {
            let words = "container exited with restart policy rule".to_owned();
            condition(ALL_RESTARTING, true, "RestartAllContainersStarted", words)
        }
        _ => condition(ALL_RESTARTING, false, "", none),
    })
}

/// What is to be said of a resize; nothing of a pod that has ended.
fn resizes(phase: &str, state: &SyncState) -> Vec<PodCondition> {
    let mut list = Vec::new();
    if is_terminal(phase) {
        return list;
    }
    if let Some(Pending { reason, message, .. }) = &state.resize_pending {
        list.push(condition(RESIZE_PENDING, true, reason, message.clone()));
    }
    if state.is_resizing {
        let of_pod = state.cgroup_fault.as_ref().map(|fault| &fault.message);
        let error = state.resize_error.as_ref().or(of_pod);
        let reason = if error.is_some() { "Error" } else { "" };
        let message = error.cloned().unwrap_or_default();
        list.push(condition(RESIZE_IN_PROGRESS, true, reason, message));
    }
    list
}

/// That a pod is held until somebody on the node releases it.
pub(crate) fn held(pod: &ParsedPod, state: &SyncState, wall: jiff::Timestamp) -> PodCondition {
    let mut list = [condition(HELD_UPGRADE, true, HELD_BY_ANNOTATION, String::new())];
    stamp(&mut list, pod, state, wall);
    let [held] = list;
    held
}

/// What controllers read of a pod that the node has ended for the node's own sake, by the reason and message of its status: a Job
/// makes another for it. Told with the end alone (Kubernetes: `DisruptionTarget`).
pub(crate) fn disruption(
    pod: &ParsedPod,
    (reason, message): (Option<&str>, Option<&str>),
    state: &SyncState,
    wall: jiff::Timestamp,
) -> Option<PodCondition> {
    let message = message.unwrap_or_default();
    let words = match reason? {
        TERMINATED => message,
        PREEMPTED => "Pod was preempted by Kubelet to accommodate a critical pod.",
        // Not one that has outgrown its own bounds, nor one that was never taken.
        EVICTED if message.starts_with("The node was low on resource") => message,
        _ => return None,
    };
    let mut list = [condition(DISRUPTION_TARGET, true, BY_KUBELET, words.to_owned())];
    stamp(&mut list, pod, state, wall);
    list.into_iter().next()
}

/// Whether the status that was reported last, which the store keeps, says of the pod's fields what would be said now.
pub(crate) fn has_told_of_fields(pod: &ParsedPod, reported: Option<&PodStatus>) -> bool {
    let told = reported.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let mut told = told.filter(|one| one.type_ == FIELDS_NOT_HONOURED);
    told.next().is_some_and(|one| one.message == pod.review.message())
}

/// Whether somebody in the cloud has written over what this node reported of the pod: the node controller does while it hears
/// nothing of the node, and never takes that back. As with kubelet's status manager (`needsReconcile`) the report is then
/// made again. What the cloud holds may also be older than the report, which is then made once too often.
pub(crate) fn is_overruled(reported: Option<&PodStatus>, in_cloud: Option<&PodStatus>) -> bool {
    let (Some(reported), Some(in_cloud)) = (reported, in_cloud) else { return false };
    let differ = |own: &Option<String>, told: &Option<String>| own.is_some() && told.is_some() && own != told;
    let told = |kind: &str| in_cloud.conditions.iter().flatten().find(|one| one.type_ == kind);
    let mut conditions = reported.conditions.iter().flatten();
    differ(&reported.phase, &in_cloud.phase)
        || differ(&reported.pod_ip, &in_cloud.pod_ip)
        || conditions.any(|own| told(&own.type_).is_some_and(|told| told.status != own.status))
}

fn names<'a>(list: impl Iterator<Item = &'a ContainerStatus>) -> String {
    list.map(|status| status.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn initialized(
    pod: &ParsedPod,
    phase: &str,
    inits: &[ContainerStatus],
    seen: &RuntimePod,
    state: &SyncState,
) -> PodCondition {
    if phase == "Succeeded" {
        return condition("Initialized", true, "PodCompleted", String::new());
    }
    if plan::initialized(pod, seen, state) {
        return condition("Initialized", true, "", String::new());
    }
    let has_passed = |(spec, told): &(&Container, &ContainerStatus)| {
        if is_sidecar(spec) { told.started == Some(true) } else { told.ready }
    };
    let open = names(pod.init_containers().zip(inits).filter(|one| !has_passed(one)).map(|(_, told)| told));
    let message = format!("containers with incomplete status: [{open}]");
    condition("Initialized", false, "ContainersNotInitialized", message)
}

fn containers_ready<'a>(phase: &str, all: impl Iterator<Item = &'a ContainerStatus>) -> PodCondition {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return condition(kind, false, "PodCompleted", String::new()),
        "Failed" => return condition(kind, false, "PodFailed", String::new()),
        _ => {}
    }
    let unready = names(all.filter(|status| !status.ready));
    if unready.is_empty() {
        return condition(kind, true, "", String::new());
    }
    condition(kind, false, "ContainersNotReady", format!("containers with unready status: [{unready}]"))
}

fn ready(pod: &ParsedPod, containers: &PodCondition) -> PodCondition {
    let mut own = PodCondition { type_: "Ready".to_owned(), ..containers.clone() };
    if own.status != "True" {
        return own;
    }
    let told = pod.cloud_status().and_then(|status| status.conditions.as_ref());
    let gates = pod.spec().readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
    let open = gates.filter_map(|gate| match told.into_iter().flatten().find(|told| told.type_ == gate) {
        None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
        Some(told) if told.status == "True" => None,
        Some(told) => {
            Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", told.status))
        }
    });
    let open: Vec<String> = open.collect();
    if !open.is_empty() {
        own = condition("Ready", false, "ReadinessGatesNotReady", open.join(", "));
    }
    own
}
