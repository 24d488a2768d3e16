//! Nodes, pods and what pods need: down to the edge, and their status up.
//!
//! # Owns
//! The watches of nodes and pods and of each Secret and config map that a pod on an edge node needs, what each edge node was last told to hold, and the nodes' Leases:
//! which CloudCore has which node since which epoch, and of which Node each session is.
//! # Accepts
//! [`contract::edgecontroller::EdgeControllerMsg`]: sessions and nodes to take from the hub, SyncController's word on how
//! nodes stand, reports and token requests of nodes, nudges from its own watches.
//! # Tells
//! SyncController what each node should hold; the hub which node another CloudCore has taken and which is not ours any more; the
//! API server what nodes
//! report, and whether they hold what they should.
//! # Keeps across a restart
//! Nothing: it lists again.
//! # Never
//! Takes a node's word about a Node that is not its own by the register, or about an object that is not bound to it, sends what no pod there needs, or
//! writes a report over a newer one. Of what a node says nothing is passed on that was not parsed, and no node keeps more here
//! than its line and its rates allow.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod accounts;
mod actor;
mod deliveries;
pub mod demand;
mod events;
pub mod fence;
pub mod index;
pub mod plan;
mod registration;
mod residents;
mod synced;
mod tenure;
mod tokens;
mod uplink;

pub use actor::EdgeController;
