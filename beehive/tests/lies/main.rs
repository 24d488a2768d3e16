//! Links over pipes and cables that lie: slow, stalled, closed in one direction, broken into. On a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mux;
mod pipe;
mod saturation;
mod silence;
#[path = "../wire/mod.rs"]
mod wire;

use beehive::Env;

fn run(test: impl AsyncFnOnce(Env)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}
