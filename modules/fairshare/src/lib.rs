//! What one node may have of CloudCore: a line of its own, and a rate. Pure.
//!
//! Whatever a node sends is served in a line of that node's own, which has an end: what comes when it is full is answered at
//! once and not kept. So a node that floods waits for itself alone, and what it can make CloudCore hold is known.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bucket;
mod lines;

pub use bucket::Bucket;
pub use lines::{Lines, Serving};

/// Whether the `count`th time is one to tell of: the first, the second, the fourth, and so on. What a node does wrong it may
/// do as often as it likes, and the log is not its own.
pub fn is_told(count: u64) -> bool {
    count.is_power_of_two()
}
