//! The Modbus mapper, and a Modbus device to play with.
//!
//! A device's `protocol.configData` says where it is: `ip` (an address or a name), `port` (502 unless given) and
//! `slaveID` (1 unless given). A property's `visitors.configData` says where its value is and how it is written down
//! there:
//!
//! | key | meaning |
//! |---|---|
//! | `register` | `CoilRegister`, `DiscreteInputRegister`, `InputRegister` or `HoldingRegister` |
//! | `offset` | the first one, counted from 0 |
//! | `limit` | how many; what the value's type needs unless given |
//! | `scale` | what a number in the device is multiplied with; 1 unless given |
//! | `isSwap` | the bytes within each register are swapped |
//! | `isRegisterSwap` | the registers come in reverse, the lowest one first |
//! | `dataType` | `int16`, `uint16`, `int32`, `uint32`, `int64`, `uint64`, `float`, `double` or `string`; the property's type unless given |
//!
//! Without a `dataType`, an INT is a whole number of as many registers as `limit` says, and signed if the model's
//! minimum is below 0; a FLOAT or DOUBLE in one register is a scaled whole number, in two an IEEE 754 number of 32
//! bits, in four one of 64.
//!
//! The protocol goes over TCP; a serial line is refused, with a sentence.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod encoding;
mod session;
mod simulator;
mod visitor;

pub use address::Address;
pub use encoding::{Encoding, Format, Scale};
pub use session::{Modbus, ModbusSession};
pub use simulator::{CONNECTIONS_MAX, MAP, Memory, Simulator};
pub use visitor::{Table, Visitor};
