//! Reading a config file: capped, laid over the defaults, strict, and every defect told at once.
//!
//! A file is laid over the defaults as trees, so that a section that is given in part keeps the defaults of the rest, in every
//! section alike: what a default is depends on where it stands. A key without a value (`quic:`) is one that is left out.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cures::{self, Written};
use crate::error::{ConfigError, Defect, FILE_MAX};
use crate::kubeedge::{self, Foreign};

/// Whose files these are, as kinds name them.
const DAEMONS: [&str; 2] = ["cloudcore", "edgecore"];

/// Reads a regular file of at most [`FILE_MAX`] bytes, whoever put it there.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let at = |source| ConfigError::Read { path: path.to_owned(), source };
    // Asked before it is opened: a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(at)?.is_file() {
        return Err(ConfigError::NoFile(path.to_owned()));
    }
    let file = std::fs::File::open(path).map_err(at)?;
    let size = file.metadata().map_err(at)?.len();
    if size > FILE_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), size });
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(at)?;
    Ok(text)
}

/// What a file says.
#[derive(Debug)]
pub(crate) struct Parsed<T> {
    /// Its settings, and the defaults of all that it leaves out.
    pub(crate) config: T,
    /// A sentence for everything in it that has no effect.
    pub(crate) warnings: Vec<String>,
    /// The keys in it that nobody knows.
    pub(crate) unknown: Vec<Defect>,
}

/// One document of YAML. 16 aliases are more than anybody writes into a config file, and aliases of aliases could make a gigabyte
/// of it.
fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 16 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| not_parsed(&error))
}

/// What is wrong with a text, and where. Of a key that is there twice the library tells a programmer how to have it taken.
fn not_parsed(error: &serde_saphyr::Error) -> String {
    let mut within = error;
    while let serde_saphyr::Error::AliasError { error, .. } | serde_saphyr::Error::WithSnippet { error, .. } =
        within
    {
        within = error;
    }
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = within else {
        return error.to_string();
    };
    let key = key.as_ref().map_or_else(|| "a key".to_owned(), |key| format!("`{}`", key.escape_debug()));
    let (line, column) = (location.line(), location.column());
    format!("{key} stands twice in one mapping, again at line {line}, column {column}: remove one of the two")
}

/// One document of YAML or JSON from a file of the node's administrator.
///
/// # Errors
/// What is wrong with it, and where.
pub fn yaml_document(text: &str) -> Result<Value, String> {
    yaml(text)
}

/// Lays YAML over the defaults. `of_kubeedge` has the keys of KubeEdge's that have no effect here, with KubeEdge's defaults.
pub(crate) fn parse<T>(path: &Path, text: &str, of_kubeedge: &str) -> Result<Parsed<T>, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let failed = |reason: String| ConfigError::Parse { path: path.to_owned(), reason };
    let file: Value = yaml(text).map_err(failed)?;
    let defaults = serde_json::to_value(T::default()).map_err(|error| failed(error.to_string()))?;
    if let Some(whose) = of_the_other(&file, &defaults) {
        return Err(failed(whose));
    }
    let mut overlay = Overlay::default();
    let is_empty = file.is_null();
    let tree = match file {
        Value::Null => defaults.clone(),
        file @ Value::Object(_) => overlay.lay("", defaults.clone(), file),
        _ => return Err(failed("it is no mapping of settings".to_owned())),
    };
    let (mut warnings, unknown) = kubeedge::sort(of_kubeedge, overlay.foreign);
    if is_empty {
        warnings
            .push(format!("config file `{}` says nothing: every setting has its default", path.display()));
    }
    let config = match serde_path_to_error::deserialize(&tree) {
        Ok(config) => config,
        Err(error) => {
            let key = error.path().to_string();
            let why = error.into_inner().to_string();
            let at = format!("/{}", key.replace('.', "/"));
            let given = tree.pointer(&at).and_then(Value::as_str).unwrap_or_default();
            let default = defaults.pointer(&at);
            let wanted = default.and_then(|default| cures::wanted(default, given, Written::Yaml));
            let why = match (out_of_range(&why), wanted) {
                (Some(why), _) => why,
                // What a value of ours says has its cure already.
                (None, Some(wanted)) if !why.contains(": write ") => format!("{why}; {wanted}"),
                (None, Some(_) | None) => why,
            };
            if unknown.is_empty() {
                return Err(failed(format!("`{key}`: {why}")));
            }
            // A value of a wrong type must not hide the keys that nobody knows.
            let mut defects = unknown;
            defects.push(Defect::new(&key, format!("is not understood: {why}")));
            return Err(ConfigError::Invalid { path: path.to_owned(), defects });
        }
    };
    Ok(Parsed { config, warnings, unknown })
}

