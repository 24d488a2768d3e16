//! What tests are built with: stand-ins that refuse what the real parts refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod cloud;
mod cluster;
mod objects;
mod probe;
mod real;
mod runtime;

pub use cloud::{EnrolmentCloud, StandAlone, enter};
pub use cluster::{Carrier, Cluster, LONG, Node, resource, run};
pub use objects::Objects;
pub use probe::Notes;
pub use real::RealCluster;
pub use runtime::{Seen, StandInRuntime};
