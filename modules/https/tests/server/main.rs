//! Real sockets on loopback against a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod ends;
mod fixture;
mod ports;
mod strangers;
mod tls;
