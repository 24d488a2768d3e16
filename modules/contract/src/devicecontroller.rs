//! What DeviceController accepts: from the API server, and from nodes over the link.

use beehive::Message;

use crate::NodeName;
pub use crate::uplink::DeviceUp;

/// Messages to DeviceController.
#[derive(Debug)]
pub enum DeviceControllerMsg {
    /// From a node, which is the name in its certificate.
    Up {
        /// The node.
        node: NodeName,
        /// The session in which it says so.
        session: u64,
        /// What it says.
        message: DeviceUp,
    },
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
    /// The informers' caches have changed.
    Reconcile,
    /// The DeviceStatus of the device with this uid says what it was to say, or could not be written a while ago: try again.
    StatusWritten {
        /// The device's uid.
        uid: String,
        /// Whether it was written.
        is_written: bool,
    },
}

impl Message for DeviceControllerMsg {
    fn name(&self) -> &'static str {
        match self {
            DeviceControllerMsg::Up { .. } => "Up",
            DeviceControllerMsg::AllNodesDown => "AllNodesDown",
            DeviceControllerMsg::NodeUp { .. } => "NodeUp",
            DeviceControllerMsg::NodeDown { .. } => "NodeDown",
            DeviceControllerMsg::ListAgain => "ListAgain",
            DeviceControllerMsg::Reconcile => "Reconcile",
            DeviceControllerMsg::StatusWritten { .. } => "StatusWritten",
        }
    }
}
