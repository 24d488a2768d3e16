//! What the EventBus accepts.

use beehive::{Lane, Message, Reply};
use bytes::Bytes;

use crate::ChangedObjects;

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
    /// A rule brings this to the node's MQTT clients, with QoS 1. Answered when the broker has it; a sentence why it has not.
    Deliver {
        /// The topic.
        topic: String,
        /// The payload.
        payload: Bytes,
        /// Whether it has it.
        reply: Reply<Result<(), String>>,
    },
    /// Rules in the store may have changed.
    ObjectsChanged(ChangedObjects),
    /// The broker's router died and a new one must be made. The EventBus tells it to itself; ignored while one lives.
    RouterDied,
}

impl Message for EventBusMsg {
    fn name(&self) -> &'static str {
        match self {
            EventBusMsg::Publish { .. } => "Publish",
            EventBusMsg::Deliver { .. } => "Deliver",
            EventBusMsg::ObjectsChanged(_) => "ObjectsChanged",
            EventBusMsg::RouterDied => "RouterDied",
        }
    }

    fn lane(&self) -> Lane {
        match self {
            EventBusMsg::Publish { .. } | EventBusMsg::Deliver { .. } | EventBusMsg::ObjectsChanged(_) => {
                Lane::Work
            }
            EventBusMsg::RouterDied => Lane::Control,
        }
    }
}
