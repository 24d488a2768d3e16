//! What Edged accepts.

use beehive::Message;

use crate::ChangedObjects;

/// Messages to Edged.
#[derive(Debug)]
pub enum EdgedMsg {
    /// Objects changed in the store: pods, what they need, or the node.
    ObjectsChanged(ChangedObjects),
    /// Desired pods or what they need may have changed: look. Says nothing about what changed.
    Look,
    /// The runtime said that something happened in it, or may have.
    RuntimeChanged {
        /// The sandbox or container, when the runtime named one.
        id: Option<String>,
    },
    /// A pod's worker has something to report or has ended.
    PodMoved {
        /// The pod's uid.
        uid: String,
    },
    /// The cloud has heard nothing of the node for so long that the node controller may have written its conditions: report
    /// the node although nothing has changed.
    ReportAnew,
    /// Time to report the node, to relist and to renew what ages.
    Tick,
}

impl Message for EdgedMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgedMsg::ObjectsChanged(_) => "ObjectsChanged",
            EdgedMsg::Look => "Look",
            EdgedMsg::RuntimeChanged { .. } => "RuntimeChanged",
            EdgedMsg::PodMoved { .. } => "PodMoved",
            EdgedMsg::ReportAnew => "ReportAnew",
            EdgedMsg::Tick => "Tick",
        }
    }
}
