//! Decides which devices a node should hold, and what a report makes of a DeviceStatus. Pure.

use std::collections::BTreeSet;

use contract::ids::DEVICE_MODELS;
use contract::parsed::DeviceReport;
use contract::{NodeName, ObjectKey, TwinValue};
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

/// 1024 properties of one device, as on the node (KubeEdge has no bound). With the longest values that is more than an API
/// server takes, and refused there.
pub const TWINS_MAX: usize = 1024;

/// Takes the reports of one device into its DeviceStatus' status. Answers whether anything changed. A property beyond
/// [`TWINS_MAX`] is left out.
pub fn merge(status: &mut Value, reports: &[&DeviceReport]) -> bool {
    let before = status.clone();
    if !status.is_object() {
        *status = json!({});
    }
    for report in reports {
        match report {
            DeviceReport::Twin { property, reported, observed_desired } => {
                merge_twin(status, property.as_str(), reported.as_ref(), observed_desired.as_ref());
            }
            DeviceReport::State { state, last_online_time } => {
                status["state"] = json!(state);
                if let Some(time) = last_online_time {
                    status["lastOnlineTime"] = json!(time);
                }
            }
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
        let has_room = twins.len() < TWINS_MAX;
        match at.and_then(|at| twins.get_mut(at)) {
            Some(place) => *place = twin,
            None if has_room => twins.push(twin),
            None => {}
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
    use contract::ids::PropertyName;
    use std::collections::BTreeMap;

    fn twin(property: &str, value: Option<&str>) -> DeviceReport {
        DeviceReport::Twin {
            property: PropertyName::parse(property).unwrap(),
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
    fn there_is_an_end_to_properties() {
        let mut status = json!({});
        let reports: Vec<DeviceReport> =
            (0..2 * TWINS_MAX).map(|n| twin(&format!("p{n}"), Some("1"))).collect();
        merge(&mut status, &reports.iter().collect::<Vec<_>>());
        assert_eq!(status["twins"].as_array().unwrap().len(), TWINS_MAX);
        merge(&mut status, &[&twin("p0", None), &twin("late", Some("1")), &twin("p1", Some("2"))]);
        let twins = status["twins"].as_array().unwrap();
        assert_eq!((twins.len(), &twins[0]["reported"]["value"]), (TWINS_MAX, &json!("2")));
    }

    #[test]
    fn a_state_keeps_when_it_was_online_last() {
        let state = |state: &str, time: Option<&str>| DeviceReport::State {
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
