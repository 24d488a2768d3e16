//! Which node has which port. Pure.
//!
//! A node whose link has ended keeps its port while its Node says it, so that whoever goes there is told; a node that has a link and finds no
//! other port takes the one of the node that has been without a link for longest.
//!
//! A node gets the port that it had before, if nobody else has it; else the one that has been free for longest. So a Node that says
//! an earlier port of its node, which nobody could rewrite yet, leads to no other node for as long as there are ports enough.

use std::collections::{BTreeMap, VecDeque};

use contract::NodeName;

/// The ports of a range.
#[derive(Debug)]
pub(crate) struct Ports {
    /// Whichever the system gives: a range without an end.
    any: bool,
    used: BTreeMap<NodeName, u16>,
    /// Who had a port last that is free.
    before: BTreeMap<u16, NodeName>,
    /// Free, the one that has been so for longest first.
    free: VecDeque<u16>,
    /// The nodes without a link whose ports are used, the one that has been so for longest first.
    kept: VecDeque<NodeName>,
    /// How many ports in a row were somebody else's, by the node that they were for.
    refusals: BTreeMap<NodeName, usize>,
}

impl Ports {
    /// `count` ports from `first` on; with `first` 0 whichever the system gives.
    pub(crate) fn new(first: u16, count: usize) -> Self {
        let last = usize::from(first).saturating_add(count).min(1 + usize::from(u16::MAX));
        let free = (usize::from(first)..last).filter_map(|port| u16::try_from(port).ok());
        let any = first == 0;
        let free = if any { VecDeque::new() } else { free.collect() };
        let kept = VecDeque::new();
        Ports { any, used: BTreeMap::new(), before: BTreeMap::new(), free, kept, refusals: BTreeMap::new() }
    }

    /// A Node says this port of its node already, from before this began: another node gets it only when there is no other.
    pub(crate) fn remember(&mut self, node: NodeName, port: u16) {
        if let Some(at) = self.free.iter().position(|free| *free == port) {
            self.free.remove(at);
            self.free.push_back(port);
            self.before.insert(port, node);
        }
    }

    /// The port that a Node says of its node, which has no link, and which stood there before this began: it is the node's if it is of
    /// this range and nobody has it. Answers whether it is.
    pub(crate) fn take_said(&mut self, node: &NodeName, port: u16) -> bool {
        if self.used.contains_key(node) || self.before.get(&port).is_some_and(|held| held != node) {
            return false;
        }
        let Some(at) = self.free.iter().position(|free| *free == port) else { return false };
        self.free.remove(at);
        self.before.retain(|_, held| held != node);
        self.used.insert(node.clone(), port);
        true
    }

    /// The node has no link any more, and keeps its port.
    pub(crate) fn keep(&mut self, node: &NodeName) {
        self.linked(node);
        self.kept.push_back(node.clone());
    }

    /// Whose port goes first to a node that has a link.
    pub(crate) fn longest_kept(&self) -> Option<&NodeName> {
        self.kept.front()
    }

    /// The node has a link again.
    pub(crate) fn linked(&mut self, node: &NodeName) {
        self.kept.retain(|kept| kept != node);
    }

    /// A port for the node: the one that it has, the one that it had, or another. `None`: all are used.
    pub(crate) fn take(&mut self, node: &NodeName) -> Option<u16> {
        if self.any {
            return Some(0);
        }
        if let Some(port) = self.used.get(node) {
            return Some(*port);
        }
        let own = self.free.iter().position(|port| self.before.get(port) == Some(node));
        let port = self.free.remove(own.unwrap_or(0))?;
        self.before.remove(&port);
        self.used.insert(node.clone(), port);
        Some(port)
    }

    /// The node's port is not used any more.
    pub(crate) fn release(&mut self, node: &NodeName) {
        self.refusals.remove(node);
        self.linked(node);
        if let Some(port) = self.used.remove(node) {
            // One port remembers one node, and a node one port.
            self.before.retain(|_, held| held != node);
            self.before.insert(port, node.clone());
            self.free.push_back(port);
        }
    }

    /// Somebody else on this machine has the node's port: another one is tried first from now on. Answers how many of the node
    /// were so in a row.
    pub(crate) fn refused(&mut self, node: &NodeName) -> usize {
        if let Some(port) = self.used.remove(node) {
            self.free.push_back(port);
        }
        let refusals = self.refusals.entry(node.clone()).or_default();
        *refusals += 1;
        *refusals
    }

