//! Devices on a CAN bus, as the framework wants them.

use std::time::Duration;

use framework::{Fault, InvalidSetting, Property, Protocol, Settings};

use crate::address::Address;
use crate::sdo::{Nodes, TRANSFER_WITHIN};
use crate::session::CanSession;
use crate::visitor::Visitor;

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "can";

/// CANopen, and raw frames.
#[derive(Debug, Clone, Default)]
pub struct Can {
    nodes: Nodes,
}

impl Protocol for Can {
    type Address = Address;
    type Visitor = Visitor;
    type Session = CanSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        Address::read(settings)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    fn connect_deadline(&self, _: &Address) -> Duration {
        TRANSFER_WITHIN * 3
    }

    async fn connect(&self, address: &Address) -> Result<CanSession, Fault> {
        CanSession::open(address, &self.nodes).await
    }
}
