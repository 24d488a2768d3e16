//! Links over faulty paths: slow, stalled, closed in one direction, with bytes put in. On a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mux;
mod pipe;
mod saturation;
mod silence;
#[path = "../wire/mod.rs"]
mod wire;
