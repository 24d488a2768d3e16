//! The config file of a mapper, with the keys of KubeEdge's mapper framework.

use std::fmt;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::host::Targets;
use crate::push::Credentials;
use crate::rest::Allowed;

/// 1 MiB: the largest config file that is read.
pub const FILE_MAX: u64 = 1 << 20;
/// Where edgecore listens unless it is configured otherwise.
pub const DEFAULT_EDGECORE_SOCKET: &str = "/etc/kubeedge/dmi.sock";
/// What a mapper can do about its devices: ask edgecore for them.
const REGISTER: &str = "register";
/// The keys that are understood.
const KNOWN: [(&str, &[&str]); 3] = [
    ("grpc_server", &["socket_path"]),
    (
        "common",
        &[
            "name",
            "version",
            "api_version",
            "protocol",
            "address",
            "edgecore_sock",
            "http_port",
            "http_allow",
            "command_log",
            "stream_dir",
            "allowed_targets",
        ],
    ),
    ("dev_init", &["mode"]),
];

/// Sections of older mappers of KubeEdge's, which speak to a broker or read their devices from a file: without effect here.
const OF_KUBEEDGE: [&str; 3] = ["mqtt", "http_server", "configmap"];

/// A mapper's config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// The mapper's own socket.
    pub grpc_server: GrpcServer,
    /// Who the mapper is, and where edgecore is.
    pub common: Common,
    /// Where devices come from.
    #[serde(default)]
    pub dev_init: DevInit,
    /// What it logs in with where readings are pushed; of the environment, never of the file.
    #[serde(skip)]
    pub credentials: Credentials,
}

/// The mapper's own socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GrpcServer {
    /// Its path; edgecore is told of it at registration.
    pub socket_path: PathBuf,
}

/// Who the mapper is, and where edgecore is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Common {
    /// The mapper's name on its node.
    pub name: String,
    /// The mapper's version.
    #[serde(default)]
    pub version: String,
    /// The version of the interface that it speaks.
    #[serde(default)]
    pub api_version: String,
    /// The protocol; it selects the devices that edgecore hands out.
    #[serde(default)]
    pub protocol: String,
    /// Where the REST interface listens, if `http_port` is given; empty: on loopback.
    #[serde(default)]
    pub address: String,
    /// edgecore's socket.
    #[serde(default = "default_edgecore_socket")]
    pub edgecore_sock: String,
    /// The port of the REST interface. Empty: there is none.
    #[serde(default, deserialize_with = "text_or_number")]
    pub http_port: String,
    /// What may be done over it: `read`, or `read,write`. Empty: both on loopback, and nothing beyond it.
    #[serde(default)]
    pub http_allow: String,
    /// The file that keeps which commands were sent to devices. Empty: beside the mapper's own socket.
    #[serde(default)]
    pub command_log: PathBuf,
    /// The folder below which streams of cameras are saved. Empty: none is.
    #[serde(default)]
    pub stream_dir: PathBuf,
    /// Which addresses devices may have beside those that are open to all. Only a protocol that
    /// [judges](crate::Protocol::judges_targets) addresses takes it.
    #[serde(default)]
    pub allowed_targets: Targets,
}

/// Where devices come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DevInit {
    /// `register`, or empty for the same.
    #[serde(default)]
    pub mode: String,
}

/// Why a config file was not taken.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read config file `{}`: check that it exists and may be read, or name another with --config-file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("config file `{}` has more than {FILE_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no YAML of the expected shape.
    #[error("config file `{}` is not understood: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// Keys that nobody knows, a misspelt one most often.
    #[error("config file `{}` has keys that no mapper knows: {}; correct or remove them", path.display(), keys.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The dotted keys.
        keys: Vec<String>,
    },
    /// A value is wrong.
    #[error("config file `{}`: `{key}` {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The dotted key.
        key: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// One document of YAML. 16 aliases are more than anybody writes into a config file, and aliases of aliases could make a gigabyte
/// of it.
fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 16 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    serde_saphyr::from_str_with_options(text, options)
}

impl Config {
    /// Reads a config file; `protocol` is what `common.protocol` is when the file leaves it out.
    ///
    /// # Errors
    /// With the file, the key and the cure.
    pub fn read(path: &Path, protocol: &str) -> Result<Self, ConfigError> {
        let text = read_capped(path)?;
        let parse = |reason: String| ConfigError::Parse { path: path.to_owned(), reason };
        // First, because a misspelt key is most often the cause of one that is missing.
        let (without_effect, keys): (Vec<_>, Vec<_>) =
            unknown_keys(&text).into_iter().partition(|key| OF_KUBEEDGE.contains(&key.as_str()));
        if !keys.is_empty() {
            return Err(ConfigError::Unknown { path: path.to_owned(), keys });
        }
        let mut config: Config = yaml(&text).map_err(|error| parse(error.to_string()))?;
        for section in without_effect {
            tracing::warn!(file = %path.display(), section, "section of KubeEdge's older mappers has no effect");
        }
        if config.common.protocol.is_empty() {
            protocol.clone_into(&mut config.common.protocol);
        }
        config.check(path)?;
        config.credentials = Credentials::of_the_environment();
        Ok(config)
    }