/// That a file is the other daemon's, which its kind says, or its version where it has none.
fn of_the_other(file: &Value, defaults: &Value) -> Option<String> {
    let text = |tree: &Value, key: &str| tree[key].as_str().unwrap_or_default().to_ascii_lowercase();
    let daemon = |tree: &Value| {
        let (kind, version) = (text(tree, "kind"), text(tree, "apiVersion"));
        let group = version.split_once(".config.kubeedge.io/").map_or("", |(group, _)| group);
        [kind.as_str(), group].into_iter().find_map(|name| DAEMONS.into_iter().find(|daemon| *daemon == name))
    };
    let (theirs, ours) = (daemon(file)?, daemon(defaults)?);
    (theirs != ours).then(|| {
        format!("this is {theirs}'s file, as its `kind` or `apiVersion` says: name {ours}'s, {ours}.yaml")
    })
}

/// What serde says of a whole number that its type does not hold, with the numbers that it does; `None`: it says something else.
fn out_of_range(why: &str) -> Option<String> {
    let (given, kind) = why.strip_prefix("invalid value: integer `")?.split_once("`, expected ")?;
    let (least, most) = match kind {
        "u8" => (0, u64::from(u8::MAX)),
        "u16" => (0, u64::from(u16::MAX)),
        "u32" => (0, u64::from(u32::MAX)),
        "u64" | "usize" => (0, u64::MAX),
        "i32" => (i64::from(i32::MIN), i32::MAX.unsigned_abs().into()),
        "i64" => (i64::MIN, i64::MAX.unsigned_abs()),
        _ => return None,
    };
    Some(format!("{given} is out of range, write a whole number from {least} to {most}"))
}

/// Lays a file over the defaults.
#[derive(Default)]
struct Overlay {
    /// What has no place among the defaults.
    foreign: Vec<Foreign>,
}

impl Overlay {
    fn lay(&mut self, at: &str, default: Value, given: Value) -> Value {
        match (default, given) {
            (default, Value::Null) => default,
            // A mapping whose keys are the user's own, as labels, has no keys among the defaults.
            (Value::Object(defaults), Value::Object(given)) if !defaults.is_empty() => {
                let absent: Vec<String> =
                    defaults.keys().filter(|known| !given.contains_key(*known)).cloned().collect();
                let mut laid = defaults;
                for (key, value) in given {
                    let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    match laid.remove(&key) {
                        Some(default) => {
                            laid.insert(key, self.lay(&at, default, value));
                        }
                        None => {
                            let meant =
                                slips::meant(&key, absent.iter().map(String::as_str)).map(str::to_owned);
                            self.foreign.push(Foreign { key: at, value, meant });
                        }
                    }
                }
                Value::Object(laid)
            }
            (_, given) => given,
        }
    }
}

/// Takes `host:port` apart; an IPv6 host stands in brackets.
///
/// # Errors
/// A sentence that says what is missing.
pub fn parse_host_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` is not host:port"))?;
    let port = port.parse::<u16>().map_err(|_| format!("`{port}` is not a port between 1 and 65535"))?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bare {
        Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
        Some(_) => return Err(format!("`{host}` is not an IPv6 address in brackets")),
        None if host.is_empty() || host.contains(':') => {
            return Err(format!("`{text}` is not host:port; write an IPv6 host in brackets"));
        }
        None => host,
    };
    if port == 0 {
        return Err("port 0 is not a port to reach".to_owned());
    }
    Ok((host.to_owned(), port))
}

pub(crate) fn check_ip(key: &str, text: &str, defects: &mut Vec<Defect>) {
    if text.parse::<IpAddr>().is_err() {
        defects.push(Defect::new(key, format!("is `{text}`, not an IP address")));
    }
}

/// The path of a Unix socket; empty: none.
pub(crate) fn check_socket(key: &str, socket: &Path, defects: &mut Vec<Defect>) {
    // The kernel's own bound, its end mark included.
    if !socket.as_os_str().is_empty() && (!socket.is_absolute() || socket.as_os_str().len() > 107) {
        let what = format!("is `{}`, not an absolute path of at most 107 bytes", socket.display());
        defects.push(Defect::new(key, what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port() {
        assert_eq!(parse_host_port("10.0.0.1:10000"), Ok(("10.0.0.1".into(), 10000)));
        assert_eq!(parse_host_port("[fd00::1]:1"), Ok(("fd00::1".into(), 1)));
        assert_eq!(parse_host_port("cloud.example:65535"), Ok(("cloud.example".into(), 65535)));
        for bad in ["", "host", ":1", "host:0", "host:65536", "fd00::1:1", "[x]:1", "host:"] {
            assert!(parse_host_port(bad).is_err(), "{bad}");
        }
    }
}
