//! A simulation of both sides of the link.
//!
//! The real actors, plans, store and frames run on a simulated clock in one thread, with faults that a seed draws: see
//! [`Fault`]. TLS, QUIC, rumqttd and containers stay outside: the network path, the broker's place and the runtime are
//! stand-ins, and telemetry enters by the broker's own code. There are one or two CloudCores and one to three nodes. A
//! run ends with everything put right, and then has to come to rest within five simulated minutes; what has to hold is in
//! `check`, and in `probes`, `telemetry` and `store`, which look on all the time.
//!
//! A seed tells the same story every time, event for event: every mailbox and every write of the API is watched, and the
//! sum over it all is the run's [`Fingerprint`].
#![allow(clippy::expect_used, clippy::panic)]

mod actors;
mod api;
mod api_store;
mod authority;
mod check;
mod clock;
mod coverage;
mod daemon;
mod fault;
mod inject;
mod link;
mod outcome;
mod panics;
mod probes;
mod restart;
mod run;
mod story;
mod telemetry;
mod trace;
mod violations;
mod world;

use beehive::defect::{self, Defect};

pub use actors::{ACTORS, ActorKind, ActorMessage, Daemon};
pub use coverage::Coverage;
pub use fault::Fault;
pub use outcome::Outcome;
pub use restart::{RestartOutcome, cloud_actor_panics};
pub use trace::Fingerprint;

/// How many events and telemetry the outbox of a node takes in a run. An eighth is left to events.
pub const OUTBOX_BOUND: u64 = world::OUTBOX_ROWS;

/// Tells the story of a seed, with a deliberate defect if one is given.
///
/// # Panics
/// When the story itself cannot be told.
pub fn run(seed: u64, planted: Option<Defect>) -> Outcome {
    tell(seed, planted, false)
}

/// [`run`] that keeps every event.
///
/// # Panics
/// See [`run`].
pub fn run_traced(seed: u64, planted: Option<Defect>) -> Outcome {
    tell(seed, planted, true)
}

fn tell(seed: u64, planted: Option<Defect>, keep_trace: bool) -> Outcome {
    defect::plant(planted);
    // kube draws the jitter of its watches from here, on this thread.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, story::tell(seed, keep_trace));
    defect::plant(None);
    outcome
}
