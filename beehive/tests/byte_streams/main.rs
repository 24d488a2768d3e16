//! Byte streams beside the mailboxes of a link: in memory, and over real QUIC and WebSocket on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../authority/mod.rs"]
mod authority;
#[path = "../wire/mod.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod wire;

mod fixture;
mod loopback;
mod memory;
mod real;
mod relay;
mod rules;
mod slow;
