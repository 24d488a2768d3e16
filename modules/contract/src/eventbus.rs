//! What the EventBus accepts.

use beehive::{Lane, Message, Reply};
use bytes::Bytes;

use crate::ChangedObjects;

/// Messages to the EventBus.
#[derive(Debug)]
pub enum EventBusMsg {
    /// Publish to the node's MQTT clients.
    Publish {
        /// The topic, `$hw/…` included.
        topic: String,
        /// The payload.
        payload: Bytes,
        /// 0 or 1; more is taken as 1.
        qos: u8,
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
