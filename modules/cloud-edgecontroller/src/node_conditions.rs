//! What a Node's conditions are while its node is alive. Whoever watches nodes writes `Unknown` over them when the Lease was not
//! renewed for a while, because CloudCore could not reach the API server, say. A kubelet finds that within ten seconds and says
//! its status again. A node of ours reports what changes, and nothing has changed there: so its CloudCore says again what the
//! node reported last, as soon as the node says that it is alive.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env, Fault, Moment};
use contract::NodeName;
use contract::nodelease::NodeLeaseMsg;
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::NodeReportError;
use crate::{events, session_lease};

/// 5 s between two times that it is said again for a node: it says more often that it is alive than anybody has to write it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// By node: the conditions of its last report that was written, with the session that it came in, and until when they are not
/// said again.
type BySession = BTreeMap<NodeName, (u64, Rc<Value>, Moment)>;

/// What the nodes reported last.
#[derive(Clone, Default)]
pub(crate) struct LastConditions(Rc<RefCell<BySession>>);

impl LastConditions {
    /// A report was written whose conditions are these.
    pub(crate) fn written(&self, from: &ReportSender, conditions: &Value) {
        let (mut last, conditions) = (self.0.borrow_mut(), Rc::new(conditions.clone()));
        let until = last.get(&from.node).map(|(.., until)| *until).unwrap_or_default();
        last.insert(from.node.clone(), (from.session, conditions, until));
    }

    /// The session is over.
    pub(crate) fn forget(&self, node: &NodeName) {
        self.0.borrow_mut().remove(node);
    }

    /// All sessions are.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Whether they may be said again now; then not again for a while.
    pub(crate) fn may_say_again(&self, node: &NodeName, now: Moment) -> bool {
        let mut last = self.0.borrow_mut();
        let Some((.., until)) = last.get_mut(node).filter(|(.., until)| *until <= now) else { return false };
        *until = now + AGAIN_AFTER;
        true
    }

    fn of(&self, from: &ReportSender) -> Option<Rc<Value>> {
        let last = self.0.borrow();
        last.get(&from.node)
            .filter(|(session, ..)| *session == from.session)
            .map(|(_, conditions, _)| Rc::clone(conditions))
    }
}

