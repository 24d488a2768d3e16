//! Names and topics, parsed once at the border.

use contract::ids::is_dns1123_subdomain;

/// A device or a model: namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeviceId {
    /// The namespace.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
}

impl DeviceId {
    /// An id, if both parts are names that Kubernetes takes.
    pub(crate) fn parse(namespace: &str, name: &str) -> Option<Self> {
        (is_dns1123_subdomain(namespace) && is_dns1123_subdomain(name))
            .then(|| DeviceId { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// An id from `namespace/name`, as keys of the store and topics have it.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        let (namespace, name) = key.split_once('/')?;
        DeviceId::parse(namespace, name)
    }

    /// `$hw/events/device/<namespace>/<name>/` and `what`.
    pub(crate) fn topic(&self, what: &str) -> String {
        format!("{DEVICES}{self}/{what}")
    }
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

const DEVICES: &str = "$hw/events/device/";
const NODES: &str = "$hw/events/node/";

/// What an MQTT client wants, by its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// `…/twin/update`
    UpdateTwin(DeviceId),
    /// `…/twin/get`
    GetTwin(DeviceId),
    /// `…/state/update`
    UpdateState(DeviceId),
    /// `…/membership/get`
    GetMembers,
}

/// Reads the topic that a client published on.
///
/// # Errors
/// A sentence for the log.
pub(crate) fn parse(topic: &str, node: &str) -> Result<Request, String> {
    let shown = || topic.chars().take(128).collect::<String>();
    if let Some(rest) = topic.strip_prefix(NODES) {
        return match rest.split_once('/') {
            Some((named, "membership/get")) if named == node => Ok(Request::GetMembers),
            Some((named, "membership/get")) => {
                Err(format!("`{}` is not this node, `{node}`", named.chars().take(64).collect::<String>()))
            }
            Some(_) | None => Err(format!("no client publishes on `{}`", shown())),
        };
    }
    let Some(rest) = topic.strip_prefix(DEVICES) else {
        return Err(format!("`{}` is no topic of the twins", shown()));
    };
    let mut parts = rest.splitn(3, '/');
    let (namespace, name, what) = (parts.next(), parts.next(), parts.next());
    let id = DeviceId::parse(namespace.unwrap_or_default(), name.unwrap_or_default());
    let Some(id) = id else {
        return Err(format!("`{}` names no device: use {DEVICES}<namespace>/<name>/…", shown()));
    };
    match what {
        Some("twin/update") => Ok(Request::UpdateTwin(id)),
        Some("twin/get") => Ok(Request::GetTwin(id)),
        Some("state/update") => Ok(Request::UpdateState(id)),
        // Only the cloud may say this, and it does not say it over MQTT.
        Some("twin/cloud_updated") => Err("the cloud's word is not taken from a local client".to_owned()),
        Some(_) | None => Err(format!("no client publishes on `{}`", shown())),
    }
}

/// The topic of the node's own news.
pub(crate) fn node_topic(node: &str, what: &str) -> String {
    format!("{NODES}{node}/{what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_carry_namespace_and_name() {
        let id = DeviceId::parse("default", "pump").unwrap();
        assert_eq!(
            parse("$hw/events/device/default/pump/twin/update", "n"),
            Ok(Request::UpdateTwin(id.clone()))
        );
        assert_eq!(parse("$hw/events/device/default/pump/twin/get", "n"), Ok(Request::GetTwin(id.clone())));
        assert_eq!(
            parse("$hw/events/device/default/pump/state/update", "n"),
            Ok(Request::UpdateState(id.clone()))
        );
        assert_eq!(parse("$hw/events/node/n/membership/get", "n"), Ok(Request::GetMembers));
        assert_eq!(id.topic("twin/get/result"), "$hw/events/device/default/pump/twin/get/result");
        // A namespace that is a part of the prefix is a namespace like any other.
        assert!(parse("$hw/events/device/device/e/twin/get", "n").is_ok());
    }

    #[test]
    fn strangers_are_refused() {
        for topic in [
            "",
            "x",
            "$hw/events/device/",
            "$hw/events/device/pump/twin/update",
            "$hw/events/device//pump/twin/update",
            "$hw/events/device/default/PUMP/twin/update",
            "$hw/events/device/default/pump",
            "$hw/events/device/default/pump/twin/update/result",
            "$hw/events/device/default/pump/twin/cloud_updated",
            "$hw/events/node/other/membership/get",
            "$hw/events/node/n/membership/get/result",
            "$hw/events/node/n",
        ] {
            assert!(parse(topic, "n").is_err(), "{topic}");
        }
    }
}
