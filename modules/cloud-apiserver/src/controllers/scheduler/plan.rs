//! Which node a pod goes to, and what is said when there is none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::controllers::object::{controller_uid, has_ended, is_deleting, list, name, number, text, time};
use crate::controllers::requests::{self, Amounts, ONE};
use crate::controllers::selector::{self, tolerates, wants_node};

/// What the scorers of kube-scheduler take a container for that asks for nothing: 100m and 200Mi.
const ASSUMED: [(&str, i128); 2] = [("cpu", ONE / 10), ("memory", 200 * 1024 * 1024 * ONE)];
/// The full mark of one score.
const FULL: i128 = 100;

/// A node with what its pods take.
pub(crate) struct NodeInfo<'a> {
    node: &'a Value,
    allocatable: Amounts,
    used: Amounts,
    pods: i128,
    owners: BTreeMap<String, i128>,
    ports: BTreeSet<(String, i64, String)>,
}

impl<'a> NodeInfo<'a> {
    pub(crate) fn new(node: &'a Value) -> Self {
        let said = [&node["status"]["allocatable"], &node["status"]["capacity"]];
        let allocatable = said.into_iter().find(|amounts| amounts.is_object()).unwrap_or(&Value::Null);
        NodeInfo {
            node,
            allocatable: requests::amounts(allocatable),
            used: Amounts::new(),
            pods: 0,
            owners: BTreeMap::new(),
            ports: BTreeSet::new(),
        }
    }

    /// Takes the pod's share.
    pub(crate) fn take(&mut self, pod: &Value) {
        if has_ended(pod) {
            return;
        }
        requests::add(&mut self.used, &requests::requests(pod));
        self.pods += 1;
        self.ports.extend(host_ports(pod));
        let owner = controller_uid(pod);
        if !owner.is_empty() {
            *self.owners.entry(owner.to_owned()).or_default() += 1;
        }
    }

    pub(crate) fn name(&self) -> &str {
        name(self.node)
    }

    /// Why the pod cannot go here, in kube-scheduler's words; empty if it can.
    fn filter_reasons(&self, pod: &Value, asked: &Amounts) -> Vec<String> {
        if self.node["spec"]["unschedulable"] == json!(true) {
            let taint = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
            if !tolerates(pod, &taint) {
                return vec!["node(s) were unschedulable".to_owned()];
            }
        }
        let hard = |taint: &&Value| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
        let mut taints = list(self.node, "/spec/taints").iter().filter(hard);
        if let Some(taint) = taints.find(|taint| !tolerates(pod, taint)) {
            let (key, value) = (text(taint, "/key"), text(taint, "/value"));
            return vec![format!("node(s) had untolerated taint {{{key}: {value}}}")];
        }
        if !wants_node(pod, self.node) {
            return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
        }
        if host_ports(pod).iter().any(|port| self.is_taken(port)) {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
        let mut reasons = Vec::new();
        let allowed = self.allocatable.get("pods").map(|pods| pods / ONE);
        if allowed.is_none_or(|allowed| self.pods >= allowed) {
            reasons.push("Too many pods".to_owned());
        }
        for (resource, amount) in asked.iter().filter(|(_, amount)| **amount > 0) {
            let free = self.allocatable.get(resource).copied().unwrap_or_default()
                - self.used.get(resource).copied().unwrap_or_default();
            if *amount > free {
                reasons.push(format!("Insufficient {resource}"));
            }
        }
        reasons
    }

    /// Looks only at those of its protocol and number: a node and a pod may have thousands each.
    fn is_taken(&self, port: &(String, i64, String)) -> bool {
        let from = (port.0.clone(), port.1, String::new());
        let same = self.ports.range(from..).take_while(|taken| taken.0 == port.0 && taken.1 == port.1);
        same.into_iter().any(|taken| collide(port, taken))
    }

    /// More is better: free share of cpu and memory, wished affinity, and taints that are only disliked.
    fn score(&self, pod: &Value, asked: &Amounts) -> i128 {
        let shares = ASSUMED.iter().filter_map(|(resource, assumed)| {
            let all = self.allocatable.get(*resource).copied().filter(|all| *all > 0)?;
            let mine = asked.get(*resource).copied().filter(|mine| *mine > 0).unwrap_or(*assumed);
            let used = self.used.get(*resource).copied().unwrap_or_default() + mine;
            Some((all - used).max(0) * FULL / all)
        });
        let shares: Vec<i128> = shares.collect();
        let free = shares.iter().sum::<i128>() / i128::try_from(shares.len().max(1)).unwrap_or(1);
        let wishes = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
        let wished: i64 = list(pod, wishes)
            .iter()
            .filter(|wish| selector::term_picks(&wish["preference"], self.node))
            .filter_map(|wish| number(wish, "/weight"))
            .map(|weight| weight.clamp(0, 100))
            .sum();
        let disliked = list(self.node, "/spec/taints")
            .iter()
            .filter(|taint| text(taint, "/effect") == "PreferNoSchedule" && !tolerates(pod, taint))
            .count();
        free + i128::from(wished) - FULL * i128::try_from(disliked).unwrap_or_default()
    }
}

fn host_ports(pod: &Value) -> Vec<(String, i64, String)> {
    let containers = list(pod, "/spec/containers").iter();
    let ports = containers.flat_map(|container| list(container, "/ports"));
    let host = ports.filter_map(|port| {
        let number = number(port, "/hostPort").filter(|number| *number > 0)?;
        let or = |pointer: &str, other: &str| {
            let said = text(port, pointer);
            if said.is_empty() { other.to_owned() } else { said.to_owned() }
        };
        Some((or("/protocol", "TCP"), number, or("/hostIP", "0.0.0.0")))
    });
    host.collect()
}

fn collide(one: &(String, i64, String), other: &(String, i64, String)) -> bool {
    let any = |address: &str| matches!(address, "0.0.0.0" | "::");
    one.0 == other.0 && one.1 == other.1 && (one.2 == other.2 || any(&one.2) || any(&other.2))
}

/// Where a pod can go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScheduleResult {
    /// Any of these is as good as the others.
    Best(Vec<String>),
    /// Nowhere, and why.
    Nowhere(String),
}

