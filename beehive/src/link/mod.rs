//! Remote mailboxes: an [`crate::Address`] whose mailbox is on another host.
//!
//! A link is one connection between two hosts that have verified each other's certificates. Each remote mailbox is a
//! stream of its own per lane, opened on first use, so that a slow one never blocks the others. The receiving end has a
//! bounded inbox per link, mailbox and lane; its free slots are the sender's credits, so back-pressure crosses the
//! wire. One forwarder per inbox holds one message at a time in front of the local mailbox, whose waiting line is fair:
//! one link's flood starves nobody.
//!
//! # What is delivered, and how
//!
//! * At most once, and in the order in which they were told, the messages of one mailbox and lane as long as the link lives.
//!   Between mailboxes, and between the lanes of one, there is no order. A link that breaks loses what was on its way.
//! * At least once what an ask carries, if the asker keeps it until the answer has come and asks again over the next link.
//!   An ask that fails with [`crate::AskError::LinkDown`] may have been handled. Whoever answers before the work is safe
//!   breaks the promise for both; which messages are repeated, marked or replaced by newer ones is said where they are
//!   defined, not here.
//! * Bounded: a lane has 16 messages and 1 MiB on its way, a link makes its receiving end hold 4 MiB
//!   of messages whatever the number of its streams, and a lane has 4096 asks without an answer. At the bound
//!   [`crate::Address::tell`] waits and [`crate::Address::try_tell`] is refused; nothing that was taken is dropped for room. A
//!   sender that sends more than it has credits for is told so and its stream is ended.
//! * Little of a stranger: before its hello was answered an end that dialled has one stream, a few KiB and 5 s. How many may
//!   come from one address is bounded by the transports ([`accept_limiter`]).
//! * Urgent first: control lanes have streams of their own, and so has the link itself (its pings, its end). What a lane holds
//!   beyond 16 KiB comes out of what all lanes of the link share; up to that it passes, however much the others hold.
//! * Bulk beside the mailboxes: either end opens byte streams ([`ByteStreams`], [`Routes::byte_streams`]), 1,200 at the most.
//!   What of them is on its way is bounded, so that all of the above holds beside them.
//! * The other end can reach only what [`Routes`] allow, and is who its certificate says.
//! * Both ends speak one wire version, agreed in the hello: see [`WireVersion`] and [`Versions`]. Each says what it
//!   understands beyond that ([`Capabilities`]), and is sent nothing else. A message that an end does not understand is
//!   answered with that, counted and named, and the next one is read.
//!
//! The transport below the frames is an argument ([`Dialer`], [`Acceptor`], [`Connection`]): [`quic`] first, [`ws`] where UDP
//! is blocked (its streams share one ordered connection by [`mux`]), [`memory`] for tests and for clusters in one process.

pub mod accept_limiter;
#[cfg(test)]
mod address_validation_tests;

mod backlog;
mod byte_stream;
mod bytes_arrived;
mod capability;
mod close_reason;
mod congestion_window;
mod core;
mod credentials;
pub mod events;
mod frame;
#[cfg(test)]
mod golden;
mod handshake_limiter;
mod heard_stream;
mod inbound;
mod incoming;
mod incoming_streams;
mod keepalive;
pub mod memory;
pub mod mux;
mod ordered_watch;
mod outbound;
mod pending_dials;
pub mod quic;
pub mod quic_dialer;
mod quic_stream;
mod receive_budget;
mod sentence;
mod session;
mod signing_thread;
pub mod tls;
mod transport;
mod version;
pub mod wire;
pub mod ws;

pub use byte_stream::{
    BYTE_STREAM_HEADER_MAX, BYTE_STREAMS_MAX, ByteStream, ByteStreamError, ByteStreamHandler,
    ByteStreamRefusal, ByteStreams,
};
pub use capability::{CAPABILITIES_MAX, Capabilities, NAME_MAX as CAPABILITY_NAME_MAX};
pub use close_reason::CloseReason;
pub use frame::{BODY_MAX, FRAME_MAX};
pub use inbound::Routes;
pub use incoming::IncomingLink;
pub use keepalive::{IDLE_TIMEOUT, KEEPALIVE_AFTER};
pub use sentence::{SENTENCE_MAX, sentence};
pub use session::{Hello, Link, LinkError, Refused, Silence};
pub use transport::{
    Acceptor, Acceptors, Connection, DialError, Dialer, PeerName, Reader, Traffic, Transport, Urgency, Writer,
};
pub use version::{Protocol, Versions, WireVersion};
