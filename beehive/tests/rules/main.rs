//! The rules of a link, against an end that speaks by hand: versions and credits. On a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod credits;
mod hostile;
mod raw;
mod versions;
#[path = "../wire/mod.rs"]
mod wire;

use beehive::Env;

fn run(test: impl AsyncFnOnce(Env)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}
