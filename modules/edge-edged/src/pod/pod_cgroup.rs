//! What a pod's cgroup is to be now, and what waits for that: its bounds are raised before a container has or starts with more, and
//! lowered after the last one has less (the kubelet's `doPodResizeAction`). Pure.

use beehive::Moment;

use crate::pod::action::Action;
use crate::pod::actuated::{actuated, is_due};
use crate::pod::cgroup_state::PodCgroup;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::planned::Plan;
use crate::pod::resize_policy::ContainerResources;
use crate::pod::restart_policy::changed;
use crate::pod::sync_state::SyncState;
use crate::runtime::cgroup::{self, Bounds};
use crate::runtime::pods::{RuntimePod, RuntimeState};
use crate::runtime::resources::{Amounts, amounts};

/// What the cgroup is to be now: there is room for what the pod is given, and for what those of its containers have that run.
pub(crate) fn wanted(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> Bounds {
    let given = cgroup::bounds(pod.spec());
    let mut had = ContainerResources::new();
    for container in all_of(pod.spec()) {
        let Some(instance) = seen.newest(&container.name).filter(|own| state.may_run(own)) else { continue };
        if is_due(pod, container, instance, state) {
            let has = actuated(pod, container, instance, state);
            had.insert(container.name.clone(), has.cloned().unwrap_or_default());
        }
    }
    if had.is_empty() { given } else { given.covering(cgroup::bounds(pod.with_resources(&had).spec())) }
}

/// Whether the cgroup is what it is to be. One without a sandbox is made when that is.
pub(crate) fn is_as_wanted(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> bool {
    if seen.ready_sandbox().is_none() {
        return true;
    }
    match state.cgroup {
        PodCgroup::AsMade => cgroup::bounds(pod.spec()) == wanted(pod, seen, state),
        PodCgroup::Unknown => false,
        PodCgroup::Bound(bounds) => bounds == wanted(pod, seen, state),
    }
}

/// The pod becomes another one: what its cgroup was made with is what it had.
pub(crate) fn note_change(state: &mut SyncState, old: &ParsedPod, new: &ParsedPod) {
    if state.cgroup == PodCgroup::AsMade {
        let had = cgroup::bounds(old.spec());
        if had != cgroup::bounds(new.spec()) {
            state.cgroup = PodCgroup::Bound(had);
        }
    }
}

/// Puts the pod's cgroup before what needs it. A container that runs is given nothing that its pod may not have; one that starts waits
/// for one try, and starts then with what there is, as by a kubelet. Those that are given less come before those that are given more.
pub(crate) fn order(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment, plan: &mut Plan) {
    if !is_as_wanted(pod, seen, state) {
        plan.actions.retain(|action| !matches!(action, Action::Resize { .. }));
        let wanted = wanted(pod, seen, state);
        match state.cgroup_fault.as_ref().filter(|fault| fault.wanted == wanted && fault.until > now) {
            Some(fault) => plan.wake_at(fault.until),
            None => {
                plan.actions.retain(|action| !matches!(action, Action::Start { .. }));
                plan.actions.push(Action::BoundPod);
            }
        }
        return;
    }
    let growing = |id: &str| {
        let instance = seen.containers.iter().find(|own| own.id == id)?;
        let container = pod.container(&instance.name)?;
        let has = actuated(pod, container, instance, state);
        Some(grows(amounts(has), amounts(container.resources.as_ref())))
    };
    // Also those whose change failed and is tried again.
    let shrinks = all_of(pod.spec()).any(|container| {
        seen.newest(&container.name).is_some_and(|instance| {
            instance.state == RuntimeState::Running
                && is_due(pod, container, instance, state)
                && !changed(pod, Some(instance))
                && growing(&instance.id) == Some(false)
        })
    });
    if shrinks {
        plan.actions.retain(|action| !matches!(action, Action::Resize { id } if growing(id) == Some(true)));
    }
}

/// Whether there is more of anything. What has no limit has most.
fn grows(before: Amounts, after: Amounts) -> bool {
    let limit = |own: i64| if own == 0 { i64::MAX } else { own };
    limit(after.cpu_limit) > limit(before.cpu_limit)
        || limit(after.memory_limit) > limit(before.memory_limit)
        || after.cpu_request > before.cpu_request
}

#[cfg(test)]
#[path = "pod_cgroup_tests.rs"]
mod tests;
