//! What the EventBus accepts.

use beehive::{Lane, Message};
use bytes::Bytes;

/// Whether devices and applications of the node have the brokers that the settings name (`modules.eventBus`), in the form of a
/// condition of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerReport {
    /// They can all be used.
    pub is_usable: bool,
    /// One of them is not the node's own. A node that has only its own says nothing of it as long as it can be used.
    pub is_external: bool,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence that names the broker; no password is in it.
    pub message: String,
}

/// Messages to the EventBus.
#[derive(Debug)]
pub enum EventBusMsg {
    /// Publish to the clients of the brokers that the settings name; the QoS is the settings' to say.
    Publish {
        /// The topic, `$hw/…` included.
        topic: String,
        /// The payload.
        payload: Bytes,
        /// Keep it for later subscribers.
        retain: bool,
    },
    /// The broker's router died and a new one must be made. The EventBus tells it to itself; ignored while one lives.
    RouterDied,
}

impl Message for EventBusMsg {
    fn name(&self) -> &'static str {
        match self {
            EventBusMsg::Publish { .. } => "Publish",
            EventBusMsg::RouterDied => "RouterDied",
        }
    }

    fn lane(&self) -> Lane {
        match self {
            EventBusMsg::Publish { .. } => Lane::Work,
            EventBusMsg::RouterDied => Lane::Control,
        }
    }
}
