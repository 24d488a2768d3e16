//! What EdgeController accepts: from the hub and the API server, and from nodes over the link.

use beehive::{Message, Reply};

use crate::{Batch, NodeName, Report, TokenGrant, TokenQuery, Unparsed};

/// Messages to EdgeController.
#[derive(Debug)]
pub enum EdgeControllerMsg {
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
    /// From a node, which is the name in its certificate.
    Up {
        /// The node.
        node: NodeName,
        /// The session in which it says so.
        session: u64,
        /// What it says.
        message: EdgeUp,
    },
    /// The informers' caches have changed, or something that waited is due.
    Reconcile,
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
            EdgeControllerMsg::AllNodesDown => "AllNodesDown",
            EdgeControllerMsg::NodeUp { .. } => "NodeUp",
            EdgeControllerMsg::NodeDown { .. } => "NodeDown",
            EdgeControllerMsg::ListAgain => "ListAgain",
            EdgeControllerMsg::Up { message, .. } => message.name(),
            EdgeControllerMsg::Reconcile => "Reconcile",
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
