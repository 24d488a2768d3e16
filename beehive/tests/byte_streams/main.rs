//! Byte streams beside the mailboxes of a link: in memory, and over real QUIC and WebSocket on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../wire/mod.rs"]
mod wire;

mod fixture;
mod memory;
mod rules;
