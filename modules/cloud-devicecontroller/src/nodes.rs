//! Which of the nodes that Devices name are there: a name that no Node has is a mistyped one most often, and says nothing by itself. Pure.

use std::collections::BTreeMap;

use contract::NodeName;
use contract::devicecontroller::NodePresence;
use contract::ids::EDGE_LABEL;

/// 500 nodes are looked up in one round.
const ROUND_MAX: usize = 500;

/// The nodes that are not linked here, as they were found.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    found: BTreeMap<NodeName, NodePresence>,
    is_looking: bool,
    /// The next round is due soon.
    pub(crate) is_due_soon: bool,
}

impl Nodes {
    /// Begins a round, unless one is under way: those of the `named` that nobody has looked for, and if `again` those that were not
    /// there.
    pub(crate) fn next_round<'a>(
        &mut self,
        named: impl Iterator<Item = &'a NodeName>,
        again: bool,
    ) -> Vec<NodeName> {
        if self.is_looking {
            return Vec::new();
        }
        let doubtful = |node: &&NodeName| match self.found.get(*node) {
            None => true,
            Some(NodePresence::Edge) => false,
            Some(NodePresence::Other | NodePresence::None) => again,
        };
        let round: Vec<NodeName> = named.filter(doubtful).take(ROUND_MAX).cloned().collect();
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

    /// Whether anything is to be looked for again.
    pub(crate) fn is_any_doubtful<'a>(&self, mut named: impl Iterator<Item = &'a NodeName>) -> bool {
        named.any(|node| self.found.get(node) != Some(&NodePresence::Edge))
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
        assert!(nodes.is_any_doubtful(named.iter()));
        assert!(nodes.next_round(named.iter(), false).is_empty(), "not at each change of a Device");
        assert_eq!(nodes.next_round(named.iter(), true), std::slice::from_ref(&b));
        assert_eq!(nodes.found(vec![(b.clone(), NodePresence::Other)]), std::slice::from_ref(&b));
        assert!(nodes.fault(&b).unwrap().contains("no edge node"));
        assert!(nodes.linked(&b) && !nodes.linked(&b) && nodes.fault(&b).is_none());
        assert!(!nodes.is_any_doubtful(named.iter()));
        nodes.unlinked(&b);
        assert_eq!(nodes.next_round(named.iter(), true), std::slice::from_ref(&b));
        nodes.found(Vec::new());
        assert!(nodes.is_any_doubtful(named.iter()), "the API server did not say");
        nodes.retain(|node| *node == a);
        assert!(nodes.found.len() == 1);
    }
}
