//! What a DeviceStatus says besides twins and state: `status.extensions.conditions`, where KubeEdge's schema has room for it. Pure.
//!
//! [`VALID`] is CloudCore's word on what is written, and [`REACHABLE`] its word on the node; the other types are the node's. A condition that
//! holds is not there.

use contract::devicerules::RULES_APPLIED;
use contract::{DeviceCondition, NodeName};
use serde_json::{Value, json};

use crate::calls::UnsentCall;

/// Whether all of the Device is honoured as it is written.
pub(crate) const VALID: &str = "Valid";
/// Whether a mapper serves the device.
pub(crate) const SERVED: &str = "Served";

/// Whether anything is heard of the device's node. Where nothing is, state and values are the last that it reported.
pub(crate) const REACHABLE: &str = "Reachable";

/// In which order a person mends them: what is written, the node, the mapper, what the device or a rule was to do, and what only follows.
const ORDER: [&str; 7] =
    [VALID, REACHABLE, SERVED, "DesiredApplied", RULES_APPLIED, "MessagesTaken", "Reporting"];

/// How soon a condition is to be mended: the lower, the sooner. One that is not known comes last.
pub(crate) fn rank(condition: &Value) -> usize {
    ORDER.iter().position(|kind| condition["type"] == *kind).unwrap_or(ORDER.len())
}

/// Whether anything is heard of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum NodeHeard {
    /// Nobody has looked yet: what stands of it stays.
    #[default]
    Unknown,
    /// It is linked here, or the cluster says nothing else.
    Yes,
    /// The cluster says that nothing is.
    No,
    /// The cluster has none of that name, or it is no edge node: nobody has the device.
    Nobody,
}

/// What CloudCore itself says of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnWord {
    /// What of it is not honoured.
    pub(crate) invalid: Option<String>,
    /// The node that it is of.
    pub(crate) node: Option<NodeName>,
    /// Whether anything is heard of that.
    pub(crate) heard: NodeHeard,
    /// The call of a method of which no node may know.
    pub(crate) unsent: Option<UnsentCall>,
}

fn condition(kind: &str, reason: &str, message: &str, since: &str) -> Value {
    json!({ "type": kind, "status": "False", "reason": reason, "message": message, "lastTransitionTime": since })
}

