//! The MQTT 3.1.1 broker of a node: rumqttd's router behind our own listener.
//!
//! # Owns
//! The listener, the clients' sessions, the retained messages, and rumqttd's router with the one thread that it runs on.
//! rumqttd forgets no topic, so a router that has learnt its share is replaced by an empty one; clients notice nothing.
//!
//! # Accepts
//! [`contract::eventbus::EventBusMsg`]: what the node publishes, and that the router has died. From the network: any
//! MQTT 3.1.1 client, over TCP, TLS or a Unix socket. A client of another version gets CONNACK 1 (unacceptable protocol version) in the shape of 3.1.1,
//! which is what clients of version 5 fall back on.
//!
//! Who a client is and what it may do is in the `README.md` of this folder. A client is known by its name (the user and
//! the client id), so that nobody has another user's session. What only `edgecore` says no client says: `edgecore`'s own
//! publishes come through the mailbox, which no client reaches.
//!
//! # Tells
//! Asks DeviceTwin about every publish on a topic of the twins (section 3 of the contracts). Subscribers get the message
//! as from any broker; the publisher's PUBACK waits for DeviceTwin's answer, which comes after its commit. A refusal is
//! acknowledged too, because 3.1.1 has no negative acknowledgement and DeviceTwin answers with a document of its own; it
//! is logged and counted. No answer at all is never acknowledged: the connection is closed, and the client sends again.
//!
//! What clients publish for the cloud (`$hw/events/upload/#`, `SYS/dis/upload_records`, `+/user/#`) goes into the outbox,
//! numbered per client and topic, and is acknowledged after that commit; MetaManager is told to look. Where the store
//! takes no more, a publish of QoS 1 or 2 is refused: it is not acknowledged, nor is anything behind it, and the
//! connection is closed, so that the client sends it again. Only QoS 0 is dropped, which is counted and leaves a gap in
//! the source's numbers.
//!
//! # Keeps across a restart
//! Retained messages, in the store; a retained publish of QoS 1 or 2 is acknowledged after its commit. Persistent
//! sessions live in memory: they survive the client's absence and the router's death, not that of the daemon.
//!
//! Listeners and connections are tasks of the actor and no children of it: each changes the sessions, filters and queues that all
//! of them share, and a panic on the way leaves these half changed, which no connection of its own could mend. So such a
//! panic is a fault of the broker: the next incarnation begins with empty sessions and the retained messages, and serves the
//! same ports within a moment (the test `a_broker_that_panics_in_a_connection_or_at_a_message_serves_its_ports_again`).
//!
//! # Never
//! Never publishes for a client, by a publish, a retained message or a will, what that client may not say.
//! Never lets a client's topic, frame or silence end the router or the actor. Never loses a message of QoS 1 in silence:
//! publishers wait for slow subscribers, a subscriber that does not move is cut off, and what an absent one's queue
//! cannot take is counted and logged. Never hands a client's messages out in another order than they came. Never takes
//! memory for what a packet declares, only for what has come. Never grants more than QoS 1; a publish of QoS 2 is taken with its full handshake.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod actor;
mod broker;
mod connect;
mod connection;
mod connection_limits;
mod error;
mod events;
mod filters;
mod identity;
mod listener;
mod packet;
mod peer;
mod pending_connects;
mod plan;
mod qos2;
mod quotas;
mod rate_limit;
mod retained;
mod rumqttd_router;
mod session;
mod settling;
mod shared;
mod stream;
mod tls;
mod topic;
mod trie;
mod unix_socket;
mod upload_sources;
mod uploader;
mod uploads;

pub use access::line as password_line;
pub use actor::EventBus;
pub use uploader::{Publisher, Uploader};
