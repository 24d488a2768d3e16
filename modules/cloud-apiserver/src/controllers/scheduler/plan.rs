//! Which node a pod goes to, and what is said when there is none.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::taint::Tolerations;
use serde_json::{Value, json};

use crate::controllers::object::{controller_uid, has_ended, is_deleting, list, name, number, text, time};
use crate::controllers::requests::{self, Amounts, ONE};
use crate::controllers::selector::{self, wants_node};

/// What the scorers of kube-scheduler take a container for that asks for nothing: 100m and 200Mi.
const ASSUMED: [(&str, i128); 2] = [("cpu", ONE / 10), ("memory", 200 * 1024 * 1024 * ONE)];
/// The full mark of one score.
const FULL: i128 = 100;

/// 16 resources of which a node has too little are told: a pod may ask for thousands that no node has.
const TOLD_RESOURCES: usize = 16;

/// A pod that looks for a node, with what each node is asked about it: made once, and not for each node.
struct PodInfo<'a> {
    pod: &'a Value,
    asked: Amounts,
    ports: Vec<(String, i64, String)>,
    tolerations: Tolerations<'a>,
}

impl<'a> PodInfo<'a> {
    fn new(pod: &'a Value) -> Self {
        PodInfo {
            pod,
            asked: requests::requests(pod),
            ports: host_ports(pod),
            tolerations: Tolerations::of(list(pod, "/spec/tolerations")),
        }
    }
}

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
    fn filter_reasons(&self, pod: &PodInfo<'_>) -> Vec<String> {
        if self.node["spec"]["unschedulable"] == json!(true) {
            let taint = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
            if !pod.tolerations.cover(&taint) {
                return vec!["node(s) were unschedulable".to_owned()];
            }
        }
        let hard = |taint: &&Value| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
        let mut taints = list(self.node, "/spec/taints").iter().filter(hard);
        if let Some(taint) = taints.find(|taint| !pod.tolerations.cover(taint)) {
            let (key, value) = (text(taint, "/key"), text(taint, "/value"));
            return vec![format!("node(s) had untolerated taint {{{key}: {value}}}")];
        }
        if !wants_node(pod.pod, self.node) {
            return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
        }
        if !self.ports.is_empty() && pod.ports.iter().any(|port| self.is_taken(port)) {
            return vec!["node(s) didn't have free ports for the requested pod ports".to_owned()];
        }
        let mut reasons = Vec::new();
        let allowed = self.allocatable.get("pods").map(|pods| pods / ONE);
        if allowed.is_none_or(|allowed| self.pods >= allowed) {
            reasons.push("Too many pods".to_owned());
        }
        let lacking = pod.asked.iter().filter(|(resource, amount)| {
            let free = self.allocatable.get(*resource).copied().unwrap_or_default()
                - self.used.get(*resource).copied().unwrap_or_default();
            **amount > 0 && **amount > free
        });
        reasons.extend(lacking.take(TOLD_RESOURCES).map(|(resource, _)| format!("Insufficient {resource}")));
        reasons
    }

    /// Whether a port of its protocol and number is taken at its address, or one of the two is of all addresses. Looks for those
    /// and not at all of them: a node and a pod may have thousands each.
    fn is_taken(&self, (protocol, number, address): &(String, i64, String)) -> bool {
        let at = |address: &str| (protocol.clone(), *number, address.to_owned());
        if EVERYWHERE.contains(&address.as_str()) {
            let next = self.ports.range(at("")..).next();
            return next.is_some_and(|taken| taken.0 == *protocol && taken.1 == *number);
        }
        [address.as_str()].into_iter().chain(EVERYWHERE).any(|address| self.ports.contains(&at(address)))
    }

    /// More is better: free share of cpu and memory, wished affinity, and taints that are only disliked.
    fn score(&self, pod: &PodInfo<'_>) -> i128 {
        let shares = ASSUMED.iter().filter_map(|(resource, assumed)| {
            let all = self.allocatable.get(*resource).copied().filter(|all| *all > 0)?;
            let mine = pod.asked.get(*resource).copied().filter(|mine| *mine > 0).unwrap_or(*assumed);
            let used = self.used.get(*resource).copied().unwrap_or_default() + mine;
            Some((all - used).max(0) * FULL / all)
        });
        let shares: Vec<i128> = shares.collect();
        let free = shares.iter().sum::<i128>() / i128::try_from(shares.len().max(1)).unwrap_or(1);
        let wishes = "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution";
        let wished: i64 = list(pod.pod, wishes)
            .iter()
            .filter(|wish| selector::term_picks(&wish["preference"], self.node))
            .filter_map(|wish| number(wish, "/weight"))
            .map(|weight| weight.clamp(0, 100))
            .sum();
        let disliked = list(self.node, "/spec/taints")
            .iter()
            .filter(|taint| text(taint, "/effect") == "PreferNoSchedule" && !pod.tolerations.cover(taint))
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

/// The addresses that stand for all.
const EVERYWHERE: [&str; 2] = ["0.0.0.0", "::"];

/// Where a pod can go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScheduleResult {
    /// Any of these is as good as the others.
    Best(Vec<String>),
    /// Nowhere, and why.
    Nowhere(String),
}

