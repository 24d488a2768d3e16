//! Containers that the runtime has lost, or that were removed from it: what is said of them. Pure.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus};

/// The reason of an instance that the runtime has lost.
pub(crate) const LOST: &str = "ContainerStatusUnknown";
/// What such an instance counts as: killed.
pub(crate) const LOST_CODE: i32 = 137;
/// What is said of one that ran when it was seen last.
pub(crate) const LOST_RUNNING: &str =
    "The container could not be located when the pod was deleted.  The container used to be Running";

/// The reason of a container that was removed to start again with all others (`RestartAllContainers`), and of its end.
pub(crate) const RESTARTING: &str = "RestartingAllContainers";
/// The words beside.
pub(crate) const RESTARTING_WORDS: &str = "The container is removed because RestartAllContainers in place";

/// Whether what was reported of a container counts an instance that is still to be made, in the place of one that was lost or removed to
/// start again with all others.
pub(crate) fn counts_the_next(known: &ContainerStatus) -> bool {
    let waits = known.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let last = known.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let counted = [Some(LOST_RUNNING), Some(RESTARTING_WORDS)];
    waits
        && last.is_some_and(|last| last.container_id.is_none() && counted.contains(&last.message.as_deref()))
}

/// The end of a container of which nobody knows how it ended.
pub(crate) fn lost(words: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: LOST_CODE,
            reason: Some(LOST.to_owned()),
            message: Some(words.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}
