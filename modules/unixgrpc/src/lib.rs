//! gRPC on Unix sockets: servers for clients of any age and language, and the way to servers.
//!
//! # Owns
//! Nothing.
//! # Accepts
//! A connection, a service and what a connection may take ([`Bounds`]); a way to connect.
//! # Tells
//! Nobody.
//! # Keeps across a restart
//! Nothing.
//! # Never
//! Trusts what a client says of itself: who it is, the kernel says, and whoever accepts the connection asks it. Holds more
//! of a connection than the bounds allow: the front before the HTTP/2 library ([`AnyAuthority`]) buffers nothing.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod authority;
mod channel;
mod connection;
mod header_block;

pub use authority::AnyAuthority;
pub use channel::channel_by;
pub use connection::{Bounds, serve_connection};
