//! Everything a mapper is except its protocol.
//!
//! A mapper is a program that speaks one protocol to devices and the device mapper interface to edgecore. The
//! protocol is a [`Protocol`] and its [`Session`]; [`run`] is the rest, and [`Program`] the program around it:
//!
//! - it serves the mapper's own socket, registers at edgecore's, and registers again whenever edgecore was away;
//! - it keeps the devices and models that edgecore hands out: the mapper is an actor of a hive, and each device is a child
//!   of it with its own connection, its own back-off and its own restarts;
//! - it reads every property in its `collectCycle` and reports what changed at once, and what did not change every
//!   `reportCycle`;
//! - it writes desired values, within the model's limits, and reports them as observed once the device has them;
//! - it tells whether the device answers, for devices whose `stateReport` asks for that.
//!
//! - it reads what is due together in as few requests as the protocol can, and takes what a device sends by itself;
//! - a property that cannot be read, or not be written as desired, is that property's fault, told with its twin;
//! - it serves KubeEdge's REST interface, methods included, where its config says so;
//! - it sends readings where a property's `pushMethod` says, and has a detector look at them first (`anomalyDetection`);
//! - it saves the streams of cameras (STREAM properties), for protocols that have them.
//!
//! Cycles are milliseconds. What a mapper does not do yet (BYTES properties) is named in a warning
//! for every device that asks for it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// The tests' edgecore uses the crate as a mapper does.
#[cfg(test)]
extern crate self as framework;

mod actor;
pub mod anomaly;
pub mod answers;
mod backoff;
mod commands;
mod config;
mod device;
mod edgecore;
mod error;
mod events;
mod fault;
pub mod host;
pub mod http_device;
mod message;
pub mod own_file;
mod panel;
pub mod payload;
mod plan;
mod program;
mod protocol;
mod push;
mod quoting;
mod rest;
mod run;
mod scale;
mod secret;
mod server;
mod settings;
pub mod stream;
mod subscription;
mod twin;
mod value;

#[cfg(test)]
mod tests;

pub use anomaly::{AnomalyDetector, Verdict};
/// What the mappers here say behind their names at `--version`: the workspace's version, and the commit that they were built of.
pub use buildinfo::TEXT as VERSION;
pub use config::{Common, Config, ConfigError, DEFAULT_EDGECORE_SOCKET, DevInit, FILE_MAX, GrpcServer};
pub use dmi::Scalar;
pub use error::{InvalidSetting, MapperError};
pub use fault::Fault;
pub use payload::Payload;
pub use program::Program;
pub use protocol::{DEADLINE, Property, Protocol, Session};
pub use push::Credentials;
pub use quoting::shown;
pub use run::run;
pub use scale::{Scale, widened};
pub use secret::Secret;
pub use settings::Settings;
pub use subscription::Subscription;
pub use value::{Kind, Limits, Value, ValueError};
