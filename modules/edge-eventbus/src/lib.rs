//! MQTT on a node: a broker of its own, for clients of MQTT 3.1, 3.1.1 and 5 on one port (rumqttd's router behind our own
//! listeners), and a client of a broker elsewhere. Which of the two there are the settings say; what they have in common for whoever
//! publishes for the node is [`bus::Bus`], and what comes to either goes to the same [`intake::Intake`].
//!
//! # Owns
//! The listener, the clients' sessions, the retained messages, and rumqttd's router with the one thread that it runs on.
//! rumqttd forgets no topic, so a router that has learnt its share is replaced by an empty one; clients notice nothing.
//!
//! What is rumqttd's: which filters take a topic. What is ours, each because rumqttd 0.20 gets it wrong, with a test that
//! shows how it is meant: the codecs (`packet/rumqttd_codec.rs` shows what its own do with a client's bytes; 3.1 is read as
//! 3.1.1 that has no word for a refusal and whose flags say less), QoS as the lower of both, the handshakes of QoS 2 in both directions, retained
//! messages, options of subscriptions, shared subscriptions, sessions and their end, wills, aliases, the client's own limits,
//! acknowledgement after the commit, and bounds.
//!
//! # Accepts
//! [`contract::eventbus::EventBusMsg`]: what the node publishes, and that the router has died. From the network: any
//! client of these versions, over TCP, TLS, WebSocket or a Unix socket; which one it speaks is in its CONNECT. One of another
//! version is told so in the form of 3.1.1 or, if it is a later one, of 5. And what a broker elsewhere says to its client.
//!
//! Who a client is and what it may do is in the `README.md` of this folder. A client is known by its name (the user and
//! the client id), so that nobody has another user's session. What only `edgecore` says no client says: `edgecore`'s own
//! publishes come through the mailbox, which no client reaches.
//!
//! # Tells
//! Asks DeviceTwin about every publish on a topic of the twins (section 3 of the contracts). Subscribers get the message
//! as from any broker; the publisher's PUBACK waits for DeviceTwin's answer, which comes after its commit. A refusal is
//! acknowledged too, with a reason code for clients of 5, because 3.1.1 has no negative acknowledgement and DeviceTwin answers
//! with a document of its own; it is logged and counted. No answer at all is never acknowledged: the connection is closed,
//! and the client sends again.
//!
//! What clients publish for the cloud (`$hw/events/upload/#`, `SYS/dis/upload_records`, `+/user/#`) goes into the outbox,
//! numbered per client and topic, and is acknowledged after that commit; MetaManager is told to look. Where the store
//! takes no more, a publish of QoS 1 or 2 is refused: it is not acknowledged, nor is anything behind it, and the
//! connection is closed, so that the client sends it again. Only QoS 0 is dropped, which is counted and leaves a gap in
//! the source's numbers.
//!
//! What clients publish on `<namespace>/<topic>` of a rule goes the same way, in a queue of its own, to the rule's target in the
//! cloud; and what a rule brings from there is published with QoS 1.
//!
//! Its figures are on `$SYS/broker/#`, every ten seconds.
//!
//! Tells Edged whether the brokers that the settings name can be used, for a condition of the node.
//!
//! # Keeps across a restart
//! What a broker elsewhere has not acknowledged. Where the time stood by which messages expire (`kept_time.rs`). Retained messages, in the store; a retained publish of QoS 1 or 2 is acknowledged after its commit. Sessions that outlive
//! their connection, with their subscriptions, what their client has not acknowledged, and what it has not released: a
//! publish of QoS 1 or 2 for one of them is acknowledged when it is in the store. Wills, of clients that are connected and of those that are
//! away for less than its delay, until what they say is where it is to be (`wills.rs`): a broker that ends in order publishes those
//! without a delay before it closes the connections, and one that was killed does so at its next start. What is only to be deleted there waits
//! for the next commit, a second at most; a power cut in that second brings a message of QoS 1 once more, or a will. What is not kept:
//! retained messages that a new subscription had not been sent yet.
//!
//! Listeners and connections are tasks of the actor and no children of it: each changes the sessions, filters and queues that all
//! of them share, and a panic on the way leaves these half changed, which no connection of its own could mend. So such a
//! panic is a fault of the broker: the next incarnation begins with what is in the store, and serves the
//! same ports within a moment (the test `a_broker_that_panics_in_a_connection_or_at_a_message_serves_its_ports_again`).
//!
//! # Never
//! Never publishes for a client, by a publish, a retained message or a will, what that client may not say.
//! Never lets a client's topic, frame or silence end the router or the actor. Never loses a message of QoS 1 or 2 in silence:
//! publishers wait for slow subscribers, for a while, and what a subscriber's queue cannot take then is counted and
//! logged. Never hands a client's messages out in another order than they came. Never takes
//! memory for what a packet declares, only for what has come. Never sends a client more than it says that it takes, nor a
//! retained message that is older than what it has got.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod actor;
mod broker;
mod bus;
mod connect;
mod connection;
mod connection_limits;
mod error;
mod events;
mod external;
mod figures;
mod filters;
mod held_back;
mod held_bytes;
mod identity;
mod incoming;
mod intake;
mod keeper;
mod kept_time;
mod listener;
mod message;
mod outbox;
mod outgoing;
mod own_broker;
mod packet;
mod peer;
mod pending_connects;
mod place;
mod places;
mod plan;
mod publishing;
mod qos2;
mod quotas;
mod rate_limit;
mod retained;
mod rule_topics;
mod rumqttd_router;
mod session;
mod settling;
mod shared;
mod stream;
mod subscribing;
mod tls;
mod topic;
mod trie;
mod unix_socket;
mod upload_sources;
mod uploader;
mod uploads;
mod web_socket;
mod wills;

pub use access::line as password_line;
pub use actor::EventBus;
pub use uploader::{Publisher, Uploader};