/// Looks for the best nodes for a pod.
pub(crate) fn place(pod: &Value, node_infos: &BTreeMap<String, NodeInfo<'_>>) -> ScheduleResult {
    if node_infos.is_empty() {
        return ScheduleResult::Nowhere("no nodes available to schedule pods".to_owned());
    }
    if let Some(what) = not_understood(pod) {
        return ScheduleResult::Nowhere(format!("0/{} nodes are available: {what}.", node_infos.len()));
    }
    let asked = requests::requests(pod);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for node_info in node_infos.values() {
        let filter_reasons = node_info.filter_reasons(pod, &asked);
        if filter_reasons.is_empty() {
            fitting.push(node_info);
        }
        for reason in filter_reasons {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    if fitting.is_empty() {
        // Counted, and sorted as text, as kube-scheduler does.
        let mut told: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        told.sort();
        return ScheduleResult::Nowhere(format!(
            "0/{} nodes are available: {}.",
            node_infos.len(),
            told.join(", ")
        ));
    }
    let owner = controller_uid(pod);
    let siblings = |node_info: &NodeInfo<'_>| node_info.owners.get(owner).copied().unwrap_or_default();
    let most = fitting.iter().map(|node_info| siblings(node_info)).max().unwrap_or_default().max(1);
    // The spread of siblings counts twice, as in the default weights.
    let total = |node_info: &NodeInfo<'_>| {
        node_info.score(pod, &asked) + 2 * FULL * (most - siblings(node_info)) / most
    };
    let best = fitting.iter().map(|node_info| total(node_info)).max().unwrap_or_default();
    ScheduleResult::Best(
        fitting
            .iter()
            .filter(|node_info| total(node_info) == best)
            .map(|node_info| node_info.name().to_owned())
            .collect(),
    )
}

/// What this scheduler cannot honour: such a pod waits, instead of running where it should not.
fn not_understood(pod: &Value) -> Option<String> {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for field in ["podAffinity", "podAntiAffinity"] {
        if !list(pod, &format!("/spec/affinity/{field}/{required}")).is_empty() {
            return Some(format!("required {field} is not honoured by this scheduler"));
        }
    }
    let spread = list(pod, "/spec/topologySpreadConstraints");
    if spread.iter().any(|constraint| text(constraint, "/whenUnsatisfiable") != "ScheduleAnyway") {
        return Some("topologySpreadConstraints are not honoured by this scheduler".to_owned());
    }
    if !list(pod, "/spec/resourceClaims").is_empty() {
        return Some("resourceClaims are not honoured by this scheduler".to_owned());
    }
    let claims = list(pod, "/spec/volumes").iter();
    let mut claims = claims.map(|volume| text(volume, "/persistentVolumeClaim/claimName"));
    let claim = claims.find(|claim| !claim.is_empty())?;
    Some(format!("the claim \"{claim}\" of a persistent volume is not honoured by this scheduler"))
}

/// Whether a pod waits for this scheduler.
pub(crate) fn is_waiting(pod: &Value) -> bool {
    text(pod, "/spec/nodeName").is_empty()
        && !is_deleting(pod)
        && !has_ended(pod)
        && matches!(text(pod, "/spec/schedulerName"), "" | "default-scheduler")
}

/// Whether a pod is held back by its own gates.
pub(crate) fn is_gated(pod: &Value) -> bool {
    !list(pod, "/spec/schedulingGates").is_empty()
}

/// The order in which pods get a place: the more important one, then the older one.
pub(crate) fn sort(pods: &mut [&Value]) {
    pods.sort_by_cached_key(|pod| {
        let priority = number(pod, "/spec/priority").unwrap_or_default();
        (std::cmp::Reverse(priority), time(pod, "/metadata/creationTimestamp"), name(pod).to_owned())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cpu: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"on": name}},
            "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "3"}}})
    }

    fn pod(cpu: &str) -> Value {
        json!({"metadata": {"name": "p", "ownerReferences": [{"uid": "rs", "controller": true}]},
            "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn node_infos<'a>(nodes: &'a [Value], pods: &[(&str, Value)]) -> BTreeMap<String, NodeInfo<'a>> {
        let mut node_infos: BTreeMap<String, NodeInfo<'_>> =
            nodes.iter().map(|node| (name(node).to_owned(), NodeInfo::new(node))).collect();
        for (node, pod) in pods {
            node_infos.get_mut(*node).unwrap().take(pod);
        }
        node_infos
    }

    fn nowhere(placement: ScheduleResult) -> String {
        match placement {
            ScheduleResult::Nowhere(why) => why,
            ScheduleResult::Best(nodes) => format!("{nodes:?}"),
        }
    }

    #[test]
    fn siblings_spread_and_the_emptier_node_wins() {
        let nodes = [node("a", "4"), node("b", "4")];
        let best = |pods: &[(&str, Value)]| place(&pod("1"), &node_infos(&nodes, pods));
        assert_eq!(best(&[]), ScheduleResult::Best(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(best(&[("a", pod("1"))]), ScheduleResult::Best(vec!["b".to_owned()]));
        let mut stranger = pod("2");
        stranger["metadata"]["ownerReferences"] = json!([]);
        assert_eq!(best(&[("b", stranger)]), ScheduleResult::Best(vec!["a".to_owned()]));
    }

    #[test]
    fn refusals_are_told_in_the_words_of_kube_scheduler() {
        assert_eq!(nowhere(place(&pod("1"), &BTreeMap::new())), "no nodes available to schedule pods");
        let mut nodes = [node("a", "4"), node("b", "1"), node("c", "1")];
        nodes[0]["spec"]["taints"] =
            json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]);
        assert_eq!(
            nowhere(place(&pod("2"), &node_infos(&nodes, &[]))),
            "0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 2 Insufficient cpu."
        );
        nodes[1]["spec"]["unschedulable"] = json!(true);
        let mut choosy = pod("1");
        choosy["spec"]["nodeSelector"] = json!({"on": "z"});
        assert_eq!(
            nowhere(place(&choosy, &node_infos(&nodes, &[]))),
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }, 1 node(s) were unschedulable."
        );
    }

    #[test]
    fn pods_ports_and_what_runs_already_count() {
        let nodes = [node("a", "4")];
        let mut ended = pod("4");
        ended["status"] = json!({"phase": "Succeeded"});
        assert!(matches!(place(&pod("4"), &node_infos(&nodes, &[("a", ended)])), ScheduleResult::Best(_)));
        let three = [("a", pod("0")), ("a", pod("0")), ("a", pod("0"))];
        assert_eq!(
            nowhere(place(&pod("0"), &node_infos(&nodes, &three))),
            "0/1 nodes are available: 1 Too many pods."
        );
        let mut with_port = pod("1");
        with_port["spec"]["containers"][0]["ports"] = json!([{"hostPort": 80}]);
        assert_eq!(
            nowhere(place(&with_port, &node_infos(&nodes, &[("a", with_port.clone())]))),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        );
    }

    #[test]
    fn what_is_not_honoured_is_not_ignored() {
        let nodes = [node("a", "4")];
        let mut picky = pod("1");
        picky["spec"]["affinity"] =
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}});
        assert_eq!(
            nowhere(place(&picky, &node_infos(&nodes, &[]))),
            "0/1 nodes are available: required podAntiAffinity is not honoured by this scheduler."
        );
        let mut claiming = pod("1");
        claiming["spec"]["volumes"] = json!([{"persistentVolumeClaim": {"claimName": "data"}}]);
        assert_eq!(
            nowhere(place(&claiming, &node_infos(&nodes, &[]))),
            "0/1 nodes are available: the claim \"data\" of a persistent volume is not honoured by this scheduler."
        );
    }

    #[test]
    fn the_important_and_the_older_go_first() {
        let pod = |name: &str, priority: i64, created: &str| json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"priority": priority}});
        let pods = [
            pod("young", 0, "2026-01-02T00:00:00Z"),
            pod("old", 0, "2026-01-01T00:00:00Z"),
            pod("vip", 9, "2026-01-03T00:00:00Z"),
        ];
        let mut sorted: Vec<&Value> = pods.iter().collect();
        sort(&mut sorted);
        assert_eq!(sorted.iter().map(|pod| name(pod)).collect::<Vec<_>>(), ["vip", "old", "young"]);
    }
}
