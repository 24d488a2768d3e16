//! What a node is sent of the status of its pods. Pure.
//!
//! A status has two writers. What others than the node wrote (a readiness gate, `DisruptionTarget`, an end that a controller
//! decided) is a part of the content: its change is a new version, and goes to the node. What the node itself reported goes
//! with the pod, but is no part of the version: a node's own report is never sent back to it, and yet one that has lost its
//! store learns with the pod that it has ended, when it started, and since when its conditions hold.

use contract::pod_status::{
    POD_CONDITIONS, fingerprint, is_terminal, reported_fingerprint, reported_terminal_phase,
};
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
    let is_overruled = is_overruled(status, mark, uid);
    if is_overruled {
        parts.of_others.extend(["phase", "podIP"].into_iter().filter_map(|name| field(status, name)));
    }
    conditions(status, is_overruled, &mut parts);
    let sent = &mut parts.sent;
    sent.extend(["startTime", "podIP"].into_iter().filter_map(|name| field(status, name)));
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

/// Whether the status is not what was written with the node's last report: somebody else has written what is the node's to
/// say. Who watches nodes does, while it hears nothing of one (Kubernetes: the node lifecycle controller's MarkPodsNotReady),
/// and never takes it back. The node has to hear of it, and to report again.
fn is_overruled(status: &Value, mark: Option<&str>, uid: &str) -> bool {
    let reported = mark.and_then(|mark| reported_fingerprint(mark, uid));
    reported.is_some_and(|reported| reported != fingerprint(status))
}

/// In the order of their types: the order in which they stand in the API depends on who wrote last. When they were looked
/// at last (`lastProbeTime`) says nothing and moves without end.
fn conditions(status: &Value, is_overruled: bool, parts: &mut SplitStatus) {
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
    let mut content = of_others.clone();
    if is_overruled {
        // With the times, so that the same words at another time are news.
        content.extend(of_node.iter().cloned());
    }
    if !content.is_empty() {
        parts.of_others.insert("conditions".to_owned(), Value::Array(content));
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
        let mark = format!("1.1/u/{}", fingerprint(&running(&[])));
        let parts = parts(&running(&[]), Some(&mark), "u");
        assert!(parts.of_others.is_empty(), "{parts:?}");
        assert_eq!(
            Value::Object(parts.sent),
            json!({
                "phase": "Running",
                "startTime": "2026-11-28T07:00:00Z",
                "podIP": "10.0.0.2",
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
    fn what_another_wrote_over_the_nodes_report_is_content_and_so_is_when() {
        let reported = running(&[]);
        let mark = format!("1.1/u/{}", fingerprint(&reported));
        let content = |status: &Value| Value::Object(parts(status, Some(&mark), "u").of_others);
        assert_eq!(content(&reported), json!({}));
        let mut seen = vec![content(&reported)];
        let writes = [
            ("/podIP", json!("1.2.3.4")),
            ("/phase", json!("Pending")),
            ("/conditions/0/status", json!("True")),
            ("/conditions/0/lastTransitionTime", json!("2026-11-28T09:00:00Z")),
        ];
        let mut status = reported.clone();
        for (pointer, to) in writes {
            *status.pointer_mut(pointer).unwrap() = to;
            let content = content(&status);
            assert!(!seen.contains(&content), "{pointer}: {content}");
            seen.push(content);
        }
    }

    #[test]
    fn an_end_is_content_when_the_node_did_not_report_it() {
        let failed = json!({ "phase": "Failed", "reason": "Gone", "message": "m" });
        let mark = |uid: &str, end: &str| format!("1.1/{uid}/{}{end}", fingerprint(&failed));
        let content = |mark: Option<String>| Value::Object(parts(&failed, mark.as_deref(), "u").of_others);
        assert_eq!(content(None), failed);
        assert_eq!(content(Some(mark("u", ""))), failed);
        assert_eq!(content(Some(mark("u", "/Succeeded"))), failed, "it reported another end");
        assert_eq!(content(Some(mark("v", "/Failed"))), failed, "a mark that was copied");
        assert_eq!(content(Some(mark("u", "/Failed"))), json!({}));
        assert_eq!(Value::Object(parts(&failed, Some(&mark("u", "/Failed")), "u").sent), failed);
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
