//! Which CloudCore has which node, in which session, and of which Node object that session is.
//!
//! # Owns
//! The nodes' Leases in `kube-node-lease`, as far as this CloudCore writes them: the annotation `kubehive.io/cloudcore` says
//! which CloudCore has the node, `kubehive.io/cloudcore-address` where the others reach that one, `spec.leaseTransitions` since which
//! session. The newest session of each node here. A watch of the metadata of Nodes. The condition `kubehive.io/Synced`. The right to each node in `kubehive-nodes`, by which admission policies
//! know whose it is.
//! # Accepts
//! [`contract::nodelease::NodeLeaseMsg`]: claims from the hub and which sessions are open, renewals, questions of the
//! controllers what a session is worth and of the router who has a node, what SyncController has to show.
//! # Tells
//! The hub which session is over; the API server the Leases and the condition.
//! # Keeps across a restart
//! Nothing in memory: the Lease says who has a node, and the hub says again who is linked.
//! # Never
//! Waits for the API server or for another actor while it handles a message, so that a claim is answered whatever the
//! controllers are busy with; writes a Lease of a node that is not ours by the register; writes anything that it has not
//! read, or over what somebody else has written since.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod claim;
mod condition;
mod error;
mod events;
mod last_conditions;
pub mod lease;
mod lease_client;
mod nodes;
pub mod plan;
mod rights;

pub use actor::{Dependencies, NodeLease};