fn held(status: &Value) -> Vec<Value> {
    status.pointer("/extensions/conditions").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn put(status: &mut Value, conditions: Vec<Value>) {
    if conditions.is_empty() && held(status).is_empty() {
        return;
    }
    if !status.is_object() {
        *status = json!({});
    }
    if !status["extensions"].is_object() {
        status["extensions"] = json!({});
    }
    // An empty list stays: a merge patch takes nothing away.
    status["extensions"]["conditions"] = Value::Array(conditions);
}

/// A text in one line: terminals do what a control character says.
fn plain(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

fn is_own(condition: &Value) -> bool {
    condition["type"].as_str().is_some_and(is_own_kind)
}

fn is_own_kind(kind: &str) -> bool {
    [VALID, REACHABLE].contains(&kind)
}

/// One that says the same keeps its time.
fn keep_time(held: &[Value], mut new: Value) -> Value {
    let same = held.iter().find(|old| old["type"] == new["type"] && old["reason"] == new["reason"]);
    if let Some(old) = same {
        new["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    new
}

/// Takes over all that the node says is wrong.
pub(crate) fn take(status: &mut Value, reported: &[DeviceCondition]) {
    let held = held(status);
    let mut all: Vec<Value> = held.iter().filter(|condition| is_own(condition)).cloned().collect();
    let of_node = reported.iter().filter(|condition| !is_own_kind(&condition.kind));
    all.extend(
        of_node.map(|c| keep_time(&held, condition(&c.kind, &c.reason, &plain(&c.message), &c.since))),
    );
    put(status, all);
}

/// Forgets what another node has said.
pub(crate) fn forget_nodes(status: &mut Value) {
    let own = held(status).into_iter().filter(is_own).collect();
    put(status, own);
}

/// Forgets what CloudCore has said. Answers whether anything has changed.
pub(crate) fn forget_own(status: &mut Value) -> bool {
    let before = held(status);
    let others: Vec<Value> = before
        .iter()
        .filter(|condition| !is_own(condition) && condition["reason"] != MOVED)
        .cloned()
        .collect();
    let changed = others.len() != before.len();
    if changed {
        put(status, others);
    }
    changed
}

/// Takes over what CloudCore says, `reporter` being the node that the status is of. Answers whether anything has changed.
pub(crate) fn take_own(status: &mut Value, word: &OwnWord, reporter: Option<&str>, now: &str) -> bool {
    let before = held(status);
    let moved = match (&word.node, reporter) {
        (Some(node), Some(reporter)) if node.as_str() != reporter => Some(format!(
            "the device has moved from node `{reporter}` to `{node}`, which has said nothing of it yet: values and state are the old node's"
        )),
        _ => None,
    };
    let mut all: Vec<Value> = match moved {
        Some(_) => Vec::new(),
        None => before
            .iter()
            .filter(|condition| !is_own(condition) && condition["reason"] != MOVED)
            .cloned()
            .collect(),
    };
    let own = word.invalid.as_deref().map(|message| (VALID, "NotHonoured", message));
    let moved = moved.as_deref().map(|message| (SERVED, MOVED, message));
    let silent = word.node.as_ref().and_then(|node| match word.heard {
        NodeHeard::No => Some(format!(
            "nothing is heard of node `{node}` (its Node is not Ready): state and values are the last that it reported"
        )),
        // What is wrong with the name stands in `Valid`; of a device that nobody ever reported there is nothing to be told.
        NodeHeard::Nobody if reporter.is_some() => {
            Some(format!("no edge node `{node}` is there: state and values are the last that were reported"))
        }
        NodeHeard::Nobody | NodeHeard::Unknown | NodeHeard::Yes => None,
    });
    let silent = silent.as_deref().map(|message| (REACHABLE, "NodeSilent", message));
    for (kind, reason, message) in own.into_iter().chain(moved).chain(silent) {
        all.push(keep_time(&before, condition(kind, reason, message, now)));
    }
    if word.heard == NodeHeard::Unknown {
        all.extend(before.iter().filter(|condition| condition["type"] == REACHABLE).cloned());
    }
    let sorted = |conditions: &[Value]| {
        let mut texts: Vec<String> = conditions.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    let changed = sorted(&all) != sorted(&before);
    if changed {
        put(status, all);
    }
    changed
}

const MOVED: &str = "Moved";

#[cfg(test)]
mod tests {
    use super::*;

    fn word(invalid: Option<&str>, node: &str) -> OwnWord {
        let heard = NodeHeard::Yes;
        OwnWord { invalid: invalid.map(str::to_owned), node: NodeName::parse(node).ok(), heard, unsent: None }
    }

    fn said(reason: &str) -> DeviceCondition {
        let text = str::to_owned;
        DeviceCondition {
            kind: text("Reporting"),
            reason: text(reason),
            message: text("m"),
            since: text("1"),
        }
    }

    fn shown(status: &Value) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        held(status).iter().map(|c| (text(&c["type"]), text(&c["reason"]))).collect()
    }

    fn pair(kind: &str, reason: &str) -> (String, String) {
        (kind.to_owned(), reason.to_owned())
    }

    #[test]
    fn what_cloudcore_has_said_goes_and_the_rest_stays() {
        let mut status = json!({ "twins": [{ "propertyName": "speed" }], "extensions": { "a": "b" } });
        assert!(!forget_own(&mut status));
        take(&mut status, &[said("Stale")]);
        take_own(
            &mut status,
            &OwnWord { heard: NodeHeard::No, ..word(Some("no model"), "a") },
            Some("a"),
            "5",
        );
        assert_eq!(shown(&status).len(), 3);
        assert!(forget_own(&mut status) && !forget_own(&mut status));
        assert_eq!(shown(&status), [pair("Reporting", "Stale")]);
        assert_eq!(
            (&status["extensions"]["a"], &status["twins"][0]["propertyName"]),
            (&json!("b"), &json!("speed"))
        );
    }

    #[test]
    fn cloudcore_and_the_node_each_have_their_own_and_heal_their_own() {
        let mut status = json!({ "state": "online" });
        assert!(!take_own(&mut status, &word(None, "a"), None, "1"));
        assert_eq!(status, json!({ "state": "online" }), "nothing is written where nothing is wrong");
        assert!(take_own(&mut status, &word(Some("no model"), "a"), None, "1"));
        assert!(
            !take_own(&mut status, &word(Some("no model"), "a"), None, "2"),
            "the time alone is nothing new"
        );
        take(&mut status, &[said("Stale"), DeviceCondition { kind: VALID.to_owned(), ..said("Forged") }]);
        assert_eq!(shown(&status), [pair("Valid", "NotHonoured"), pair("Reporting", "Stale")]);
        assert!(take_own(&mut status, &word(None, "a"), Some("a"), "3"), "the model has come");
        assert_eq!(shown(&status), [pair("Reporting", "Stale")]);
        take(&mut status, &[DeviceCondition { message: "a\u{1b}[2J\nb".to_owned(), ..said("Stale") }]);
        assert_eq!(status["extensions"]["conditions"][0]["message"], "a [2J b");
        take(&mut status, &[]);
        assert_eq!(status["extensions"]["conditions"], json!([]), "a merge patch has to carry it");
    }

    #[test]
    fn a_device_that_moves_shows_whose_values_it_has_until_its_new_node_has_said_something() {
        let mut status = json!({});
        take(&mut status, &[said("Stale")]);
        assert!(take_own(&mut status, &word(None, "b"), Some("a"), "5"));
        assert_eq!(shown(&status), [pair("Served", "Moved")]);
        assert!(!take_own(&mut status, &word(None, "b"), Some("a"), "6"));
        forget_nodes(&mut status);
        assert_eq!(shown(&status), []);
        // And back, before the other node has said anything.
        assert!(take_own(&mut status, &word(None, "b"), Some("a"), "7"));
        assert!(take_own(&mut status, &word(None, "a"), Some("a"), "8"));
        assert_eq!(shown(&status), []);
    }

    #[test]
    fn a_device_of_a_node_of_which_nothing_is_heard_says_so_until_it_is_heard_of() {
        let heard = |heard| OwnWord { heard, ..word(None, "a") };
        let mut status = json!({ "state": "online", "twins": [{ "propertyName": "speed" }] });
        take(&mut status, &[said("Stale")]);
        assert!(take_own(&mut status, &heard(NodeHeard::No), Some("a"), "5"));
        assert_eq!(shown(&status), [pair("Reporting", "Stale"), pair("Reachable", "NodeSilent")]);
        assert_eq!(status["state"], "online", "the mapper's word stays");
        // By the next CloudCore, which has not looked yet, and again when it has.
        assert!(!take_own(&mut status, &heard(NodeHeard::Unknown), Some("a"), "6"));
        assert!(!take_own(&mut status, &heard(NodeHeard::No), Some("a"), "7"), "one write");
        // What the node says of it is as nothing.
        take(&mut status, &[said("Stale"), DeviceCondition { kind: REACHABLE.to_owned(), ..said("Mine") }]);
        assert_eq!(shown(&status).len(), 2);
        assert!(take_own(&mut status, &heard(NodeHeard::Yes), Some("a"), "8"));
        assert_eq!(shown(&status), [pair("Reporting", "Stale")]);
        assert!(!take_own(&mut status, &heard(NodeHeard::Unknown), Some("a"), "9"));
        // Its Node was deleted.
        assert!(take_own(&mut status, &heard(NodeHeard::Nobody), Some("a"), "10"));
        assert_eq!(shown(&status), [pair("Reporting", "Stale"), pair("Reachable", "NodeSilent")]);
        assert!(!take_own(&mut json!({}), &heard(NodeHeard::Nobody), None, "11"), "nobody ever reported it");
    }
}
