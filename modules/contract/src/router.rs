//! What CloudRouter accepts from nodes: the telemetry of their MQTT clients.

use beehive::{Message, Reply};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Batch, NodeName};

/// What an MQTT client of a node published for the cloud. Each one counts, in order per source.
///
/// A source is a client and a topic. Its messages are counted from 1 on within one boot; where the node stops counting
/// (it restarts, or had to forget the source) another boot begins. A number that is missing was a message of QoS 0 that
/// the node had no room for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The client's id.
    pub client: String,
    /// The topic.
    pub topic: String,
    /// Drawn at random when the node begins to count.
    pub boot: [u8; 16],
    /// The number within the boot, from 1 on.
    pub sequence: u64,
    /// The client says that it may have sent this before (MQTT's DUP).
    pub dup: bool,
    /// The QoS that the client asked for.
    pub qos: u8,
    /// The payload.
    #[serde(with = "payload")]
    pub payload: Bytes,
}

/// A row of a node's outbox on its way to the router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The row's seq, by which it is confirmed.
    pub row: i64,
    /// The node may have sent this row before.
    pub repeat: bool,
    /// What the client published.
    pub telemetry: Telemetry,
}

/// Messages to CloudRouter.
#[derive(Debug)]
pub enum RouterMsg {
    /// From a node, which is the name in its certificate.
    Up {
        /// The node.
        node: NodeName,
        /// What it says.
        message: RouterUp,
    },
}

/// What a node may say to the router.
#[derive(Debug)]
pub enum RouterUp {
    /// The oldest rows of the outbox.
    Telemetry {
        /// In order.
        uploads: Batch<Upload>,
        /// The rows that the router has taken, or never will.
        reply: Reply<Vec<i64>>,
    },
}

impl Message for RouterMsg {
    fn name(&self) -> &'static str {
        match self {
            RouterMsg::Up { message, .. } => message.name(),
        }
    }
}

impl Message for RouterUp {
    fn name(&self) -> &'static str {
        match self {
            RouterUp::Telemetry { .. } => "Telemetry",
        }
    }
}

/// A payload as one run of bytes, which is what a list of bytes looks like on the wire, too.
mod payload {
    use bytes::Bytes;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(payload: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(payload)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        from.deserialize_byte_buf(Run)
    }

    struct Run;

    impl Visitor<'_> for Run {
        type Value = Bytes;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a payload")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(Bytes::from(bytes))
        }
    }
}
