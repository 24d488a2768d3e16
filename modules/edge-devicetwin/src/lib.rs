//! Device twins, and the DMI server that mappers register at.
//!
//! # Owns
//! The twins and states of the node's devices, the mappers that registered, and `dmi.sock`.
//! # Accepts
//! [`contract::devicetwin::TwinMsg`]: a nudge that devices or models changed, what MQTT clients publish on the topics
//! of the twins, what mappers call over DMI, and the ends of pushes to mappers.
//! # Tells
//! EventBus the results, deltas and documents to publish; mappers their devices and models; MetaManager that the
//! outbox grew. It asks nobody.
//! # Keeps across a restart
//! Every twin, state and mapper, in rows of the store that are committed together with the report for the cloud, before
//! anybody is answered. What a mapper has got is kept as digests, so that a restart sends it what changed in between.
//! # Never
//! Takes a cloud's word from a local client, touches a twin of a device that is not the node's, takes a mapper's word for a
//! device of a protocol that it has not registered, connects to a socket that is not the mapper's own, or lets a mapper
//! that hangs hold up anybody else.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod caller;
mod convert;
mod door;
mod holder;
mod mapper;
mod members;
mod payload;
mod peer;
mod plan;
mod push;
mod reach;
mod rows;
mod server;
mod share;
mod topic;
mod twin;

pub use actor::DeviceTwin;
pub use peer::{Kernel, Peers};
pub(crate) use topic::DeviceId;
