//! The settings of MQTT on the node: its own broker, and a broker elsewhere (`external`).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Defect;
use crate::external_broker::{ExternalServer, ExternalTls, Password};

/// 1 KiB: names and passwords that a broker is shown.
const EXTERNAL_TEXT_MAX: usize = 1 << 10;
/// 64 places from which pages come.
const ORIGINS_MAX: usize = 64;

/// MQTT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventBus {
    /// Where devices and applications meet: 0, the node's own broker; 2, the external one; 1, both.
    pub mqtt_mode: u8,
    /// The external broker: `tcp://HOST:PORT`, or `ssl://HOST:PORT` with [`EventBus::external_tls`].
    pub mqtt_server_external: String,
    /// The user that `edgecore` is there; empty: none.
    pub mqtt_username: String,
    /// Its password.
    pub mqtt_password: Password,
    /// The client id of the connection that listens there; empty: `hub-client-sub-` and the node's name.
    #[serde(rename = "mqttSubClientID")]
    pub mqtt_sub_client_id: String,
    /// The client id of the connection that publishes there; empty: `hub-client-pub-` and the node's name.
    #[serde(rename = "mqttPubClientID")]
    pub mqtt_pub_client_id: String,
    /// TLS to the external broker.
    #[serde(rename = "eventBusTLS")]
    pub external_tls: ExternalTls,
    /// The QoS of what `edgecore` itself publishes at its own broker, 0 to 2; at the external one it is 1.
    #[serde(rename = "mqttQOS")]
    pub mqtt_qos: u8,
    /// Whether that is retained there; at the external broker nothing is.
    pub mqtt_retain: bool,
    /// IP:port of the node's broker, without TLS; empty: none.
    pub mqtt_server_internal: String,
    /// Messages that wait for one client of the node's broker, 1 to 1,000: from so many on publishers of QoS 1 and 2 wait for a
    /// client that is there. Ten times as many are the end: what comes then is lost for one that is away, and one that is there
    /// is cut off.
    pub mqtt_session_queue_size: u32,
    /// The Unix socket beside it.
    pub unix_socket: MqttUnixSocket,
    /// The listener with TLS beside it.
    pub tls: MqttTls,
    /// The listener for WebSocket beside these.
    pub web_socket: MqttWebSocket,
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
    /// Small publishes a second of one connection, with a second's worth at once; those of one user or address together have twice
    /// that. Larger ones and such as many clients get count for more. 10 to 1,000,000; 0: no bound.
    pub max_messages_per_second: u32,
    /// The longest keep-alive of a client of MQTT 5, in seconds: one that asks for more, or for none, is told to keep to this; 0: as
    /// they ask.
    pub max_keep_alive: u16,
    /// Bytes of the largest packet of a client, which is a little more than its payload: 256 KiB to 64 MiB.
    pub max_message_bytes: u32,
    /// Bytes of all retained messages, with 256 for each beside its topic and payload: 1 MiB to 1 GiB.
    pub max_retained_bytes: u32,
}

impl Default for EventBus {
    fn default() -> Self {
        EventBus {
            mqtt_mode: 0,
            mqtt_server_external: "tcp://127.0.0.1:1883".to_owned(),
            mqtt_username: String::new(),
            mqtt_password: Password::default(),
            mqtt_sub_client_id: String::new(),
            mqtt_pub_client_id: String::new(),
            external_tls: ExternalTls::default(),
            mqtt_qos: 1,
            mqtt_retain: false,
            mqtt_server_internal: "127.0.0.1:1883".to_owned(),
            mqtt_session_queue_size: 100,
            unix_socket: MqttUnixSocket::default(),
            tls: MqttTls::default(),
            web_socket: MqttWebSocket::default(),
            allow_anonymous: true,
            password_file: PathBuf::new(),
            acl_file: PathBuf::new(),
            max_connections: 128,
            max_connections_per_address: 64,
            max_messages_per_second: 2_000,
            max_keep_alive: 0,
            max_message_bytes: 1 << 20,
            max_retained_bytes: 16 << 20,
        }
    }
}

impl EventBus {
    /// Whether the node has a broker of its own.
    pub fn has_own_broker(&self) -> bool {
        self.mqtt_mode < 2
    }

