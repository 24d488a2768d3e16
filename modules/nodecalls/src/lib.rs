//! Calls of a node's kubelet endpoint: an HTTP request goes over one byte stream of the node's link, and its answer comes back.
//!
//! For whoever serves HTTP and has decided that the caller may: CloudCore's own kubelet ports, and the stand-alone API. The
//! heads are [`contract::stream`]'s. And what rules bring to nodes ([`NodeCalls::publish`], [`NodeCalls::call_service`]), which no path leads to.
//!
//! # Owns
//! Which nodes have a link here, and how many calls are open: [`NodeCalls`].
//! # Accepts
//! Requests of callers that were authenticated and authorised, as many at once as [`Limits`] says.
//! # Tells
//! The node, who asks; the caller, what the node answers, or in a sentence why it does not.
//! # Keeps across a restart
//! Nothing: whoever tells it of links tells it again.
//! # Never
//! Sends a node a credential of the caller, sends the caller where a node says, takes half an answer for a whole one, or keeps a
//! call of a link that is cut.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod calls;
mod error;
mod error_stream;
mod events;
mod head;
mod nodes;
mod open_call;
mod progress;
mod redirect;
pub mod route;
mod rule_streams;
mod shares;
mod transfer;
mod upgrade_refusal;

pub use calls::{Call, NodeCalls};
pub use error::CallError;
pub use head::is_upgrade;
pub use route::{Needs, Route};
pub use rule_streams::ServiceAnswer;
pub use shares::Limits;
pub use upgrade_refusal::upgrade_refusal;
