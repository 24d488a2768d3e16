//! Why a pod can't have what it asks for. Pure.

use crate::plan::topology::NotAligned;

/// Why a pod can't be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// For a reason that Kubernetes has a name for.
    Named { reason: &'static str, message: String },
    /// For another.
    Other(String),
}

impl From<NotAligned> for Refusal {
    fn from(_: NotAligned) -> Self {
        Refusal::Named {
            reason: "TopologyAffinityError",
            message: "Resources cannot be allocated with Topology locality".to_owned(),
        }
    }
}
