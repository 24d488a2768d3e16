//! The last status of a pod that was told to leave, has failed or has done its part: whoever waits for its end hears one of each
//! container, however far it had come (kubelet's `TerminatePod`). Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodStatus};

use crate::pod::action::Action;
use crate::pod::lost_container::lost;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::plan::{self, Intent};
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::RuntimePod;

/// What is said of a container that has no end of its own.
const WORDS: &str = "The container could not be located when the pod was terminated";

/// Whether nothing of such a pod runs any more, nor will. A static pod's file says how it goes on, and a pod that was turned away had
/// nothing that could end.
pub(crate) fn has_left(pod: &ParsedPod, intent: &Intent, seen: &RuntimePod, state: &SyncState) -> bool {
    let leaves = match intent {
        Intent::Terminate => !pod.is_static,
        Intent::Fail { .. } => !was_turned_away(intent),
        Intent::Run => plan::is_done(pod, seen, state),
        Intent::Hold { .. } => false,
    };
    leaves && state.end(pod).is_none() && !may_run(seen, state)
}

/// Whether anything of a pod runs, may, or is about to.
pub(crate) fn may_run(seen: &RuntimePod, state: &SyncState) -> bool {
    seen.containers.iter().any(|container| state.may_run(container))
        || state.is_busy(|action| matches!(action, Action::Start { .. } | Action::Sandbox { .. }))
}

/// Whether the node has not taken the pod, in the kubelet's words.
pub(crate) fn was_turned_away(intent: &Intent) -> bool {
    matches!(intent, Intent::Fail { message, .. } if message.starts_with("Pod was rejected"))
}

/// Ends the containers that have no end: those that could have run, and the init containers up to the last that was tried.
pub(crate) fn settle(
    pod: &ParsedPod,
    mains: &mut [ContainerStatus],
    inits: &mut [ContainerStatus],
    known: Option<&PodStatus>,
) {
    let ends = if was_initialized(pod, mains, inits, known) { mains } else { &mut [] };
    let last = inits.iter().rposition(was_tried).unwrap_or(0);
    for status in ends.iter_mut().chain(inits.iter_mut().take(last + 1)) {
        if status.state.as_ref().is_none_or(|state| state.terminated.is_none()) {
            status.state = Some(lost(WORDS));
        }
    }
}

fn was_tried(status: &ContainerStatus) -> bool {
    let waits = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    !waits || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
}

/// Whether the init containers have ever done their part.
fn was_initialized(
    pod: &ParsedPod,
    mains: &[ContainerStatus],
    inits: &[ContainerStatus],
    known: Option<&PodStatus>,
) -> bool {
    let last: Option<&Container> = pod.init_containers().last();
    let conditions = known.and_then(|known| known.conditions.as_ref()).into_iter().flatten();
    let mut told = conditions.filter(|condition| condition.type_ == "Initialized");
    let went_well = |status: &ContainerStatus| {
        let states = [status.state.as_ref(), status.last_state.as_ref()].into_iter().flatten();
        states.filter_map(|state| state.terminated.as_ref()).any(|ended| ended.exit_code == 0)
    };
    last.is_none()
        || mains.iter().any(was_tried)
        || told.any(|condition| condition.status == "True")
        || last.is_some_and(|last| !is_sidecar(last)) && inits.last().is_some_and(went_well)
}
