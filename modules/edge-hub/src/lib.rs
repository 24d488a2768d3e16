//! Keeps the node's link to the cloud.
//!
//! # Owns
//! The node's certificate, its key and the CAs that it trusts. The link: one in use at a time, made anew whenever it ends; over QUIC, or over WebSocket where UDP is blocked, with a
//! look every few minutes whether QUIC passes again. A better one is made before the other is left, and QUIC is gone back to
//! when no call is open over WebSocket.
//! # Accepts
//! [`contract::edgehub::EdgeHubMsg`]: what became of an attempt, that it is time for the next, and that the node's network
//! has changed; whom to trust and where the cloud is ([`contract::downlink::HubDown`]).
//! # Tells
//! MetaManager that the link is up, with the cloud's mailboxes, and that it is down. EdgeStream: the byte streams that the
//! cloud opens. DeviceTwin: the calls of methods that the cloud makes. CloudHub: a request for a new certificate, when 70 to 90 percent of
//! the life of the one that it has are over, and that it is here.
//! # Keeps across a restart
//! Certificate, key and CAs in their files, where the cloud is in the store. A restart of the hub ends its link.
//! # Never
//! Shows a certificate that is not on the disk, lets a key leave the node, tells anybody of a link over which nothing may be done but
//! renew a certificate. Carries a payload: the link's streams end in MetaManager's and DeviceTwin's own mailboxes. Makes a pause grow unless the cloud asks.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod attempt;
mod certificates;
pub mod dial_schedule;
mod endpoints;
mod error;
pub mod events;
mod history;
pub mod network;
pub mod plan;
mod stream_handler;

pub use actor::EdgeHub;
pub use certificates::{
    FilesError, IdentityFiles, NodeCertificates, RenewalPlan, StoredIdentity, WriteStep, kept_servers,
};
pub use endpoints::{Endpoints, NamedServers, Server};
pub use error::EndpointsError;
