//! Remote mailboxes: an [`crate::Address`] whose mailbox is on another host.
//!
//! A link is one connection between two hosts that have verified each other's certificates. Each remote mailbox is a
//! stream of its own per lane, opened on first use, so that a slow one never blocks the others. The receiving end has a
//! bounded inbox per link, mailbox and lane; its free places are the sender's credits, so back-pressure crosses the
//! wire. One forwarder per inbox holds one message at a time in front of the local mailbox, whose waiting line is fair:
//! one link's flood starves nobody.
//!
//! What the caller may rely on:
//! * Messages of one mailbox and lane arrive in order, as long as the link lives. A link that breaks loses what was on
//!   its way; whoever needs more keeps it until the answer of an ask has come.
//! * An ask fails with [`crate::AskError::LinkDown`] when the link ends first. It may have been handled.
//! * The other end can reach only what [`Routes`] allow, and is who its certificate says.
//!
//! The transport below the frames is an argument ([`Dialer`], [`Acceptor`], [`Connection`]): [`quic`] first, [`ws`] where UDP
//! is blocked (its streams share one ordered connection by [`mux`]), [`memory`] for tests and for clusters in one process.

mod core;
mod frame;
mod inbound;
mod life;
pub mod memory;
pub mod mux;
mod outbound;
pub mod quic;
mod session;
pub mod tls;
mod transport;
pub mod wire;
pub mod ws;

pub use frame::{FRAME_MAX, WIRE_VERSION};
pub use inbound::Routes;
pub use life::{DEAD_AFTER, PING_AFTER};
pub use session::{Arrival, Ending, Greeting, Link, LinkError, Refused};
pub use transport::{
    Acceptor, Acceptors, Connection, DialError, Dialer, PeerName, Reader, Traffic, Urgency, Writer,
};
