//! The mapper of devices on a CAN bus: objects of CANopen nodes, and signals in raw frames.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//!
//! `bus` is a bus, of this machine (`kernel`) or behind a gateway (`gateway`); `sdo` reads and writes the objects of a node (CiA 301
//! §7.2.4), `transfer` is what is on the wire of that, and `object` its values; `signal` is a value in the bits of a frame, and
//! `monitor` what listens for frames.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod abort;
mod address;
mod bus;
mod frame;
mod gateway;
mod kernel;
mod monitor;
mod object;
mod protocol;
mod sdo;
mod session;
mod signal;
mod transfer;
mod visitor;

pub use address::{Address, Interface, Speech};
pub use frame::{CanId, Frame};
pub use object::{DataType, Object};
pub use protocol::{Can, NAME};
pub use session::CanSession;
pub use signal::{Order, Signal};
pub use visitor::Visitor;
