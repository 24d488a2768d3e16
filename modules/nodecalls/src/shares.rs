//! How many calls are open, and whose. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use contract::NodeName;

use crate::progress::Progress;

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

/// 60 s without a byte, while one side takes nothing: such a call makes room for one that finds none.
const MAKES_ROOM: Duration = Duration::from_secs(60);

/// Whose share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Node(usize),
    Lasting(usize),
    User(usize),
    All(usize),
}

/// Whose call it is: of a node, of a user who speaks for himself (`None`: an API server, which speaks for all its users), and whether it
/// lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) user: Option<&'a str>,
    pub(crate) lasts: bool,
}

#[derive(Debug)]
struct ShareOfCall {
    node: NodeName,
    user: Option<String>,
    lasts: bool,
    progress: Arc<Progress>,
}

/// The calls that are open.
#[derive(Debug)]
pub(crate) struct Shares {
    limits: Limits,
    calls: BTreeMap<u64, ShareOfCall>,
    next: u64,
    nodes: BTreeMap<NodeName, usize>,
    /// Of those the ones that last.
    lasting: BTreeMap<NodeName, usize>,
    users: BTreeMap<String, usize>,
}

impl Shares {
    pub(crate) fn new(limits: Limits) -> Self {
        Shares {
            limits,
            calls: BTreeMap::new(),
            next: 0,
            nodes: BTreeMap::new(),
            lasting: BTreeMap::new(),
            users: BTreeMap::new(),
        }
    }

    /// One more, by whose number it is closed. Where a share is used up, the call of it in which nothing has passed for the longest
    /// time makes room, if one side takes nothing of what waits for it.
    pub(crate) fn open(
        &mut self,
        whose: Whose<'_>,
        progress: &Arc<Progress>,
        now: Moment,
    ) -> Result<u64, Full> {
        // At most one of each share: of all, of the node, of those that last, of the user.
        while let Err(full) = self.room(whose) {
            let stalled = self.longest_stalled(full, whose, now).ok_or(full)?;
            if let Some(call) = self.calls.get(&stalled) {
                call.progress.end();
            }
            self.close(stalled);
        }
        let Whose { node, user, lasts } = whose;
        *self.nodes.entry(node.clone()).or_default() += 1;
        if lasts {
            *self.lasting.entry(node.clone()).or_default() += 1;
        }
        if let Some(user) = user {
            *self.users.entry(user.to_owned()).or_default() += 1;
        }
        let id = self.next;
        self.next += 1;
        let (user, progress) = (user.map(str::to_owned), Arc::clone(progress));
        self.calls.insert(id, ShareOfCall { node: node.clone(), user, lasts, progress });
        Ok(id)
    }

