//! What CloudHub accepts.

use beehive::Message;

use crate::NodeName;
use crate::uplink::HubUp;

/// Messages to CloudHub.
#[derive(Debug)]
pub enum CloudHubMsg {
    /// A node's link said hello and was accepted.
    Opened {
        /// The node, from its certificate.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// A session ended.
    Closed {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// Why, for a person.
        reason: String,
    },
    /// The session is over: another CloudCore has taken the node, or its Node object is gone or another one. The link of that
    /// session is to end; one of a later session is not meant.
    SessionOver {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Why, for a person.
        reason: String,
    },
    /// The register of nodes has revoked certificates, whose sessions are to end, or others have taken their place, under which the
    /// sessions go on.
    CertificatesChanged,
    /// From a node, which is the name in its certificate.
    Up {
        /// The node.
        node: NodeName,
        /// The session in which it says so; `None`: it has none, and may have its certificate renewed and nothing else, because
        /// that has ended.
        session: Option<u64>,
        /// Serial number of the certificate that it has shown, lower-case hex.
        certificate: String,
        /// What it says.
        message: HubUp,
    },
    /// What nodes trust has changed: tell them.
    TrustChanged,
    /// Whoever asks has begun anew: say `AllNodesDown` and then `NodeUp` of each open session to it.
    TellSessions {
        /// Who asks.
        to: SessionReader,
    },
}

/// Who is told of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionReader {
    /// NodeLease.
    NodeLease,
    /// SyncController.
    SyncController,
    /// EdgeController.
    EdgeController,
    /// DeviceController.
    DeviceController,
    /// CloudStream.
    CloudStream,
    /// CloudRouter.
    CloudRouter,
    /// The task manager.
    CloudTaskManager,
}

impl Message for CloudHubMsg {
    fn name(&self) -> &'static str {
        match self {
            CloudHubMsg::Opened { .. } => "Opened",
            CloudHubMsg::Closed { .. } => "Closed",
            CloudHubMsg::SessionOver { .. } => "SessionOver",
            CloudHubMsg::CertificatesChanged => "CertificatesChanged",
            CloudHubMsg::Up { message, .. } => message.name(),
            CloudHubMsg::TrustChanged => "TrustChanged",
            CloudHubMsg::TellSessions { .. } => "TellSessions",
        }
    }
}
