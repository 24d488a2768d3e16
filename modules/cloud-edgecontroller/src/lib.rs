//! Nodes, pods and what pods need: down to the edge, and their status up.
//!
//! # Owns
//! The watches of nodes and pods and of each Secret and config map that a pod on an edge node needs, what each edge node was last told to hold, and the nodes' Leases:
//! which CloudCore has which node since which epoch.
//! # Accepts
//! [`contract::edgecontroller::EdgeControllerMsg`]: sessions and nodes to take from the hub, SyncController's word on how
//! nodes stand, reports and token requests of nodes, nudges from its own watches.
//! # Tells
//! SyncController what each node should hold; the hub which node another CloudCore has taken; the API server what nodes
//! report, and whether they hold what they should.
//! # Keeps across a restart
//! Nothing: it lists again.
//! # Never
//! Takes a node's word about an object that is not bound to that node's certificate, sends what no pod there needs, or
//! writes a report over a newer one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
pub mod demand;
pub mod fence;
pub mod index;
pub mod plan;
mod synced;
mod tenure;
mod uplink;

pub use actor::EdgeController;
