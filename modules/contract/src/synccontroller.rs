//! What SyncController accepts.

use std::sync::Arc;

use beehive::{Address, Message};

use crate::metamanager::MetaDown;
use crate::{Held, NodeName, Object, ObjectKey};

/// Who fills the desired maps. Nothing is deleted on a node before every source has listed all it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The edge controller.
    Edge,
    /// The device controller.
    Device,
}

/// Messages to SyncController.
#[derive(Debug)]
pub enum SyncMsg {
    /// The node should hold this version. One body serves all nodes.
    Upsert {
        /// The node.
        node: NodeName,
        /// The object.
        object: Arc<Object>,
    },
    /// The node should not hold this.
    Delete {
        /// The node.
        node: NodeName,
        /// Which object.
        key: ObjectKey,
    },
    /// The source has listed everything once.
    SourceReady(Source),
    /// A session opened.
    NodeUp {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Its MetaManager.
        meta: Address<MetaDown>,
    },
    /// A session ended.
    NodeDown {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// A node answered what it holds; `None`: it did not.
    Holdings {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// What it holds.
        held: Option<Vec<Held>>,
    },
    /// A batch was committed by the node (`Ok`), refused by its store, or lost (`Err` with the reason).
    Applied {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// The batch's number in the session.
        batch: u64,
        /// What became of it.
        result: Result<(), String>,
    },
    /// Try a refused batch again.
    Retry {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
}

impl Message for SyncMsg {
    fn name(&self) -> &'static str {
        match self {
            SyncMsg::Upsert { .. } => "Upsert",
            SyncMsg::Delete { .. } => "Delete",
            SyncMsg::SourceReady(_) => "SourceReady",
            SyncMsg::NodeUp { .. } => "NodeUp",
            SyncMsg::NodeDown { .. } => "NodeDown",
            SyncMsg::Holdings { .. } => "Holdings",
            SyncMsg::Applied { .. } => "Applied",
            SyncMsg::Retry { .. } => "Retry",
        }
    }
}
