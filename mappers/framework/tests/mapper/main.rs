//! A mapper of a make-believe protocol, against an edgecore on a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../edgecore/mod.rs"]
mod edgecore;

mod desired;
mod faults;
mod registration;
mod reports;
mod rest;
mod shelf;
