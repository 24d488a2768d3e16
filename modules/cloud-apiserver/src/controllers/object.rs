//! Reading objects, which are JSON here: a controller copies what it does not know.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer.
pub(crate) fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The list at a JSON pointer; empty if there is none.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

/// Labels, or `null`.
pub(crate) fn labels(object: &Value) -> &Value {
    object.pointer("/metadata/labels").unwrap_or(&Value::Null)
}

pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}

/// Whether somebody asked for it to go.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The reference to the one owner that controls the object.
pub(crate) fn controller_of(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| owner["controller"] == json!(true))
}

/// The uid of the controlling owner; empty if there is none.
pub(crate) fn controller_uid(object: &Value) -> &str {
    controller_of(object).map(|owner| text(owner, "/uid")).unwrap_or_default()
}

/// The reference by which `owner` controls something.
pub(crate) fn reference_to(owner: &Value, api_version: &str, kind: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": name(owner), "uid": uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A condition of the status.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}

/// `True`, `False`, `Unknown`, or empty when the condition is not there.
pub(crate) fn condition_status<'a>(object: &'a Value, kind: &str) -> &'a str {
    condition(object, kind).map(|condition| text(condition, "/status")).unwrap_or_default()
}

/// The conditions with `new` in the place of the one of its type. The time of its last transition stays when its
/// status did not change.
pub(crate) fn with_condition(conditions: &[Value], mut new: Value, now: Timestamp) -> Vec<Value> {
    let kind = text(&new, "/type").to_owned();
    let old = conditions.iter().find(|condition| text(condition, "/type") == kind);
    let same = old.filter(|old| old["status"] == new["status"]);
    let since = same.map(|old| text(old, "/lastTransitionTime")).filter(|since| !since.is_empty());
    new["lastTransitionTime"] = since.map_or_else(|| json!(seconds(now)), |since| json!(since));
    let mut all = conditions.to_vec();
    match all.iter_mut().find(|condition| text(condition, "/type") == kind) {
        Some(place) => *place = new,
        None => all.push(new),
    }
    all
}

/// The time at a JSON pointer.
pub(crate) fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// As Kubernetes writes times: whole seconds.
pub(crate) fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or_default().to_string()
}

/// Whether a pod has run to its end.
pub(crate) fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a pod counts for whoever keeps a number of them.
pub(crate) fn is_active(pod: &Value) -> bool {
    !has_ended(pod) && !is_deleting(pod)
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    condition_status(pod, "Ready") == "True"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_transition_time_while_its_status_stays() {
        let then = seconds(Timestamp::from_second(1000).unwrap());
        let old =
            vec![json!({"type": "A"}), json!({"type": "B", "status": "True", "lastTransitionTime": then})];
        let now = Timestamp::from_second(2000).unwrap();
        let kept = with_condition(&old, json!({"type": "B", "status": "True", "reason": "x"}), now);
        assert_eq!(kept[1]["lastTransitionTime"], json!(then));
        assert_eq!(kept[1]["reason"], "x");
        let moved = with_condition(&old, json!({"type": "B", "status": "False"}), now);
        assert_eq!(moved[1]["lastTransitionTime"], json!(seconds(now)));
        assert_eq!(with_condition(&old, json!({"type": "C", "status": "False"}), now).len(), 3);
    }
}
