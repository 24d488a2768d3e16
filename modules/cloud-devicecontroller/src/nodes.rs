//! Which of the nodes that Devices name are there, and whether anything is heard of them: a name that no Node has is a mistyped one most
//! often, and says nothing by itself; of a node that is cut off a device's state and values are old. Pure.

use std::collections::BTreeMap;

use contract::NodeName;
use contract::devicecontroller::NodePresence;
use contract::ids::EDGE_LABEL;
use k8s_openapi::api::core::v1::Node;

use noderegistry::plan::is_ours;

use crate::conditions::NodeHeard;

/// 500 nodes are looked up in one round.
const ROUND_MAX: usize = 500;
/// 50 of them are nodes that were there the last time: they are offline, or linked to another CloudCore, and one of them may have been
/// deleted. In turns, so that a thousand of them cost no more.
const PRESENT_MAX: usize = 50;
/// 6 rounds, which are three minutes, in which a node is looked up each time whose link has ended here: the cluster calls it unheard of
/// 40 to 50 s after its last sign of life, and it may have gone to another CloudCore instead.
const LOST_ROUNDS: u8 = 6;

/// Whether CloudCore says anything of a node's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    /// It does.
    Own,
    /// Nobody has looked yet whose the node is: what stands of its devices stays.
    Later,
    /// It does not, and takes back what it has said.
    Nothing,
}

/// What is under a node's name. Kubernetes calls a node unheard of by `Ready: Unknown`, also one that said last that it is not ready.
pub(crate) fn presence_of(node: Option<&Node>) -> NodePresence {
    let Some(node) = node else { return NodePresence::None };
    if !node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EDGE_LABEL)) {
        return NodePresence::Other;
    }
    if !is_ours(&node.metadata) {
        return NodePresence::Foreign;
    }
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_silent = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "Unknown");
    if is_silent { NodePresence::Silent } else { NodePresence::Edge }
}

/// The nodes that are not linked here, as they were found.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    found: BTreeMap<NodeName, NodePresence>,
    /// Those whose link has ended here, and in how many rounds more they are looked up each time.
    lost: BTreeMap<NodeName, u8>,
    /// The last one that was looked up though it was there, and the last one that was not.
    turns: [Option<NodeName>; 2],
    is_looking: bool,
    /// The next round is due soon.
    pub(crate) is_due_soon: bool,
}

impl Nodes {
    /// Begins a round, unless one is under way: those of the `named`, in order of their names, that nobody has looked for, and if
    /// `again` those that were not there, and some of those that were.
    pub(crate) fn next_round<'a>(
        &mut self,
        named: impl Iterator<Item = &'a NodeName>,
        again: bool,
    ) -> Vec<NodeName> {
        if self.is_looking {
            return Vec::new();
        }
        let (mut round, mut doubtful, mut present) = (Vec::new(), Vec::new(), Vec::new());
        for node in named {
            match self.found.get(node) {
                None => round.push(node.clone()),
                Some(_) if !again => {}
                Some(NodePresence::Edge | NodePresence::Foreign) if !self.lost.contains_key(node) => {
                    present.push(node);
                }
                Some(_) => doubtful.push(node),
            }
        }
        round.truncate(ROUND_MAX - PRESENT_MAX);
        let room = ROUND_MAX - PRESENT_MAX - round.len();
        let [present_turn, doubtful_turn] = &mut self.turns;
        round.extend(in_turn(doubtful, doubtful_turn, room));
        round.extend(in_turn(present, present_turn, PRESENT_MAX));
        self.is_looking = !round.is_empty();
        round
    }

    /// A round has ended. Answers the nodes of which something else is known now.
    pub(crate) fn found(&mut self, found: Vec<(NodeName, NodePresence)>) -> Vec<NodeName> {
        self.is_looking = false;
        let differs = |(node, presence): (NodeName, NodePresence)| {
            if let Some(rounds) = self.lost.get_mut(&node) {
                *rounds = rounds.saturating_sub(1);
                if *rounds == 0 || presence != NodePresence::Edge {
                    self.lost.remove(&node);
                }
            }
            let before = self.found.insert(node.clone(), presence);
            (before != Some(presence)).then_some(node)
        };
        found.into_iter().filter_map(differs).collect()
    }

    /// A node is linked: it is there. Answers whether that is news.
    pub(crate) fn linked(&mut self, node: &NodeName) -> bool {
        self.lost.remove(node);
        self.found.insert(node.clone(), NodePresence::Edge) != Some(NodePresence::Edge)
    }

    /// A link has ended: the Node may have gone, or the node be cut off.
    pub(crate) fn unlinked(&mut self, node: &NodeName) {
        self.found.remove(node);
        self.lost.insert(node.clone(), LOST_ROUNDS);
    }

    /// Forgets the nodes that no Device names any more.
    pub(crate) fn retain(&mut self, is_named: impl Fn(&NodeName) -> bool) {
        self.found.retain(|node, _| is_named(node));
        self.lost.retain(|node, _| is_named(node));
    }

    /// Whether anything is heard of the node.
    pub(crate) fn heard(&self, node: &NodeName) -> NodeHeard {
        match self.found.get(node) {
            None => NodeHeard::Unknown,
            Some(NodePresence::Silent) => NodeHeard::No,
            Some(NodePresence::Other | NodePresence::None) => NodeHeard::Nobody,
            Some(NodePresence::Edge | NodePresence::Foreign) => NodeHeard::Yes,
        }
    }

    /// Whether CloudCore says anything of the devices of the node. Of a node that is another's, the DeviceStatus is the other's, too.
    pub(crate) fn say(&self, node: &NodeName) -> Say {
        match self.found.get(node) {
            None => Say::Later,
            Some(NodePresence::Foreign) => Say::Nothing,
            Some(_) => Say::Own,
        }
    }

    /// What is wrong with a Device that names the node.
    pub(crate) fn fault(&self, node: &NodeName) -> Option<String> {
        match self.found.get(node)? {
            NodePresence::Edge | NodePresence::Silent | NodePresence::Foreign => None,
            NodePresence::Other => Some(format!(
                "spec.nodeName `{node}` is a Node that is no edge node (label {EDGE_LABEL}): nobody has the device"
            )),
            NodePresence::None => Some(format!(
                "spec.nodeName `{node}`: the cluster has no Node of that name, so nobody has the device; mend the name, or join the node"
            )),
        }
    }
}

