//! Which of the nodes that Devices name are there: a name that no Node has is a mistyped one most often, and says nothing by itself. Pure.

use std::collections::BTreeMap;

use contract::NodeName;
use contract::devicecontroller::NodePresence;
use contract::ids::EDGE_LABEL;

/// 500 nodes are looked up in one round.
const ROUND_MAX: usize = 500;
/// 50 of them are nodes that were there the last time: they are offline, or linked to another CloudCore, and one of them may have been
/// deleted. In turns, so that a thousand of them cost no more.
const PRESENT_MAX: usize = 50;

/// The nodes that are not linked here, as they were found.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    found: BTreeMap<NodeName, NodePresence>,
    /// The last one that was looked up though it was there.
    turn: Option<NodeName>,
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
        let (mut round, mut present) = (Vec::new(), Vec::new());
        for node in named {
            match self.found.get(node) {
                Some(NodePresence::Edge) if again => present.push(node),
                None => round.push(node.clone()),
                Some(NodePresence::Other | NodePresence::None) if again => round.push(node.clone()),
                Some(_) => {}
            }
        }
        round.truncate(ROUND_MAX - PRESENT_MAX);
        let first = present.partition_point(|node| self.turn.as_ref().is_some_and(|turn| *node <= turn));
        present.rotate_left(first);
        present.truncate(PRESENT_MAX);
        if let Some(last) = present.last() {
            self.turn = Some((*last).clone());
        }
        round.extend(present.into_iter().cloned());
        self.is_looking = !round.is_empty();
        round
    }

    /// A round has ended. Answers the nodes of which something else is known now.
    pub(crate) fn found(&mut self, found: Vec<(NodeName, NodePresence)>) -> Vec<NodeName> {
        self.is_looking = false;
        let differs = |(node, presence): (NodeName, NodePresence)| {
            let before = self.found.insert(node.clone(), presence).unwrap_or(NodePresence::Edge);
            (before != presence).then_some(node)
        };
        found.into_iter().filter_map(differs).collect()
    }

    /// A node is linked: it is there. Answers whether that is news.
    pub(crate) fn linked(&mut self, node: &NodeName) -> bool {
        self.found.insert(node.clone(), NodePresence::Edge).is_some_and(|before| before != NodePresence::Edge)
    }

    /// A link has ended: the Node may have gone.
    pub(crate) fn unlinked(&mut self, node: &NodeName) {
        self.found.remove(node);
    }

    /// Forgets the nodes that no Device names any more.
    pub(crate) fn retain(&mut self, is_named: impl Fn(&NodeName) -> bool) {
        self.found.retain(|node, _| is_named(node));
    }

    /// What is wrong with a Device that names the node.
    pub(crate) fn fault(&self, node: &NodeName) -> Option<String> {
        match self.found.get(node)? {
            NodePresence::Edge => None,
            NodePresence::Other => Some(format!(
                "spec.nodeName `{node}` is a Node that is no edge node (label {EDGE_LABEL}): nobody has the device"
            )),
            NodePresence::None => Some(format!(
                "spec.nodeName `{node}`: the cluster has no Node of that name, so nobody has the device; mend the name, or join the node"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_there_is_looked_for_again_until_it_is() {
        let name = |text: &str| NodeName::parse(text).unwrap();
        let (a, b) = (name("a"), name("b"));
        let named = [a.clone(), b.clone()];
        let mut nodes = Nodes::default();
        assert_eq!(nodes.next_round(named.iter(), true), named);
        assert!(nodes.next_round(named.iter(), true).is_empty(), "one round at a time");
        let found = vec![(a.clone(), NodePresence::Edge), (b.clone(), NodePresence::None)];
        assert_eq!(nodes.found(found), std::slice::from_ref(&b));
        assert!(nodes.fault(&a).is_none() && nodes.fault(&b).unwrap().contains("no Node of that name"));
        assert!(nodes.next_round(named.iter(), false).is_empty(), "not at each change of a Device");
        assert_eq!(nodes.next_round(named.iter(), true), [b.clone(), a.clone()]);
        assert_eq!(nodes.found(vec![(b.clone(), NodePresence::Other)]), std::slice::from_ref(&b));
        assert!(nodes.fault(&b).unwrap().contains("no edge node"));
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
