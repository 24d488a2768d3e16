//! Which nodes are silent, which taints they carry, and which pods may not stay on them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::taint::{NO_EXECUTE, NOT_READY, UNREACHABLE};
use beehive::Moment;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controllers::object::{
    condition, condition_status, has_ended, is_deleting, list, name, namespace, seconds, text, time,
    with_condition,
};

/// Conditions that nobody knows any more when a node is silent.
const KNOWN_BY_THE_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that keep new pods away while they are `True`.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// When we last saw a sign of life. The clocks of nodes do not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeHealth {
    lease: String,
    heartbeat: String,
    at: Moment,
}

impl NodeHealth {
    /// A node that is seen for the first time.
    pub(crate) fn first(now: Moment) -> Self {
        NodeHealth { lease: String::new(), heartbeat: String::new(), at: now }
    }

    /// Compares with what the node says now.
    pub(crate) fn look(&mut self, node: &Value, lease: Option<&Value>, now: Moment) {
        let renewed = lease.map(|lease| text(lease, "/spec/renewTime")).unwrap_or_default();
        if !renewed.is_empty() && renewed != self.lease {
            renewed.clone_into(&mut self.lease);
            self.at = now;
        }
        // `Unknown` is what we wrote ourselves.
        let Some(ready) = condition(node, "Ready").filter(|ready| text(ready, "/status") != "Unknown") else {
            return;
        };
        let heartbeat = format!("{} {}", text(ready, "/lastHeartbeatTime"), text(ready, "/status"));
        if heartbeat != self.heartbeat {
            self.heartbeat = heartbeat;
            self.at = now;
        }
    }

    /// How much longer the node may be silent; zero when it has been for too long.
    pub(crate) fn left(&self, node: &Value, now: Moment, grace: Duration, startup: Duration) -> Duration {
        let never = self.lease.is_empty() && condition(node, "Ready").is_none();
        let grace = if never { startup } else { grace };
        grace.saturating_sub(now.since(self.at))
    }
}

/// The conditions of a silent node; `None` if they say it already.
pub(crate) fn silent(node: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let old = list(node, "/status/conditions");
    let mut conditions = old.to_vec();
    let mut moved = false;
    for kind in KNOWN_BY_THE_NODE {
        let new = match condition(node, kind) {
            Some(said) if text(said, "/status") == "Unknown" => continue,
            Some(said) => {
                let mut new = said.clone();
                new["status"] = json!("Unknown");
                new["reason"] = json!("NodeStatusUnknown");
                new["message"] = json!("Kubelet stopped posting node status.");
                new
            }
            None => json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastHeartbeatTime": seconds(now),
            }),
        };
        moved = true;
        conditions = with_condition(&conditions, new, now);
    }
    moved.then_some(conditions)
}

