//! `modules.serviceBus` of `edgecore.yaml`: rules between HTTP on the node and in the cloud.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Defect;

/// HTTP of the node and rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceBus {
    /// Whether rules may call services on the node's loopback, and applications call rules' targets.
    pub enable: bool,
    /// Where applications call: an IP address of loopback, or with TLS any of this host.
    pub server: String,
    /// The port there.
    pub port: u16,
    /// How long a call of an application waits for the target in the cloud, in seconds: 1 to 600.
    pub timeout: u32,
    /// The certificate shown there and its key, PEM; both empty: HTTP without TLS.
    pub tls_cert_file: PathBuf,
    /// See `tls_cert_file`.
    pub tls_private_key_file: PathBuf,
}

impl Default for ServiceBus {
    fn default() -> Self {
        ServiceBus {
            enable: false,
            server: "127.0.0.1".to_owned(),
            port: 9060,
            timeout: 60,
            tls_cert_file: PathBuf::new(),
            tls_private_key_file: PathBuf::new(),
        }
    }
}

impl ServiceBus {
    /// Where applications call; `None` where the address is none.
    pub fn address(&self) -> Option<SocketAddr> {
        Some((self.server.parse::<IpAddr>().ok()?, self.port).into())
    }

    /// Whether it shows a certificate.
    pub fn has_tls(&self) -> bool {
        !self.tls_cert_file.as_os_str().is_empty()
    }

    pub(crate) fn check(&self, defects: &mut Vec<Defect>) {
        let mut told = |name: &str, what: String| {
            defects.push(Defect::new(&format!("modules.serviceBus.{name}"), what));
        };
        let has_key = !self.tls_private_key_file.as_os_str().is_empty();
        if self.has_tls() != has_key {
            let name = if has_key { "tlsCertFile" } else { "tlsPrivateKeyFile" };
            told(name, "is empty: certificate and key belong together".to_owned());
        }
        match self.address() {
            None => told("server", format!("is `{}`, not an IP address", self.server)),
            Some(address) if !address.ip().is_loopback() && !self.has_tls() => {
                let what = "is no address of loopback: whoever reaches it could call rules' targets, and read along; name \
                            tlsCertFile and tlsPrivateKeyFile, or 127.0.0.1";
                told("server", what.to_owned());
            }
            Some(_) => {}
        }
        if !(1..=600).contains(&self.timeout) {
            told("timeout", "is not a number of seconds from 1 to 600".to_owned());
        }
        for (name, path) in
            [("tlsCertFile", &self.tls_cert_file), ("tlsPrivateKeyFile", &self.tls_private_key_file)]
        {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                told(name, format!("is `{}`, not an absolute path", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl FnOnce(&mut ServiceBus)) -> Vec<String> {
        let mut bus = ServiceBus::default();
        change(&mut bus);
        let mut defects = Vec::new();
        bus.check(&mut defects);
        defects.into_iter().map(|defect| defect.key).collect()
    }

    #[test]
    fn beyond_loopback_it_has_tls() {
        let with_tls = |bus: &mut ServiceBus, server: &str| {
            (bus.tls_cert_file, bus.tls_private_key_file) = ("/c".into(), "/k".into());
            bus.server = server.to_owned();
        };
        assert_eq!(told(|_| ()), [] as [&str; 0]);
        assert_eq!(told(|bus| bus.server = "::1".into()), [] as [&str; 0]);
        assert_eq!(told(|bus| bus.server = "0.0.0.0".into()), ["modules.serviceBus.server"]);
        assert_eq!(told(|bus| with_tls(bus, "0.0.0.0")), [] as [&str; 0]);
        assert_eq!(told(|bus| bus.server = "localhost".into()), ["modules.serviceBus.server"]);
        assert_eq!(told(|bus| bus.tls_cert_file = "/c".into()), ["modules.serviceBus.tlsPrivateKeyFile"]);
        assert_eq!(told(|bus| bus.tls_private_key_file = "/k".into()), ["modules.serviceBus.tlsCertFile"]);
        assert_eq!(told(|bus| bus.timeout = 0), ["modules.serviceBus.timeout"]);
    }
}
