//! gRPC on Unix sockets: servers for clients of any age and language, and clients. What generated code and the libraries below it
//! would compile for each message and each kind of connection is here once: messages travel as bytes, and their types are known
//! where they are written and read.
//!
//! # Owns
//! Nothing.
//! # Accepts
//! A listener or a connection, who answers its calls and what it may take ([`Bounds`]); a way to connect, a method and a message.
//! # Tells
//! Nobody.
//! # Keeps across a restart
//! Nothing.
//! # Never
//! Trusts what a client says of itself: who it is, the kernel says, and whoever accepts the connection asks it. Holds more
//! of a connection than the bounds allow: the front before the HTTP/2 library ([`AnyAuthority`]) buffers nothing.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod authority;
mod bytes_codec;
mod channel;
mod client;
mod connection;
mod details;
mod header_block;
mod listener;
mod method;
mod reflection;
mod service;

pub use authority::AnyAuthority;
pub use channel::{Connector, channel_by};
pub use client::{Answers, Client};
pub use connection::{Bounds, serve_connection};
pub use details::without_unsound;
pub use listener::serve_listener;
pub use method::{Method, undeclared};
pub use reflection::Interface;
pub use service::{Answering, Call, Calls};
