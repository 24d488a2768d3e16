//! What a protocol brings.

use std::future::Future;

use thiserror::Error;

use crate::error::InvalidSetting;
use crate::settings::Settings;
use crate::value::{Kind, Value};

/// What went wrong while talking to a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The device is out of reach, or the connection cannot be used any more.
    #[error("the device does not answer: {0}")]
    Link(String),
    /// The device answered, and this one request cannot be served. The connection is fine.
    #[error("the device refused: {0}")]
    Device(String),
}

/// What a protocol may want to know about a property, from the device and its model.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// Whether the model lets it be written.
    pub writable: bool,
    /// The model's smallest value, when it is a number.
    pub minimum: Option<f64>,
    /// The model's largest value, when it is a number.
    pub maximum: Option<f64>,
}

/// A protocol: how settings are understood, and how a device is reached.
///
/// All devices share one thread: a protocol awaits and never blocks. One that panics is started again for that device
/// alone; one that panics again and again makes the device unhealthy, and is tried again a minute later. One that blocks
/// the thread for a minute ends the mapper with [`crate::MapperError::Blocked`].
pub trait Protocol: Send + Sync + 'static {
    /// Where a device is, from `protocol.configData`. A session lives on through a change that leaves it equal.
    type Address: PartialEq + Send + Sync + 'static;
    /// Where a property is within its device, from `visitors.configData`.
    type Visitor: PartialEq + Send + Sync + 'static;
    /// A connection to a device.
    type Session: Session<Visitor = Self::Visitor>;

    /// The protocol's name, as devices have it in `protocol.protocolName`.
    fn name(&self) -> &str;

    /// Understands where a device is.
    ///
    /// # Errors
    /// A sentence, when the settings are no address.
    fn address(&self, settings: &Settings) -> Result<Self::Address, InvalidSetting>;

    /// Understands where a property is.
    ///
    /// # Errors
    /// A sentence, when the settings do not lead to a value of the property's kind.
    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Self::Visitor, InvalidSetting>;

    /// Connects. The framework gives up on it after a while.
    fn connect(&self, address: &Self::Address) -> impl Future<Output = Result<Self::Session, Fault>> + Send;
}

/// A connection to one device. It is dropped after a [`Fault::Link`], and when a request took too long.
pub trait Session: Send + 'static {
    /// Where a property is.
    type Visitor;

    /// Reads a property.
    fn read(&mut self, visitor: &Self::Visitor) -> impl Future<Output = Result<Value, Fault>> + Send;

    /// Writes a property. The value is of the property's kind and within its limits.
    fn write(
        &mut self,
        visitor: &Self::Visitor,
        value: &Value,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}
