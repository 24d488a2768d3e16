//! Topics, parsed once at the border.

use contract::ids::DeviceName;

const DEVICES: &str = "$hw/events/device/";
const NODES: &str = "$hw/events/node/";

/// What an MQTT client wants, by its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// `…/twin/update`
    UpdateTwin(DeviceName),
    /// `…/twin/get`
    GetTwin(DeviceName),
    /// `…/state/update`
    UpdateState(DeviceName),
    /// `…/method/call`
    CallMethod(DeviceName),
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
    let id = DeviceName::parse(namespace.unwrap_or_default(), name.unwrap_or_default());
    let Ok(id) = id else {
        return Err(format!("`{}` names no device: use {DEVICES}<namespace>/<name>/…", shown()));
    };
    match what {
        Some("twin/update") => Ok(Request::UpdateTwin(id)),
        Some("twin/get") => Ok(Request::GetTwin(id)),
        Some("state/update") => Ok(Request::UpdateState(id)),
        Some("method/call") => Ok(Request::CallMethod(id)),
        // Only the cloud may say this, and it does not say it over MQTT.
        Some("twin/cloud_updated") => Err("the cloud's word is not taken from a local client".to_owned()),
        Some(_) | None => Err(format!("no client publishes on `{}`", shown())),
    }
}

/// `$hw/events/device/<namespace>/<name>/` and `what`.
pub(crate) fn device_topic(device: &DeviceName, what: &str) -> String {
    format!("{DEVICES}{device}/{what}")
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
        let id = DeviceName::parse("default", "pump").unwrap();
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
        assert_eq!(
            parse("$hw/events/device/default/pump/method/call", "n"),
            Ok(Request::CallMethod(id.clone()))
        );
        assert_eq!(device_topic(&id, "twin/get/result"), "$hw/events/device/default/pump/twin/get/result");
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
            "$hw/events/device/default/pump/method/call/result",
            "$hw/events/node/other/membership/get",
            "$hw/events/node/n/membership/get/result",
            "$hw/events/node/n",
        ] {
            assert!(parse(topic, "n").is_err(), "{topic}");
        }
    }
}
