//! What the EventBus accepts.

use beehive::{Lane, Message};
use bytes::Bytes;

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
