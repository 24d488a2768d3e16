//! The settings of a broker elsewhere, of which `edgecore` is a client: KubeEdge's `mqttServerExternal` and what belongs to it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use crate::load::parse_host_port;

/// TLS to the external broker, in KubeEdge's words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalTls {
    /// Whether it is used.
    pub enable: bool,
    /// CAs of the broker's certificate, PEM.
    #[serde(rename = "tlsMqttCAFile")]
    pub tls_mqtt_ca_file: PathBuf,
    /// The certificate that `edgecore` shows, with what is between it and its CA, PEM; empty: none.
    pub tls_mqtt_cert_file: PathBuf,
    /// Its key, PEM.
    pub tls_mqtt_private_key_file: PathBuf,
}

impl ExternalTls {
    pub(crate) fn defects(&self, say: &mut impl FnMut(&str, String)) {
        if !self.enable {
            return;
        }
        let files = [
            ("eventBusTLS.tlsMqttCAFile", &self.tls_mqtt_ca_file),
            ("eventBusTLS.tlsMqttCertFile", &self.tls_mqtt_cert_file),
            ("eventBusTLS.tlsMqttPrivateKeyFile", &self.tls_mqtt_private_key_file),
        ];
        for (key, path) in files {
            if !path.as_os_str().is_empty() && !path.is_absolute() {
                say(key, format!("is `{}`, not an absolute path", path.display()));
            }
        }
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        if is_empty(&self.tls_mqtt_ca_file) {
            let what =
                "is empty: the broker's certificate would not be checked, and anybody could be the broker";
            say("eventBusTLS.tlsMqttCAFile", what.to_owned());
        }
        match (is_empty(&self.tls_mqtt_cert_file), is_empty(&self.tls_mqtt_private_key_file)) {
            (true, false) => {
                say("eventBusTLS.tlsMqttCertFile", "is empty beside a tlsMqttPrivateKeyFile".to_owned());
            }
            (false, true) => {
                say("eventBusTLS.tlsMqttPrivateKeyFile", "is empty beside a tlsMqttCertFile".to_owned());
            }
            _ => {}
        }
    }
}

/// A password: it is written into a file of settings, and shows nowhere else.
#[derive(Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Password(String);

impl Password {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The password itself, for the broker alone.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Password(text.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "(not shown)" })
    }
}

impl<'de> Deserialize<'de> for Password {
    /// Whatever else stands there is not named by the error, as it may be the password without its quotes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Password(text)),
            serde_json::Value::Null => Ok(Password::default()),
            _ => Err(serde::de::Error::custom("password is no text: put it in quotes")),
        }
    }
}

/// Where an external broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalServer {
    /// A name or an address.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// Whether it is spoken to in TLS.
    pub tls: bool,
}

/// Schemes of URLs that KubeEdge's client of MQTT takes, without and with TLS.
const PLAIN: [&str; 2] = ["tcp", "mqtt"];
const IN_TLS: [&str; 4] = ["ssl", "tls", "mqtts", "tcps"];

impl ExternalServer {
    pub(crate) fn parse(url: &str, tls: bool) -> Result<Self, (&'static str, String)> {
        const SERVER: &str = "mqttServerExternal";
        let (scheme, rest) = url.split_once("://").unwrap_or(("tcp", url));
        let in_tls = IN_TLS.contains(&scheme);
        if !in_tls && !PLAIN.contains(&scheme) {
            let what = format!(
                "is `{scheme}://…`, which is not spoken to a broker: write tcp://HOST:PORT or ssl://HOST:PORT"
            );
            return Err((SERVER, what));
        }
        // Whoever is named in the URL would be shown in logs.
        if rest.contains('@') {
            return Err((SERVER, "names a user: write mqttUsername and mqttPassword".to_owned()));
        }
        let (host, port) = parse_host_port(rest.trim_end_matches('/')).map_err(|what| {
            (SERVER, format!("is not usable: {what}; write tcp://HOST:PORT or ssl://HOST:PORT"))
        })?;
        match (in_tls, tls) {
            (true, false) => Err((
                "eventBusTLS.enable",
                format!(
                    "is false, and mqttServerExternal is {scheme}://: set it to true, with tlsMqttCAFile"
                ),
            )),
            (false, true) => Err((
                SERVER,
                format!(
                    "is {scheme}://, which is not encrypted, and eventBusTLS.enable is true: write ssl://{host}:{port}"
                ),
            )),
            _ => Ok(ExternalServer { host, port, tls }),
        }
    }

