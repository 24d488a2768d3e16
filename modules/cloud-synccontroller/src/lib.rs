//! The desired map of every node, and the only sender of it.
//!
//! # Owns
//! For each node: what it should hold (one shared body per object), what it is known to hold, which objects wait since
//! when, and the batches in flight.
//! # Accepts
//! [`contract::synccontroller::SyncMsg`]: upserts and deletes from the controllers, sessions from the hub, answers of
//! the nodes.
//! # Tells
//! The nodes' MetaManagers, over the link: a question for a digest of what they hold, one for the lists of the buckets
//! that differ, then only the difference, newest version per key, several batches in flight, each acknowledged after the
//! node's commit. NodeLease, which writes it to the Node: whether a node holds what it should, when that has changed. After a
//! restart the controllers and the hub, that everything is to be said again.
//! # Keeps across a restart
//! Nothing. The controllers list again and the nodes say again what they hold. Whatever goes wrong with a batch ends the
//! same way: after a pause the node is asked again what it holds.
//! # Never
//! Sends an object by its history, has one key in two batches at once, deletes on a node before every source has
//! listed everything, or sends anything in a session before every source has said that it has sent all.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod events;
mod node;
pub mod plan;
mod session;
pub mod status;

pub use actor::{Addresses, SyncController};
