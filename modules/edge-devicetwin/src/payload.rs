//! What is said as JSON on the topics of the twins.

use std::collections::BTreeMap;

use bytes::Bytes;
use contract::ids::DeviceName;
use contract::{CallOutcome, CallState};
use crd::DeviceModel;
use serde_json::{Map, Value, json};

use crate::plan::{self, Refused, TwinChange, is_online};
use crate::twin::{Side, State, Twin};

/// What every message has.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Echoed from a request, or fresh.
    pub(crate) event_id: String,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
}

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// A side with its notes: `error` says why there is no value, `stale` since when nothing has been heard of it.
fn side(side: &Side, error: Option<&String>, stale: Option<i64>) -> Value {
    let mut metadata = json!({ "timestamp": side.timestamp });
    if let Some(error) = error {
        metadata["error"] = json!(error);
    }
    if let Some(stale) = stale {
        metadata["stale"] = json!(stale);
    }
    json!({ "value": side.value, "metadata": metadata })
}

/// A twin as clients see it: no versions, and a deleted one is null.
fn as_json(twin: &Twin) -> Value {
    if twin.deleted {
        return Value::Null;
    }
    let mut value = json!({ "optional": twin.optional, "metadata": { "type": twin.value_type } });
    if let Some(expected) = &twin.expected {
        value["expected"] = side(expected, twin.observed_error.as_ref(), None);
    }
    if let Some(actual) = &twin.actual {
        value["actual"] = side(actual, twin.actual_error.as_ref(), twin.stale);
    }
    value
}

fn living(twins: &BTreeMap<String, Twin>) -> Map<String, Value> {
    twins.iter().filter(|(_, twin)| !twin.deleted).map(|(name, twin)| (name.clone(), as_json(twin))).collect()
}

/// A change as a client's answer has it: of a property that was there those sides alone that were told, as with KubeEdge: who finds
/// `expected` there has just been told that something else is wanted.
fn told(change: &TwinChange) -> Value {
    let mut value = as_json(&change.after);
    let (Some(before), Value::Object(twin)) =
        (change.before.as_ref().filter(|twin| !twin.deleted), &mut value)
    else {
        return value;
    };
    if before.expected_version == change.after.expected_version {
        twin.remove("expected");
    }
    if before.actual_version == change.after.actual_version {
        twin.remove("actual");
    }
    value
}

/// `twin/update/result` of a client's update that was taken.
pub(crate) fn update_result(base: &Base, changes: &[TwinChange]) -> Bytes {
    result(base, changes, told)
}

/// `twin/update/result` of what a mapper has reported, which always tells both sides.
pub(crate) fn report_result(base: &Base, changes: &[TwinChange]) -> Bytes {
    result(base, changes, |change| as_json(&change.after))
}

fn result(base: &Base, changes: &[TwinChange], of: impl Fn(&TwinChange) -> Value) -> Bytes {
    let twin: Map<String, Value> =
        changes.iter().map(|change| (change.property.clone(), of(change))).collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": twin }))
}

/// Any result of a request that was refused.
pub(crate) fn refusal(base: &Base, refused: &Refused) -> Bytes {
    bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "code": refused.code.number(), "reason": refused.reason,
    }))
}

/// `method/call/result`: as KubeEdge's results, with a code and a reason where it was not done.
pub(crate) fn call_result(base: &Base, method: &str, outcome: &CallOutcome) -> Bytes {
    let mut result = json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "method": method, "state": outcome.state.word(),
    });
    if outcome.state != CallState::Done {
        result["code"] = json!(outcome.code);
        result["reason"] = json!(outcome.message);
    }
    bytes(&result)
}

/// `twin/update/document`: what the changes properties were, and what they are.
pub(crate) fn document(base: &Base, changes: &[TwinChange]) -> Bytes {
    let twin: Map<String, Value> = changes
        .iter()
        .map(|change| {
            let last = change.before.as_ref().map_or(Value::Null, as_json);
            (change.property.clone(), json!({ "last": last, "current": as_json(&change.after) }))
        })
        .collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": twin }))
}

/// `twin/update/delta`, when there is one.
pub(crate) fn delta(
    base: &Base,
    twins: &BTreeMap<String, Twin>,
    model: Option<&DeviceModel>,
) -> Option<Bytes> {
    let delta = plan::delta(twins, model);
    if delta.is_empty() {
        return None;
    }
    // Those alone of which something is wanted, as with KubeEdge, and may be: who walks them reads `expected` of each.
    let is_wanted = |name: &str, twin: &Twin| {
        let expected = twin.expected.as_ref().map(|side| side.value.as_str()).unwrap_or_default();
        !expected.is_empty() && plan::check_desired(name, expected, model).is_ok()
    };
    let wanted = twins.iter().filter(|(name, twin)| !twin.deleted && is_wanted(name, twin));
    let wanted: Map<String, Value> = wanted.map(|(name, twin)| (name.clone(), as_json(twin))).collect();
    Some(bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "twin": wanted, "delta": delta,
    })))
}

