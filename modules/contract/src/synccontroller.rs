//! What SyncController accepts.

use std::collections::BTreeSet;
use std::sync::Arc;

use beehive::{Address, Message};

use crate::downlink::{Inventory, MetaDown};
use crate::ids::{CONFIG_UPDATE_JOBS, DEVICE_MODELS, DEVICES, IMAGE_PRE_PULL_JOBS, NODE_UPGRADE_JOBS, RULES};
use crate::{NodeName, Object, ObjectKey, ObjectVersion};

/// Who fills the desired maps. Nothing is deleted on a node before every source has listed all it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// EdgeController: pods, and the Secrets and config maps that they refer to.
    Edge,
    /// DeviceController: devices and their models.
    Device,
    /// CloudRouter: the rules whose source is on the node.
    Router,
    /// The task manager: the jobs of which a part is the node's now.
    Task,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 4] = [Source::Edge, Source::Device, Source::Router, Source::Task];

    /// Who fills in the objects of this kind.
    pub fn of(key: &ObjectKey) -> Source {
        match key.resource.as_str() {
            DEVICES | DEVICE_MODELS => Source::Device,
            RULES => Source::Router,
            NODE_UPGRADE_JOBS | IMAGE_PRE_PULL_JOBS | CONFIG_UPDATE_JOBS => Source::Task,
            _ => Source::Edge,
        }
    }
}

/// Messages to SyncController.
#[derive(Debug)]
pub enum SyncMsg {
    /// The source sends everything from here on, because it or SyncController has begun anew.
    ListBegins(Source),
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
    /// What was told so far is to go out.
    Flush,
    /// The source has sent everything since [`SyncMsg::ListBegins`]: what it did not send is gone.
    ListComplete(Source),
    /// The source has sent all that the node should hold, as far as it knows since the session opened. Before that nothing is
    /// sent to the node in that session: a CloudCore that lags behind would have it forget what is newer.
    Current {
        /// The source.
        source: Source,
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// What the API server does not let the source read, though it answers. Of these nothing is sent, and nothing is deleted.
        unknown: BTreeSet<ObjectKey>,
    },
    /// CloudHub began anew, or says again who is linked: no session is open but those that are told after this.
    AllNodesDown,
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
    /// A node answered what it holds in short; `None`: it did not.
    Inventory {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Its inventory.
        inventory: Option<Inventory>,
    },
    /// A node answered what it holds in some buckets; `None`: it did not.
    ObjectVersions {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Of which inventory.
        inventory: u64,
        /// The buckets that were asked for.
        buckets: Vec<u16>,
        /// What it holds in them.
        versions: Option<Vec<ObjectVersion>>,
    },
    /// A batch was committed by the node (`Ok`), or not.
    Applied {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// The batch's number in the session.
        batch: u64,
        /// What became of it.
        result: Result<(), BatchFailure>,
    },
    /// A pause is over.
    Retry {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// What is to be tried again.
        again: RetryOf,
    },
    /// Time to see whose status is to be written.
    Tick,
    /// The status of a node was written to its Node, or could not be.
    StatusWritten {
        /// The node.
        node: NodeName,
        /// What was to be written.
        status: SyncStatus,
        /// Whether it was.
        written: bool,
    },
}

/// What is tried again after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOf {
    /// Everything is compared anew.
    Compare,
    /// An object that was refused when it came alone.
    Quarantined,
}

/// What became of a batch that was not committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchFailure {
    /// The node did not take it, for this reason: its store refused it, or it was not understood.
    Refused(String),
    /// It came behind one that was refused, or the node has forgotten the inventory.
    Stale,
    /// Its one object fits no frame.
    TooLarge,
    /// Nobody knows what became of it, for this reason.
    Unanswered(String),
}

/// Whether a node holds what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncStatus {
    /// In one word.
    pub state: SyncState,
    /// How many objects wait.
    pub waiting: usize,
    /// The one that waits longest, and since when, in seconds since 1970.
    pub oldest: Option<(ObjectKey, i64)>,
    /// Why the node did not take a batch the last time, as long as that is not healed.
    pub refusal: Option<String>,
    /// When the node last confirmed anything to this CloudCore, in seconds since 1970.
    pub last_confirmed: Option<i64>,
    /// Whether this CloudCore has a session with the node. Without one somebody else may know better.
    pub linked: bool,
}

/// [`SyncStatus`] in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SyncState {
    /// It has confirmed all that it should hold.
    InSync,
    /// Objects wait.
    Waiting,
    /// Objects wait because the node did not take them.
    Refused,
}

impl Message for SyncMsg {
    fn name(&self) -> &'static str {
        match self {
            SyncMsg::ListBegins(_) => "ListBegins",
            SyncMsg::Upsert { .. } => "Upsert",
            SyncMsg::Delete { .. } => "Delete",
            SyncMsg::Flush => "Flush",
            SyncMsg::ListComplete(_) => "ListComplete",
            SyncMsg::Current { .. } => "Current",
            SyncMsg::AllNodesDown => "AllNodesDown",
            SyncMsg::NodeUp { .. } => "NodeUp",
            SyncMsg::NodeDown { .. } => "NodeDown",
            SyncMsg::Inventory { .. } => "Inventory",
            SyncMsg::ObjectVersions { .. } => "ObjectVersions",
            SyncMsg::Applied { .. } => "Applied",
            SyncMsg::Retry { .. } => "Retry",
            SyncMsg::Tick => "Tick",
            SyncMsg::StatusWritten { .. } => "StatusWritten",
        }
    }
}
