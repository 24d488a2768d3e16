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
        /// Why, for a person.
        reason: String,
    },
}

impl Message for CloudHubMsg {
    fn name(&self) -> &'static str {
        match self {
            CloudHubMsg::Opened { .. } => "Opened",
            CloudHubMsg::Closed { .. } => "Closed",
        }
    }
}
