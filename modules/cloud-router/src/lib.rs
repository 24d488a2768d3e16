//! Where the telemetry of nodes arrives.
//!
//! There are no rules yet that would send it on. Until then the router says what came: per node and source how many
//! messages, which are missing, which came again; and of each message, to whom it may concern ([`UPLOAD_LOG`]), that it
//! came.
//!
//! # Owns
//! What was counted of each source.
//! # Accepts
//! [`contract::router::RouterMsg`]: telemetry of nodes, each under the name in its certificate.
//! # Tells
//! Nobody but the node that asks: the rows that it took.
//! # Keeps across a restart
//! Nothing. What a node may have sent before is marked by the node, and the first message of a source says where
//! counting begins.
//! # Never
//! Never holds more than a known number of sources, of which no node has more than its share, and never lets one that it
//! cannot hold keep a node's outbox full.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod events;
pub mod plan;

pub use actor::{CloudRouter, UPLOAD_LOG};
