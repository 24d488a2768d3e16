//! Decides which devices a node should hold, and what a report makes of a DeviceStatus. Pure.

use std::collections::BTreeSet;

use contract::ids::DEVICE_MODELS;
use contract::{NodeName, ObjectKey, TwinValue, UpReport};
use kubewatch::Place;
use serde_json::{Value, json};

/// The node that owns a device.
pub fn node_of(device: &Value) -> Option<NodeName> {
    NodeName::parse(device.pointer("/spec/nodeName")?.as_str()?).ok()
}

/// Where a device belongs, and the model that it needs there.
pub fn place_of(key: &ObjectKey, device: &Value) -> Option<Place> {
    let model = device.pointer("/spec/deviceModelRef/name").and_then(Value::as_str).unwrap_or_default();
    let needs = BTreeSet::from([ObjectKey::new(DEVICE_MODELS, &key.namespace, model)]);
    Some(Place { node: node_of(device)?, needs })
}

/// The device that a report speaks of: namespace and name.
pub fn device_of(report: &UpReport) -> Option<(&str, &str)> {
    match report {
        UpReport::Twin { namespace, name, .. } | UpReport::DeviceState { namespace, name, .. } => {
            Some((namespace, name))
        }
        UpReport::Node { .. }
        | UpReport::PodStatus { .. }
        | UpReport::PodGone { .. }
        | UpReport::Event { .. } => None,
    }
}

/// Takes the reports of one device into its DeviceStatus' status. Answers whether anything changed.
pub fn merge(status: &mut Value, reports: &[&UpReport]) -> bool {
    let before = status.clone();
    if !status.is_object() {
        *status = json!({});
    }
    for report in reports {
        match report {
            UpReport::Twin { property, reported, observed_desired, .. } => {
                merge_twin(status, property, reported.as_ref(), observed_desired.as_ref());
            }
            UpReport::DeviceState { state, last_online_time, .. } => {
                status["state"] = json!(state);
                if let Some(time) = last_online_time {
                    status["lastOnlineTime"] = json!(time);
                }
            }
            UpReport::Node { .. }
            | UpReport::PodStatus { .. }
            | UpReport::PodGone { .. }
            | UpReport::Event { .. } => {}
        }
    }
    *status != before
}

/// The first report of a property brings its value, too.
fn merge_twin(status: &mut Value, property: &str, reported: Option<&TwinValue>, desired: Option<&TwinValue>) {
    let mut twins = status["twins"].as_array().cloned().unwrap_or_default();
    let at = twins.iter().position(|twin| twin["propertyName"] == property);
    if reported.is_none() && desired.is_none() {
        // Deleted on the node.
        if let Some(at) = at {
            twins.remove(at);
        }
    } else {
        let mut twin = json!({ "propertyName": property });
        if let Some(value) = reported {
            twin["reported"] = shown(value);
        }
        if let Some(value) = desired {
            twin["observedDesired"] = shown(value);
        }
        match at.and_then(|at| twins.get_mut(at)) {
            Some(place) => *place = twin,
            None => twins.push(twin),
        }
    }
    status["twins"] = Value::Array(twins);
}

fn shown(value: &TwinValue) -> Value {
    json!({ "value": value.value, "metadata": value.metadata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn twin(property: &str, value: Option<&str>) -> UpReport {
        UpReport::Twin {
            namespace: "d".into(),
            name: "pump".into(),
            property: property.into(),
            reported: value.map(|value| TwinValue { value: value.into(), metadata: BTreeMap::new() }),
            observed_desired: None,
        }
    }

    #[test]
    fn the_first_report_brings_its_value() {
        let mut status = Value::Null;
        assert!(merge(&mut status, &[&twin("speed", Some("3"))]));
        assert_eq!(status["twins"][0]["reported"]["value"], "3");
        assert!(!merge(&mut status, &[&twin("speed", Some("3"))]), "nothing new, no write");
        assert!(merge(&mut status, &[&twin("heat", Some("40")), &twin("speed", Some("4"))]));
        assert_eq!(status["twins"].as_array().unwrap().len(), 2);
        assert_eq!(status["twins"][0]["reported"]["value"], "4");
        assert!(merge(&mut status, &[&twin("speed", None)]));
        assert_eq!(status["twins"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_state_keeps_when_it_was_online_last() {
        let state = |state: &str, time: Option<&str>| UpReport::DeviceState {
            namespace: "d".into(),
            name: "pump".into(),
            state: state.into(),
            last_online_time: time.map(Into::into),
        };
        let mut status = json!({});
        merge(&mut status, &[&state("online", Some("2026-01-01T00:00:00Z"))]);
        merge(&mut status, &[&state("offline", None)]);
        assert_eq!(status, json!({ "state": "offline", "lastOnlineTime": "2026-01-01T00:00:00Z" }));
    }

    #[test]
    fn a_device_goes_with_its_model() {
        let device = json!({ "spec": { "nodeName": "edge-1", "deviceModelRef": { "name": "m" } } });
        let key = ObjectKey::new("devices", "d", "pump");
        let place = place_of(&key, &device).unwrap();
        assert_eq!(place.node.as_str(), "edge-1");
        assert_eq!(place.needs, BTreeSet::from([ObjectKey::new(DEVICE_MODELS, "d", "m")]));
        assert_eq!(place_of(&key, &json!({ "spec": {} })), None);
    }
}
