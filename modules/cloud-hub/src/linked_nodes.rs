//! Who is linked to this CloudCore, for enrolment, which runs on threads of its own. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::NodeName;

/// 100,000 nodes whose links have ended are remembered: more than one CloudCore has.
const ENDED_MAX: usize = 100_000;

#[derive(Default)]
struct State {
    open: BTreeMap<NodeName, u64>,
    ended: BTreeMap<NodeName, u64>,
}

/// The sessions that are open, and the last one of each node whose link has ended. Its clones are one, on all threads.
#[derive(Clone, Default)]
pub struct LinkedNodes(Arc<Mutex<State>>);

impl LinkedNodes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of the node has opened.
    pub fn began(&self, node: &NodeName, session: u64) {
        let mut state = self.state();
        state.ended.remove(node);
        state.open.insert(node.clone(), session);
    }

    /// It has ended.
    pub fn ended(&self, node: &NodeName, session: u64) {
        let mut state = self.state();
        if state.open.get(node) == Some(&session) {
            state.open.remove(node);
            // Who asks without it looks longer.
            if state.ended.len() >= ENDED_MAX {
                state.ended.clear();
            }
            state.ended.insert(node.clone(), session);
        }
    }

    /// No session is open.
    pub fn none(&self) {
        self.state().open.clear();
    }

    /// Whether a session of the node is open.
    pub fn has(&self, node: &NodeName) -> bool {
        self.state().open.contains_key(node)
    }

    /// The last session of the node, if it was here and has ended.
    pub fn last_ended(&self, node: &NodeName) -> Option<u64> {
        self.state().ended.get(node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_older_session_is_not_that_of_the_node() {
        let (linked, node) = (LinkedNodes::default(), NodeName::parse("edge-1").unwrap());
        linked.began(&node, 1);
        linked.began(&node, 2);
        linked.ended(&node, 1);
        assert!(linked.has(&node) && linked.last_ended(&node).is_none());
        linked.ended(&node, 2);
        assert!(!linked.has(&node) && linked.last_ended(&node) == Some(2));
        linked.began(&node, 3);
        assert!(linked.has(&node) && linked.last_ended(&node).is_none());
        linked.none();
        assert!(!linked.has(&node));
    }
}
