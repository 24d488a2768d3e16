//! What a node is sent of the status of its pods. Pure.
//!
//! A status has two writers. What others than the node wrote (a readiness gate, `DisruptionTarget`, an end that a controller
//! decided) is a part of the content: its change is a new version, and goes to the node. What the node itself reported goes
//! with the pod, but is no part of the version: a node's own report is never sent back to it, and yet one that has lost its
//! store learns with the pod that it has ended, when it started, and since when its conditions hold.

use contract::pod_status::{POD_CONDITIONS, is_terminal, reported_terminal_phase};
use serde_json::{Map, Value, json};

/// A pod's status in its two parts.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SplitStatus {
    /// What others wrote: a part of the content.
    pub(crate) of_others: Map<String, Value>,
    /// All that is sent.
    pub(crate) sent: Map<String, Value>,
}

/// Takes apart the status of the pod with this uid, whose node's reports carry `mark`.
pub(crate) fn parts(status: &Value, mark: Option<&str>, uid: &str) -> SplitStatus {
    let mut parts = SplitStatus::default();
    end(status, mark, uid, &mut parts);
    conditions(status, &mut parts);
    let sent = &mut parts.sent;
    sent.extend(field(status, "startTime"));
    for list in ["initContainerStatuses", "containerStatuses"] {
        let restarts: Vec<Value> = array(status, list).filter_map(restarts).collect();
        if !restarts.is_empty() {
            sent.insert(list.to_owned(), Value::Array(restarts));
        }
    }
    parts
}

/// The phase and why it is so. A terminal one counts as another's when the node has not reported it.
fn end(status: &Value, mark: Option<&str>, uid: &str, parts: &mut SplitStatus) {
    let Some(phase) = status["phase"].as_str() else { return };
    let said = ["phase", "reason", "message"].into_iter().filter_map(|name| field(status, name));
    parts.sent.extend(said);
    let of_node = mark.and_then(|mark| reported_terminal_phase(mark, uid)) == Some(phase);
    if is_terminal(phase) && !of_node {
        parts.of_others.extend(parts.sent.clone());
    }
}

/// In the order of their types: the order in which they stand in the API depends on who wrote last. When they were looked
/// at last (`lastProbeTime`) says nothing and moves without end.
fn conditions(status: &Value, parts: &mut SplitStatus) {
    let mut of_others = Vec::new();
    let mut of_node = Vec::new();
    for condition in array(status, "conditions") {
        let Some(kind) = condition["type"].as_str() else { continue };
        if POD_CONDITIONS.contains(&kind) {
            of_node.push(json!({
                "type": kind,
                "status": condition["status"],
                "lastTransitionTime": condition["lastTransitionTime"],
            }));
        } else {
            let mut condition = condition.clone();
            if let Some(fields) = condition.as_object_mut() {
                fields.remove("lastProbeTime");
            }
            of_others.push(condition);
        }
    }
    let kind = |condition: &Value| condition["type"].as_str().unwrap_or_default().to_owned();
    of_others.sort_by_key(kind);
    of_node.sort_by_key(kind);
    if !of_others.is_empty() {
        parts.of_others.insert("conditions".to_owned(), Value::Array(of_others.clone()));
    }
    of_others.append(&mut of_node);
    if !of_others.is_empty() {
        parts.sent.insert("conditions".to_owned(), Value::Array(of_others));
    }
}

/// How often a container that has been made was started again: its next attempt goes on from there.
fn restarts(container: &Value) -> Option<Value> {
    container["containerID"].as_str().filter(|id| !id.is_empty())?;
    Some(json!({
        "name": container["name"].as_str()?,
        "restartCount": container["restartCount"].as_u64().unwrap_or_default(),
        "containerID": container["containerID"],
    }))
}

fn field(status: &Value, name: &str) -> Option<(String, Value)> {
    status.get(name).filter(|value| !value.is_null()).map(|value| (name.to_owned(), value.clone()))
}

fn array<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(more: &[Value]) -> Value {
        let mut conditions = vec![json!({
            "type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "m",
            "lastTransitionTime": "2026-11-28T08:00:00Z",
        })];
        conditions.extend_from_slice(more);
        json!({
            "phase": "Running", "startTime": "2026-11-28T07:00:00Z", "hostIP": "192.0.2.1", "podIP": "10.0.0.2",
            "conditions": conditions,
            "containerStatuses": [
                { "name": "a", "restartCount": 3, "containerID": "containerd://x", "state": { "running": {} } },
                { "name": "b", "restartCount": 0, "state": { "waiting": {} } },
            ],
        })
    }

    #[test]
    fn a_nodes_own_report_is_sent_and_is_no_part_of_the_content() {
        let parts = parts(&running(&[]), Some("1.1/u"), "u");
        assert!(parts.of_others.is_empty(), "{parts:?}");
        assert_eq!(
            Value::Object(parts.sent),
            json!({
                "phase": "Running",
                "startTime": "2026-11-28T07:00:00Z",
                "conditions": [
                    { "type": "Ready", "status": "False", "lastTransitionTime": "2026-11-28T08:00:00Z" },
                ],
                "containerStatuses": [{ "name": "a", "restartCount": 3, "containerID": "containerd://x" }],
            })
        );
    }

    #[test]
    fn conditions_of_others_are_content_whatever_order_they_stand_in() {
        let gate =
            json!({ "type": "example.com/lb", "status": "True", "lastProbeTime": "2026-11-28T08:00:00Z" });
        let target = json!({ "type": "DisruptionTarget", "status": "True", "reason": "r" });
        let one = parts(&running(&[gate.clone(), target.clone()]), None, "u");
        let mut later = gate.clone();
        later["lastProbeTime"] = json!("2026-11-28T09:00:00Z");
        let other = parts(&running(&[target.clone(), later]), None, "u");
        assert_eq!(one.of_others, other.of_others);
        let gate = json!({ "type": "example.com/lb", "status": "True" });
        assert_eq!(Value::Object(one.of_others), json!({ "conditions": [target, gate] }));
    }

    #[test]
    fn an_end_is_content_when_the_node_did_not_report_it() {
        let failed = json!({ "phase": "Failed", "reason": "Gone", "message": "m" });
        let content = |mark| Value::Object(parts(&failed, mark, "u").of_others);
        assert_eq!(content(None), failed);
        assert_eq!(content(Some("1.1/u")), failed);
        assert_eq!(content(Some("1.1/u/Succeeded")), failed, "it reported another end");
        assert_eq!(content(Some("1.1/v/Failed")), failed, "a mark that was copied");
        assert_eq!(content(Some("1.1/u/Failed")), json!({}));
        assert_eq!(Value::Object(parts(&failed, Some("1.1/u/Failed"), "u").sent), failed);
    }

    #[test]
    fn an_odd_status_is_passed_over() {
        for odd in
            [json!(null), json!([]), json!({"phase": 3, "conditions": "x", "containerStatuses": [1, {}]})]
        {
            assert_eq!(parts(&odd, None, "u"), SplitStatus::default(), "{odd}");
        }
    }
}