    /// Where the REST interface listens, and what may be done over it. None: it is not served.
    pub(crate) fn rest(&self) -> Result<Option<(SocketAddr, Allowed)>, String> {
        let common = &self.common;
        if common.http_port.is_empty() {
            return Ok(None);
        }
        let wrong_port =
            || format!("common.http_port is `{}`; write a port, or leave it out", common.http_port);
        let port: u16 = common.http_port.trim().parse().map_err(|_| wrong_port())?;
        let address = match common.address.as_str() {
            "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            address => address
                .parse()
                .map_err(|_| format!("common.address is `{address}`; write an IP address of this machine"))?,
        };
        let allowed = match common.http_allow.replace(' ', "").as_str() {
            "" => Allowed { read: address.is_loopback(), write: address.is_loopback() },
            "read" => Allowed { read: true, write: false },
            "write" => Allowed { read: false, write: true },
            "read,write" | "write,read" => Allowed { read: true, write: true },
            other => return Err(format!("common.http_allow is `{other}`; write read, write or read,write")),
        };
        if !allowed.read && !allowed.write {
            tracing::warn!(
                %address,
                "the REST interface is not served beyond loopback unless common.http_allow says what is allowed there"
            );
            return Ok(None);
        }
        Ok(Some((SocketAddr::new(address, port), allowed)))
    }

    /// Where it is kept which commands were sent.
    pub fn command_log(&self) -> PathBuf {
        if !self.common.command_log.as_os_str().is_empty() {
            return self.common.command_log.clone();
        }
        let mut path = self.grpc_server.socket_path.clone().into_os_string();
        path.push(".commands.json");
        path.into()
    }

    /// The folder where readings wait that are pushed elsewhere: beside what is kept of commands.
    pub fn push_folder(&self) -> PathBuf {
        let mut path = self.command_log().into_os_string();
        path.push(".push");
        path.into()
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key, what: &dyn fmt::Display| {
            Err(ConfigError::Invalid { path: path.to_owned(), key, what: what.to_string() })
        };
        if self.common.name.is_empty() {
            return wrong("common.name", &"is empty; give the mapper a name");
        }
        if !self.grpc_server.socket_path.is_absolute() {
            let what = format!("is `{}`; write an absolute path", self.grpc_server.socket_path.display());
            return wrong("grpc_server.socket_path", &what);
        }
        let log = &self.common.command_log;
        if !log.as_os_str().is_empty() && !log.is_absolute() {
            let what = format!("is `{}`; write an absolute path, or leave it out", log.display());
            return wrong("common.command_log", &what);
        }
        let streams = &self.common.stream_dir;
        if !streams.as_os_str().is_empty() && !streams.is_absolute() {
            let what = format!("is `{}`; write an absolute path, or leave it out", streams.display());
            return wrong("common.stream_dir", &what);
        }
        if self.common.edgecore_sock.is_empty() {
            return wrong("common.edgecore_sock", &"is empty; write the path of edgecore's dmi.sock");
        }
        if !["", REGISTER].contains(&self.dev_init.mode.as_str()) {
            let what = format!("is `{}`; only `{REGISTER}` is supported", self.dev_init.mode);
            return wrong("dev_init.mode", &what);
        }
        Ok(())
    }
}

