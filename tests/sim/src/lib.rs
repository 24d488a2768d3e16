//! A simulation of both sides of the link.
//!
//! The real actors, plans, store and frames run on a simulated clock in one thread, with faults that a seed draws: see
//! [`Fault`]. TLS, QUIC, rumqttd and containers stay outside: the cable, the broker's place and the runtime are
//! stand-ins. A run ends with everything put right, and then has to come to rest within five simulated minutes; what has
//! to hold is in `check`.
//!
//! A seed draws the same story every time it is told, on the same clock. What happens within one instant may be
//! ordered otherwise, because tokio's `select!` draws lots of its own.
#![allow(clippy::expect_used, clippy::panic)]

mod api;
mod check;
mod daemon;
mod link;
mod store;
mod story;
mod world;

use beehive::defect::{self, Defect};

pub use story::{Fault, Outcome};

/// How many events the outbox of a node takes in a run.
pub const OUTBOX_BOUND: u64 = world::OUTBOX_ROWS;

/// Tells the story of a seed, with a deliberate defect if one is given.
///
/// # Panics
/// When the story itself cannot be told.
pub fn run(seed: u64, planted: Option<Defect>) -> Outcome {
    defect::plant(planted);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, story::Story::tell(seed));
    defect::plant(None);
    outcome
}
