//! What EdgeController accepts: from the hub and the API server, and from nodes over the link.

use beehive::Message;

use crate::NodeName;
use crate::cloudstream::KubeletEndpoint;
pub use crate::uplink::EdgeUp;

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
    /// Where the node's kubelet endpoint is reached in this session: its Node is to say so.
    KubeletEndpoint {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Where.
        endpoint: KubeletEndpoint,
    },
    /// The informers' caches have changed, or something that waited is due.
    Reconcile,
}

impl Message for EdgeControllerMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeControllerMsg::AllNodesDown => "AllNodesDown",
            EdgeControllerMsg::NodeUp { .. } => "NodeUp",
            EdgeControllerMsg::NodeDown { .. } => "NodeDown",
            EdgeControllerMsg::ListAgain => "ListAgain",
            EdgeControllerMsg::Up { message, .. } => message.name(),
            EdgeControllerMsg::KubeletEndpoint { .. } => "KubeletEndpoint",
            EdgeControllerMsg::Reconcile => "Reconcile",
        }
    }
}
