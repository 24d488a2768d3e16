//! The device mapper interface, v1beta1.
//!
//! edgecore serves `DeviceManagerService` on `dmi.sock`; every mapper serves `DeviceMapperService` on a socket of its
//! own and says at registration where that is. The messages in [`v1beta1`] keep KubeEdge's names and numbers, so that
//! its mappers and SDKs fit. [`Scalar`] is the one place that knows how settings travel inside `Any`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::time::Duration;

mod bounds;
pub mod methods;
pub mod notes;
mod scalar;
mod server;
mod socket;

/// The messages and services, generated.
pub mod v1beta1 {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("v1beta1");
}

pub use bounds::{CALL_MAX, VALUE_MAX, check_length, untaken};
pub use scalar::{NotAScalar, Scalar};
pub use server::server;
pub use socket::{BoundSocket, SocketError, channel, incoming, listen, path_of, take};

/// 10 s: so often a mapper tells a value again that did not change, where no `reportCycle` says otherwise, and edgecore expects that: what
/// is steady and what is dead look alike without it.
pub const REPEAT_CYCLE: Duration = Duration::from_secs(10);
/// The file name of edgecore's socket inside the configured folder.
pub const SOCKET_NAME: &str = "dmi.sock";
/// 4 MiB: what a gRPC server takes by default, and far above any one device.
pub const MESSAGE_MAX: usize = 4 << 20;
/// 16 MiB: the answer to a registration holds all devices of the mapper.
pub const REGISTRATION_MAX: usize = 16 << 20;
