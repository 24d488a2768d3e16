//! A pod's status as the kubelet would tell it. Pure.

use contract::pod_status::is_terminal;
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::conditions;
use crate::pod::container_status::{NodeContext, container};
use crate::pod::held;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::plan::{self, Intent};
use crate::pod::restart_all;
use crate::pod::restart_policy::{has_failed, restarts};
use crate::pod::status_texts;
use crate::pod::sync_state::SyncState;
use crate::pod::terminated_status;
use crate::runtime::pods::RuntimePod;

/// The whole status.
pub(crate) fn compute(
    pod: &ParsedPod,
    intent: &Intent,
    seen: &RuntimePod,
    state: &SyncState,
    around: &NodeContext<'_>,
) -> PodStatus {
    let previous = state.known_status(pod);
    let mut mains: Vec<ContainerStatus> =
        pod.spec().containers.iter().map(|c| container(pod, c, false, intent, seen, state, around)).collect();
    let mut inits: Vec<ContainerStatus> =
        pod.init_containers().map(|c| container(pod, c, true, intent, seen, state, around)).collect();
    let mut ephemeral: Vec<ContainerStatus> = pod
        .ephemeral
        .iter()
        .map(|one| ContainerStatus {
            // Nothing probes it, and a kubelet calls it neither started nor ready.
            started: None,
            ready: false,
            ..container(pod, &one.container, false, intent, seen, state, around)
        })
        .collect();
    let end = state.end(pod);
    let has_left = terminated_status::has_left(pod, intent, seen, state);
    if has_left {
        terminated_status::settle(pod, &mut mains, &mut inits, previous);
    }
    let outcome = match phase(pod, intent, (&mains, &inits), seen, state) {
        // What a pod that never restarts had in a sandbox that is lost does not come back either.
        outcome if has_left && !is_terminal(outcome) => "Failed",
        outcome => outcome,
    };
    let withheld = is_withheld(outcome, seen, state, end);
    let phase = if withheld { phase_so_far(&mains, previous) } else { outcome };
    let (reason, message) = match intent {
        Intent::Fail { .. } if withheld => (None, None),
        Intent::Fail { reason, message } | Intent::Hold { reason, message } => {
            (Some(reason.clone()), Some(message.clone()))
        }
        // What has ended keeps its reason.
        Intent::Run | Intent::Terminate => {
            (end.and_then(|end| end.reason.clone()), end.and_then(|end| end.message.clone()))
        }
    };
    let own_ips = if pod.host_network() { around.host_ips } else { &seen.ips };
    let started = !pod.host_network() || !seen.sandboxes.is_empty();
    let ips: Vec<PodIP> =
        if started { own_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect() } else { Vec::new() };
    // A pod that has ended keeps the address under which it was known.
    let ips =
        if ips.is_empty() { previous.and_then(|old| old.pod_ips.clone()).unwrap_or_default() } else { ips };
    let mut conditions =
        conditions::all(pod, outcome, &mains, &inits, seen, state, (around.now, around.wall));
    if held::is_held(intent) {
        conditions.push(conditions::held(pod, state, around.wall));
    }
    if !withheld && outcome == "Failed" {
        let told = (reason.as_deref(), message.as_deref());
        conditions.extend(conditions::disruption(pod, told, state, around.wall));
    }
    if terminated_status::was_turned_away(intent) && mains.iter().chain(&inits).all(never_made) {
        // A pod that was turned away waits for nothing: what its containers wait for would be shown instead of why.
        (mains, inits) = (Vec::new(), Vec::new());
    }
    // Those of init containers stay in the order in which they run.
    for list in [&mut mains, &mut ephemeral] {
        list.sort_by(|one, other| one.name.cmp(&other.name));
    }
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: around.host_ips.first().cloned(),
        host_ips: Some(around.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().map(|ip| ip.ip.clone()),
        pod_ips: (!ips.is_empty()).then_some(ips),
        // As known before, whoever has restarted since.
        start_time: Some(
            previous
                .and_then(|old| old.start_time.clone())
                .unwrap_or(Time(state.taken_up.unwrap_or(around.wall))),
        ),
        qos_class: Some(pod.qos.name().to_owned()),
        container_statuses: (!mains.is_empty()).then_some(mains),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        observed_generation: pod.pod.metadata.generation,
        ..PodStatus::default()
    };
    let containers = pod.spec().containers.len() + pod.init_containers().count() + pod.ephemeral.len();
    status_texts::cut(&mut status, containers);
    status
}

