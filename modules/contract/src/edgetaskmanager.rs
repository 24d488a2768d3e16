//! What the task manager of a node accepts.

use beehive::Message;

use crate::ChangedObjects;
use crate::node_task::{TaskAction, TaskImage};

/// How an exchange of edgecore, or of its settings, has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeEnd {
    /// Why the new one does not run.
    pub outcome: Result<(), String>,
    /// What was done, as the journal has it.
    pub actions: Vec<TaskAction>,
    /// The release before; empty: not known.
    pub from_version: String,
    /// The release that it was to have; empty: not known.
    pub to_version: String,
}

/// Messages to the node's TaskManager.
#[derive(Debug)]
pub enum EdgeTaskMsg {
    /// Parts of jobs in the store may have changed.
    ObjectsChanged(ChangedObjects),
    /// What was looked at on the machine.
    Checked {
        /// The job's uid.
        uid: String,
        /// Why the node is not fit.
        outcome: Result<(), String>,
    },
    /// A try to pull an image has ended.
    Pulled {
        /// The job's uid.
        uid: String,
        /// What became of it.
        image: TaskImage,
    },
    /// The installation package is on the disk, or is not.
    Fetched {
        /// The job's uid.
        uid: String,
        /// The SHA-256 of the file; or why there is none.
        outcome: Result<String, String>,
    },
    /// The settings were held against what the job wants of them.
    Examined {
        /// The job's uid.
        uid: String,
        /// Whether they are to be others; or why they cannot be.
        outcome: Result<bool, String>,
    },
    /// Somebody on the node has confirmed the part.
    Confirmed {
        /// The job's uid.
        uid: String,
    },
    /// Which journal there is before keadm begins.
    Marked {
        /// The job's uid.
        uid: String,
        /// What tells it from another one.
        journal: String,
    },
    /// The exchange of edgecore has ended.
    Exchanged {
        /// The job's uid.
        uid: String,
        /// How.
        end: Box<UpgradeEnd>,
    },
    /// What the part waits for has not come yet: look again with the next tick.
    Waits {
        /// The job's uid.
        uid: String,
    },
    /// Time to try again what the store did not take, or to look whether it has anything to do.
    Tick,
}

impl Message for EdgeTaskMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeTaskMsg::ObjectsChanged(_) => "ObjectsChanged",
            EdgeTaskMsg::Checked { .. } => "Checked",
            EdgeTaskMsg::Pulled { .. } => "Pulled",
            EdgeTaskMsg::Fetched { .. } => "Fetched",
            EdgeTaskMsg::Examined { .. } => "Examined",
            EdgeTaskMsg::Confirmed { .. } => "Confirmed",
            EdgeTaskMsg::Marked { .. } => "Marked",
            EdgeTaskMsg::Exchanged { .. } => "Exchanged",
            EdgeTaskMsg::Waits { .. } => "Waits",
            EdgeTaskMsg::Tick => "Tick",
        }
    }
}
