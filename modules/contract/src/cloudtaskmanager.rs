//! What the task manager of the cloud accepts: what nodes say of their parts of jobs, who is linked, and what it tells itself.

use beehive::{Message, Reply};

use crate::parsed::TaskReport;
pub use crate::uplink::TaskUp;
use crate::{NodeName, ObjectKey};

/// Messages to the cloud's TaskManager.
#[derive(Debug)]
pub enum CloudTaskMsg {
    /// From a node, which is the name in its certificate.
    Up {
        /// The node.
        node: NodeName,
        /// The session in which it says so.
        session: u64,
        /// What it says.
        message: TaskUp,
    },
    /// CloudHub began anew, or says again who is linked: no session is open but those that are told after this.
    AllNodesDown,
    /// A session opened.
    NodeUp {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// A session ended.
    NodeDown {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// SyncController has lost what nodes should hold: say all of it again.
    ListAgain,
    /// The informers' caches have changed.
    Reconcile,
    /// What moved was gathered: look at it.
    Gathered,
    /// A report of a node whose session was found open: write it.
    Reported {
        /// The node.
        node: NodeName,
        /// What it says.
        report: Box<TaskReport>,
        /// Whether its row is confirmed: it is written, or never can be.
        reply: Reply<bool>,
    },
    /// What became of the status of a job.
    StatusWritten {
        /// The job.
        job: ObjectKey,
        /// What.
        outcome: JobWrite,
    },
    /// The Secret that a job's registries are shown was read; or why not.
    SecretRead {
        /// The job's uid.
        uid: String,
        /// The Secret as JSON. `Err`: a sentence, and whether it is worth to ask again.
        secret: Result<String, (String, bool)>,
    },
    /// Time to see whose time is over, and whose turn it is.
    Tick,
}

/// What became of the status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobWrite {
    /// It was written, or nothing was to be.
    Done,
    /// It could not be.
    Failed,
    /// It was left as it is: the job names a node that is another CloudCore's (KubeEdge's).
    LeftAlone,
}

impl Message for CloudTaskMsg {
    fn name(&self) -> &'static str {
        match self {
            CloudTaskMsg::Up { .. } => "Up",
            CloudTaskMsg::AllNodesDown => "AllNodesDown",
            CloudTaskMsg::NodeUp { .. } => "NodeUp",
            CloudTaskMsg::NodeDown { .. } => "NodeDown",
            CloudTaskMsg::ListAgain => "ListAgain",
            CloudTaskMsg::Reconcile => "Reconcile",
            CloudTaskMsg::Gathered => "Gathered",
            CloudTaskMsg::Reported { .. } => "Reported",
            CloudTaskMsg::StatusWritten { .. } => "StatusWritten",
            CloudTaskMsg::SecretRead { .. } => "SecretRead",
            CloudTaskMsg::Tick => "Tick",
        }
    }
}
