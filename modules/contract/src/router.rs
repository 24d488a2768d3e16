//! What CloudRouter accepts: what nodes say about telemetry and rules, who is linked, and what it tells itself.

use beehive::Message;
use bytes::Bytes;

use crate::capability;
pub use crate::uplink::RouterUp;
use crate::{NodeName, ObjectKey};

/// What an MQTT client of a node published for the cloud. Each one counts, in order per source.
///
/// A source is a client and a topic. Its messages are counted from 1 on within one boot; where the node stops counting
/// (it restarts, or had to forget the source) another boot begins. A number that is missing was a message of QoS 0 that
/// the node had no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub payload: Bytes,
}

impl Telemetry {
    /// The capability that a cloud must have named for telemetry to be sent to it.
    pub const CAPABILITY: &'static str = capability::TELEMETRY;
}

/// A row of a node's outbox on its way to the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The row's seq, by which it is confirmed.
    pub row: i64,
    /// The node may have sent this row before. Of a row's copies at most one, the first that was sent, says no; where the node has gone on to
    /// another CloudCore a copy that says yes may arrive before it.
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
    /// Time to write what was counted of rules into their status.
    WriteStatus,
    /// The status of a rule was written, or could not be.
    StatusWritten {
        /// The rule.
        rule: ObjectKey,
        /// Whether it was, or never can be.
        is_written: bool,
    },
    /// The server of the REST door has ended by itself, or could not begin: try again.
    Serve,
    /// The same of the one for other CloudCores.
    ServePeers,
    /// Time to look whether the certificate for other CloudCores is to be made anew.
    RenewCertificate,
}

impl Message for RouterMsg {
    fn name(&self) -> &'static str {
        match self {
            RouterMsg::Up { message, .. } => message.name(),
            RouterMsg::AllNodesDown => "AllNodesDown",
            RouterMsg::NodeUp { .. } => "NodeUp",
            RouterMsg::NodeDown { .. } => "NodeDown",
            RouterMsg::ListAgain => "ListAgain",
            RouterMsg::Reconcile => "Reconcile",
            RouterMsg::WriteStatus => "WriteStatus",
            RouterMsg::StatusWritten { .. } => "StatusWritten",
            RouterMsg::Serve => "Serve",
            RouterMsg::ServePeers => "ServePeers",
            RouterMsg::RenewCertificate => "RenewCertificate",
        }
    }
}
