//! What the EventBus accepts.

use beehive::Message;
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
        /// 0 or 1.
        qos: u8,
        /// Keep it for later subscribers.
        retain: bool,
    },
    /// The broker's router died and a new one must be made.
    RouterDied,
}

impl Message for EventBusMsg {
    fn name(&self) -> &'static str {
        match self {
            EventBusMsg::Publish { .. } => "Publish",
            EventBusMsg::RouterDied => "RouterDied",
        }
    }
}
