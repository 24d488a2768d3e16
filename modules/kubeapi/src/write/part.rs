//! The parts of an object that are written by themselves.

/// Which part of an object a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subresource {
    Main,
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// The CPU and memory of a pod's containers.
    Resize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
}