/// `twin/get/result`.
pub(crate) fn get_result(base: &Base, twins: &BTreeMap<String, Twin>) -> Bytes {
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": living(twins) }))
}

/// When it said last that it is online, which applications hear only as long as it is (KubeEdge).
fn online_at(state: &State) -> Option<&str> {
    state.last_online.as_deref().filter(|_| is_online(&state.state) == Some(true))
}

/// `state/update/result`.
pub(crate) fn state_result(base: &Base, id: &DeviceName, state: &State) -> Bytes {
    let mut device = json!({ "name": id.name, "state": state.state });
    if let Some(time) = online_at(state) {
        device["lastOnlineTime"] = json!(time);
    }
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "device": device }))
}

/// A device as `membership/get/result` lists it: its id, its description and its state.
pub(crate) type Listed<'a> = (&'a DeviceName, &'a str, &'a State);

/// `membership/get/result`.
pub(crate) fn members<'a>(base: &Base, members: impl Iterator<Item = Listed<'a>>) -> Bytes {
    let devices: Vec<Value> = members
        .map(|(id, description, state)| {
            let mut device = json!({ "id": id.to_string(), "name": id.name, "state": state.state });
            if !description.is_empty() {
                device["description"] = json!(description);
            }
            if let Some(time) = online_at(state) {
                device["last_online"] = json!(time);
            }
            device
        })
        .collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "devices": devices }))
}

/// `membership/updated`; those that were added with their descriptions. A side without devices is null, as KubeEdge writes it.
pub(crate) fn membership_updated(base: &Base, added: &[(DeviceName, &str)], removed: &[DeviceName]) -> Bytes {
    let named = |id: &DeviceName| json!({ "id": id.to_string(), "name": id.name });
    let described = |(id, description): &(DeviceName, &str)| {
        let mut device = named(id);
        if !description.is_empty() {
            device["description"] = json!(description);
        }
        device
    };
    let list = |devices: Vec<Value>| if devices.is_empty() { Value::Null } else { Value::Array(devices) };
    bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp,
        "added_devices": list(added.iter().map(described).collect()),
        "removed_devices": list(removed.iter().map(named).collect()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_has_nothing_of_what_the_model_forbids() {
        let base = Base { event_id: "e".to_owned(), timestamp: 9 };
        let expected = |value: &str| Twin {
            expected: Some(Side { value: value.to_owned(), timestamp: 1 }),
            ..Twin::new("int")
        };
        let twins = BTreeMap::from([("led".to_owned(), expected("1")), ("level".to_owned(), expected("60"))]);
        let told = |maximum: &str| {
            let property = |name: &str| json!({ "name": name, "type": "INT", "accessMode": "ReadWrite", "maximum": maximum });
            let model = json!({ "metadata": { "name": "m" }, "spec": { "properties": [property("led"), property("level")] } });
            let payload = delta(&base, &twins, Some(&serde_json::from_value(model).unwrap())).unwrap();
            let json: Value = serde_json::from_slice(&payload).unwrap();
            let twin: Vec<String> = json["twin"].as_object().unwrap().keys().cloned().collect();
            (twin, json["delta"].clone())
        };
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(told("100"), (names(&["led", "level"]), json!({ "led": "1", "level": "60" })));
        assert_eq!(told("40"), (names(&["led"]), json!({ "led": "1" })));
    }

    #[test]
    fn an_answer_has_the_sides_that_were_told_and_a_new_property_all_of_it() {
        let base = Base { event_id: "e".to_owned(), timestamp: 9 };
        let value = |value: &str| Some(Side { value: value.to_owned(), timestamp: 1 });
        let before = Twin { expected: value("on"), actual: value("off"), ..Twin::new("string") };
        let mut after = Twin { actual: value("on"), ..before.clone() };
        after.actual_version.edge += 1;
        let change = |before: Option<&Twin>, after: &Twin| {
            [TwinChange { property: "led".to_owned(), before: before.cloned(), after: after.clone() }]
        };
        let keys = |payload: Bytes| -> Vec<String> {
            let json: Value = serde_json::from_slice(&payload).unwrap();
            json["twin"]["led"].as_object().unwrap().keys().cloned().collect()
        };
        let answer = |before, after: &Twin| keys(update_result(&base, &change(before, after)));
        assert_eq!(answer(Some(&before), &after), ["actual", "metadata", "optional"]);
        let all = ["actual", "expected", "metadata", "optional"];
        assert_eq!(answer(None, &after), all);
        assert_eq!(answer(Some(&Twin { deleted: true, ..before.clone() }), &after), all);
        assert_eq!(keys(report_result(&base, &change(Some(&before), &after))), all);
        let gone = Twin { deleted: true, ..after };
        let json: Value =
            serde_json::from_slice(&update_result(&base, &change(Some(&before), &gone))).unwrap();
        assert_eq!(json["twin"], json!({ "led": null }));
    }
}
