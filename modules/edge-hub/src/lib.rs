//! Keeps the node's link to the cloud.
//!
//! # Owns
//! The link: one in use at a time, made anew whenever it ends; over QUIC, or over WebSocket where UDP is blocked, with a
//! look every few minutes whether QUIC passes again. A better one is made before the other is left.
//! # Accepts
//! [`contract::edgehub::EdgeHubMsg`]: what became of an attempt, that it is time for the next, and that the node's network
//! has changed.
//! # Tells
//! MetaManager that the link is up, with the cloud's mailboxes, and that it is down. EdgeStream: the byte streams that the
//! cloud opens. DeviceTwin: the calls of methods that the cloud makes.
//! # Keeps across a restart
//! Nothing. A restart of the hub ends its link.
//! # Never
//! Carries a payload: the link's streams end in MetaManager's and DeviceTwin's own mailboxes. Makes a pause grow unless the cloud asks.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod attempt;
pub mod dial_schedule;
mod endpoints;
mod error;
pub mod events;
pub mod network;
pub mod plan;
mod stream_handler;

pub use actor::EdgeHub;
pub use endpoints::{Endpoints, Server};
pub use error::EndpointsError;
