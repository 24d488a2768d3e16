//! What CloudHub accepts.

use beehive::Message;

use crate::NodeName;

/// Messages to CloudHub.
#[derive(Debug)]
pub enum CloudHubMsg {
    /// A node's link said hello and was accepted.
    Opened {
        /// The node, from its certificate.
        node: NodeName,
        /// The session's number in this CloudCore.
        session: u64,
    },
    /// A session ended.
    Closed {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// Its epoch.
        epoch: u64,
        /// Why, for a person.
        reason: String,
    },
    /// The node has gone on to a later session, most likely with another CloudCore: what is left of this one is to end.
    Lost {
        /// The node.
        node: NodeName,
        /// The epoch of the session.
        epoch: u64,
    },
    /// The Node of that name is not the one any more that the node's session is for: the link is to end.
    Disowned {
        /// The node.
        node: NodeName,
        /// Why, for a person.
        reason: String,
    },
}

impl Message for CloudHubMsg {
    fn name(&self) -> &'static str {
        match self {
            CloudHubMsg::Opened { .. } => "Opened",
            CloudHubMsg::Closed { .. } => "Closed",
            CloudHubMsg::Lost { .. } => "Lost",
            CloudHubMsg::Disowned { .. } => "Disowned",
        }
    }
}
