//! What CloudStream accepts: whose links are open, and what it hears from its own ports.

use std::net::IpAddr;

use beehive::Message;
use beehive::link::{ByteStreams, WireVersion};

use crate::NodeName;

/// Messages to CloudStream.
#[derive(Debug)]
pub enum CloudStreamMsg {
    /// CloudHub began anew, or says again who is linked: no session is open but those that are told after this.
    AllNodesDown,
    /// A session opened.
    NodeUp {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// The byte streams of its link.
        streams: ByteStreams,
        /// The version that the link speaks.
        version: WireVersion,
    },
    /// A session ended.
    NodeDown {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// EdgeController has begun anew: say every endpoint again.
    TellEndpoints,
    /// The ports that all Nodes say at this address: no other node gets them while there are others.
    PortsSaid(Vec<(NodeName, u16)>),
    /// What one Node says has changed.
    PortSaid {
        /// The node.
        node: NodeName,
        /// The port at this address; `None`: it says none, or there is no such Node any more.
        port: Option<u16>,
    },
    /// The register has become known, or has names without a good certificate that had one.
    RegisterChanged,
    /// A node's port is listened at.
    Listening {
        /// The node.
        node: NodeName,
        /// The port.
        port: u16,
    },
    /// A port cannot be listened at.
    PortRefused {
        /// The node that it was for.
        node: NodeName,
        /// The port.
        port: u16,
        /// Why.
        reason: String,
    },
    /// No port was free for the node: try again.
    OpenAgain {
        /// The node.
        node: NodeName,
    },
    /// The CA of the API server's clients, as PEM; `None`: the API server names none.
    ClientCa(Option<String>),
    /// The serving certificate is to be made anew.
    RenewCertificate,
    /// The certificate that a signer has signed has come or gone: show what is there.
    CertificateChanged,
    /// It is time to look whether the API server reaches the ports.
    CheckReach,
    /// Its server has ended by itself.
    ServerEnded,
}

/// Where the API server reaches the kubelet endpoint of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KubeletEndpoint {
    /// The address of the CloudCore that has the node. `None`: the node's own, by which the administrator leads there.
    pub address: Option<IpAddr>,
    /// The node's port there.
    pub port: u16,
}

impl Message for CloudStreamMsg {
    fn name(&self) -> &'static str {
        match self {
            CloudStreamMsg::AllNodesDown => "AllNodesDown",
            CloudStreamMsg::NodeUp { .. } => "NodeUp",
            CloudStreamMsg::NodeDown { .. } => "NodeDown",
            CloudStreamMsg::TellEndpoints => "TellEndpoints",
            CloudStreamMsg::PortsSaid(_) => "PortsSaid",
            CloudStreamMsg::PortSaid { .. } => "PortSaid",
            CloudStreamMsg::RegisterChanged => "RegisterChanged",
            CloudStreamMsg::Listening { .. } => "Listening",
            CloudStreamMsg::PortRefused { .. } => "PortRefused",
            CloudStreamMsg::OpenAgain { .. } => "OpenAgain",
            CloudStreamMsg::ClientCa(_) => "ClientCa",
            CloudStreamMsg::RenewCertificate => "RenewCertificate",
            CloudStreamMsg::CertificateChanged => "CertificateChanged",
            CloudStreamMsg::CheckReach => "CheckReach",
            CloudStreamMsg::ServerEnded => "ServerEnded",
        }
    }
}
