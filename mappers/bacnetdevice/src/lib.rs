//! The mapper of BACnet/IP devices.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//!
//! Clauses are those of ASHRAE 135-2020. `network` is what carries everything (Annex J, clause 6), `apdu` the heads of requests and answers
//! (20.1), `service` what stands in them (15, 13, 16), `tag`, `target` and `primitive` the bytes of values (20.2), all pure; `link` is the socket,
//! which all Devices share, `device` a device at it; `reads`, `session` and `monitor` do what the framework wants.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod apdu;
mod code;
mod data_type;
mod device;
mod encoding;
mod foreign;
mod link;
mod monitor;
mod names;
mod network;
mod primitive;
mod reads;
mod routes;
mod service;
mod session;
mod tag;
mod target;
mod visitor;

pub use address::{Address, Place, Through};
pub use data_type::DataType;
pub use encoding::Encoding;
pub use network::{Peer, Remote};
pub use session::{Bacnet, BacnetSession, NAME};
pub use target::{ObjectId, Target};
pub use visitor::Visitor;
