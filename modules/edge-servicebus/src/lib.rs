//! KubeEdge's ServiceBus: rules between HTTP services of a node and the cloud.
//!
//! From the cloud a rule calls a service on the node's loopback (`rest` to `servicebus`); on the node an application calls the target
//! of a rule, which is in the cloud (`servicebus` to `rest`). The `README.md` of this folder says how, and what is bounded.
//!
//! # Owns
//! The port for applications; which `target_url`s rules of this node have.
//! # Accepts
//! [`contract::servicebus::ServiceBusMsg`]: calls of CloudCore's with the streams that they come on, and that rules in the store may
//! have changed. HTTP at the port, from whoever reaches it.
//! # Tells
//! The service that is called; MetaManager, which asks the cloud; whoever calls, what came of it.
//! # Keeps across a restart
//! Nothing: rules are in the store. A call ends with the incarnation that took it, and its caller sees that.
//! # Never
//! Calls another machine, or a port of `edgecore`'s own. Passes on headers of a connection, or more bytes than it says. Calls what no
//! rule of this node names. Answers a page of a browser.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod events;
mod local_service;
pub mod plan;
mod server;
mod settings;
mod target_urls;

pub use actor::ServiceBus;
pub use settings::Settings;
