//! Rules: what leads messages between HTTP in the cloud and MQTT and HTTP on nodes (KubeEdge). And where the telemetry of nodes
//! arrives.
//!
//! The `README.md` of this folder says for each of the four ways how a message is delivered, who may use it, and what it cannot
//! reach.
//!
//! Telemetry that is no rule's ends here: the router says what came, per node and source how many messages, which are missing, which
//! came again; and of each message, to whom it may concern ([`UPLOAD_LOG`]), that it came.
//!
//! # Owns
//! The informers of Rules and RuleEndpoints, and the table that is made of them; what was counted of rules and is not in their status
//! yet; the server that HTTP clients call (the door), and the one to which other CloudCores pass calls on; which of them has which node, as
//! was heard last; what was counted of each source of telemetry.
//! # Accepts
//! [`contract::router::RouterMsg`]: telemetry, messages for rules and calls of rules' targets from nodes, each under the name in its
//! certificate; who is linked; changes in its own informers' caches. HTTP at the door, from whoever shows a token, and from CloudCores
//! that have proven to be such.
//! # Tells
//! SyncController which rules each node should hold: those whose source is there. The targets of rules, by POST. Nodes, by
//! [`nodecalls`]. NodeLease, which it asks who has a node, and that CloudCore, what its callers call. The API server, what became of rules' messages. The node that asks: the rows that need not come again.
//! # Keeps across a restart
//! Nothing: what was published waits on its node until a target has it. A restart posts again what was posted and not confirmed, and
//! forgets what was counted in the last seconds.
//! # Never
//! Leads a rule to CloudCore's own loopback, to a link-local address or to where clouds keep their machines' metadata, unless the
//! settings open it. Follows a redirect, takes a certificate that it cannot verify, or shows a target any credential of
//! CloudCore's. Passes on a call that was passed on, or a caller's token. Confirms a message for a rule that its target does not have and may take yet. Holds more than a known number of
//! sources, of which no node has more than its share, and never lets one that it cannot hold keep a node's outbox full.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod capped_body;
pub mod delivery_plan;
mod door;
mod door_settings;
mod error;
mod events;
mod forwarding;
mod peer_client;
mod peer_door;
pub mod peer_plan;
mod peer_settings;
mod peers;
pub mod plan;
pub mod rest_path;
pub mod rule;
mod rule_calls;
pub mod rule_table;
mod rules;
pub mod status;
mod status_writer;
mod target_client;
mod tokens;

pub use actor::{CloudRouter, Dependencies, UPLOAD_LOG};
pub use door_settings::DoorSettings;
pub use error::DoorError;
pub use peer_settings::PeerSettings;