    /// Whether `edgecore` is a client of an external broker.
    pub fn has_external_broker(&self) -> bool {
        self.mqtt_mode > 0
    }

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
        let others =
            self.tls.enable || self.web_socket.enable || !self.unix_socket.path.as_os_str().is_empty();
        if plain.is_empty() && !others && self.has_own_broker() {
            say(
                "mqttServerInternal",
                "is empty, and no other listener is on: no client could connect".to_owned(),
            );
        }
        self.check_web_socket(&mut say);
        self.check_external(&mut say);
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
        if !(1..=1000).contains(&self.mqtt_session_queue_size) {
            say("mqttSessionQueueSize", format!("is {}, not 1 to 1000", self.mqtt_session_queue_size));
        }
        if !matches!(self.max_messages_per_second, 0 | 10..=1_000_000) {
            let what = format!("is {}, not 10 to 1000000, or 0 for no bound", self.max_messages_per_second);
            say("maxMessagesPerSecond", what);
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

impl EventBus {
    fn check_web_socket(&self, say: &mut impl FnMut(&str, String)) {
        let MqttWebSocket { enable, listen, path, tls, allowed_origins } = &self.web_socket;
        if *enable && listen.parse::<SocketAddr>().is_err() {
            say("webSocket.listen", format!("is `{listen}`, not IP:port"));
        }
        let is_path = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path || path.contains(['?', '#', '%']) {
            say("webSocket.path", format!("is `{path}`, not a path as in a URL: /mqtt"));
        }
        if *enable && *tls && !self.tls.enable {
            say(
                "webSocket.tls",
                "is true, and its files are those of tls: tls.enable has to be true, too".to_owned(),
            );
        }
        if allowed_origins.len() > ORIGINS_MAX {
            say("webSocket.allowedOrigins", format!("has more than {ORIGINS_MAX} entries"));
        }
        for origin in allowed_origins.iter().filter(|origin| !is_origin(origin)) {
            say("webSocket.allowedOrigins", format!("has `{origin}`, not https://HOST[:PORT] or *"));
        }
    }

    fn check_external(&self, say: &mut impl FnMut(&str, String)) {
        if self.mqtt_mode > 2 {
            let what = "not 0 (the node's own broker), 1 (both) or 2 (an external one)";
            say("mqttMode", format!("is {}, {what}", self.mqtt_mode));
        }
        if self.mqtt_qos > 2 {
            say("mqttQOS", format!("is {}, not 0, 1 or 2", self.mqtt_qos));
        }
        if !self.has_external_broker() {
            return;
        }
        if let Err((key, what)) = self.external_server() {
            say(key, what);
        }
        self.external_tls.defects(say);
        if !self.mqtt_password.is_empty() && self.mqtt_username.is_empty() {
            say("mqttPassword", "is set without mqttUsername".to_owned());
        }
        let texts = [
            ("mqttUsername", self.mqtt_username.as_str()),
            ("mqttPassword", self.mqtt_password.text()),
            ("mqttSubClientID", self.mqtt_sub_client_id.as_str()),
            ("mqttPubClientID", self.mqtt_pub_client_id.as_str()),
        ];
        for (key, text) in texts {
            if text.len() > EXTERNAL_TEXT_MAX || text.contains('\0') {
                say(key, format!("has more than {EXTERNAL_TEXT_MAX} bytes, or a NUL"));
            }
        }
        let (listens, publishes) = (&self.mqtt_sub_client_id, &self.mqtt_pub_client_id);
        if !listens.is_empty() && listens == publishes {
            say("mqttPubClientID", "is mqttSubClientID: a broker lets one of two such clients in".to_owned());
        }
        let listeners = [
            ("tls.enable", self.tls.enable),
            ("webSocket.enable", self.web_socket.enable),
            ("unixSocket.path", !self.unix_socket.path.as_os_str().is_empty()),
        ];
        for (key, _) in listeners.iter().filter(|(_, is_set)| *is_set && !self.has_own_broker()) {
            say(
                key,
                "is of the node's own broker, and there is none with mqttMode 2: write 1 for both".to_owned(),
            );
        }
        if self.has_own_broker()
            && self.external_server().is_ok_and(|server| server.is_at(&self.mqtt_server_internal))
        {
            let what =
                "is mqttServerInternal, and with mqttMode 1 they are two brokers: give one another port";
            say("mqttServerExternal", what.to_owned());
        }
    }

    /// Where the external broker is, or which key is wrong and why.
    ///
    /// # Errors
    /// The key below `modules.eventBus`, and a sentence.
    pub fn external_server(&self) -> Result<ExternalServer, (&'static str, String)> {
        ExternalServer::parse(&self.mqtt_server_external, self.external_tls.enable)
    }
}

/// Whether a browser could send it as `Origin`, `*` apart.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']))
}

/// The broker's listener for MQTT over WebSocket (MQTT 5, section 6), for pages in browsers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MqttWebSocket {
    /// Whether it is used at all.
    pub enable: bool,
    /// IP:port.
    pub listen: String,
    /// The path that a client asks for.
    pub path: String,
    /// Whether clients reach it in TLS, with the files of [`EventBus::tls`] (`wss://`).
    pub tls: bool,
    /// Whose pages may connect: `https://HOST[:PORT]` as browsers send it, `*` for any. Those that come from the listener's own
    /// address, and clients that are no browsers, always may.
    pub allowed_origins: Vec<String>,
}

impl Default for MqttWebSocket {
    fn default() -> Self {
        MqttWebSocket {
            enable: false,
            listen: "127.0.0.1:8083".to_owned(),
            path: "/mqtt".to_owned(),
            tls: false,
            allowed_origins: Vec::new(),
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
    fn a_queue_has_room_for_a_message_and_not_for_all_memory() {
        for (size, fits) in [(0, false), (1, true), (1000, true), (1001, false)] {
            let mut defects = Vec::new();
            EventBus { mqtt_session_queue_size: size, ..EventBus::default() }.defects(&mut defects);
            let keys: Vec<&str> = defects.iter().map(|defect| defect.key.as_str()).collect();
            assert_eq!(keys, if fits { &[][..] } else { &["modules.eventBus.mqttSessionQueueSize"] });
        }
    }

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
