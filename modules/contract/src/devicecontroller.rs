//! What DeviceController accepts: from the API server, and from nodes over the link.

use beehive::{Address, Message};

use crate::downlink::DeviceDown;
pub use crate::uplink::DeviceUp;
use crate::{CallState, NodeName};

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
        /// The node's DeviceTwin.
        twin: Address<DeviceDown>,
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
    /// Look whether the nodes are there that Devices name.
    LookForNodes,
    /// What was found of some of them.
    NodesLookedUp {
        /// Those of which the API server has said something.
        found: Vec<(NodeName, NodePresence)>,
    },
    /// A call of a method of this device went to its node, or waited for another CloudCore to have it. `Some`: nothing came of it as
    /// far as this one knows, and why.
    CallSent {
        /// The device's uid.
        uid: String,
        /// The call.
        id: String,
        /// Why it was not taken.
        failure: Option<(CallState, String)>,
    },
    /// The DeviceStatus of the device with this uid says what it was to say, or could not be written a while ago: try again.
    StatusWritten {
        /// The device's uid.
        uid: String,
        /// Whether it was written.
        is_written: bool,
    },
}

/// What the API server has under a node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePresence {
    /// An edge node of CloudCore's.
    Edge,
    /// An edge node of CloudCore's of which nothing is heard: its condition Ready is Unknown.
    Silent,
    /// An edge node that is not CloudCore's: KubeEdge's, most often, while nodes move over one by one.
    Foreign,
    /// A Node that is no edge node.
    Other,
    /// Nothing.
    None,
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
            DeviceControllerMsg::LookForNodes => "LookForNodes",
            DeviceControllerMsg::NodesLookedUp { .. } => "NodesLookedUp",
            DeviceControllerMsg::CallSent { .. } => "CallSent",
            DeviceControllerMsg::StatusWritten { .. } => "StatusWritten",
        }
    }
}