    /// Whether it is what a listener of the node's own is at.
    pub(crate) fn is_at(&self, listener: &str) -> bool {
        let Ok(listener) = listener.parse::<SocketAddr>() else { return false };
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        let same = host.parse() == Ok(listener.ip());
        let ours =
            listener.ip().is_unspecified() && host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        self.port == listener.port() && (same || ours)
    }
}

impl fmt::Display for ExternalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "ssl" } else { "tcp" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::EventBus;
    use crate::error::Defect;

    fn keys(settings: &EventBus) -> Vec<String> {
        let mut defects: Vec<Defect> = Vec::new();
        settings.defects(&mut defects);
        defects
            .into_iter()
            .map(|defect| defect.key.trim_start_matches("modules.eventBus.").to_owned())
            .collect()
    }

    fn external(url: &str) -> EventBus {
        EventBus { mqtt_mode: 2, mqtt_server_external: url.to_owned(), ..EventBus::default() }
    }

    #[test]
    fn a_url_says_where_the_broker_is_and_whether_in_tls() {
        let server = ExternalServer::parse("tcp://[fd00::1]:1883", false).unwrap();
        assert_eq!((server.host.as_str(), server.port, server.tls), ("fd00::1", 1883, false));
        assert_eq!(server.to_string(), "tcp://[fd00::1]:1883");
        for url in ["tcp://a:1883", "mqtt://a:1883", "a:1883", "tcp://a:1883/"] {
            assert_eq!(keys(&external(url)), [] as [String; 0], "{url}");
        }
        for url in ["ws://a:80", "unix:///x", "tcp://a", "tcp://:1883", "tcp://u:p@a:1883", "tcp://a:0", ""] {
            assert_eq!(keys(&external(url)), ["mqttServerExternal"], "{url}");
        }
        let (key, what) = ExternalServer::parse("tcp://plc:secret@a:1883", false).unwrap_err();
        assert!(!what.contains("secret"), "{key}: {what}");
    }

    #[test]
    fn what_would_be_sent_in_clear_or_to_anybody_is_refused() {
        assert_eq!(keys(&external("ssl://a:8883")), ["eventBusTLS.enable"]);
        let mut settings = external("tcp://a:1883");
        settings.external_tls =
            ExternalTls { enable: true, tls_mqtt_ca_file: "/ca".into(), ..ExternalTls::default() };
        assert_eq!(keys(&settings), ["mqttServerExternal"]);
        settings.mqtt_server_external = "ssl://a:8883".to_owned();
        assert_eq!(keys(&settings), [] as [String; 0]);
        settings.external_tls.tls_mqtt_ca_file = PathBuf::new();
        settings.external_tls.tls_mqtt_cert_file = "cert".into();
        let wanted =
            ["eventBusTLS.tlsMqttCertFile", "eventBusTLS.tlsMqttCAFile", "eventBusTLS.tlsMqttPrivateKeyFile"];
        assert_eq!(keys(&settings), wanted);
    }

    #[test]
    fn what_one_mode_does_not_do_is_refused_by_name() {
        let mut settings = external("tcp://a:1883");
        settings.unix_socket.path = "/run/mqtt.sock".into();
        settings.web_socket.enable = true;
        assert_eq!(keys(&settings), ["webSocket.enable", "unixSocket.path"]);
        settings.mqtt_mode = 1;
        assert_eq!(keys(&settings), [] as [String; 0]);
        settings.mqtt_server_external = "tcp://localhost:1883".to_owned();
        assert_eq!(keys(&settings), ["mqttServerExternal"]);
        settings.mqtt_mode = 3;
        settings.mqtt_server_external = "tcp://a:1883".to_owned();
        settings.mqtt_qos = 3;
        settings.unix_socket = Default::default();
        settings.web_socket = Default::default();
        assert_eq!(keys(&settings), ["mqttMode", "mqttQOS"]);
        let mut settings = external("tcp://a:1883");
        settings.mqtt_password = "x".into();
        (settings.mqtt_sub_client_id, settings.mqtt_pub_client_id) = ("a".to_owned(), "a".to_owned());
        assert_eq!(keys(&settings), ["mqttPassword", "mqttPubClientID"]);
    }

    #[test]
    fn a_password_shows_in_no_error_and_in_no_debug_output() {
        let settings = EventBus { mqtt_password: "secret".into(), ..EventBus::default() };
        assert!(!format!("{settings:?}").contains("secret"));
        let error = serde_json::from_str::<Password>("4711").unwrap_err().to_string();
        assert!(!error.contains("4711"), "{error}");
        assert_eq!(serde_json::from_str::<Password>("null").unwrap(), Password::default());
        assert_eq!(serde_json::from_str::<Password>("\"a b\"").unwrap().text(), "a b");
    }
}