/// Looks for the best nodes for a pod, one node after the other: whoever asks can do something else between two.
pub(crate) struct Placement<'p, 'n> {
    pod: PodInfo<'p>,
    nodes: usize,
    /// Those that it can go to, with their scores and how many siblings of it they have.
    fitting: Vec<(&'n NodeInfo<'n>, i128, i128)>,
    reasons: BTreeMap<String, usize>,
}

impl<'p, 'n> Placement<'p, 'n> {
    pub(crate) fn new(pod: &'p Value) -> Self {
        Placement { pod: PodInfo::new(pod), nodes: 0, fitting: Vec::new(), reasons: BTreeMap::new() }
    }

    pub(crate) fn look(&mut self, node_info: &'n NodeInfo<'n>) {
        self.nodes += 1;
        let filter_reasons = node_info.filter_reasons(&self.pod);
        if filter_reasons.is_empty() {
            let siblings = node_info.owners.get(controller_uid(self.pod.pod)).copied().unwrap_or_default();
            self.fitting.push((node_info, node_info.score(&self.pod), siblings));
        }
        for reason in filter_reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    pub(crate) fn result(self) -> ScheduleResult {
        let nodes = self.nodes;
        if nodes == 0 {
            return ScheduleResult::Nowhere("no nodes available to schedule pods".to_owned());
        }
        if let Some(what) = not_understood(self.pod.pod) {
            return ScheduleResult::Nowhere(format!("0/{nodes} nodes are available: {what}."));
        }
        if self.fitting.is_empty() {
            // Counted, and sorted as text, as kube-scheduler does.
            let mut told: Vec<String> =
                self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            told.sort();
            return ScheduleResult::Nowhere(format!("0/{nodes} nodes are available: {}.", told.join(", ")));
        }
        let most = self.fitting.iter().map(|(.., siblings)| *siblings).max().unwrap_or_default().max(1);
        // The spread of siblings counts twice, as in the default weights.
        let total = |score: i128, siblings: i128| score + 2 * FULL * (most - siblings) / most;
        let totals =
            self.fitting.iter().map(|(node_info, score, siblings)| (node_info, total(*score, *siblings)));
        let best = totals.clone().map(|(_, total)| total).max().unwrap_or_default();
        let best =
            totals.filter(|(_, total)| *total == best).map(|(node_info, _)| node_info.name().to_owned());
        ScheduleResult::Best(best.collect())
    }
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

    fn place(pod: &Value, node_infos: &BTreeMap<String, NodeInfo<'_>>) -> ScheduleResult {
        let mut placement = Placement::new(pod);
        node_infos.values().for_each(|node_info| placement.look(node_info));
        placement.result()
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
    fn what_a_pod_has_thousands_of_is_not_gone_through_for_each_node() {
        let began = std::time::Instant::now();
        let port = |from: &str, n: usize| json!({"hostPort": 80, "hostIP": format!("{from}.{}.{}", n / 256, n % 256)});
        let ports = |from: &str| json!((0..20_000).map(|n| port(from, n)).collect::<Vec<_>>());
        let (mut there, mut comes) = (pod("1"), pod("1"));
        there["spec"]["containers"][0]["ports"] = ports("10.0");
        comes["spec"]["containers"][0]["ports"] = ports("10.1");
        comes["spec"]["tolerations"] =
            json!((0..20_000).map(|n| json!({"key": format!("k{n}")})).collect::<Vec<_>>());
        let mut node = node("a", "4");
        node["spec"]["taints"] = json!(
            (0..20_000).map(|n| json!({"key": format!("k{n}"), "effect": "NoSchedule"})).collect::<Vec<_>>()
        );
        let nodes = [node];
        let node_infos = node_infos(&nodes, &[("a", there)]);
        assert!(matches!(place(&comes, &node_infos), ScheduleResult::Best(_)));
        comes["spec"]["containers"][0]["ports"] = json!([{"hostPort": 80, "hostIP": "::"}]);
        assert!(nowhere(place(&comes, &node_infos)).contains("free ports"));
        // It asks for what no node has, thousands of times, and is told in a few words.
        let asks: serde_json::Map<String, Value> =
            (0..20_000).map(|n| (format!("x.io/{n}"), json!("1"))).collect();
        comes["spec"]["containers"][0] = json!({"resources": {"requests": asks}});
        let told = nowhere(place(&comes, &node_infos));
        assert_eq!(told.matches("Insufficient").count(), TOLD_RESOURCES);
        // What was quadratic took minutes.
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
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