fn read_capped(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn unknown_keys(text: &str) -> Vec<String> {
    let Ok(serde_json::Value::Object(top)) = yaml::<serde_json::Value>(text) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (section, value) in &top {
        let Some((_, keys)) = KNOWN.iter().find(|(known, _)| known == section) else {
            found.push(section.clone());
            continue;
        };
        let inner = value.as_object().into_iter().flat_map(serde_json::Map::keys);
        found.extend(inner.filter(|key| !keys.contains(&key.as_str())).map(|key| format!("{section}.{key}")));
    }
    found
}

fn default_edgecore_socket() -> String {
    DEFAULT_EDGECORE_SOCKET.to_owned()
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Either;
    impl serde::de::Visitor<'_> for Either {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a port")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Either)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "\
grpc_server:
  socket_path: /etc/kubeedge/modbus.sock
common:
  name: Modbus-mapper
  version: v1.13.0
  api_version: v1.0.0
  protocol: modbus
  address: 127.0.0.1
  edgecore_sock: /etc/kubeedge/dmi.sock
  http_port: 7777
";

    fn read(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path, "modbus")
    }

    #[test]
    fn kubeedges_template_is_read() {
        let config = read(TEMPLATE).unwrap();
        assert_eq!(config.common.name, "Modbus-mapper");
        assert_eq!(config.common.http_port, "7777");
        assert_eq!(config.grpc_server.socket_path, Path::new("/etc/kubeedge/modbus.sock"));
    }

    #[test]
    fn beyond_loopback_the_rest_interface_does_what_is_allowed_by_name() {
        let rest = |common: &str| {
            let text = format!("grpc_server: {{socket_path: /m.sock}}\ncommon: {{name: m, {common}}}\n");
            let rest = read(&text).unwrap().rest();
            rest.map(|rest| rest.map(|(at, allowed)| (at.to_string(), allowed.read, allowed.write)))
        };
        let served = |at: &str, read, write| Ok(Some((at.to_owned(), read, write)));
        assert_eq!(rest("address: 127.0.0.1"), Ok(None));
        assert_eq!(rest("http_port: 7777"), served("127.0.0.1:7777", true, true));
        assert_eq!(rest("http_port: 7777, http_allow: read"), served("127.0.0.1:7777", true, false));
        assert_eq!(rest("http_port: 7777, address: 0.0.0.0"), Ok(None));
        let both = rest("http_port: 7777, address: '::', http_allow: 'read, write'");
        assert_eq!(both, served("[::]:7777", true, true));
        for wrong in ["http_port: many", "http_port: 1, address: host", "http_port: 1, http_allow: all"] {
            rest(wrong).unwrap_err();
        }
    }

    #[test]
    fn what_may_be_left_out_has_a_default() {
        let config = read("grpc_server: {socket_path: /tmp/m.sock}\ncommon: {name: m}\n").unwrap();
        assert_eq!(config.common.edgecore_sock, DEFAULT_EDGECORE_SOCKET);
        assert_eq!(config.common.protocol, "modbus");
    }

    #[test]
    fn defects_name_the_key() {
        let said = |text: &str| read(text).unwrap_err().to_string();
        assert!(
            said("grpc_server: {socket_path: m.sock}\ncommon: {name: m}\n")
                .contains("grpc_server.socket_path")
        );
        assert!(said("grpc_server: {socket_path: /m.sock}\ncommon: {name: ''}\n").contains("common.name"));
        assert!(said("common: {name: m}\n").contains("grpc_server"));
        assert!(said(&format!("{TEMPLATE}dev_init: {{mode: configmap}}\n")).contains("dev_init.mode"));
        assert!(said(&format!("# {}", "x".repeat(1 << 20))).contains("more than"));
        let missing = Config::read(Path::new("/nonexistent/config.yaml"), "modbus").unwrap_err().to_string();
        assert!(missing.contains("--config-file"), "{missing}");
    }

    #[test]
    fn what_devices_may_lead_to_is_a_list_of_networks_and_ports() {
        let with = |targets: &str| {
            let text = format!(
                "grpc_server: {{socket_path: /m.sock}}\ncommon: {{name: m, allowed_targets: {targets}}}\n"
            );
            read(&text).map(|config| config.common.allowed_targets).map_err(|error| error.to_string())
        };
        let read = with("['127.0.0.1:8080', 'fe80::/10', '[::1]:81']").unwrap();
        assert_eq!(
            read,
            Targets::new(vec!["127.0.0.1:8080".into(), "fe80::/10".into(), "[::1]:81".into()]).unwrap()
        );
        for wrong in ["['127.0.0.1']", "['localhost:80']", "['10.0.0.1/8']", "['1.2.3.4:0']"] {
            let refused = with(wrong).unwrap_err();
            assert!(refused.contains("common.allowed_targets has `"), "{refused}");
        }
        let many = vec!["'10.0.0.0/8'"; 65].join(", ");
        assert!(with(&format!("[{many}]")).unwrap_err().contains("at most 64"));
    }

    #[test]
    fn a_wrong_key_is_refused_by_name_and_one_of_older_mappers_is_passed_over() {
        let refused = read(&format!("{TEMPLATE}  typo: 1\nextra: {{}}\n")).unwrap_err().to_string();
        assert!(refused.contains("common.typo, extra;"), "{refused}");
        // Misspelt and therefore missing: the wrong key is what helps.
        let misspelt = TEMPLATE.replace("socket_path", "socketPath");
        let refused = read(&misspelt).unwrap_err().to_string();
        assert!(refused.contains("grpc_server.socketPath"), "{refused}");
        read(&format!("{TEMPLATE}mqtt: {{server_address: tcp://127.0.0.1:1883}}\n")).unwrap();
    }
}