/// Whether nothing of it was ever made.
fn never_made(status: &ContainerStatus) -> bool {
    status.container_id.is_none() && status.restart_count == 0
}

/// Whether an end is not told yet: something of the pod still runs, and who hears of an end gives its resources to others
/// (kubelet's `mergePodStatus`).
fn is_withheld(phase: &str, seen: &RuntimePod, state: &SyncState, end: Option<&PodStatus>) -> bool {
    terminated_status::may_run(seen, state) && end.is_none() && is_terminal(phase)
}

fn phase_so_far(mains: &[ContainerStatus], previous: Option<&PodStatus>) -> &'static str {
    let made = mains.iter().any(|status| status.container_id.is_some());
    match previous.and_then(|status| status.phase.as_deref()) {
        Some("Pending") if !made => "Pending",
        Some(_) => "Running",
        None if made => "Running",
        None => "Pending",
    }
}

fn phase(
    pod: &ParsedPod,
    intent: &Intent,
    (mains, inits): (&[ContainerStatus], &[ContainerStatus]),
    seen: &RuntimePod,
    state: &SyncState,
) -> &'static str {
    match intent {
        Intent::Fail { .. } => return "Failed",
        Intent::Hold { .. } => return "Pending",
        Intent::Run | Intent::Terminate => {}
    }
    match state.end(pod).and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    let over =
        |container: &Container| seen.newest(&container.name).filter(|instance| instance.state.has_ended());
    let has_failed_for_good = |container: &Container| {
        over(container).is_some_and(|instance| has_failed(instance) && !restarts(pod, container, instance))
    };
    if pod.init_containers().any(|container| !is_sidecar(container) && has_failed_for_good(container)) {
        return "Failed";
    }
    if !plan::initialized(pod, seen, state) && mains.iter().all(|status| status.container_id.is_none()) {
        return "Pending";
    }
    let has = |wanted: &dyn Fn(&ContainerState) -> bool, status: &ContainerStatus| {
        status.state.as_ref().is_some_and(wanted)
    };
    let ran_before =
        |status: &ContainerStatus| status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    // Also when they run again, in a new sandbox, before main containers that have run.
    let is_under_way = |(spec, status): (&Container, &ContainerStatus)| {
        let waits = has(&|state| state.waiting.is_some(), status) && !ran_before(status);
        !is_sidecar(spec) && (waits || has(&|state| state.running.is_some(), status))
    };
    if pod.init_containers().zip(inits).any(is_under_way) {
        return "Pending";
    }
    if mains.iter().any(|status| has(&|state| state.waiting.is_some(), status) && !ran_before(status)) {
        return "Pending";
    }
    let codes: Vec<i32> = mains
        .iter()
        .filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.exit_code))
        .collect();
    let mut containers = pod.spec().containers.iter();
    let again = |container: &Container| over(container).is_some_and(|ended| restarts(pod, container, ended));
    // One that was told to leave ends as it ended, whatever the policy would have done next.
    let mut goes_on = || containers.any(again) || restart_all::is_wanted(pod, seen);
    if codes.len() < mains.len() || (*intent != Intent::Terminate && goes_on()) {
        "Running"
    } else if codes.iter().all(|code| *code == 0) {
        "Succeeded"
    } else {
        "Failed"
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "restart_all_status_tests.rs"]
mod restart_all_tests;