    fn room(&self, Whose { node, user, lasts }: Whose<'_>) -> Result<(), Full> {
        let Limits { of_node, of_user, all } = self.limits;
        if self.calls.len() >= all {
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
        Ok(())
    }

    fn longest_stalled(&self, full: Full, whose: Whose<'_>, now: Moment) -> Option<u64> {
        let in_share = |call: &&ShareOfCall| match full {
            Full::All(_) => true,
            Full::Node(_) => call.node == *whose.node,
            Full::Lasting(_) => call.lasts && call.node == *whose.node,
            Full::User(_) => call.user.as_deref() == whose.user,
        };
        let calls = self.calls.iter().filter(|(_, call)| in_share(call));
        let stalled = calls.filter_map(|(id, call)| Some((call.progress.stalled(now)?, *id)));
        let (since, id) = stalled.max()?;
        (since >= MAKES_ROOM).then_some(id)
    }

    /// One that was open has ended. One that has made room has left its share already.
    pub(crate) fn close(&mut self, id: u64) {
        let Some(ShareOfCall { node, user, lasts, .. }) = self.calls.remove(&id) else { return };
        leave(&mut self.nodes, &node);
        if lasts {
            leave(&mut self.lasting, &node);
        }
        if let Some(user) = user {
            leave(&mut self.users, &user);
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

    fn open(shares: &mut Shares, node: &NodeName, user: Option<&str>, lasts: bool) -> Result<u64, Full> {
        shares.open(Whose { node, user, lasts }, &Arc::default(), Moment::default())
    }

    #[test]
    fn each_share_has_an_end_and_a_call_that_ends_makes_room() {
        let node = |name: &str| NodeName::parse(name).unwrap();
        let (a, b) = (node("a"), node("b"));
        let mut shares = Shares::new(Limits { of_node: 2, of_user: 3, all: 4 });
        let one = open(&mut shares, &a, Some("u"), false).unwrap();
        let two = open(&mut shares, &a, None, false).unwrap();
        assert_eq!(open(&mut shares, &a, None, false), Err(Full::Node(2)));
        let three = open(&mut shares, &b, Some("u"), false).unwrap();
        let four = open(&mut shares, &b, Some("u"), false).unwrap();
        assert_eq!(open(&mut shares, &node("c"), Some("v"), false), Err(Full::All(4)));
        shares.close(two);
        assert_eq!(open(&mut shares, &a, Some("u"), false), Err(Full::User(3)));
        let five = open(&mut shares, &a, Some("v"), false).unwrap();
        for id in [one, three, four, five] {
            shares.close(id);
        }
        assert_eq!((shares.calls.len(), shares.nodes.len(), shares.users.len()), (0, 0, 0));
    }

    #[test]
    fn those_that_last_leave_a_part_of_a_node_to_the_others() {
        let node = NodeName::parse("a").unwrap();
        let mut shares = Shares::new(Limits { of_node: 4, of_user: 9, all: 9 });
        let lasting = [0; 3].map(|_| open(&mut shares, &node, None, true).unwrap());
        assert_eq!(open(&mut shares, &node, None, true), Err(Full::Lasting(3)));
        let short = open(&mut shares, &node, None, false).unwrap();
        shares.close(short);
        shares.close(lasting[0]);
        let another = open(&mut shares, &node, None, true).unwrap();
        for id in [lasting[1], lasting[2], another] {
            shares.close(id);
        }
        assert!(shares.lasting.is_empty() && shares.nodes.is_empty());
    }

    #[test]
    fn the_longest_stalled_call_of_a_full_share_makes_room_and_is_closed_once() {
        let (a, b) = (NodeName::parse("a").unwrap(), NodeName::parse("b").unwrap());
        let mut shares = Shares::new(Limits { of_node: 4, of_user: 9, all: 9 });
        let at = |seconds| Moment::default() + Duration::from_secs(seconds);
        let progress: [Arc<Progress>; 5] = std::array::from_fn(|_| Arc::default());
        let lasting = |node| Whose { node, user: None, lasts: true };
        for (call, node) in progress.iter().zip([&a, &a, &a, &b]) {
            shares.open(lasting(node), call, at(0)).unwrap();
        }
        // An idle shell; two that write, of which the second began later; one of another node.
        progress[1].waits(at(100));
        progress[2].waits(at(50));
        progress[3].waits(at(10));
        let early = shares.open(lasting(&a), &progress[4], at(49) + MAKES_ROOM);
        assert_eq!(early, Err(Full::Lasting(3)));
        let fifth = shares.open(lasting(&a), &progress[4], at(50) + MAKES_ROOM).unwrap();
        let ended = progress.iter().map(|call| call.has_ended()).collect::<Vec<_>>();
        assert_eq!(ended, [false, false, true, false, false]);
        // What has made room closes its place later, which is nobody's then.
        shares.close(2);
        assert_eq!((shares.of_nodes()[&a], shares.lasting[&a]), (3, 3));
        shares.close(fifth);
        assert_eq!(shares.of_nodes()[&a], 2);
        // What passes again is no stalled call.
        progress[1].passed(at(100) + MAKES_ROOM);
        shares.open(lasting(&a), &Arc::default(), at(200)).unwrap();
        let full = shares.open(lasting(&a), &Arc::default(), at(100) + MAKES_ROOM);
        assert_eq!(full, Err(Full::Lasting(3)));
    }
}
