//! Why a pod has ended, where several decide by it.

/// The machine ended (Kubernetes).
pub(crate) const TERMINATED: &str = "Terminated";
