//! The rules of a link, against an end that speaks by hand: versions and credits. On a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod byte_streams;
mod credits;
mod hostile;
mod raw;
mod versions;
#[path = "../wire/mod.rs"]
mod wire;
