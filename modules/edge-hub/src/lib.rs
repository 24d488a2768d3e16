//! Keeps the node's link to the cloud.
//!
//! # Owns
//! The link: one at a time, made anew whenever it ends.
//! # Accepts
//! [`contract::edgehub::EdgeHubMsg`]: what became of an attempt, and that it is time for the next.
//! # Tells
//! MetaManager that the link is up, with the cloud's mailboxes, and that it is down.
//! # Keeps across a restart
//! Nothing. A restart of the hub ends its link.
//! # Never
//! Carries a payload: the link's streams end in MetaManager's own mailbox.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
pub mod plan;

pub use actor::EdgeHub;
