//! Edged against a real containerd: pods come from a store, reports go into it.
// What the starts took is shown with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod attacks;
mod cases;
mod clocks;
mod faults;
mod lives;
mod needs;
mod node;
mod refusals;
mod restarts;
mod speed;
mod volumes;
