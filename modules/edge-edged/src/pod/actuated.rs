//! What resources the containers that run have, beside what they are given. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, ResourceRequirements};

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::RuntimeContainer;
use crate::runtime::resources::amounts;

/// Whether two say another thing of CPU or memory.
pub(crate) fn differ(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    amounts(one) != amounts(other)
}

/// What an instance that runs has: as it was set, as it was reported when that was before the last restart, or as the pod has it.
pub(crate) fn actuated<'a>(
    pod: &'a ParsedPod,
    container: &'a Container,
    instance: &RuntimeContainer,
    state: &'a SyncState,
) -> Option<&'a ResourceRequirements> {
    let is_it = |own: &&ContainerStatus| {
        own.container_id.as_deref().is_some_and(|id| id.ends_with(&format!("://{}", instance.id)))
    };
    let known = || {
        let known = state.known_status(pod)?;
        let mut all = known.init_container_statuses.iter().chain(&known.container_statuses).flatten();
        all.find(is_it)?.resources.as_ref()
    };
    state.actuated.get(&instance.id).or_else(known).or(container.resources.as_ref())
}

/// Whether an instance that runs has other resources than it is given.
pub(crate) fn is_due(
    pod: &ParsedPod,
    container: &Container,
    instance: &RuntimeContainer,
    state: &SyncState,
) -> bool {
    pod.ephemeral(&container.name).is_none()
        && differ(actuated(pod, container, instance, state), container.resources.as_ref())
}
