//! The mapper of devices that are OPC UA servers.
//!
//! What a device's `protocol.configData` and a property's `visitors.configData` may say stands in the README beside this crate.
//!
//! Devices at one server with one login share a session (`connections`, `opening`, `connection`), which keeps no more of what a server
//! sends than was agreed (`connector`, `chunk_sizes`), and outlives an answer that is too large (`transport`). What is read together goes in
//! one request, but for what would keep all else out of its answer (`reads`, `sizes`), what changes is sent by the server (`monitor`, `items`, `looks`, `last_sent`), what is written has the node's own type (`values`), and a server's
//! certificate is trusted by a person's hand or not at all (`pki`).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod chunk_sizes;
mod connection;
mod connections;
mod connector;
mod dropped_sessions;
mod endpoint;
mod items;
mod last_sent;
mod looks;
mod method;
mod monitor;
mod node;
mod opening;
mod pki;
mod reads;
mod session;
mod sizes;
mod status;
mod transport;
mod values;
mod visitor;

use std::path::{Path, PathBuf};
use std::time::Duration;

use framework::{Fault, InvalidSetting, Property, Protocol, Settings};

pub use address::{Address, Login};
pub use framework::Secret;
pub use node::Node;
pub use session::OpcUaSession;
pub use visitor::{Monitoring, Visitor};

use connections::Connections;
use pki::Pki;

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "opcua";
/// Crates whose own lines are left out of the log: what is wrong is told once, by device and property.
pub const LIBRARIES: [&str; 4] = ["opcua_client", "opcua_core", "opcua_crypto", "opcua_types"];
/// The folder of certificates, beside the mapper's socket.
const FOLDER: &str = "opcua";

/// OPC UA over TCP, binary.
#[derive(Debug, Clone)]
pub struct OpcUa {
    connections: Connections,
    look_every: Duration,
}

impl OpcUa {
    /// With its certificates in the folder `opcua` beside the mapper's socket.
    pub fn beside(socket: &Path) -> Self {
        OpcUa::with(socket.parent().unwrap_or(Path::new(".")).join(FOLDER))
    }

    /// With its certificates in this folder.
    pub fn with(folder: PathBuf) -> Self {
        OpcUa { connections: Connections::new(Pki::at(folder)), look_every: monitor::LOOK_EVERY }
    }

    /// Looks that often, and not once a minute, whether what a server has sent is still so.
    #[must_use]
    pub fn looking_every(self, look_every: Duration) -> Self {
        OpcUa { look_every, ..self }
    }
}

impl Protocol for OpcUa {
    type Address = Address;
    type Visitor = Visitor;
    type Session = OpcUaSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        let address = Address::read(settings)?;
        if let Login::User(_, secret) = &address.login {
            secret.check_place(self.connections.folder()).map_err(InvalidSetting::new)?;
        }
        Ok(address)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        Visitor::read(property, settings)
    }

    fn is_command(&self, visitor: &Visitor) -> bool {
        visitor.method.is_some()
    }

    /// For the offer, the session, and whoever opens the same one first.
    fn connect_deadline(&self, address: &Address) -> Duration {
        address.timeout * 12
    }

    async fn connect(&self, address: &Address) -> Result<OpcUaSession, Fault> {
        let connection = self.connections.at(address).await?;
        Ok(OpcUaSession::new(connection, address.timeout, self.look_every))
    }
}
