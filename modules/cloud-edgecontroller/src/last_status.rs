//! What a Node says while its node is alive. Whoever watches nodes writes `Unknown` over its conditions when the Lease was not renewed
//! for a while, because CloudCore could not reach the API server, say; and whoever may write a Node's status may write anything there.
//! A kubelet finds that within ten seconds and says its status again. A node of ours reports what changes, and nothing has changed
//! there: so its CloudCore says again what the node reported last, as soon as the node says that it is alive.
//!
//! A kubelet also writes every five minutes that nothing has changed. Over a link that would be a kilobyte for a time of day, so CloudCore
//! writes the heartbeat of a node that is alive by itself.

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
/// 5 min: how old the heartbeat of a Node's conditions becomes at the most, as by a kubelet (nodeStatusReportFrequency).
const HEARTBEAT_AFTER: Duration = Duration::from_secs(300);
/// Seconds by which some nodes are earlier than others: a thousand that came at one time are not written at one time for ever.
const HEARTBEATS_SPREAD: u64 = 60;
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
    /// When its heartbeat was written.
    heartbeat: Moment,
}

/// What a Node is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DueFor {
    /// Whether it says what was reported.
    Differs,
    /// That, and its heartbeat is written.
    Heartbeat,
}

/// What the nodes reported last that was written, with the session that it came in.
#[derive(Clone, Default)]
pub(crate) struct LastStatus(Rc<RefCell<BTreeMap<NodeName, Last>>>);

