//! What EdgeController accepts: from the hub and the API server, and from nodes over the link.

use std::sync::Arc;
use std::time::Duration;

use beehive::link::Traffic;
use beehive::{Message, Reply};

use crate::NodeName;
use crate::synccontroller::SyncTruth;
pub use crate::uplink::EdgeUp;

/// Messages to EdgeController.
#[derive(Debug)]
pub enum EdgeControllerMsg {
    /// A node's link was found good: take the node, whoever has it.
    Claim {
        /// The node.
        node: NodeName,
        /// Serial number of the certificate that it came with, lower-case hex.
        certificate: String,
        /// The epoch of the new session, or why the node could not be taken.
        reply: Reply<Result<u64, ClaimRefused>>,
    },
    /// Whether this CloudCore still has the node since that epoch.
    Holds {
        /// The node.
        node: NodeName,
        /// The epoch.
        epoch: u64,
        /// Whether, or a sentence why nobody can say now.
        reply: Reply<Result<bool, String>>,
    },
    /// Whether what the node says in the session of that epoch counts: it is the newest one here, and the Node is still the
    /// one that it was admitted for.
    Counts {
        /// The node.
        node: NodeName,
        /// The epoch.
        epoch: u64,
        /// Whether.
        reply: Reply<bool>,
    },
    /// A session opened.
    NodeUp {
        /// The node.
        node: NodeName,
        /// The session's epoch.
        epoch: u64,
        /// The bytes that cross its link.
        traffic: Arc<Traffic>,
    },
    /// A session ended.
    NodeDown {
        /// The node.
        node: NodeName,
        /// The session's epoch.
        epoch: u64,
    },
    /// From a node, which is the name in its certificate.
    Up {
        /// The node.
        node: NodeName,
        /// The epoch of the session in which it says so.
        epoch: u64,
        /// What it says.
        message: EdgeUp,
    },
    /// SyncController has something to show about a node.
    Synced {
        /// The node.
        node: NodeName,
        /// What.
        truth: SyncTruth,
        /// Whether it was written, or is not this CloudCore's to write.
        reply: Reply<bool>,
    },
    /// The caches of the API server's objects have moved: look soon.
    Look,
    /// The pause after the first nudge is over: look.
    LookNow,
}

/// Why a node was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRefused {
    /// In a sentence that the node may read; it says what to do where somebody can do something.
    pub reason: String,
    /// When it is worth to come again: seconds where something is out of reach, a minute where an administrator has to act.
    /// `None`: the node's own pace.
    pub wait: Option<Duration>,
}

impl Message for EdgeControllerMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeControllerMsg::Claim { .. } => "Claim",
            EdgeControllerMsg::Holds { .. } => "Holds",
            EdgeControllerMsg::Counts { .. } => "Counts",
            EdgeControllerMsg::NodeUp { .. } => "NodeUp",
            EdgeControllerMsg::NodeDown { .. } => "NodeDown",
            EdgeControllerMsg::Up { message, .. } => message.name(),
            EdgeControllerMsg::Synced { .. } => "Synced",
            EdgeControllerMsg::Look => "Look",
            EdgeControllerMsg::LookNow => "LookNow",
        }
    }
}
