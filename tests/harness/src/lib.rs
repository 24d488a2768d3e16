//! What tests are built with: stand-ins that refuse what the real parts refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod cloud;
mod cluster;
pub mod identity;
mod memory_api;
mod node;
mod probe;
mod real;
mod resource;
mod runtime;
mod trace_collector;
mod udp_gate;

pub use cloud::{EnrolmentCloud, StandAlone, enter};
pub use cluster::{Cluster, LinkTransport, run};
pub use memory_api::MemoryApi;
pub use node::{LONG, Node};
pub use probe::Recorded;
pub use real::RealCluster;
pub use resource::{objects, resource};
pub use runtime::{StandInRuntime, StartedContainer};
pub use trace_collector::{CollectedSpan, TraceCollector, is_whole};
