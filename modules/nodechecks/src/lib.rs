//! What stops a machine from being a node, or pods from running on it: each check has a name, and where it fails the cure.
//!
//! # Owns
//! Nothing.
//! # Accepts
//! A machine, as its files and the kernel's tables show it below one root ([`Host`]), the node's settings, and what its runtime says. `keadm`
//! looks before a machine joins and when somebody asks, edgecore at its start and every few minutes: both by the same code.
//! # Tells
//! Whoever looks: a [`Finding`] for each check.
//! # Keeps across a restart
//! Nothing.
//! # Never
//! Changes anything, starts a program, or waits without a bound: a disk that does not answer is left to its thread ([`Beside`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod address;
mod beside;
mod cgroup_driver;
pub mod clock;
mod cni;
pub mod daemon_sets;
mod finding;
mod host;
pub mod leftovers;
pub mod machine;
pub mod ports;
pub mod resolver;
mod running;
pub mod runtime;
mod words;

pub use beside::{Beside, silent};
pub use cgroup_driver::mismatch as cgroup_driver_mismatch;
pub use finding::{Finding, Grade};
pub use host::{Disk, Host, Process, bytes};
pub use running::{Summary, newly_failing, of_machine, passing_again, steady, summary, told};
