//! Servers of HTTPS, and of HTTP on loopback and at Unix sockets, with bounds on everything that a stranger may take.
//!
//! A [`Port`] is bound once and outlives the servers at it, so that one that is started anew after a fault finds it. A
//! [`Server`] takes connections at a port, or at many, on a thread of its own, makes the TLS handshakes ([`Tls`]) and hands each
//! connection, as [`Stream`] and [`Peer`], to a [`Protocol`]. [`Http`] is the protocol of all but one server, [`Http1`] where there is no TLS: it reads
//! requests and asks a [`Handler`] for each answer. The link's WebSocket brings its own.
//!
//! # Owns
//! The listening sockets, the connections and their places.
//! # Accepts
//! Connections, as many as [`Limits`] says; requests of HTTP/1.1, and of HTTP/2 where it is offered.
//! # Tells
//! Its owner, by [`Event`]s and [`Counts`]; and by [`Server::ended`] that it cannot go on.
//! # Keeps across a restart
//! The port, and what waits in its queue. No connection.
//! # Never
//! Lets an address that floods take a place of another, reads a head without an end, waits for a peer that takes nothing, or ends because
//! a handler panicked.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod acceptor;
mod admission;
pub mod body;
mod client_certificate;
mod events;
mod http1;
mod http2;
mod limits;
mod peer;
mod plain_http;
mod port;
mod secret;
mod server;
mod slowed;
mod stream;
mod tls;

pub use body::Body;
pub use events::{Counts, Event};
pub use http1::{Answer, Handler, Http, Http1, Upgraded};
pub use limits::{Limits, Rate};
pub use peer::{Peer, TooMany};
pub use port::Port;
pub use secret::is_same_secret;
pub use server::{Listening, Protocol, Server, ServerContext};
pub use stream::Stream;
pub use tls::{ClientCertificates, Tls, TlsError};
