//! KubeEdge's `csidriver`: stands beside external-provisioner and external-attacher as if it were their CSI driver, and brings their
//! calls to the driver that is registered on one edge node.
//!
//! # Owns
//! The socket at which the sidecars call (`--endpoint`).
//! # Accepts
//! gRPC: CSI's Identity, answered here; of its Controller the calls of [`contract::csi_call`], and which of them there are.
//! # Tells
//! The node, by CloudCore's socket or by the API server's node proxy, which finds it at whichever CloudCore has it.
//! # Keeps across a restart
//! Nothing. Every call may be repeated, and sidecars repeat what they got no answer to.
//! # Never
//! Looks into a message or an answer: what CSI adds to them later passes, and the driver's status comes back as it was given. Answers
//! for a driver that was not reached.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod api_client;
mod error;
mod events;
mod plan;
mod service;
mod way;

pub use actor::{CsiDriver, CsiDriverMsg, Settings};
pub use api_client::api_client;
pub use error::EndpointError;
pub use plan::{KubeEdgeEndpoint, socket_path};
pub use way::Way;
