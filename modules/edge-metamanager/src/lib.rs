//! Commits what should be, acknowledges it, and keeps what is until the cloud has confirmed it.
//!
//! # Owns
//! The way between the node's store and the cloud: objects down, the outbox up.
//! # Accepts
//! [`contract::metamanager::MetaMsg`]: the link's coming and going, the cloud's batches, nudges that the outbox grew,
//! token requests of Edged.
//! # Tells
//! Edged and DeviceTwin which objects changed, after their commit; the cloud's controllers the reports of the outbox;
//! EdgeHub that it has begun.
//! # Keeps across a restart
//! Everything: objects and outbox are in the store. A report leaves it when the cloud has confirmed its own write. What it
//! has not told its neighbours it tells them as "any object", a batch that was not answered is refused as one of an
//! ended inventory, and the hub hands it the link again.
//! # Never
//! Acknowledges before the commit, applies a batch that a broken link left behind or that comes out of turn, drops a
//! report because the link is down or because it does not know its kind, or reads the disk on the hive's thread.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod events;
pub mod inventory;
pub mod plan;
mod rule_topics;
mod store;

pub use actor::MetaManager;
