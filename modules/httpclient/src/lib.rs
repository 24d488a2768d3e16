//! HTTP/1.1 to whoever answers: a pod, a service, a device, the target of a rule. None of them is trusted to come to an end.
//!
//! hyper reads on within one poll as long as bytes come that are no answer yet, and passes over any number of informational heads
//! (`100 Continue`, `103 Early Hints`): no time-out fires and no other task runs in the meantime. Here a peer may send
//! [`INFORMATIONAL_MAX`] of them before the answer, as with Go's client, has [`HeadBounds`] for a head, and gets
//! [`READ_MAX`] read at a time.
//!
//! [`handshake`] is the way for one connection; whoever keeps a pool puts [`Guarded`] around its streams and has each request
//! [watched](watch). As whom our programs call is [`agent`].
//!
//! HTTP/2 is for one peer, which is ours and has proven it: `http2`, with the feature of that name. With the feature `tls` streams may be
//! secured.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod agent;
mod connection;
mod guard;
#[cfg(feature = "http2")]
pub mod http2;
#[cfg(feature = "tls")]
pub mod tls;

pub use connection::{Dialect, Error, HeadBounds, SendRequest, handshake, handshake_as, handshake_within};
pub use guard::{Guard, Guarded, INFORMATIONAL_MAX, READ_MAX, TooManyInformational, watch};

/// 64 KiB: the longest head of an answer that is read, unless whoever asks takes another ([`handshake_within`]).
pub const HEAD_MAX: usize = 64 << 10;
