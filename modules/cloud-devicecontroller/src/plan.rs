//! Decides which devices a node should hold, and what a report makes of a DeviceStatus. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::DEVICE_MODELS;
use contract::parsed::DeviceReport;
pub use contract::parsed::TWINS_MAX;
use contract::{NodeName, ObjectKey, TwinValue};
use kubewatch::Placement;
use serde_json::{Value, json};

use crate::{calls, conditions};

/// The node that owns a device.
pub fn node_of(device: &Value) -> Option<NodeName> {
    NodeName::parse(device.pointer("/spec/nodeName")?.as_str()?).ok()
}

/// Where a device belongs, and the model that it needs there.
pub fn placement_of(key: &ObjectKey, device: &Value) -> Option<Placement> {
    Some(Placement { node: node_of(device)?, needs: BTreeSet::from([model_of(key, device)]) })
}

/// The model that a device names.
pub fn model_of(key: &ObjectKey, device: &Value) -> ObjectKey {
    let model = device.pointer("/spec/deviceModelRef/name").and_then(Value::as_str).unwrap_or_default();
    ObjectKey::new(DEVICE_MODELS, &key.namespace, model)
}

/// 35 characters: the longest time with nanoseconds and an offset.
const TIME_MAX: usize = 35;

fn is_rfc3339(text: &str) -> bool {
    let is_plain = text.len() <= TIME_MAX
        && text.contains('T')
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"TZ:.+-".contains(&byte));
    is_plain && text.parse::<jiff::Timestamp>().is_ok()
}

/// Takes a time that is none off a report; whether there was one. What the report says beside it is as good as ever.
pub fn without_odd_time(report: &mut DeviceReport) -> bool {
    let DeviceReport::State { last_online_time, .. } = report else { return false };
    last_online_time.take_if(|time| !is_rfc3339(time)).is_some()
}

/// Takes the reports of one device into its DeviceStatus' status. A property beyond [`TWINS_MAX`] is left out.
pub fn merge(status: &mut Value, reports: &[&DeviceReport]) {
    if !status.is_object() {
        *status = json!({});
    }
    let mut twins = Twins::of(status["twins"].take());
    for report in reports {
        match report {
            DeviceReport::Twin { property, reported, observed_desired } => {
                twins.put(property.as_str(), reported.as_ref(), observed_desired.as_ref());
            }
            DeviceReport::Conditions { conditions } => conditions::take(status, conditions),
            DeviceReport::Calls { calls } => calls::take(status, calls),
            DeviceReport::State { state, last_online_time } => {
                status["state"] = json!(state);
                if let Some(time) = last_online_time {
                    status["lastOnlineTime"] = json!(time);
                }
            }
        }
    }
    match twins.into_value() {
        Some(twins) => status["twins"] = twins,
        None => drop(status.as_object_mut().and_then(|fields| fields.remove("twins"))),
    }
}

/// The twins of a device while reports are merged into them: each report costs a look-up, however many properties there are.
struct Twins {
    /// `None`: deleted.
    slots: Vec<Option<Value>>,
    at: BTreeMap<String, usize>,
    count: usize,
    /// There is a list, be it an empty one.
    is_list: bool,
}

impl Twins {
    fn of(held: Value) -> Twins {
        let (is_list, held) = match held {
            Value::Array(held) => (true, held),
            _ => (false, Vec::new()),
        };
        let name = |twin: &Value| twin["propertyName"].as_str().map(str::to_owned);
        // Of two with one name the first is the one that is replaced.
        let at = held.iter().enumerate().rev().filter_map(|(at, twin)| Some((name(twin)?, at))).collect();
        Twins { count: held.len(), slots: held.into_iter().map(Some).collect(), at, is_list }
    }

