//! Devices and device models down to the edge, twins and states up.
//!
//! # Owns
//! The watches of devices and device models, and what each node was last told to hold.
//! # Accepts
//! [`contract::devicecontroller::DeviceControllerMsg`]: reports of nodes, nudges from its own watches.
//! # Tells
//! SyncController which devices and models each node should hold; the API server each device's DeviceStatus. EdgeController
//! is asked whether a node's word counts, and who has a node where that is in doubt.
//! # Keeps across a restart
//! Nothing: it lists again.
//! # Never
//! Takes the word of a node that is not ours, or about a device that is not bound to that node, keeps more of a node than its
//! line has room for, or writes a report over a newer one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod deliveries;
pub mod marks;
pub mod plan;
mod uplink;

pub use actor::DeviceController;
