//! The settings of the node's MQTT broker.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Defect;

/// MQTT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventBus {
    /// IP:port of the node's broker, without TLS; empty: none.
    pub mqtt_server_internal: String,
    /// The Unix socket beside it.
    pub unix_socket: MqttUnixSocket,
    /// The listener with TLS beside it.
    pub tls: MqttTls,
    /// Whether clients without a user name get in.
    pub allow_anonymous: bool,
    /// Users and their hashes, as mosquitto_passwd writes them; empty: no user logs in by password.
    pub password_file: PathBuf,
    /// Who may read and write which topics, in the syntax of mosquitto's acl_file; empty: every client
    /// may do what KubeEdge's devices and applications do.
    pub acl_file: PathBuf,
    /// Clients at once, over all listeners: 1 to 1024.
    pub max_connections: u16,
    /// Clients at once from one address, loopback excepted, or of one user of the Unix socket: at least 1.
    pub max_connections_per_address: u16,
    /// Bytes of the largest packet of a client, which is a little more than its payload: 256 KiB to 64 MiB.
    pub max_message_bytes: u32,
    /// Bytes of all retained messages, with 256 for each beside its topic and payload: 1 MiB to 1 GiB.
    pub max_retained_bytes: u32,
}

impl Default for EventBus {
    fn default() -> Self {
        EventBus {
            mqtt_server_internal: "127.0.0.1:1883".to_owned(),
            unix_socket: MqttUnixSocket::default(),
            tls: MqttTls::default(),
            allow_anonymous: true,
            password_file: PathBuf::new(),
            acl_file: PathBuf::new(),
            max_connections: 128,
            max_connections_per_address: 64,
            max_message_bytes: 1 << 20,
            max_retained_bytes: 16 << 20,
        }
    }
}

impl EventBus {
    /// Whether a client may prove who it is.
    fn has_logins(&self) -> bool {
        !self.password_file.as_os_str().is_empty()
            || (self.tls.enable && !self.tls.client_ca_file.as_os_str().is_empty())
    }

    /// KubeEdge writes listeners as URLs.
    pub(crate) fn take_urls(&mut self) {
        if let Some(address) = self.mqtt_server_internal.strip_prefix("tcp://") {
            self.mqtt_server_internal = address.to_owned();
        }
    }

    pub(crate) fn defects(&self, defects: &mut Vec<Defect>) {
        crate::load::check_socket("modules.eventBus.unixSocket.path", &self.unix_socket.path, defects);
        let mut say = |key: &str, what: String| {
            defects.push(Defect::new(&format!("modules.eventBus.{key}"), what));
        };
        let plain = &self.mqtt_server_internal;
        if !plain.is_empty() && plain.parse::<SocketAddr>().is_err() {
            say("mqttServerInternal", format!("is `{plain}`, not IP:port"));
        }
        let group = &self.unix_socket.group;
        if group.len() > 64 || group.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':') {
            say("unixSocket.group", "is not the name or number of a group".to_owned());
        }
        for (key, path) in [
            ("passwordFile", &self.password_file),
            ("aclFile", &self.acl_file),
            ("tls.certFile", &self.tls.cert_file),
            ("tls.keyFile", &self.tls.key_file),
            ("tls.clientCaFile", &self.tls.client_ca_file),
            ("tls.crlFile", &self.tls.crl_file),
        ] {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                say(key, format!("is `{}`, not an absolute path", path.display()));
            }
        }
        if plain.is_empty() && self.unix_socket.path.as_os_str().is_empty() && !self.tls.enable {
            say(
                "mqttServerInternal",
                "is empty, and no other listener is on: no client could connect".to_owned(),
            );
        }
        if self.tls.enable {
            if self.tls.listen.parse::<SocketAddr>().is_err() {
                say("tls.listen", format!("is `{}`, not IP:port", self.tls.listen));
            }
            for (key, path) in [("tls.certFile", &self.tls.cert_file), ("tls.keyFile", &self.tls.key_file)] {
                if path.as_os_str().is_empty() {
                    say(key, "is empty; tls.enable needs it".to_owned());
                }
            }
        }
        if !self.tls.crl_file.as_os_str().is_empty() && self.tls.client_ca_file.as_os_str().is_empty() {
            say("tls.crlFile", "has no effect without tls.clientCaFile".to_owned());
        }
        if !self.allow_anonymous && !self.has_logins() {
            let what = "is false, and neither passwordFile nor tls.clientCaFile lets a user log in: no client could connect";
            say("allowAnonymous", what.to_owned());
        }
        if self.max_connections == 0 || self.max_connections > 1024 {
            say("maxConnections", format!("is {}, not 1 to 1024", self.max_connections));
        }
        if !(256 << 10..=64 << 20).contains(&self.max_message_bytes) {
            say("maxMessageBytes", format!("is {}, not 262144 to 67108864", self.max_message_bytes));
        }
        if !(1 << 20..=1 << 30).contains(&self.max_retained_bytes) {
            say("maxRetainedBytes", format!("is {}, not 1048576 to 1073741824", self.max_retained_bytes));
        }
        if self.max_connections_per_address == 0 {
            say("maxConnectionsPerAddress", "is 0; it must be at least 1".to_owned());
        }
    }
}

/// The broker's Unix socket. Who may open it may connect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MqttUnixSocket {
    /// Where it is, in a folder that exists; empty: none.
    pub path: PathBuf,
    /// The group that may open it beside EdgeCore's own user, by name or number; empty: EdgeCore's own group.
    pub group: String,
}

/// The broker's listener with TLS 1.2 and 1.3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MqttTls {
    /// Whether it is used at all.
    pub enable: bool,
    /// IP:port.
    pub listen: String,
    /// The broker's certificate and what is between it and the CA, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// CAs of the clients' certificates, PEM. With it a client needs a certificate, whose common name is its user name;
    /// empty: clients log in as on the listener without TLS.
    pub client_ca_file: PathBuf,
    /// Revoked ones of these certificates, PEM; empty: none.
    pub crl_file: PathBuf,
}

impl Default for MqttTls {
    fn default() -> Self {
        MqttTls {
            enable: false,
            listen: "0.0.0.0:8883".to_owned(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
            crl_file: PathBuf::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_absolute_paths_and_a_group_a_name() {
        let mut settings = EventBus { password_file: "passwords".into(), ..EventBus::default() };
        settings.acl_file = "./acl".into();
        settings.unix_socket.group = "mqtt users".to_owned();
        settings.tls.client_ca_file = "ca".into();
        let mut defects = Vec::new();
        settings.defects(&mut defects);
        let keys: Vec<String> = defects.into_iter().map(|defect| defect.key).collect();
        let wanted = ["unixSocket.group", "passwordFile", "aclFile", "tls.clientCaFile"];
        assert_eq!(keys, wanted.map(|key| format!("modules.eventBus.{key}")));
        let mut settings =
            EventBus { password_file: "/etc/kubehive/mqtt-passwords".into(), ..EventBus::default() };
        settings.unix_socket.group = "mqtt".to_owned();
        let mut defects = Vec::new();
        settings.defects(&mut defects);
        assert_eq!(defects, []);
    }
}
