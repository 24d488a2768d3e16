//! The parts of jobs between a real store and probes for the neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kept;
mod node;
mod pulls;
mod settings;
mod upgrades;