    /// The first report of a property brings its value, too. One without any is its deletion on the node.
    fn put(&mut self, property: &str, reported: Option<&TwinValue>, desired: Option<&TwinValue>) {
        self.is_list = true;
        let at = self.at.get(property).copied();
        if reported.is_none() && desired.is_none() {
            if let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) {
                *slot = None;
                self.at.remove(property);
                self.count -= 1;
            }
            return;
        }
        let mut twin = json!({ "propertyName": property });
        if let Some(value) = reported {
            twin["reported"] = shown(value);
        }
        if let Some(value) = desired {
            twin["observedDesired"] = shown(value);
        }
        match at.and_then(|at| self.slots.get_mut(at)) {
            Some(slot) => *slot = Some(twin),
            None if self.count < TWINS_MAX => {
                self.at.insert(property.to_owned(), self.slots.len());
                self.slots.push(Some(twin));
                self.count += 1;
            }
            None => {}
        }
    }

    fn into_value(self) -> Option<Value> {
        self.is_list.then(|| Value::Array(self.slots.into_iter().flatten().collect()))
    }
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
        merge(&mut status, &[&twin("speed", Some("3"))]);
        assert_eq!(status["twins"][0]["reported"]["value"], "3");
        merge(&mut status, &[&twin("heat", Some("40")), &twin("speed", Some("4"))]);
        assert_eq!(status["twins"].as_array().unwrap().len(), 2);
        assert_eq!(status["twins"][0]["reported"]["value"], "4");
        merge(&mut status, &[&twin("speed", None)]);
        assert_eq!(status["twins"].as_array().unwrap().len(), 1);
        merge(&mut status, &[&twin("speed", Some("5")), &twin("heat", None), &twin("none", None)]);
        assert_eq!(status["twins"].as_array().unwrap().len(), 1);
        assert_eq!(status["twins"][0]["reported"]["value"], "5");
        merge(&mut status, &[&twin("speed", None)]);
        assert_eq!(status["twins"], json!([]));
    }

    /// As many reports as a message has, about as many properties as a device has: a clone of the twins for each would be a
    /// second's work.
    #[test]
    fn a_report_costs_the_same_however_many_properties_there_are() {
        let value = "v".repeat(1000);
        let all: Vec<DeviceReport> = (0..TWINS_MAX).map(|n| twin(&format!("p{n}"), Some(&value))).collect();
        let mut status = json!({});
        merge(&mut status, &all.iter().collect::<Vec<_>>());
        let began = std::time::Instant::now();
        for _ in 0..10 {
            merge(&mut status, &all.iter().collect::<Vec<_>>());
        }
        assert_eq!(status["twins"].as_array().unwrap().len(), TWINS_MAX);
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
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
    fn a_time_that_is_none_is_left_out_and_the_state_stays() {
        let left = |time: &str| {
            let mut report =
                DeviceReport::State { state: "online".into(), last_online_time: Some(time.into()) };
            let is_left_out = without_odd_time(&mut report);
            let mut status = json!({});
            merge(&mut status, &[&report]);
            assert_eq!(status["state"], "online");
            assert_eq!(is_left_out, status.get("lastOnlineTime").is_none(), "{time}");
            is_left_out
        };
        for time in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789+05:30", "2026-12-31T23:59:60Z"] {
            assert!(!left(time), "{time}");
        }
        for time in [
            "not a time",
            "",
            "2026-01-01",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00Z\nHACK",
            "2026-01-01T00:00:00+00:00[UTC]",
        ] {
            assert!(left(time), "{time}");
        }
    }

    #[test]
    fn a_device_goes_with_its_model() {
        let device = json!({ "spec": { "nodeName": "edge-1", "deviceModelRef": { "name": "m" } } });
        let key = ObjectKey::new("devices", "d", "pump");
        let place = placement_of(&key, &device).unwrap();
        assert_eq!(place.node.as_str(), "edge-1");
        assert_eq!(place.needs, BTreeSet::from([ObjectKey::new(DEVICE_MODELS, "d", "m")]));
        assert_eq!(placement_of(&key, &json!({ "spec": {} })), None);
    }
}
