//! The desired map of every node, and the only sender of it.
//!
//! # Owns
//! For each node: what it should hold (one shared body per object), what its session is known to hold, and the batches
//! in flight.
//! # Accepts
//! [`contract::synccontroller::SyncMsg`]: upserts and deletes from the controllers, sessions from the hub, answers of
//! the nodes.
//! # Tells
//! The nodes' MetaManagers, over the link: a question for what they hold, then only the difference, newest version per
//! key, several batches in flight, each acknowledged after the node's commit.
//! # Keeps across a restart
//! Nothing. The controllers list again and the nodes say again what they hold.
//! # Never
//! Sends an object by its history, has one key in two batches at once, or deletes on a node before every source has
//! listed everything.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
pub mod plan;

pub use actor::SyncController;
