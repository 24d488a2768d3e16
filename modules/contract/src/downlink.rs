//! What the cloud may say to a node, over the link.

use beehive::{Message, Reply};

use crate::certificate::CloudTrust;
use crate::device_call::MethodCall;
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

/// What the cloud may say to a node's DeviceTwin.
#[derive(Debug)]
pub enum DeviceDown {
    /// Call a method of a device. Answered once the node remembers the call, which is before the mapper is asked; what becomes of
    /// it is a report.
    CallMethod {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// The device's uid: another one of its name is not called.
        uid: String,
        /// What is called.
        call: MethodCall,
        /// `Err`: nothing came of it, and why.
        reply: Reply<Result<(), String>>,
    },
}

/// What the cloud may say to a node's EdgeHub.
#[derive(Debug)]
pub enum HubDown {
    /// Trust these and no others, and find the cloud there, too. Answered after the commit.
    Trust {
        /// Which.
        trust: CloudTrust,
        /// `Err`: nothing of it was taken, and why.
        reply: Reply<Result<(), String>>,
    },
}

impl Message for HubDown {
    fn name(&self) -> &'static str {
        match self {
            HubDown::Trust { .. } => "Trust",
        }
    }
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

impl Message for DeviceDown {
    fn name(&self) -> &'static str {
        match self {
            DeviceDown::CallMethod { .. } => "CallMethod",
        }
    }
}
