//! What a Node says while its node is alive. Whoever watches nodes writes `Unknown` over its conditions when the Lease was not renewed
//! for a while, because CloudCore could not reach the API server, say; and whoever may write a Node's status may write anything there.
//! A kubelet finds that within ten seconds and says its status again. A node of ours reports what changes, and nothing has changed
//! there: so its CloudCore says again what the node reported last, as soon as the node says that it is alive.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Env, Fault, Moment};
use contract::NodeName;
use contract::nodelease::NodeLeaseMsg;
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::{Node, NodeAddress};
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::NodeReportError;
use crate::kubelet_endpoint::{self, Endpoints};
use crate::{events, extended_resources, session_lease};

/// 5 s between two looks at one Node: a node says more often that it is alive than anybody has to write it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What is compared beside conditions and addresses, key by key: what others add stays, and an extended resource in the capacity is
/// allocatable.
const PARTS: [&str; 3] = ["capacity", "allocatable", "nodeInfo"];

/// What a node reported, as far as it is said again.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reported {
    pub(crate) conditions: Value,
    pub(crate) addresses: Vec<NodeAddress>,
    /// `capacity`, `allocatable` and `nodeInfo`, as the API server writes them.
    parts: [Value; 3],
}

impl Reported {
    /// Of a report that was written: its conditions, its node's own addresses, and the Node that the API server answered.
    pub(crate) fn new(
        conditions: &Value,
        addresses: &[NodeAddress],
        status: &Value,
        answered: &Node,
    ) -> Self {
        let answered = json!(answered);
        let parts = PARTS.map(|part| {
            let said = status[part].as_object().into_iter().flatten();
            let as_written = said.map(|(key, value)| {
                (key.clone(), answered["status"][part].get(key).unwrap_or(value).clone())
            });
            Value::Object(as_written.collect())
        });
        Reported { conditions: conditions.clone(), addresses: addresses.to_vec(), parts }
    }
}

struct Last {
    session: u64,
    reported: Rc<Reported>,
    /// Until when its Node is not looked at again.
    until: Moment,
    /// The mark of the Node's status when it was seen to be as reported.
    seen: Option<u64>,
}

/// What the nodes reported last that was written, with the session that it came in.
#[derive(Clone, Default)]
pub(crate) struct LastStatus(Rc<RefCell<BTreeMap<NodeName, Last>>>);

impl LastStatus {
    /// A report was written that says this.
    pub(crate) fn written(&self, from: &ReportSender, reported: Reported) {
        let (mut last, reported) = (self.0.borrow_mut(), Rc::new(reported));
        let until = last.get(&from.node).map(|last| last.until).unwrap_or_default();
        last.insert(from.node.clone(), Last { session: from.session, reported, until, seen: None });
    }

    /// The session is over.
    pub(crate) fn forget(&self, node: &NodeName) {
        self.0.borrow_mut().remove(node);
    }

    /// All sessions are.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Whether the Node, whose status has this mark, is to be looked at now; then not again for a while.
    pub(crate) fn begin_look(&self, node: &NodeName, mark: u64, now: Moment) -> bool {
        let mut last = self.0.borrow_mut();
        let is_due = |last: &&mut Last| last.until <= now && last.seen != Some(mark);
        let Some(last) = last.get_mut(node).filter(is_due) else { return false };
        last.until = now + AGAIN_AFTER;
        true
    }

    /// The Node was as reported when its status had this mark.
    fn seen(&self, from: &ReportSender, reported: &Rc<Reported>, mark: u64) {
        let mut last = self.0.borrow_mut();
        if let Some(last) = last.get_mut(&from.node).filter(|last| Rc::ptr_eq(&last.reported, reported)) {
            last.seen = Some(mark);
        }
    }

