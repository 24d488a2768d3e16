//! The wire: what crosses a link, in frozen bytes.
//!
//! Each wire version has structs of its own (`v1`), which nobody else sees; they are made of the domain's types and made
//! into them. A report or a field that the domain gains touches no frozen bytes. `tests/wire-1.txt` holds every message of
//! version 1 byte by byte, and a line of it never changes.
//!
//! What may be added to a version without a new one: a kind of message, and a kind of report, each under a number that had
//! none. Whoever does not know a kind skips it: an unknown message is answered with that, an unknown report is confirmed
//! ([`crate::batch::DecodedBatch::skipped`]), and the next one is read. So that it is not sent for nothing, each kind of report has
//! a capability ([`crate::UpReport::capability`]), which the hello of whoever understands it names.
//!
//! Kubernetes objects travel as opaque deflated JSON. Every decode has a limit: a declared length never allocates more than
//! the frame that carried it could hold, and all objects of one message together inflate to [`OBJECT_MAX`] at the most.
//!
//! # How each message is delivered
//!
//! | Message | Delivery |
//! |---|---|
//! | [`MetaDown`] | Level-triggered: the newest version per object, in the order of `sequence` within a session, each batch acknowledged after the node's commit, sent again until then |
//! | [`EdgeUp::Reports`], [`DeviceUp::Reports`], [`TaskUp::Reports`] | At least once, from the outbox: in the order of the rows; status is newest-wins per [`crate::UpReport::newest_key`], events count each; a row leaves when the answer names it |
//! | [`RouterUp::Telemetry`] | At least once, each one, in the order of the rows and so in order per source; a row leaves when the answer names it |
//! | [`DeviceDown::CallMethod`] | At most once: sent to a node that is linked, and never again; the node knows by its id one that it has |
//! | [`HubUp::RenewCertificate`] | Asked again until it was answered; of two certificates that were signed for one node the later is good |
//! | [`HubUp::CertificateKept`] | Once; if it is lost, the next link says the same by being made with that certificate |
//! | [`HubDown::Trust`] | Level-triggered: the newest, over each new link and at each change |
//! | [`RouterUp::RuleUploads`] | At least once, each one, in order per topic; a row leaves when the rule's target has answered, or has refused it for good |
//! | [`RouterUp::RuleCall`] | At most once by us; whoever calls learns what came of it, or that nobody knows |
//! | [`EdgeUp::Alive`] | At most once: the next one replaces it |
//! | [`EdgeUp::Token`] | Asked once, and again by whoever needs it |
//!
//! What is bounded, and what is dropped first, is the outbox's business and not the wire's: at its bound events, telemetry of
//! QoS 1 and DMI reports are refused to their source, and only telemetry of QoS 0 is dropped and counted.

pub(crate) mod codec;
pub(crate) mod deflate;
pub(crate) mod error;
mod rule_streams;
mod streams;
pub(crate) mod v1;

use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{Protocol, WireVersion};
pub use error::WireError;

use crate::capability;
use crate::downlink::{DeviceDown, HubDown, MetaDown};
use crate::uplink::{DeviceUp, EdgeUp, HubUp, RouterUp, TaskUp};

/// 1 MiB: the largest body of a frame.
pub const BODY_MAX: u64 = beehive::link::BODY_MAX as u64;

/// 3 MiB: the largest object that an API server takes, and so the most that the objects of a message may inflate to.
pub const OBJECT_MAX: usize = 3 << 20;

/// 4096: reports of one batch. One that holds more is none.
pub const BATCH_MAX: usize = 4096;

