//! Nodes, pods and what pods need: down to the edge, and their status up.
//!
//! # Owns
//! The watches of nodes, pods, config maps and secrets, and what each edge node was last told to hold.
//! # Accepts
//! [`contract::edgecontroller::EdgeControllerMsg`]: sessions from the hub, SyncController's word on how nodes stand,
//! reports and token requests of nodes, nudges from its own watches.
//! # Tells
//! SyncController what each node should hold; the API server what nodes report, and whether they hold what they should.
//! # Keeps across a restart
//! Nothing: it lists again.
//! # Never
//! Takes a node's word about an object that is not bound to that node's certificate, or sends what no pod there needs.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
pub mod plan;
mod synced;
mod uplink;

pub use actor::EdgeController;
