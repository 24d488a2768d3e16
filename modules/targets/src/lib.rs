//! Which addresses a program may be led to by somebody who may only write an object: a rule, a device. Pure.
//!
//! The one list of addresses that are closed to them, and the networks that a setting opens. Names are none of its business: whoever
//! dials resolves a name, and has each address judged that it is about to dial.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod network;
mod target_addresses;

pub use network::Network;
pub use target_addresses::TargetAddresses;
