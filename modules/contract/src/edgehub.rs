//! What EdgeHub accepts.

use beehive::{Message, Reply};

use crate::downlink::HubDown;
use crate::edgepage::{LinkView, ViewBounds};

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// The cloud ended it in order, as a CloudCore does that stops.
    ClosedByCloud,
    /// Nothing was heard of the cloud any more.
    Silent,
    /// It broke, this end closed it, or it was never up.
    Other,
}

/// Messages to EdgeHub.
#[derive(Debug)]
pub enum EdgeHubMsg {
    /// Time to dial.
    Dial,
    /// Time to see whether there is a better way than the one of this attempt's link.
    Probe {
        /// Which attempt.
        attempt: u64,
    },
    /// The connection over QUIC came about that this attempt made to see whether there is a better way.
    QuicPasses {
        /// Which attempt.
        attempt: u64,
        /// Whether it is to become the link.
        reply: Reply<bool>,
    },
    /// The way to the cloud looks different: another address of the node's, another route.
    NetworkChanged,
    /// The cloud answered the hello of this attempt.
    LinkUp {
        /// Which attempt.
        attempt: u64,
    },
    /// The cloud leaves pings unanswered on the link of this attempt.
    LinkSilent {
        /// Which attempt.
        attempt: u64,
    },
    /// It is heard again.
    LinkHeard {
        /// Which attempt.
        attempt: u64,
    },
    /// The link of this attempt ended or could not be made.
    LinkEnded {
        /// Which attempt.
        attempt: u64,
        /// Why, for a person.
        reason: String,
        /// What the cloud asked to wait, in milliseconds.
        wait_ms: Option<u64>,
        /// How.
        end: LinkEnd,
    },
    /// MetaManager began anew and has forgotten the link: make a new one.
    MetaBegan,
    /// From the cloud.
    Down(HubDown),
    /// Time to see whether the certificate is to be renewed.
    LookAtCertificate,
    /// What became of asking for a certificate.
    RenewalEnded {
        /// Whether there is a new one.
        renewed: bool,
        /// How long the cloud asked to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// The cloud is found at other places than before.
    ServersChanged {
        /// IP addresses and DNS names beside those of the settings.
        servers: Vec<String>,
    },
    /// Another CA signs than the one that has signed the node's certificate.
    CertificateSuperseded,
    /// Somebody looks at the node's page.
    Describe {
        /// How much is shown.
        bounds: ViewBounds,
        /// The link.
        reply: Reply<LinkView>,
    },
}

impl Message for EdgeHubMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgeHubMsg::Dial => "Dial",
            EdgeHubMsg::Probe { .. } => "Probe",
            EdgeHubMsg::QuicPasses { .. } => "QuicPasses",
            EdgeHubMsg::NetworkChanged => "NetworkChanged",
            EdgeHubMsg::LinkUp { .. } => "LinkUp",
            EdgeHubMsg::LinkSilent { .. } => "LinkSilent",
            EdgeHubMsg::LinkHeard { .. } => "LinkHeard",
            EdgeHubMsg::LinkEnded { .. } => "LinkEnded",
            EdgeHubMsg::MetaBegan => "MetaBegan",
            EdgeHubMsg::Down(message) => message.name(),
            EdgeHubMsg::LookAtCertificate => "LookAtCertificate",
            EdgeHubMsg::RenewalEnded { .. } => "RenewalEnded",
            EdgeHubMsg::ServersChanged { .. } => "ServersChanged",
            EdgeHubMsg::CertificateSuperseded => "CertificateSuperseded",
            EdgeHubMsg::Describe { .. } => "Describe",
        }
    }
}
