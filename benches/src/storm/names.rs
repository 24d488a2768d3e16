//! What the nodes and their objects are called.

/// Where each node's objects are.
pub(super) const NAMESPACE: &str = "default";

/// The node with this number, and its objects.
pub(super) fn name(number: usize) -> String {
    format!("edge-{number:05}")
}
