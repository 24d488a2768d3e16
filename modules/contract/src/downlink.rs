//! What the cloud may say to a node, over the link.

use beehive::{Message, Reply};

use crate::{Change, Digest, ObjectVersion};

/// What the cloud may say to a node's MetaManager.
#[derive(Debug)]
pub enum MetaDown {
    /// What do you hold, in short? The answer begins a new inventory: what belongs to an older one is not taken any more.
    Inventory {
        /// The inventory.
        reply: Reply<Inventory>,
    },
    /// What exactly do you hold in these buckets of your inventory?
    ObjectVersions {
        /// Which inventory.
        inventory: u64,
        /// The buckets.
        buckets: Vec<u16>,
        /// Every object held in them.
        reply: Reply<Vec<ObjectVersion>>,
    },
    /// Hold or forget these. Answered after the commit.
    Apply {
        /// Which inventory it starts from.
        inventory: u64,
        /// The batch's number behind that inventory, from 1. One that comes out of turn is not taken.
        sequence: u64,
        /// In order.
        changes: Vec<Change>,
        /// `Err`: nothing of the batch was applied.
        reply: Reply<Result<(), NotApplied>>,
    },
}

/// What a node holds at one moment, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Random: batches name it, so that one which a broken link left behind is known by it.
    pub number: u64,
    /// What it holds.
    pub digest: Digest,
}

/// Why a batch was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotApplied {
    /// The node's store refused it, for this reason. The inventory ends with it: what is on its way behind the batch would
    /// come before what it may need.
    Refused(String),
    /// It belongs to an inventory that has ended, or comes out of turn.
    Stale,
}

impl Message for MetaDown {
    fn name(&self) -> &'static str {
        match self {
            MetaDown::Inventory { .. } => "Inventory",
            MetaDown::ObjectVersions { .. } => "ObjectVersions",
            MetaDown::Apply { .. } => "Apply",
        }
    }
}
