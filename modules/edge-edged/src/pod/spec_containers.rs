//! The containers of a pod's spec. Pure.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Whether an init container runs beside the others. Asked of init containers only: others may have that policy, too.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Init containers first, in order; the ephemeral ones are not among them.
pub(crate) fn all_of(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}
