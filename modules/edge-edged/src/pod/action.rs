//! One thing to do for a pod.

use std::time::Duration;

/// One thing to do. Actions run beside each other; one that is under way is not started again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Volumes,
    Sandbox {
        attempt: u32,
    },
    /// Another image is another action: what comes of the one that is under way is of no use any more.
    Image {
        container: String,
        image: String,
    },
    Start {
        container: String,
        attempt: u32,
    },
    /// The postStart hook of a container that was started.
    PostStart {
        id: String,
    },
    /// The preStop hook of a container that is stopped then.
    PreStop {
        id: String,
        why: StopReason,
    },
    /// A shorter grace is another action: it overtakes the one under way.
    Stop {
        id: String,
        why: StopReason,
        grace: Duration,
    },
    /// Gives a container that runs other resources.
    Resize {
        id: String,
    },
    /// Gives the pod's cgroup what the pod has now.
    BoundPod,
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    /// Removes a container that starts again with all others, but for its log.
    Reset {
        id: String,
    },
    Teardown,
    /// The volumes of a pod that has ended and stays.
    Unmount,
    Report,
}

impl Action {
    /// Whether an action may be broken off together with its worker: it changes nothing that the next incarnation would
    /// trip over, or may take as long as a pod's grace or its image.
    pub(crate) fn may_be_cut_short(&self) -> bool {
        match self {
            Action::Image { .. }
            | Action::PostStart { .. }
            | Action::PreStop { .. }
            | Action::Stop { .. }
            | Action::Teardown
            | Action::Unmount
            | Action::Report => true,
            Action::Volumes
            | Action::Sandbox { .. }
            | Action::Start { .. }
            | Action::Resize { .. }
            | Action::BoundPod
            | Action::StopSandbox { .. }
            | Action::RemoveSandbox { .. }
            | Action::RemoveContainer { .. }
            | Action::Reset { .. } => false,
        }
    }
}

/// Why a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopReason {
    /// The pod ends.
    Ending,
    /// The container's definition changed.
    Changed,
    /// Its resources changed, and it has to start again for that.
    Resize,
    /// All containers of the pod start again.
    RestartAll,
    /// Somebody on the node has asked for it to begin again.
    Asked,
    /// Its sandbox is dead.
    SandboxLost,
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its postStart hook failed.
    PostStart,
    /// The runtime has lost it, and it may run.
    Unknown,
}
