//! What the task manager of a node accepts.

use beehive::Message;

use crate::ChangedObjects;
use crate::node_task::TaskImage;

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
    /// An image was pulled, or was not.
    Pulled {
        /// The job's uid.
        uid: String,
        /// What became of it.
        image: TaskImage,
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
            EdgeTaskMsg::Tick => "Tick",
        }
    }
}
