//! The mapper of Siemens S7 PLCs.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//!
//! S7comm has no public specification; what is here is what all implementations agree on. `frame` is what carries it (ISO-on-TCP: RFC
//! 1006 over RFC 905, class 0), `job` its requests and answers, both pure; `line` is a connection, which all Devices of a PLC share;
//! `place` and `format` say where a value is, and in which bytes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod code;
mod format;
mod frame;
mod job;
mod line;
mod place;
mod session;
mod visitor;

pub use address::{Address, Plc};
pub use format::{Encoding, Format, Letters};
pub use place::{Area, Place};
pub use session::{NAME, S7, S7Session};
pub use visitor::Visitor;