/// The taints that a node should carry; `None` if it carries them already. An edge node that is cut off keeps its pods: it carries
/// none that drives them away, as `eviction.yaml` of the chart has it elsewhere.
pub(crate) fn taints(node: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match condition_status(node, "Ready") {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, NO_EXECUTE)]),
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, NO_EXECUTE)]),
        // It has not said anything yet: nothing new goes there, and nothing has to leave.
        _ => wanted.push((NOT_READY, "NoSchedule")),
    }
    if noderegistry::plan::is_edge(node) {
        wanted.retain(|(_, effect)| *effect != NO_EXECUTE);
    }
    for (kind, key) in PRESSURES {
        if condition_status(node, kind) == "True" {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node["spec"]["unschedulable"] == json!(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let is_ours = |taint: &Value| {
        let (key, effect) = (text(taint, "/key"), text(taint, "/effect"));
        let executes = matches!(key, NOT_READY | UNREACHABLE) && effect == NO_EXECUTE;
        let keeps_away = effect == "NoSchedule"
            && (matches!(key, NOT_READY | UNREACHABLE | UNSCHEDULABLE)
                || PRESSURES.iter().any(|(_, pressure)| *pressure == key));
        executes || keeps_away
    };
    let old = list(node, "/spec/taints");
    let same = |taint: &Value, (key, effect): &(&str, &str)| {
        text(taint, "/key") == *key && text(taint, "/effect") == *effect
    };
    let mut next: Vec<Value> = old
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.iter().any(|wanted| same(taint, wanted)))
        .cloned()
        .collect();
    for taint in wanted {
        if !next.iter().any(|there| same(there, &taint)) {
            next.push(json!({ "key": taint.0, "effect": taint.1, "timeAdded": seconds(now) }));
        }
    }
    (next != old).then_some(next)
}

/// The pod's conditions when its node is not ready; `None` if nothing has to be said.
pub(crate) fn unready(pod: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let mut ready = condition(pod, "Ready").filter(|ready| text(ready, "/status") == "True")?.clone();
    ready["status"] = json!("False");
    Some(with_condition(list(pod, "/status/conditions"), ready, now))
}

/// The pod's status when it is removed from outside.
pub(crate) fn disrupted(pod: &Value, reason: &str, message: &str, now: Timestamp) -> Vec<Value> {
    let new = json!({ "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message });
    with_condition(list(pod, "/status/conditions"), new, now)
}

/// Pods that have ended and are too many: beyond `in_namespace` of one namespace, and beyond `in_all`. Those go first that were
/// evicted, and then the oldest (Kubernetes: `gcTerminated`, `byEvictionAndCreationTimestamp`).
pub(crate) fn surplus<'a>(
    pods: impl Iterator<Item = &'a Value>,
    in_namespace: usize,
    in_all: usize,
) -> Vec<&'a Value> {
    let mut ended: Vec<&Value> = pods.filter(|pod| has_ended(pod) && !is_deleting(pod)).collect();
    ended.sort_by_cached_key(|pod| {
        let is_evicted = text(pod, "/status/reason") == "Evicted";
        let key = (namespace(pod).to_owned(), name(pod).to_owned());
        (Reverse(is_evicted), time(pod, "/metadata/creationTimestamp"), key)
    });
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &ended {
        *left.entry(namespace(pod)).or_default() += 1;
    }
    let mut left_in_all = ended.len();
    // First what a namespace has too many of, so that one that is full costs the others nothing.
    let (mut surplus, mut rest) = (Vec::new(), Vec::new());
    for pod in ended {
        let of_its_namespace = left.entry(namespace(pod)).or_default();
        if *of_its_namespace > in_namespace {
            *of_its_namespace -= 1;
            left_in_all -= 1;
            surplus.push(pod);
        } else {
            rest.push(pod);
        }
    }
    surplus.extend(rest.into_iter().take(left_in_all.saturating_sub(in_all)));
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_pods_that_ended_the_evicted_and_the_oldest_go_beyond_the_bounds() {
        let pod = |namespace: &str, name: &str, day: u8, phase: &str, reason: &str| {
            json!({
            "metadata": {"namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
            "status": {"phase": phase, "reason": reason}})
        };
        let mut leaving = pod("a", "leaving", 1, "Failed", "");
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-09T00:00:00Z");
        let pods = [
            pod("a", "new", 5, "Failed", ""),
            pod("a", "old", 2, "Succeeded", ""),
            pod("a", "evicted", 6, "Failed", "Evicted"),
            pod("a", "middle", 3, "Failed", ""),
            pod("a", "runs", 1, "Running", ""),
            leaving,
            pod("b", "oldest", 1, "Failed", ""),
            pod("b", "b", 4, "Failed", ""),
        ];
        let gone = |in_namespace, in_all| {
            surplus(pods.iter(), in_namespace, in_all).into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(gone(4, 6), Vec::<&str>::new());
        assert_eq!(gone(3, 6), ["evicted"]);
        assert_eq!(gone(2, 6), ["evicted", "old"]);
        assert_eq!(gone(4, 4), ["evicted", "oldest"]);
        assert_eq!(gone(2, 3), ["evicted", "old", "oldest"]);
        assert_eq!(gone(0, 0).len(), 6);
    }

    const GRACE: Duration = Duration::from_secs(40);
    const STARTUP: Duration = Duration::from_secs(60);

    fn node(ready: &str, heartbeat: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]}})
    }

    fn lease(renewed: &str) -> Value {
        json!({"spec": {"renewTime": renewed}})
    }

    fn at(second: u64) -> Moment {
        Moment(Duration::from_secs(second))
    }

    #[test]
    fn a_lease_counts_from_when_we_saw_it_change() {
        let node = node("True", "h1");
        let mut health = NodeHealth::first(at(0));
        let left =
            |health: &NodeHealth, second: u64| health.left(&node, at(second), GRACE, STARTUP).as_secs();
        // Its clock may say whatever it likes.
        health.look(&node, Some(&lease("1999-01-01T00:00:00Z")), at(10));
        assert_eq!(left(&health, 10), 40);
        health.look(&node, Some(&lease("1999-01-01T00:00:00Z")), at(30));
        assert_eq!(left(&health, 30), 20);
        health.look(&node, Some(&lease("1999-01-01T00:00:01Z")), at(30));
        assert_eq!(left(&health, 70), 0);
        let unknown = super::tests::node("Unknown", "h1");
        health.look(&unknown, Some(&lease("1999-01-01T00:00:01Z")), at(71));
        assert_eq!(left(&health, 71), 0, "what we wrote is no sign of life");
        health.look(&super::tests::node("True", "h2"), None, at(72));
        assert_eq!(left(&health, 72), 40, "a report is one");
    }

    #[test]
    fn a_node_that_was_never_heard_of_has_longer() {
        let health = NodeHealth::first(at(0));
        assert_eq!(health.left(&json!({}), at(50), GRACE, STARTUP).as_secs(), 10);
        assert_eq!(health.left(&node("True", ""), at(50), GRACE, STARTUP).as_secs(), 0);
    }

    #[test]
    fn a_silent_node_is_unknown_once() {
        let mut node = node("True", "h");
        let conditions = silent(&node, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(conditions.len(), 4);
        assert_eq!(conditions[0]["message"], "Kubelet stopped posting node status.");
        assert_eq!(conditions[0]["lastHeartbeatTime"], "h");
        assert_eq!(conditions[1]["reason"], "NodeStatusNeverUpdated");
        node["status"]["conditions"] = Value::Array(conditions);
        assert_eq!(silent(&node, Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn taints_follow_the_conditions_and_others_stay() {
        let carried = |ready: &str, taints: Value| {
            let mut node = node(ready, "");
            node["spec"]["taints"] = taints;
            let next = super::taints(&node, Timestamp::UNIX_EPOCH);
            next.map(|next| {
                next.iter().map(|t| format!("{}:{}", text(t, "/key"), text(t, "/effect"))).collect::<Vec<_>>()
            })
        };
        let mine = json!([{"key": "mine", "effect": "NoExecute"}]);
        assert_eq!(carried("True", mine.clone()), None);
        let lost = [
            "mine:NoExecute",
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute",
        ];
        assert_eq!(carried("Unknown", mine).unwrap(), lost);
        let unreachable = json!([
            {"key": UNREACHABLE, "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]);
        assert_eq!(carried("Unknown", unreachable.clone()), None);
        assert_eq!(
            carried("False", unreachable.clone()).unwrap(),
            ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]
        );
        assert_eq!(carried("True", unreachable).unwrap(), Vec::<String>::new());
        let new = super::taints(&json!({"spec": {"unschedulable": true}}), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(new.len(), 2, "a node that has said nothing is not ready, and this one is cordoned");
    }

    #[test]
    fn an_edge_node_that_is_cut_off_gets_no_new_pods_and_keeps_those_that_it_has() {
        let mut node = node("Unknown", "");
        node["metadata"] = json!({"labels": {contract::ids::EDGE_LABEL: ""}, "annotations": {noderegistry::ENROLMENT_ANNOTATION: "0a"}});
        let taints = super::taints(&node, Timestamp::UNIX_EPOCH).unwrap();
        let of = |taints: &[Value]| {
            taints.iter().map(|t| format!("{}:{}", text(t, "/key"), text(t, "/effect"))).collect::<Vec<_>>()
        };
        assert_eq!(of(&taints), ["node.kubernetes.io/unreachable:NoSchedule"]);
        node["spec"]["taints"] = json!(taints);
        assert_eq!(super::taints(&node, Timestamp::UNIX_EPOCH), None, "there is nothing to write again");
    }

    #[test]
    fn pods_of_a_lost_node_are_not_ready() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(unready(&pod, Timestamp::UNIX_EPOCH).unwrap()[0]["status"], "False");
        assert_eq!(unready(&json!({}), Timestamp::UNIX_EPOCH), None);
        assert_eq!(disrupted(&pod, "r", "m", Timestamp::UNIX_EPOCH).len(), 2);
    }
}
