//! The mapper of devices that speak HTTP and JSON.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//! Properties with the same path are read by one request; a stream is a picture that is asked for again and again, or one answer that
//! does not end (`multipart/x-mixed-replace`). It speaks HTTP/1.1 without TLS: what is behind `https` needs a proxy
//! on the node.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod camera;
mod exchange;
mod parts;
mod session;
mod visitor;

use framework::{Fault, InvalidSetting, Property, Protocol, Settings};

pub use address::{Address, Login};
pub use session::HttpSession;
pub use visitor::{Visitor, Write};

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "http";

/// HTTP and JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpDevice;

impl Protocol for HttpDevice {
    type Address = Address;
    type Visitor = Visitor;
    type Session = HttpSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn has_streams(&self) -> bool {
        true
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        Address::read(settings)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    async fn connect(&self, address: &Address) -> Result<HttpSession, Fault> {
        HttpSession::open(address.clone()).await
    }
}
