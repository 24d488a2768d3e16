//! The Modbus mapper, and a Modbus device to play with.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//!
//! All devices at one TCP port or serial line share one connection, and ask one after the other (`line`). What is due together
//! is read together (`blocks`).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod blocks;
mod encoding;
mod heard;
mod line;
mod own_answers;
mod session;
mod simulator;
mod visitor;
mod words;

pub use address::{Address, Framing, Parity, Place, SerialLine, Sizes, Timing};
pub use encoding::{Charset, Encoding, Format, NotDecoded};
pub use framework::Scale;
pub use session::{Modbus, ModbusSession, NAME};
pub use simulator::{CONNECTIONS_MAX, MAP, Memory, Simulator};
pub use visitor::{Table, Visitor, WriteFunction};
