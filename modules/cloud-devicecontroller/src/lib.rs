//! Devices and device models down to the edge, twins and states up.
//!
//! # Owns
//! The informers of devices and device models, and what was last sent of each node. They belong to the incarnation: a new one
//! lists again.
//! # Accepts
//! [`contract::devicecontroller::DeviceControllerMsg`]: who is linked from the hub, SyncController's word that it has begun
//! anew, reports of nodes, changes in its own informers' caches.
//! # Tells
//! SyncController which devices and models each node should hold, and of each session when all of it was sent; the API server
//! whether the Nodes are there that Devices name, and each device's DeviceStatus, what of the device is not honoured included; a node's DeviceTwin the calls of methods that stand on
//! Devices, each once. NodeLease is asked what sessions are worth, and who has a node where that is in doubt.
//! # Keeps across a restart
//! Nothing: it lists again, and the hub says again who is linked.
//! # Never
//! Says anything of a device whose node is another's (KubeEdge's, while nodes move over one by one). Sends a call of a method to a node that was not linked when it was asked for. Takes the word of a node that is not ours, or about a device that is not bound to that node, keeps more of a node than its
//! queue has room for, or writes a report over a newer one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
pub mod calls;
mod conditions;
mod devices;
mod error;
mod events;
pub mod faults;
mod nodes;
pub mod plan;
pub mod report_versions;
mod reports;
mod status;
mod summary;

pub use actor::{Dependencies, DeviceController};