/// The mailbox of a node's MetaManager.
pub const META_MAILBOX: &str = "edge-metamanager";
/// The mailbox of a node's DeviceTwin.
pub const TWIN_MAILBOX: &str = "edge-devicetwin";
/// The mailbox of the edge controller.
pub const EDGE_MAILBOX: &str = "cloud-edgecontroller";
/// The mailbox of the device controller.
pub const DEVICE_MAILBOX: &str = "cloud-devicecontroller";
/// The mailbox of CloudHub.
pub const CLOUD_HUB_MAILBOX: &str = "cloud-hub";
/// The mailbox of a node's EdgeHub.
pub const EDGE_HUB_MAILBOX: &str = "edge-hub";
/// The mailbox of the router.
pub const ROUTER_MAILBOX: &str = "cloud-router";
/// The mailbox of the task manager.
pub const TASK_MAILBOX: &str = "cloud-taskmanager";

/// The messages of a mailbox, by the version.
macro_rules! spoken {
    ($encode:path, $decode:path) => {
        fn encode(self, protocol: &Protocol) -> Result<Outgoing, EncodeError> {
            match protocol.version {
                WireVersion::ONE => $encode(self, &protocol.capabilities),
                other => Err(EncodeError::Version(other.number())),
            }
        }

        fn decode(body: &[u8], reply: Option<ReplyTo>, protocol: &Protocol) -> Result<Self, DecodeError> {
            match protocol.version {
                WireVersion::ONE => $decode(body, reply),
                other => Err(DecodeError::new(format!("wire version {} is not spoken here", other.number()))),
            }
        }
    };
}

impl Wire for MetaDown {
    const MAILBOX: &'static str = META_MAILBOX;

    spoken!(v1::desired::encode, v1::desired::decode);
}

impl Wire for DeviceDown {
    const MAILBOX: &'static str = TWIN_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_DEVICE_TWIN;

    fn capability(&self) -> Option<&'static str> {
        match self {
            DeviceDown::CallMethod { .. } => Some(capability::CALL_METHOD),
        }
    }

    spoken!(v1::calls::encode, v1::calls::decode);
}

impl Wire for HubDown {
    const MAILBOX: &'static str = EDGE_HUB_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_EDGE_HUB;

    fn capability(&self) -> Option<&'static str> {
        match self {
            HubDown::Trust { .. } => Some(capability::TRUST),
        }
    }

    spoken!(v1::certificates::encode_down, v1::certificates::decode_down);
}

impl Wire for HubUp {
    const MAILBOX: &'static str = CLOUD_HUB_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_CLOUD_HUB;

    fn capability(&self) -> Option<&'static str> {
        match self {
            HubUp::RenewCertificate { .. } | HubUp::CertificateKept { .. } => {
                Some(capability::RENEW_CERTIFICATE)
            }
        }
    }

    spoken!(v1::certificates::encode_up, v1::certificates::decode_up);
}

impl Wire for EdgeUp {
    const MAILBOX: &'static str = EDGE_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_EDGE_CONTROLLER;

    fn capability(&self) -> Option<&'static str> {
        match self {
            // Each report of a batch has its own.
            EdgeUp::Reports { .. } | EdgeUp::Alive => None,
            EdgeUp::Token { .. } => Some(capability::TOKENS),
        }
    }

    spoken!(v1::edge::encode, v1::edge::decode);
}

impl Wire for DeviceUp {
    const MAILBOX: &'static str = DEVICE_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_DEVICE_CONTROLLER;

    spoken!(v1::device::encode, v1::device::decode);
}

impl Wire for TaskUp {
    const MAILBOX: &'static str = TASK_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_TASK_MANAGER;

    spoken!(v1::task::encode, v1::task::decode);
}

impl Wire for RouterUp {
    const MAILBOX: &'static str = ROUTER_MAILBOX;
    const CAPABILITIES: &'static [&'static str] = capability::OF_ROUTER;

    fn capability(&self) -> Option<&'static str> {
        match self {
            RouterUp::Telemetry { .. } => Some(capability::TELEMETRY),
            RouterUp::RuleUploads { .. } => Some(capability::RULE_UPLOADS),
            RouterUp::RuleCall { .. } => Some(capability::RULE_CALLS),
        }
    }

    spoken!(v1::router::encode, v1::router::decode);
}
