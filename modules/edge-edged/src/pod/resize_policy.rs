//! What is said of a resize: which resources are given, whose change restarts a container, and why one waits. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

/// Resources by the containers' names.
pub(crate) type ContainerResources = BTreeMap<String, ResourceRequirements>;

/// Why a resize is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred` or `Infeasible`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Which spec asks for it (`metadata.generation`).
    pub(crate) generation: i64,
    /// What it asks for, as the event says it.
    pub(crate) asked: String,
}

/// The resources of a container whose change restarts it, in a fixed order.
pub(crate) fn restarting(container: &Container) -> impl Iterator<Item = &'static str> {
    let restarts = |name: &str| {
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    };
    ["cpu", "memory"].into_iter().filter(move |name| restarts(name))
}
