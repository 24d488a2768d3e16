//! What the hub decides: which of two sessions of a node stays, and how many nodes there may be. Pure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use contract::NodeName;

/// What becomes of a session that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionDecision {
    /// It opens; the session of this number, if any, ends for it.
    Opens {
        /// The older session.
        replaces: Option<u64>,
    },
    /// It ends at once: a later session of the node is open.
    IsOlder,
}

/// The later session of a node wins, whichever is told first: an older link is most often a connection whose end nobody has
/// noticed. A session's number is the epoch of the node's Lease, which
/// only grows.
pub(crate) fn decide(open: Option<u64>, admitted: u64) -> SessionDecision {
    match open {
        Some(open) if open > admitted => SessionDecision::IsOlder,
        replaces => SessionDecision::Opens { replaces },
    }
}

/// The nodes that have a session or are about to. Each counts once, however many of its links arrive.
#[derive(Clone)]
pub(crate) struct NodeLimit {
    most: usize,
    nodes: Rc<RefCell<BTreeMap<NodeName, usize>>>,
}

impl NodeLimit {
    pub(crate) fn new(most: usize) -> Self {
        NodeLimit { most, nodes: Rc::default() }
    }

    /// Counts a node until the answer is dropped; `None`: the limit is reached.
    pub(crate) fn enter(&self, node: &NodeName) -> Option<NodePermit> {
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() >= self.most && !nodes.contains_key(node) {
            return None;
        }
        *nodes.entry(node.clone()).or_default() += 1;
        drop(nodes);
        Some(NodePermit { limit: self.clone(), node: node.clone() })
    }

    /// Whether one more node may come; nothing is counted.
    pub(crate) fn has_room(&self, node: &NodeName) -> bool {
        let nodes = self.nodes.borrow();
        nodes.len() < self.most || nodes.contains_key(node)
    }

    /// Counts a node that is here already, be it one too many.
    pub(crate) fn enter_anyway(&self, node: &NodeName) -> NodePermit {
        *self.nodes.borrow_mut().entry(node.clone()).or_default() += 1;
        NodePermit { limit: self.clone(), node: node.clone() }
    }

    /// How many nodes there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }
}

/// A node that is counted.
pub(crate) struct NodePermit {
    limit: NodeLimit,
    node: NodeName,
}

impl Drop for NodePermit {
    fn drop(&mut self) {
        let mut nodes = self.limit.nodes.borrow_mut();
        match nodes.get_mut(&self.node) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                nodes.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_session_wins_in_whichever_order_they_are_told() {
        assert_eq!(decide(None, 4), SessionDecision::Opens { replaces: None });
        assert_eq!(decide(Some(4), 5), SessionDecision::Opens { replaces: Some(4) });
        assert_eq!(decide(Some(5), 4), SessionDecision::IsOlder);
        // NodeLease hands out no number after the field's last one, so that 1 is never the later session.
        assert_eq!(decide(Some(i32::MAX as u64), 1), SessionDecision::IsOlder);
    }

    #[test]
    fn a_node_counts_once_from_its_arrival_to_its_last_links_end() {
        let node = |name: &str| NodeName::parse(name).unwrap();
        let limit = NodeLimit::new(2);
        let (first, again) = (limit.enter(&node("a")).unwrap(), limit.enter(&node("a")).unwrap());
        let other = limit.enter(&node("b")).unwrap();
        assert!(limit.enter(&node("c")).is_none());
        assert!(limit.enter(&node("b")).is_some(), "it is counted already");
        drop(first);
        assert!(limit.enter(&node("c")).is_none(), "it has another link");
        drop(again);
        let third = limit.enter(&node("c")).unwrap();
        // Whose certificate was yet to be judged has looked before, and counts from then on.
        assert!(!limit.has_room(&node("d")) && limit.has_room(&node("c")));
        let fourth = limit.enter_anyway(&node("d"));
        assert!(limit.enter(&node("e")).is_none());
        drop((other, third, fourth));
        assert!(limit.nodes.borrow().is_empty());
    }
}
