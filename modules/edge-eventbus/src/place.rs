//! The places where the settings say that clients connect. Pure.

use std::path::PathBuf;

use config::edge::{EventBus as Settings, MqttTls};

/// A place where the settings say that clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// MQTT at an address.
    Plain(String),
    /// MQTT in TLS at an address.
    Tls(String),
    /// MQTT over WebSocket at an address, in TLS or not.
    WebSocket { listen: String, tls: bool },
    /// A Unix socket for a group.
    Unix { path: PathBuf, group: String },
}

/// All that the settings name.
pub(crate) fn of(settings: &Settings) -> Vec<Place> {
    let Settings { mqtt_server_internal, tls, web_socket, unix_socket, .. } = settings;
    let mut places = Vec::new();
    if !mqtt_server_internal.is_empty() {
        places.push(Place::Plain(mqtt_server_internal.clone()));
    }
    if tls.enable {
        places.push(Place::Tls(tls.listen.clone()));
    }
    if web_socket.enable {
        places.push(Place::WebSocket { listen: web_socket.listen.clone(), tls: web_socket.tls });
    }
    if !unix_socket.path.as_os_str().is_empty() {
        places.push(Place::Unix { path: unix_socket.path.clone(), group: unix_socket.group.clone() });
    }
    places
}

impl Place {
    /// Whether nobody comes in there without a certificate.
    pub(crate) fn wants_certificates(&self, tls: &MqttTls) -> bool {
        let has_tls = matches!(self, Place::Tls(_) | Place::WebSocket { tls: true, .. });
        has_tls && !tls.client_ca_file.as_os_str().is_empty()
    }

    /// The setting that names it.
    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Place::Plain(_) => "modules.eventBus.mqttServerInternal",
            Place::Tls(_) => "modules.eventBus.tls.listen",
            Place::WebSocket { .. } => "modules.eventBus.webSocket.listen",
            Place::Unix { .. } => "modules.eventBus.unixSocket",
        }
    }
}
