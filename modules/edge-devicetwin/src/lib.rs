//! Device twins, and the DMI server that mappers register at.
//!
//! # Owns
//! The twins and states of the node's devices, the mappers that registered, and `dmi.sock`.
//! # Accepts
//! [`contract::devicetwin::TwinMsg`]: which devices, models or pods changed, what MQTT clients publish on the topics
//! of the twins, what mappers call over DMI, what rules of devices want and say, calls of devices' methods from the cloud and the node, the time to look who has fallen
//! silent, and the ends of pushes and calls to mappers.
//! # Tells
//! EventBus the results, deltas and documents to publish; mappers their devices and models; MetaManager that the
//! outbox grew; the rules of devices what becomes of what they watch. It asks nobody.
//! # Keeps across a restart
//! Every twin, state and mapper, in rows of the store that are committed together with the report for the cloud, before
//! anybody is answered; calls of methods before the mapper is asked, so that none is made twice. What a mapper has got is kept as digests, so that a restart sends it what changed in between.
//! Objects are read anew when it begins. A call or a message that was in hand is answered by nobody, and whoever waits
//! for it tries again; a publication that was in hand is lost, as those of QoS 0 are.
//! # Never
//! Takes a cloud's word from a local client, changes a twin of a device that is not the node's, takes a mapper's word for a
//! device of a protocol that it has not registered, connects to a socket that is not the mapper's own, lets a mapper
//! that hangs hold up anybody else, or reads the disk on the hive's thread or more of it than what changed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod calls;
mod catalog;
mod connections;
mod convert;
mod denials;
mod device_manager_service;
mod error;
mod events;
mod health;
mod identity;
pub mod import;
mod known_mapper;
mod listeners;
mod mapper;
mod mapper_connection;
mod mapper_rest;
mod mapper_socket;
mod members;
mod method;
mod object_reader;
mod payload;
mod peer;
mod plan;
mod procfs;
mod push;
mod quota;
mod refused_message;
mod request;
mod rule_table;
mod server;
mod silence;
mod store;
mod topic;
mod twin;

pub use actor::DeviceTwin;
pub use peer::{KernelPeerResolver, PeerResolver};