    fn of(&self, from: &ReportSender) -> Option<Rc<Reported>> {
        let last = self.0.borrow();
        last.get(&from.node).filter(|last| last.session == from.session).map(|last| Rc::clone(&last.reported))
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

/// Of the conditions that a node reported those of which its Node says something else, or nothing, as of now.
fn conditions_again(reported: &Value, node: &Value, now: &str) -> Vec<Value> {
    let differs = |reported: &&Value| {
        let held = conditions(node).iter().find(|held| held["type"] == reported["type"]);
        let says = |condition: &Value, part: &str| condition[part].as_str().unwrap_or_default().to_owned();
        let is_other = |held: &Value| {
            ["status", "reason", "message"].iter().any(|part| says(held, part) != says(reported, part))
        };
        reported["status"] != "Unknown" && held.is_none_or(is_other)
    };
    let reported = reported.as_array().map(Vec::as_slice).unwrap_or_default();
    let again = reported.iter().filter(differs).map(|condition| {
        let mut condition = condition.clone();
        condition["lastHeartbeatTime"] = json!(now);
        condition["lastTransitionTime"] = json!(now);
        condition
    });
    again.collect()
}

/// The part of a status that makes a Node say again what its node reported; empty where it says so.
fn status_again(reported: &Reported, node: &Value, now: &str) -> Value {
    let mut status = json!({});
    let conditions = conditions_again(&reported.conditions, node, now);
    if !conditions.is_empty() {
        status["conditions"] = Value::Array(conditions);
    }
    for (part, reported) in PARTS.into_iter().zip(&reported.parts) {
        let held = &node["status"][part];
        let mut said = reported.as_object().into_iter().flatten();
        if said.any(|(key, value)| held.get(key) != Some(value)) {
            status[part] = reported.clone();
        }
    }
    let [capacity, ..] = &reported.parts;
    extended_resources::complete(&mut status, capacity, node);
    status
}

/// Says again what a node reported.
pub(crate) struct StatusWriter {
    pub(crate) client: kube::Client,
    pub(crate) lease: Address<NodeLeaseMsg>,
    pub(crate) last: LastStatus,
    pub(crate) endpoints: Endpoints,
    pub(crate) env: Env,
}

impl StatusWriter {
    /// Looks at the Node, whose status had this mark when it was seen last, and writes it once if need be: the node says again soon
    /// that it is alive.
    pub(crate) async fn write(self, from: ReportSender, mark: u64) {
        match self.try_write(&from, mark).await {
            Ok(true) => events::status_said_again(&self.env, &from.node),
            Ok(false) => {}
            Err(error) => {
                events::status_not_said_again(&self.env, &from.node, &Fault::from_error(&error).reason);
            }
        }
    }

    async fn try_write(&self, from: &ReportSender, mark: u64) -> Result<bool, NodeReportError> {
        let Some(reported) = self.last.of(from) else { return Ok(false) };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Some(found) = nodes.get_opt(from.node.as_str()).await? else { return Ok(false) };
        let mut status = status_again(&reported, &json!(found), &now(&self.env));
        let mut metadata =
            json!({ "uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version });
        kubelet_endpoint::complete_if_other(
            &mut metadata,
            &mut status,
            (self.endpoints.of(from), &reported.addresses),
            &found,
        );
        if status == json!({}) {
            self.last.seen(from, &reported, mark);
            return Ok(false);
        }
        // The Node is read before the Lease, and written as it was read: nobody can have come between.
        if !session_lease::holds(&self.lease, from).await? {
            return Ok(false);
        }
        let patch = json!({ "metadata": metadata, "status": status });
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
            { "type": "Ready", "status": ready, "reason": "EdgeReady" },
            { "type": "MemoryPressure", "status": "False" },
            { "type": "DiskPressure", "status": ready },
        ] } })
    }

