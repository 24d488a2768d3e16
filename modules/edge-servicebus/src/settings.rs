//! What the ServiceBus is told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::edge::EdgeCore;

/// By the settings of `edgecore`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where applications call; `None`: it is off.
    pub address: Option<SocketAddr>,
    /// How long a call of an application waits.
    pub within: Duration,
    /// The certificate shown there and its key; `None`: HTTP without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Ports of `edgecore`'s own on loopback, which no rule calls: who may write a rule is not therefore who may speak to them.
    pub own_ports: BTreeSet<u16>,
}

impl Settings {
    /// Those of a node.
    pub fn new(settings: &EdgeCore) -> Self {
        let bus = &settings.modules.service_bus;
        Settings {
            address: bus.address().filter(|_| bus.enable),
            within: Duration::from_secs(bus.timeout.into()),
            tls: bus.has_tls().then(|| (bus.tls_cert_file.clone(), bus.tls_private_key_file.clone())),
            own_ports: settings.own_ports(),
        }
    }
}