impl LastStatus {
    /// A report was written that says this.
    pub(crate) fn written(&self, from: &ReportSender, reported: Reported, now: Moment) {
        let (mut last, reported) = (self.0.borrow_mut(), Rc::new(reported));
        let until = last.get(&from.node).map(|last| last.until).unwrap_or_default();
        last.insert(
            from.node.clone(),
            Last { session: from.session, reported, until, seen: None, heartbeat: now },
        );
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
    pub(crate) fn begin_look(&self, node: &NodeName, mark: u64, now: Moment) -> Option<DueFor> {
        let mut last = self.0.borrow_mut();
        let last = last.get_mut(node).filter(|last| last.until <= now)?;
        let look = if now.since(last.heartbeat) >= heartbeat_after(node) {
            DueFor::Heartbeat
        } else if last.seen != Some(mark) {
            DueFor::Differs
        } else {
            return None;
        };
        last.until = now + AGAIN_AFTER;
        Some(look)
    }

    /// The heartbeat was written.
    fn beat(&self, from: &ReportSender, now: Moment) {
        let mut last = self.0.borrow_mut();
        if let Some(last) = last.get_mut(&from.node).filter(|last| last.session == from.session) {
            last.heartbeat = now;
        }
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

fn heartbeat_after(node: &NodeName) -> Duration {
    let sum = node.as_str().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    HEARTBEAT_AFTER.saturating_sub(Duration::from_secs(sum % HEARTBEATS_SPREAD))
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

/// The heartbeat of those conditions that a node reported and its Node has.
fn heartbeats(reported: &Value, node: &Value, now: &str) -> Vec<Value> {
    let has = |kind: &Value| conditions(node).iter().any(|held| held["type"] == *kind);
    let reported = reported.as_array().into_iter().flatten();
    let kinds = reported.map(|condition| &condition["type"]).filter(|kind| has(kind));
    kinds.map(|kind| json!({ "type": kind, "lastHeartbeatTime": now })).collect()
}

/// Adds to what is said again the heartbeat of all else: conditions are merged by their type.
fn add_heartbeats(status: &mut Value, heartbeats: Vec<Value>) {
    let Some(said) = status.as_object_mut() else { return };
    let said = said.entry("conditions").or_insert_with(|| json!([]));
    let Some(said) = said.as_array_mut() else { return };
    for heartbeat in heartbeats {
        if !said.iter().any(|condition| condition["type"] == heartbeat["type"]) {
            said.push(heartbeat);
        }
    }
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
    pub(crate) async fn write(self, from: ReportSender, mark: u64, look: DueFor) {
        match self.try_write(&from, mark, look).await {
            Ok(true) => events::status_said_again(&self.env, &from.node),
            Ok(false) => {}
            Err(error) => {
                events::status_not_said_again(&self.env, &from.node, &Fault::from_error(&error).reason);
            }
        }
    }

    /// Whether the Node said something else, and says it no more.
    async fn try_write(&self, from: &ReportSender, mark: u64, look: DueFor) -> Result<bool, NodeReportError> {
        let Some(reported) = self.last.of(from) else { return Ok(false) };
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Some(found) = nodes.get_opt(from.node.as_str()).await? else { return Ok(false) };
        let (node, now) = (json!(found), now(&self.env));
        let mut status = status_again(&reported, &node, &now);
        let mut metadata =
            json!({ "uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version });
        kubelet_endpoint::complete_if_other(
            &mut metadata,
            &mut status,
            (self.endpoints.of(from), &reported.addresses),
            &found,
        );
        let differs = status != json!({});
        if !differs {
            self.last.seen(from, &reported, mark);
        }
        if look == DueFor::Heartbeat {
            add_heartbeats(&mut status, heartbeats(&reported.conditions, &node, &now));
        } else if !differs {
            return Ok(false);
        }
        // The Node is read before the Lease, and written as it was read: nobody can have come between.
        if !session_lease::holds(&self.lease, from).await? {
            return Ok(false);
        }
        let patch = json!({ "metadata": metadata, "status": status });
        let patch = Patch::Strategic(&patch);
        match nodes.patch_status(from.node.as_str(), &PatchParams::default(), &patch).await {
            Ok(_) if look == DueFor::Heartbeat => {
                self.last.beat(from, self.env.now());
                Ok(differs)
            }
            Ok(_) => Ok(differs),
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
        last.written(&of(7), Reported::default(), Moment::default());
        assert!(last.of(&of(7)).is_some() && last.of(&of(8)).is_none());
        last.forget(&node);
        assert!(last.of(&of(7)).is_none());
    }

    #[test]
    fn a_node_that_says_all_the_time_that_it_is_alive_has_its_node_looked_at_every_five_seconds_while_it_differs()
     {
        let node = NodeName::parse("edge-1").unwrap();
        let (last, at) = (LastStatus::default(), |seconds| Moment(Duration::from_secs(seconds)));
        let differs = Some(DueFor::Differs);
        assert_eq!(last.begin_look(&node, 1, at(0)), None, "there is nothing to say");
        let from = ReportSender { node: node.clone(), session: 7 };
        last.written(&from, Reported::default(), at(0));
        assert_eq!((0..100).filter(|_| last.begin_look(&node, 1, at(1)) == differs).count(), 1);
        // A report is no way around it.
        last.written(&from, Reported::default(), at(5));
        assert_eq!((last.begin_look(&node, 1, at(5)), last.begin_look(&node, 1, at(6))), (None, differs));
        let reported = last.of(&from).unwrap();
        last.seen(&from, &reported, 1);
        assert_eq!((last.begin_look(&node, 1, at(60)), last.begin_look(&node, 2, at(60))), (None, differs));
        last.written(&from, Reported::default(), at(69));
        last.seen(&from, &reported, 2);
        assert_eq!(last.begin_look(&node, 2, at(70)), differs, "what was seen is of an older report");
    }

    #[test]
    fn the_heartbeat_of_a_node_that_is_alive_is_written_within_five_minutes() {
        let node = NodeName::parse("edge-1").unwrap();
        let (last, due) = (LastStatus::default(), heartbeat_after(&node));
        assert!(due <= HEARTBEAT_AFTER && due >= HEARTBEAT_AFTER - Duration::from_secs(HEARTBEATS_SPREAD));
        assert_ne!(due, heartbeat_after(&NodeName::parse("edge-2").unwrap()));
        let from = ReportSender { node: node.clone(), session: 7 };
        let (at, second) =
            (|after: Duration| Moment(Duration::from_secs(10) + after), Duration::from_secs(1));
        last.written(&from, Reported::default(), at(Duration::ZERO));
        last.seen(&from, &last.of(&from).unwrap(), 1);
        assert_eq!(last.begin_look(&node, 1, at(due - second)), None);
        // What was not written is tried again.
        for tries in 0..3 {
            let now = at(due + AGAIN_AFTER * tries);
            assert_eq!(last.begin_look(&node, 1, now), Some(DueFor::Heartbeat), "try {tries}");
        }
        let later = due + AGAIN_AFTER * 3;
        last.beat(&ReportSender { session: 6, ..from.clone() }, at(later));
        assert_eq!(last.begin_look(&node, 1, at(later)), Some(DueFor::Heartbeat), "another session's");
        last.beat(&from, at(later));
        assert_eq!(last.begin_look(&node, 1, at(later + due - second)), None);
        assert_eq!(last.begin_look(&node, 1, at(later + due)), Some(DueFor::Heartbeat));
    }

    #[test]
    fn a_heartbeat_is_of_what_the_node_reported_and_changes_nothing_that_is_said_again() {
        let reported = json!([{ "type": "Ready", "status": "True" }, { "type": "MemoryPressure", "status": "False" }, { "type": "New" }]);
        let node = json!({ "status": { "conditions": [{ "type": "Ready" }, { "type": "MemoryPressure" }, { "type": "Foreign" }] } });
        let mut status = json!({ "conditions": [{ "type": "Ready", "status": "True" }], "capacity": {} });
        add_heartbeats(&mut status, heartbeats(&reported, &node, "now"));
        let memory = json!({ "type": "MemoryPressure", "lastHeartbeatTime": "now" });
        assert_eq!(
            status,
            json!({ "conditions": [{ "type": "Ready", "status": "True" }, memory], "capacity": {} })
        );
    }
}
