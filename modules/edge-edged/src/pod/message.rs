//! What a pod's worker is told.

use beehive::Message;

use crate::pod::action::Action;
use crate::pod::actions::Outcome;
use crate::pod::probes::plan::{ProbeKind, Verdict};
use crate::pod::runtime_status::StatusReader;
use crate::pod::turns::Turn;
use crate::runtime::pods::RuntimePod;

/// Messages to a pod's worker.
#[derive(Debug)]
pub(crate) enum PodWorkerMsg {
    /// Edged wants something else of the pod: the newest update is in the [`PodEntry`](crate::pod::entry::PodEntry).
    Updated,
    /// Config maps or Secrets that the pod names have changed in the store.
    ObjectsChanged,
    /// The runtime told of a change of the pod's sandboxes or containers.
    RuntimeChanged,
    /// What the runtime has of the pod was read.
    StatusRead(Box<StatusRead>),
    /// An action has ended.
    ActionEnded { action: Action, outcome: Box<Outcome> },
    /// An action ended without an outcome: it panicked.
    ActionFailed(Action),
    /// What a probe says of a container has changed.
    Probed { id: String, kind: ProbeKind, verdict: Verdict },
    /// The end of the pod was reported, or could not be.
    EndReported(Result<(), String>),
    /// The pod's turn with the runtime has come.
    TurnCame(Turn),
    /// It is time for what the worker waits for.
    Wake,
}

impl Message for PodWorkerMsg {
    fn name(&self) -> &'static str {
        match self {
            PodWorkerMsg::Updated => "Updated",
            PodWorkerMsg::ObjectsChanged => "ObjectsChanged",
            PodWorkerMsg::RuntimeChanged => "RuntimeChanged",
            PodWorkerMsg::StatusRead(_) => "StatusRead",
            PodWorkerMsg::ActionEnded { .. } => "ActionEnded",
            PodWorkerMsg::ActionFailed(_) => "ActionFailed",
            PodWorkerMsg::Probed { .. } => "Probed",
            PodWorkerMsg::EndReported(_) => "EndReported",
            PodWorkerMsg::TurnCame(_) => "TurnCame",
            PodWorkerMsg::Wake => "Wake",
        }
    }
}

/// What the runtime has of the pod, and the reader for the next time.
#[derive(Debug)]
pub(crate) struct StatusRead {
    pub(crate) reader: StatusReader,
    pub(crate) result: Result<RuntimePod, cri::Error>,
}
