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
        /// The epoch of the session in which it says so.
        epoch: u64,
        /// What it says.
        message: DeviceUp,
    },
    /// The caches of the API server's objects have moved: look soon.
    Look,
    /// The pause after the first nudge is over: look.
    LookNow,
    /// The DeviceStatus of the device with this uid could not be made: try again.
    StatusMissing {
        /// The device's uid.
        uid: String,
    },
}

impl Message for DeviceControllerMsg {
    fn name(&self) -> &'static str {
        match self {
            DeviceControllerMsg::Up { .. } => "Up",
            DeviceControllerMsg::Look => "Look",
            DeviceControllerMsg::LookNow => "LookNow",
            DeviceControllerMsg::StatusMissing { .. } => "StatusMissing",
        }
    }
}
