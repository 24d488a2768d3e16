//! The mapper of devices that speak MQTT: what they publish becomes their twins, and what is desired is published to them.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//! It speaks MQTT 3.1.1 without TLS, which is what the node's own broker takes on loopback.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod session;
mod topics;

use framework::{Fault, InvalidSetting, Property, Protocol, Settings};

pub use address::{Address, Visitor};
pub use session::MqttSession;

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "mqtt";

/// MQTT.
#[derive(Debug, Clone, Copy, Default)]
pub struct MqttDevice;

impl Protocol for MqttDevice {
    type Address = Address;
    type Visitor = Visitor;
    type Session = MqttSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        Address::read(settings)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    async fn connect(&self, address: &Address) -> Result<MqttSession, Fault> {
        MqttSession::open(address).await
    }
}
