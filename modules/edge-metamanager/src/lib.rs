//! Commits what should be, acknowledges it, and keeps what is until the cloud has confirmed it.
//!
//! # Owns
//! The way between the node's store and the cloud: objects down, the outbox up.
//! # Accepts
//! [`contract::metamanager::MetaMsg`]: the link's coming and going, the cloud's batches, nudges that the outbox grew,
//! token requests of Edged.
//! # Tells
//! Edged and DeviceTwin to look after a commit; the cloud's controllers the reports of the outbox.
//! # Keeps across a restart
//! Everything: objects and outbox are in the store. A report leaves it when the cloud has confirmed its own write.
//! # Never
//! Acknowledges before the commit, applies a batch that a broken link left behind or that comes out of turn, or drops a
//! report because the link is down.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
pub mod offer;
pub mod plan;

pub use actor::MetaManager;
