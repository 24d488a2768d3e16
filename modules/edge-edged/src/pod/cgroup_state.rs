//! What a pod's worker knows of the pod's cgroup.

use beehive::Moment;

use crate::runtime::cgroup::Bounds;

/// What a pod's cgroup is bound to, as far as its worker knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PodCgroup {
    /// It was made with the sandbox, with what the pod has.
    #[default]
    AsMade,
    /// Somebody else made it, or the last try failed or goes on.
    Unknown,
    Bound(Bounds),
}

/// A try that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupFault {
    pub(crate) wanted: Bounds,
    pub(crate) message: String,
    /// When the same is tried again. Other bounds are tried at once.
    pub(crate) until: Moment,
}
