//! How many calls are open, and whose. Pure.

use std::collections::BTreeMap;

use contract::NodeName;

/// The bounds of the calls that are open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one node. Of those that last (followers of logs, commands, forwarded ports) three quarters, so that they never keep a short
    /// one waiting.
    pub of_node: usize,
    /// Of one user, who speaks for himself.
    pub of_user: usize,
    /// Of all.
    pub all: usize,
}

/// Whose share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Node(usize),
    Lasting(usize),
    User(usize),
    All(usize),
}

/// The calls that are open.
#[derive(Debug)]
pub(crate) struct Shares {
    limits: Limits,
    nodes: BTreeMap<NodeName, usize>,
    /// Of those the ones that last.
    lasting: BTreeMap<NodeName, usize>,
    users: BTreeMap<String, usize>,
    all: usize,
}

impl Shares {
    pub(crate) fn new(limits: Limits) -> Self {
        Shares { limits, nodes: BTreeMap::new(), lasting: BTreeMap::new(), users: BTreeMap::new(), all: 0 }
    }

    /// One more of `node`, which lasts or not. `user`: who speaks for himself; `None` for an API server, which speaks for all its
    /// users.
    pub(crate) fn open(&mut self, node: &NodeName, user: Option<&str>, lasts: bool) -> Result<(), Full> {
        let Limits { of_node, of_user, all } = self.limits;
        if self.all >= all {
            return Err(Full::All(all));
        }
        if self.nodes.get(node).is_some_and(|open| *open >= of_node) {
            return Err(Full::Node(of_node));
        }
        let most_lasting = (of_node * 3 / 4).max(1);
        if lasts && self.lasting.get(node).is_some_and(|open| *open >= most_lasting) {
            return Err(Full::Lasting(most_lasting));
        }
        if user.and_then(|user| self.users.get(user)).is_some_and(|open| *open >= of_user) {
            return Err(Full::User(of_user));
        }
        self.all += 1;
        *self.nodes.entry(node.clone()).or_default() += 1;
        if lasts {
            *self.lasting.entry(node.clone()).or_default() += 1;
        }
        if let Some(user) = user {
            *self.users.entry(user.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    /// One that was open has ended.
    pub(crate) fn close(&mut self, node: &NodeName, user: Option<&str>, lasts: bool) {
        self.all = self.all.saturating_sub(1);
        leave(&mut self.nodes, node);
        if lasts {
            leave(&mut self.lasting, node);
        }
        if let Some(user) = user {
            leave(&mut self.users, user);
        }
    }

    /// How many are open of each node that has any.
    pub(crate) fn of_nodes(&self) -> BTreeMap<NodeName, usize> {
        self.nodes.clone()
    }
}

/// What has none is forgotten.
fn leave<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(open: &mut BTreeMap<K, usize>, key: &Q) {
    match open.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(open.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_has_an_end_and_a_call_that_ends_makes_room() {
        let node = |name: &str| NodeName::parse(name).unwrap();
        let (a, b) = (node("a"), node("b"));
        let mut shares = Shares::new(Limits { of_node: 2, of_user: 3, all: 4 });
        assert_eq!(shares.open(&a, Some("u"), false), Ok(()));
        assert_eq!(shares.open(&a, None, false), Ok(()));
        assert_eq!(shares.open(&a, None, false), Err(Full::Node(2)));
        assert_eq!(shares.open(&b, Some("u"), false), Ok(()));
        assert_eq!(shares.open(&b, Some("u"), false), Ok(()));
        assert_eq!(shares.open(&node("c"), Some("v"), false), Err(Full::All(4)));
        shares.close(&a, None, false);
        assert_eq!(shares.open(&a, Some("u"), false), Err(Full::User(3)));
        assert_eq!(shares.open(&a, Some("v"), false), Ok(()));
        for (of, user) in [(&a, Some("u")), (&a, Some("v")), (&b, Some("u")), (&b, Some("u"))] {
            shares.close(of, user, false);
        }
        assert_eq!((shares.all, shares.nodes.len(), shares.users.len()), (0, 0, 0));
    }

    #[test]
    fn those_that_last_leave_a_part_of_a_node_to_the_others() {
        let node = NodeName::parse("a").unwrap();
        let mut shares = Shares::new(Limits { of_node: 4, of_user: 9, all: 9 });
        for _ in 0..3 {
            assert_eq!(shares.open(&node, None, true), Ok(()));
        }
        assert_eq!(shares.open(&node, None, true), Err(Full::Lasting(3)));
        assert_eq!(shares.open(&node, None, false), Ok(()));
        shares.close(&node, None, false);
        shares.close(&node, None, true);
        assert_eq!(shares.open(&node, None, true), Ok(()));
        for _ in 0..3 {
            shares.close(&node, None, true);
        }
        assert!(shares.lasting.is_empty() && shares.nodes.is_empty());
    }
}
