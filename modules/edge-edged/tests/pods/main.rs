//! Edged against a real containerd: pods come from a store, reports go into it.
// What the starts took is shown with --nocapture.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod adopted;
mod allocatable;
mod attacks;
mod cases;
mod clocks;
mod collection;
mod faults;
mod field;
mod hooks;
mod images;
mod lives;
mod logs;
mod needs;
mod node;
mod popular;
mod pressure;
mod probes;
mod refusals;
mod resize;
mod restart_all;
mod restarts;
mod runtime_abilities;
mod services;
mod shutdown;
mod sidecars;
mod speed;
mod static_pods;
mod turns;
mod volumes;
