//! Events (core v1) about a Device, named by what they say: what is said again counts on in the one that is there.

use contract::report::EVENT_COMPONENT;
use contract::{UpReport, content_hash};
use serde_json::json;

use crate::rule_set::{HappeningKind, RuleHappening};

/// An API server takes so many bytes.
const MESSAGE_MAX: usize = 1024;
/// Of the device's name so much is in the event's, so that the rest of that has room.
const NAME_MAX: usize = 200;

/// The reason of an event, and whether it is a warning.
fn reason(kind: HappeningKind) -> (&'static str, bool) {
    match kind {
        HappeningKind::Triggered => ("RuleTriggered", false),
        HappeningKind::Cleared => ("RuleCleared", false),
        HappeningKind::HeldBack => ("RuleHeldBack", true),
        HappeningKind::ActionFailed => ("RuleActionFailed", true),
    }
}

/// The report that a node makes of it. `seconds`: the wall's time since 1970, for people.
pub(crate) fn event(node: &str, happening: &RuleHappening, seconds: i64) -> UpReport {
    let RuleHappening { device, uid, rule, kind, message, .. } = happening;
    let (reason, is_warning) = reason(*kind);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
    let mut message = message.clone();
    while message.len() > MESSAGE_MAX {
        message.pop();
    }
    let series: String = content_hash(&json!([node, uid, rule, reason])).chars().take(16).collect();
    let head: String = device.name.chars().take(NAME_MAX).collect();
    let name = format!("{}.{series}", head.trim_end_matches(['.', '-']));
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": device.namespace },
        "involvedObject": {
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
            "namespace": device.namespace, "name": device.name, "uid": uid,
        },
        "type": if is_warning { "Warning" } else { "Normal" },
        "reason": reason,
        "message": message,
        "source": { "component": EVENT_COMPONENT, "host": node },
        "reportingComponent": EVENT_COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    UpReport::Event { namespace: device.namespace.clone(), name, event_json: event.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::DeviceName;

    #[test]
    fn what_is_said_again_has_the_same_name() {
        let happening = |rule: &str, kind| RuleHappening {
            device: DeviceName::parse("hall", "gantry").unwrap(),
            uid: "u".into(),
            rule: rule.into(),
            kind,
            message: "é".repeat(1000),
            is_told: true,
        };
        let told = |rule: &str, kind, seconds| {
            let UpReport::Event { namespace, name, event_json } =
                event("edge-1", &happening(rule, kind), seconds)
            else {
                panic!("no event")
            };
            assert_eq!(namespace, "hall");
            (name, serde_json::from_str::<serde_json::Value>(&event_json).unwrap())
        };
        let (name, first) = told("cool", HappeningKind::Triggered, 0);
        assert!(name.starts_with("gantry.") && name.len() == 7 + 16, "{name}");
        assert_eq!(told("cool", HappeningKind::Triggered, 60).0, name);
        assert_ne!(told("cool", HappeningKind::Cleared, 60).0, name);
        assert_ne!(told("warm", HappeningKind::Triggered, 60).0, name);
        assert_eq!((&first["type"], &first["reason"]), (&json!("Normal"), &json!("RuleTriggered")));
        assert_eq!(first["message"].as_str().unwrap().len(), 1024);
        assert_eq!(first["lastTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(told("cool", HappeningKind::HeldBack, 0).1["type"], "Warning");
    }
}
