//! What EdgeController accepts: from the hub and the API server, and from nodes over the link.

use std::sync::Arc;

use beehive::link::Traffic;
use beehive::{Message, Reply};

pub use crate::nodelease::ClaimRefused;
use crate::synccontroller::SyncTruth;
use crate::{Batch, NodeName, Report, TokenGrant, TokenQuery, Unparsed};

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
    /// CloudHub began anew, or says again who is linked: no session is open but those that are told after this.
    AllNodesDown,
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

/// What a node may say to the edge controller.
#[derive(Debug)]
pub enum EdgeUp {
    /// Reports from the outbox, by their sequence.
    Reports {
        /// In order.
        reports: Batch<Report>,
        /// The sequences whose write succeeded, or can never succeed.
        reply: Reply<Vec<i64>>,
    },
    /// Edged makes progress: renew the Lease.
    Alive,
    /// A token, please.
    Token {
        /// Which.
        query: Unparsed<TokenQuery>,
        /// The token, or a sentence why not.
        reply: Reply<Result<TokenGrant, String>>,
    },
}

impl Message for EdgeControllerMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeControllerMsg::Claim { .. } => "Claim",
            EdgeControllerMsg::Holds { .. } => "Holds",
            EdgeControllerMsg::Counts { .. } => "Counts",
            EdgeControllerMsg::AllNodesDown => "AllNodesDown",
            EdgeControllerMsg::NodeUp { .. } => "NodeUp",
            EdgeControllerMsg::NodeDown { .. } => "NodeDown",
            EdgeControllerMsg::Up { message, .. } => message.name(),
            EdgeControllerMsg::Synced { .. } => "Synced",
            EdgeControllerMsg::Look => "Look",
            EdgeControllerMsg::LookNow => "LookNow",
        }
    }
}

impl Message for EdgeUp {
    fn name(&self) -> &'static str {
        match self {
            EdgeUp::Reports { .. } => "Reports",
            EdgeUp::Alive => "Alive",
            EdgeUp::Token { .. } => "Token",
        }
    }
}
