//! The mapper of devices that speak HTTP and JSON.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//! Properties with the same path are read by one request; a stream is a picture that is asked for again and again, or one answer that
//! does not end (`multipart/x-mixed-replace`). It speaks HTTP/1.1 without TLS: what is behind `https` needs a proxy
//! on the node. A Device leads it to no address that is its machine's alone, unless its file says so.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod camera;
mod exchange;
mod parts;
mod session;
mod visitor;

use std::net::SocketAddr;
use std::sync::Arc;

use framework::answers::Answers;
use framework::host::Targets;
use framework::{Fault, InvalidSetting, Property, Protocol, Settings};

pub use address::{Address, Login};
pub use session::HttpSession;
pub use visitor::{Visitor, Write};

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "http";

/// HTTP and JSON. What it knows of all its devices: where they may be, and the room for their answers.
#[derive(Debug, Clone, Default)]
pub struct HttpDevice {
    targets: Arc<Targets>,
    answers: Answers,
}

impl HttpDevice {
    /// For devices at these addresses.
    pub fn new(targets: Targets) -> Self {
        HttpDevice { targets: Arc::new(targets), answers: Answers::default() }
    }
}

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
        let address = Address::read(settings)?;
        // A name is judged by the address that is dialled.
        if let Ok(ip) = address.host.parse() {
            let judged = self.targets.check(&address.host, SocketAddr::new(ip, address.port));
            judged.map_err(|sentence| InvalidSetting::new(format!("setting `url`: {sentence}")))?;
        }
        Ok(address)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    fn judges_targets(&self) -> bool {
        true
    }

    async fn connect(&self, address: &Address) -> Result<HttpSession, Fault> {
        HttpSession::open(address.clone(), self.clone()).await
    }
}
