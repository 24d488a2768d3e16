//! Which version of Kubernetes is told to whom.

/// What a Node says that its kubelet is. The rules that are followed are those of [`RULES`]; but tools that look at the skew of
/// versions take no kubelet that is newer than its API server, nor one that is more than three minor versions older: this one is
/// taken in every cluster from 1.33 to 1.36.
pub(crate) const NODE: &str = "v1.33.0";

/// Whose rules for pods are followed, and what probes name in their `User-Agent`.
pub(crate) const RULES: &str = "1.36";
