//! EdgeCore: picks the node's modules, joins them and runs them.
//!
//! [`topology`] is the map: all mailboxes first, then all actors. [`EdgeCore::start`] is the order in which a node comes
//! up: identity, store, actors. No cloud is needed for it: what the store holds runs. The binary and the test harness
//! use the same one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod core;
mod identity;
mod known_time;
pub mod topology;
mod trusted_files;

pub use core::{EdgeCore, StartError, open_store};
pub use edge_edged::{begin_run, is_first_of_boot};
pub use identity::{Identity, IdentityError};
pub use known_time::{KnownClock, recall as recall_time};
pub use topology::Dependencies;
pub use trusted_files::secure_trusted_files;
pub use trustedfiles::UntrustedFile;