    /// A new round begins.
    pub(crate) fn forget_refusals(&mut self, node: &NodeName) {
        self.refusals.remove(node);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.free.len() + self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[test]
    fn a_node_gets_its_port_again_and_others_get_it_last() {
        let mut ports = Ports::new(12_000, 3);
        assert_eq!((ports.take(&node("a")), ports.take(&node("b"))), (Some(12_000), Some(12_001)));
        assert_eq!(ports.take(&node("a")), Some(12_000), "it has one");
        ports.release(&node("a"));
        assert_eq!(ports.take(&node("c")), Some(12_002), "not a's, which its Node may still say");
        assert_eq!(ports.take(&node("a")), Some(12_000));
        ports.release(&node("a"));
        ports.release(&node("b"));
        assert_eq!(ports.take(&node("d")), Some(12_000), "there is no other");
        assert_eq!(ports.take(&node("a")), Some(12_001), "a's own is used");
        assert_eq!(ports.take(&node("e")), None);
        ports.release(&node("e"));
        assert_eq!(ports.count(), 3);
    }

    #[test]
    fn a_port_that_a_node_says_from_before_is_its_own() {
        let mut ports = Ports::new(12_000, 3);
        ports.remember(node("a"), 12_000);
        ports.remember(node("x"), 9);
        assert_eq!(ports.take(&node("b")), Some(12_001), "not a's");
        assert_eq!(ports.take(&node("a")), Some(12_000));
        // One that is used is not somebody else's by what a Node says.
        ports.remember(node("c"), 12_001);
        assert_eq!((ports.take(&node("c")), ports.take(&node("b"))), (Some(12_002), Some(12_001)));
        assert_eq!(ports.count(), 3);
    }

    #[test]
    fn a_port_of_somebody_else_is_tried_last() {
        let mut ports = Ports::new(12_000, 2);
        assert_eq!(ports.take(&node("a")), Some(12_000));
        assert_eq!(ports.refused(&node("a")), 1);
        assert_eq!(ports.take(&node("a")), Some(12_001));
        assert_eq!(ports.refused(&node("a")), 2);
        assert_eq!(ports.take(&node("a")), Some(12_000));
        ports.forget_refusals(&node("a"));
        assert_eq!(ports.refused(&node("a")), 1);
    }

    #[test]
    fn a_node_without_a_link_keeps_its_port_until_one_with_a_link_finds_no_other() {
        let mut ports = Ports::new(12_000, 3);
        for (name, port) in [("a", 12_000), ("b", 12_001)] {
            assert_eq!(ports.take(&node(name)), Some(port));
            ports.keep(&node(name));
        }
        assert_eq!(ports.take(&node("c")), Some(12_002));
        assert_eq!((ports.take(&node("d")), ports.longest_kept()), (None, Some(&node("a"))));
        // It comes back in time, and goes again.
        ports.linked(&node("a"));
        assert_eq!((ports.take(&node("a")), ports.longest_kept()), (Some(12_000), Some(&node("b"))));
        ports.keep(&node("a"));
        ports.release(&node("b"));
        assert_eq!((ports.take(&node("d")), ports.longest_kept()), (Some(12_001), Some(&node("a"))));
        ports.release(&node("a"));
        assert_eq!((ports.longest_kept(), ports.count()), (None, 3));
    }

    #[test]
    fn a_node_without_a_link_has_the_port_that_its_node_says_if_nobody_else_has_it() {
        let mut ports = Ports::new(12_000, 3);
        ports.remember(node("a"), 12_000);
        ports.remember(node("b"), 12_001);
        assert_eq!(ports.take(&node("c")), Some(12_002));
        assert!(!ports.take_said(&node("d"), 12_002), "it is c's");
        assert!(!ports.take_said(&node("d"), 12_001), "b's Node says it as well");
        assert!(!ports.take_said(&node("d"), 11_999) && !ports.take_said(&node("d"), 12_003), "of no range");
        assert!(ports.take_said(&node("a"), 12_000) && !ports.take_said(&node("a"), 12_000), "once");
        assert_eq!((ports.take(&node("a")), ports.count()), (Some(12_000), 3));
        assert!(
            !Ports::new(0, 3).take_said(&node("a"), 12_000),
            "whichever the system gives is not said before"
        );
    }

    #[test]
    fn a_range_ends_with_the_ports() {
        assert_eq!(Ports::new(65_530, 1000).count(), 6);
        let mut any = Ports::new(0, 1000);
        assert_eq!((any.take(&node("a")), any.take(&node("b"))), (Some(0), Some(0)));
    }
}