fn conditions(node: &Value) -> &[Value] {
    node.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Since when each condition that a node reports is so in its Node, as a kubelet writes it: from now on where the Node says something
/// else, and as it stands there where it says the same. A node that was away does not know what was written meanwhile.
pub(crate) fn as_of(status: &mut Value, node: &Value, now: &str) {
    let Some(reported) = status.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    for condition in reported {
        let held = conditions(node).iter().find(|held| held["type"] == condition["type"]);
        let Some(held) = held else { continue };
        condition["lastTransitionTime"] = match held.get("lastTransitionTime") {
            Some(since) if held["status"] == condition["status"] => since.clone(),
            _ => json!(now),
        };
    }
}

/// Now, as Kubernetes writes times.
pub(crate) fn now(env: &Env) -> String {
    let now = jiff::Timestamp::try_from(env.wall()).unwrap_or_default();
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Of the conditions that a node reported those that are `Unknown` in its Node, as of now.
fn said_again(reported: &Value, node: &Value, now: &str) -> Vec<Value> {
    let unknown = |reported: &&Value| {
        conditions(node).iter().any(|held| {
            held["type"] == reported["type"] && held["status"] == "Unknown" && reported["status"] != "Unknown"
        })
    };
    let reported = reported.as_array().map(Vec::as_slice).unwrap_or_default();
    let again = reported.iter().filter(unknown).map(|condition| {
        let mut condition = condition.clone();
        condition["lastHeartbeatTime"] = json!(now);
        condition["lastTransitionTime"] = json!(now);
        condition
    });
    again.collect()
}

/// Says again what a node reported.
pub(crate) struct ConditionsWriter {
    pub(crate) client: kube::Client,
    pub(crate) lease: Address<NodeLeaseMsg>,
    pub(crate) last: LastConditions,
    pub(crate) env: Env,
}

impl ConditionsWriter {
    /// Writes them once: the node says again soon that it is alive.
    pub(crate) async fn write(self, from: ReportSender) {
        match self.try_write(&from).await {
            Ok(true) => events::conditions_said_again(&self.env, &from.node),
            Ok(false) => {}
            Err(error) => {
                events::conditions_not_said_again(&self.env, &from.node, &Fault::from_error(&error).reason);
            }
        }
    }

    async fn try_write(&self, from: &ReportSender) -> Result<bool, NodeReportError> {
        let Some(reported) = self.last.of(from) else { return Ok(false) };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Some(found) = nodes.get_opt(from.node.as_str()).await? else { return Ok(false) };
        let again = said_again(&reported, &json!(found), &now(&self.env));
        if again.is_empty() {
            return Ok(false);
        }
        // The Node is read before the Lease, and written as it was read: nobody can have come between.
        if !session_lease::holds(&self.lease, from).await? {
            return Ok(false);
        }
        let metadata =
            json!({ "uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version });
        let patch = json!({ "metadata": metadata, "status": { "conditions": again } });
        let patch = Patch::Strategic(&patch);
        match nodes.patch_status(from.node.as_str(), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str) -> Value {
        json!({ "status": { "conditions": [
            { "type": "Ready", "status": ready }, { "type": "MemoryPressure", "status": "False" },
            { "type": "DiskPressure", "status": ready },
        ] } })
    }

    #[test]
    fn what_is_unknown_is_said_again_and_nothing_else() {
        let reported = json!([
            { "type": "Ready", "status": "True", "reason": "EdgeReady", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "MemoryPressure", "status": "True" }, { "type": "DiskPressure", "status": "Unknown" },
            { "type": "PIDPressure", "status": "False" },
        ]);
        let now = "2026-11-28T00:00:00Z";
        let ready = json!({ "type": "Ready", "status": "True", "reason": "EdgeReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now });
        assert_eq!(said_again(&reported, &node("Unknown"), now), [ready]);
        assert!(said_again(&reported, &node("True"), now).is_empty());
        assert!(said_again(&json!(null), &node("Unknown"), now).is_empty());
    }

    #[test]
    fn a_condition_is_so_since_its_node_says_so() {
        let node = json!({ "status": { "conditions": [
            { "type": "Ready", "status": "Unknown", "lastTransitionTime": "b" },
            { "type": "DiskPressure", "status": "False", "lastTransitionTime": "c" },
        ] } });
        let reported =
            |kind: &str, status: &str| json!({ "type": kind, "status": status, "lastTransitionTime": "a" });
        let mut status = json!({ "conditions":
            [reported("Ready", "True"), reported("DiskPressure", "False"), reported("PIDPressure", "False")] });
        as_of(&mut status, &node, "now");
        let since: Vec<&Value> =
            status["conditions"].as_array().unwrap().iter().map(|one| &one["lastTransitionTime"]).collect();
        assert_eq!(since, ["now", "c", "a"]);
        as_of(&mut json!({}), &node, "now");
    }

    #[test]
    fn they_are_of_one_session() {
        let node = NodeName::parse("edge-1").unwrap();
        let of = |session| ReportSender { node: node.clone(), session };
        let last = LastConditions::default();
        last.written(&of(7), &json!([1]));
        assert!(last.of(&of(7)).is_some() && last.of(&of(8)).is_none());
        last.forget(&node);
        assert!(last.of(&of(7)).is_none());
    }

    #[test]
    fn a_node_that_says_all_the_time_that_it_is_alive_has_them_said_again_every_five_seconds() {
        let node = NodeName::parse("edge-1").unwrap();
        let (last, at) = (LastConditions::default(), |seconds| Moment(Duration::from_secs(seconds)));
        assert!(!last.may_say_again(&node, at(0)), "there is nothing to say");
        let from = ReportSender { node: node.clone(), session: 7 };
        last.written(&from, &json!([1]));
        assert_eq!((0..100).filter(|_| last.may_say_again(&node, at(1))).count(), 1);
        // A report is no way around it.
        last.written(&from, &json!([2]));
        assert!(!last.may_say_again(&node, at(5)) && last.may_say_again(&node, at(6)));
    }
}