/// At most so many of the nodes, which are in order of their names, beginning behind the last one of the time before.
fn in_turn(mut nodes: Vec<&NodeName>, turn: &mut Option<NodeName>, most: usize) -> Vec<NodeName> {
    let first = nodes.partition_point(|node| turn.as_ref().is_some_and(|turn| *node <= turn));
    nodes.rotate_left(first);
    nodes.truncate(most);
    if let Some(last) = nodes.last() {
        *turn = Some((*last).clone());
    }
    nodes.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_node_is_silent_when_the_cluster_says_that_nothing_is_heard_of_it() {
        let node = |labels: Value, conditions: Value| -> Node {
            serde_json::from_value(
                json!({"metadata": {"labels": labels}, "status": {"conditions": conditions}}),
            )
            .unwrap()
        };
        let ready = |status: &str| json!([{"type": "Other", "status": "Unknown"}, {"type": "Ready", "status": status}]);
        let adopted = |conditions: Value| {
            let mut node = node(json!({EDGE_LABEL: ""}), conditions);
            node.metadata.uid = Some("u".to_owned());
            node.metadata.annotations = Some([("kubehive.io/adopted".to_owned(), "u".to_owned())].into());
            node
        };
        let of = |conditions: Value| presence_of(Some(&adopted(conditions)));
        assert_eq!(of(ready("Unknown")), NodePresence::Silent);
        assert_eq!([of(ready("True")), of(ready("False")), of(Value::Null)], [NodePresence::Edge; 3]);
        assert_eq!(presence_of(Some(&node(json!({}), ready("Unknown")))), NodePresence::Other);
        assert_eq!(presence_of(None), NodePresence::None);
        // KubeEdge's has the label, and so has one that was another Node when it was adopted.
        let mut other = adopted(ready("True"));
        other.metadata.uid = Some("v".to_owned());
        let kubeedges = node(json!({EDGE_LABEL: ""}), ready("Unknown"));
        assert_eq!([presence_of(Some(&other)), presence_of(Some(&kubeedges))], [NodePresence::Foreign; 2]);
    }

    #[test]
    fn of_the_devices_of_anothers_node_nothing_is_said() {
        let name = NodeName::parse("a").unwrap();
        let mut nodes = Nodes::default();
        assert_eq!(nodes.say(&name), Say::Later, "nobody has looked");
        nodes.found(vec![(name.clone(), NodePresence::Foreign)]);
        assert_eq!((nodes.say(&name), nodes.fault(&name)), (Say::Nothing, None));
        // Adopted, or made for a name that a Device had already.
        let found = nodes.found(vec![(name.clone(), NodePresence::Edge)]);
        assert_eq!((found, nodes.say(&name)), (vec![name.clone()], Say::Own));
        nodes.unlinked(&name);
        assert_eq!(nodes.say(&name), Say::Later, "it may have gone back");
        for presence in [NodePresence::None, NodePresence::Other, NodePresence::Silent] {
            nodes.found(vec![(name.clone(), presence)]);
            assert_eq!(nodes.say(&name), Say::Own, "nobody else says what is wrong with it");
        }
    }

    #[test]
    fn a_node_whose_link_has_ended_is_watched_until_it_is_known_where_it_is() {
        let names: Vec<NodeName> = (0..200).map(|n| NodeName::parse(&format!("n{n:03}")).unwrap()).collect();
        let (all, last) = (|| names.iter(), &names[199]);
        let mut nodes = Nodes::default();
        let edge = |round: Vec<NodeName>| round.into_iter().map(|node| (node, NodePresence::Edge)).collect();
        let round = nodes.next_round(all(), false);
        assert_eq!(nodes.found(edge(round)).len(), 200, "what stands of them from before may be over");
        assert!(!nodes.linked(last) && nodes.heard(last) == NodeHeard::Yes);
        nodes.unlinked(last);
        assert_eq!(nodes.heard(last), NodeHeard::Unknown, "what was said stays until somebody has looked");
        let mut looked = Vec::new();
        for round in 0..8 {
            let round = nodes.next_round(all(), round > 0);
            looked.push(round.contains(last));
            nodes.found(edge(round));
        }
        assert_eq!(looked[..6], [true; 6]);
        assert!(looked[6..].contains(&false), "then in its turn, as all others: {looked:?}");
        let silent = nodes.found(vec![(last.clone(), NodePresence::Silent)]);
        assert_eq!((silent, nodes.heard(last)), (vec![last.clone()], NodeHeard::No));
        assert!(nodes.fault(last).is_none(), "its name is right");
        for _ in 0..3 {
            let round = nodes.next_round(all(), true);
            assert!(round.contains(last), "until it is heard of");
            nodes.found(Vec::new());
        }
        assert!(nodes.linked(last) && nodes.heard(last) == NodeHeard::Yes);
    }

    #[test]
    fn of_thousands_that_are_silent_each_has_its_turn() {
        let names: Vec<NodeName> = (0..1000).map(|n| NodeName::parse(&format!("n{n:04}")).unwrap()).collect();
        let mut nodes = Nodes::default();
        nodes.found(names.iter().map(|node| (node.clone(), NodePresence::Silent)).collect());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            seen.extend(nodes.next_round(names.iter(), true));
            nodes.found(Vec::new());
        }
        assert_eq!(seen.len(), names.len());
    }

    #[test]
    fn a_node_that_is_not_there_is_looked_for_again_until_it_is() {
        let name = |text: &str| NodeName::parse(text).unwrap();
        let (a, b) = (name("a"), name("b"));
        let named = [a.clone(), b.clone()];
        let mut nodes = Nodes::default();
        assert_eq!(nodes.next_round(named.iter(), true), named);
        assert!(nodes.next_round(named.iter(), true).is_empty(), "one round at a time");
        let found = vec![(a.clone(), NodePresence::Edge), (b.clone(), NodePresence::None)];
        assert_eq!(nodes.found(found), named, "of each something is known now");
        assert!(nodes.fault(&a).is_none() && nodes.fault(&b).unwrap().contains("no Node of that name"));
        assert!(nodes.next_round(named.iter(), false).is_empty(), "not at each change of a Device");
        assert_eq!(nodes.next_round(named.iter(), true), [b.clone(), a.clone()]);
        assert_eq!(nodes.found(vec![(b.clone(), NodePresence::Other)]), std::slice::from_ref(&b));
        assert!(nodes.fault(&b).unwrap().contains("no edge node"));
        assert_eq!(nodes.heard(&b), NodeHeard::Nobody);
        assert!(nodes.linked(&b) && !nodes.linked(&b) && nodes.fault(&b).is_none());
        nodes.unlinked(&b);
        assert_eq!(nodes.next_round(named.iter(), false), std::slice::from_ref(&b));
        nodes.found(Vec::new());
        assert_eq!(nodes.next_round(named.iter(), false), std::slice::from_ref(&b), "nobody did say");
        nodes.retain(|node| *node == a);
        assert!(nodes.found.len() == 1);
    }

    #[test]
    fn a_node_that_was_there_is_looked_up_in_its_turn_and_its_deletion_is_seen() {
        let named: Vec<NodeName> = (0..120).map(|n| NodeName::parse(&format!("n{n:03}")).unwrap()).collect();
        let mut nodes = Nodes::default();
        let round = nodes.next_round(named.iter(), false);
        nodes.found(round.into_iter().map(|node| (node, NodePresence::Edge)).collect());
        let mut seen = Vec::new();
        for _ in 0..3 {
            let round = nodes.next_round(named.iter(), true);
            assert_eq!(round.len(), PRESENT_MAX);
            seen.extend(round.clone());
            nodes.found(round.into_iter().map(|node| (node, NodePresence::Edge)).collect());
        }
        assert_eq!(seen[..120], named[..], "each had its turn");
        assert_eq!(seen[120..], named[..30], "and then it begins anew");
        let gone = nodes.found(vec![(named[7].clone(), NodePresence::None)]);
        assert_eq!(gone, std::slice::from_ref(&named[7]));
        assert!(nodes.next_round(named.iter(), true).contains(&named[7]), "until it is there again");
    }
}
