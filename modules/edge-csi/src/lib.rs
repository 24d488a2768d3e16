//! Registers the CSI drivers of the node and mounts their volumes for pods, as a kubelet does.
//!
//! # Owns
//! The registration of drivers (`plugins_registry` below `rootDirectory`: we are the client of who registers there), and what
//! lies below `plugins/kubernetes.io/csi` and the folders `volumes/kubernetes.io~csi` of pods: each volume that is staged or
//! published, with the file `vol_data.json` that says whose it is.
//! # Accepts
//! [`contract::csi::CsiMsg`]: volumes that pods want, the end of a pod's volumes, and calls of drivers' controller services that come
//! from the cloud.
//! # Tells
//! Edged: which drivers there are, and which volumes are in use.
//! # Keeps across a restart
//! `vol_data.json`, which is written before a driver is called and removed after the last call: from it alone everything is
//! undone, by this edgecore or the next. Drivers register again; every call is repeated to a driver that is new here.
//! # Never
//! Waits in a handler: each volume has a task, each call of a driver a deadline, and a driver that hangs, lies or floods holds
//! up its own volumes alone. Removes anything below a mount: folders go by `rmdir`, one by one, once nothing is mounted there.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod controller;
mod controller_calls;
mod devices;
mod error;
mod events;
mod expand;
mod paths;
mod plan;
mod registration;
mod state;
mod stats;
mod volumes;
mod words;

pub use actor::{EdgeCsi, Settings};
pub use error::FileError;
pub use paths::share;