    #[test]
    fn conditions_that_the_node_reported_otherwise_are_said_again_and_nothing_else() {
        let reported = json!([
            { "type": "Ready", "status": "True", "reason": "EdgeReady", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "MemoryPressure", "status": "False" }, { "type": "DiskPressure", "status": "Unknown" },
        ]);
        let now = "2026-11-28T00:00:00Z";
        let ready = json!({ "type": "Ready", "status": "True", "reason": "EdgeReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now });
        assert_eq!(conditions_again(&reported, &node("Unknown"), now), std::slice::from_ref(&ready));
        assert!(conditions_again(&reported, &node("True"), now).is_empty());
        assert_eq!(conditions_again(&reported, &node("False"), now), std::slice::from_ref(&ready));
        let others = json!({ "status": { "conditions": [{ "type": "MemoryPressure", "status": "False" }] } });
        assert_eq!(conditions_again(&reported, &others, now), [ready], "one that somebody took away");
        assert!(conditions_again(&json!(null), &node("Unknown"), now).is_empty());
    }

    #[test]
    fn amounts_that_somebody_wrote_are_said_again_and_what_others_add_is_allocatable() {
        let node = |cpu: &str, gpu: &str| -> Node {
            serde_json::from_value(
                json!({ "status": { "capacity": { "cpu": cpu, "example.com/gpu": "1" }, "allocatable": { "example.com/gpu": gpu } } }),
            )
            .unwrap()
        };
        let said = json!({ "capacity": { "cpu": "2000m" } });
        let reported = Reported::new(&json!(null), &[], &said, &node("2", "1"));
        assert_eq!(
            status_again(&reported, &json!(node("2", "1")), "now"),
            json!({}),
            "the server's way to write it"
        );
        let again = status_again(&reported, &json!(node("64", "1")), "now");
        assert_eq!(again, json!({ "capacity": { "cpu": "2" } }));
        let again = status_again(&reported, &json!(node("2", "0")), "now");
        assert_eq!(again, json!({ "allocatable": { "example.com/gpu": "1" } }));
    }

    #[test]
    fn what_a_node_says_of_its_system_is_said_again() {
        let node = |info: Value| -> Node {
            serde_json::from_value(json!({ "status": { "nodeInfo": info } })).unwrap()
        };
        let info = |kernel: &str| {
            let rest = ["machineID", "systemUUID", "bootID", "osImage", "containerRuntimeVersion"];
            let rest = rest.into_iter().chain([
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ]);
            let mut info: Value = rest.map(|key| (key.to_owned(), json!("x"))).collect();
            info["kernelVersion"] = json!(kernel);
            info
        };
        let reported =
            Reported::new(&json!(null), &[], &json!({ "nodeInfo": info("6.1") }), &node(info("6.1")));
        let again = |kernel: &str| status_again(&reported, &json!(node(info(kernel))), "now");
        assert_eq!(again("6.1"), json!({}));
        assert_eq!(again("forged"), json!({ "nodeInfo": info("6.1") }));
        let gone = status_again(&reported, &json!({ "status": {} }), "now");
        assert_eq!(gone, json!({ "nodeInfo": info("6.1") }), "somebody took it away");
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
    fn it_is_of_one_session() {
        let node = NodeName::parse("edge-1").unwrap();
        let of = |session| ReportSender { node: node.clone(), session };
        let last = LastStatus::default();
        last.written(&of(7), Reported::default());
        assert!(last.of(&of(7)).is_some() && last.of(&of(8)).is_none());
        last.forget(&node);
        assert!(last.of(&of(7)).is_none());
    }

    #[test]
    fn a_node_that_says_all_the_time_that_it_is_alive_has_its_node_looked_at_every_five_seconds_while_it_differs()
     {
        let node = NodeName::parse("edge-1").unwrap();
        let (last, at) = (LastStatus::default(), |seconds| Moment(Duration::from_secs(seconds)));
        assert!(!last.begin_look(&node, 1, at(0)), "there is nothing to say");
        let from = ReportSender { node: node.clone(), session: 7 };
        last.written(&from, Reported::default());
        assert_eq!((0..100).filter(|_| last.begin_look(&node, 1, at(1))).count(), 1);
        // A report is no way around it.
        last.written(&from, Reported::default());
        assert!(!last.begin_look(&node, 1, at(5)) && last.begin_look(&node, 1, at(6)));
        let reported = last.of(&from).unwrap();
        last.seen(&from, &reported, 1);
        assert!(!last.begin_look(&node, 1, at(60)) && last.begin_look(&node, 2, at(60)));
        last.written(&from, Reported::default());
        last.seen(&from, &reported, 2);
        assert!(last.begin_look(&node, 2, at(70)), "what was seen is of an older report");
    }
}
