//! Whose actions are tried next: so many at once on the node, fewer of one namespace, and the namespaces in turn. Pure.
//!
//! What calls a service waits apart from what stays within `edgecore`: a service that does not answer holds up no fan.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::line::Line;
use crate::plan::RuleKey;

/// 64 attempts at once on the node, beside the first of each namespace.
pub(crate) const AT_ONCE: usize = 64;
/// 8 of them of one namespace: all 8 can wait for what does not answer.
pub(crate) const AT_ONCE_OF_NAMESPACE: usize = 8;
/// With the first of each namespace, which waits for nobody else's: so many sockets, at most, of the thousands that `edgecore` may open.
pub(crate) const AT_ONCE_WITH_FIRSTS: usize = 256;

/// How far actions reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// `edgecore` alone, which answers.
    Node,
    /// A service among them, which may not answer.
    Services,
}

/// Those who wait for their turn, and those who have it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    node: Lane,
    services: Lane,
}

#[derive(Debug, Default)]
struct Lane {
    /// By namespace; none of them is empty.
    waiting: BTreeMap<String, Line<RuleKey>>,
    /// By namespace; none of them is 0.
    under_way: BTreeMap<String, usize>,
    /// The namespace that had its turn last.
    served: String,
}

impl Turns {
    fn lane(&mut self, reach: Reach) -> &mut Lane {
        match reach {
            Reach::Node => &mut self.node,
            Reach::Services => &mut self.services,
        }
    }

    /// A rule waits for its turn. One that does keeps its place.
    pub(crate) fn join(&mut self, reach: Reach, rule: &RuleKey) {
        let lane = self.lane(reach);
        match lane.waiting.get_mut(&rule.0.namespace) {
            Some(line) => line.join(rule),
            None => lane.waiting.entry(rule.0.namespace.clone()).or_default().join(rule),
        }
    }

    /// A rule is gone.
    pub(crate) fn leave(&mut self, rule: &RuleKey) {
        for reach in [Reach::Node, Reach::Services] {
            let lane = self.lane(reach);
            if let Some(line) = lane.waiting.get_mut(&rule.0.namespace) {
                line.leave(rule);
                lane.forget_empty(&rule.0.namespace);
            }
        }
    }

    /// Whose turn it is. It has it until that [is over](Turns::is_over).
    pub(crate) fn take(&mut self, reach: Reach) -> Option<RuleKey> {
        self.lane(reach).take()
    }

    /// A turn of the namespace is over.
    pub(crate) fn is_over(&mut self, reach: Reach, namespace: &str) {
        let lane = self.lane(reach);
        if let Some(under_way) = lane.under_way.get_mut(namespace) {
            *under_way -= 1;
            if *under_way == 0 {
                lane.under_way.remove(namespace);
            }
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        let lines = self.node.waiting.values().chain(self.services.waiting.values());
        lines.map(Line::len).sum()
    }
}

impl Lane {
    fn take(&mut self) -> Option<RuleKey> {
        let all = self.under_way.values().sum::<usize>();
        if all >= AT_ONCE_WITH_FIRSTS {
            return None;
        }
        let served = self.served.as_str();
        let after = self.waiting.range::<str, _>((Bound::Excluded(served), Bound::Unbounded));
        let before = self.waiting.range::<str, _>((Bound::Unbounded, Bound::Included(served)));
        let has_room = |namespace: &str| {
            self.under_way.get(namespace).is_none_or(|many| *many < AT_ONCE_OF_NAMESPACE && all < AT_ONCE)
        };
        let (namespace, _) = after.chain(before).find(|(namespace, _)| has_room(namespace))?;
        let namespace = namespace.clone();
        let rule = self.waiting.get_mut(&namespace)?.take();
        self.forget_empty(&namespace);
        *self.under_way.entry(namespace.clone()).or_default() += 1;
        self.served = namespace;
        rule
    }

    fn forget_empty(&mut self, namespace: &str) {
        if self.waiting.get(namespace).is_some_and(|line| line.len() == 0) {
            self.waiting.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::DeviceName;

    fn rule(namespace: &str, name: usize) -> RuleKey {
        (DeviceName::parse(namespace, "gantry").unwrap(), name.to_string())
    }

    fn taken(turns: &mut Turns, reach: Reach) -> Vec<String> {
        std::iter::from_fn(|| turns.take(reach)).map(|(device, _)| device.namespace.clone()).collect()
    }

    #[test]
    fn namespaces_take_turns_and_none_has_more_than_its_share() {
        let mut turns = Turns::default();
        (0..1000).for_each(|name| turns.join(Reach::Services, &rule("a", name)));
        (0..2).for_each(|name| turns.join(Reach::Services, &rule("b", name)));
        assert_eq!(taken(&mut turns, Reach::Services), ["a", "b", "a", "b", "a", "a", "a", "a", "a", "a"]);
        turns.is_over(Reach::Services, "b");
        assert_eq!(turns.take(Reach::Services), None, "what b does not need is not for a");
        turns.is_over(Reach::Services, "a");
        assert_eq!(turns.take(Reach::Services), Some(rule("a", 8)), "in the order in which they came");
        turns.leave(&rule("a", 9));
        turns.join(Reach::Node, &rule("a", 9));
        assert_eq!((turns.take(Reach::Node), turns.waiting()), (Some(rule("a", 9)), 990));
        (10..1000).for_each(|name| turns.leave(&rule("a", name)));
        assert_eq!((turns.waiting(), turns.services.waiting.len()), (0, 0));
    }

    #[test]
    fn the_node_has_a_bound_and_all_have_their_turn_after_it() {
        let mut turns = Turns::default();
        let names: Vec<String> = (0..20).map(|n| format!("n{n:02}")).collect();
        for namespace in &names {
            (0..10).for_each(|name| turns.join(Reach::Node, &rule(namespace, name)));
        }
        let mut seen = taken(&mut turns, Reach::Node);
        assert_eq!(seen.len(), AT_ONCE);
        assert_eq!(seen[..20], names, "each of them once before one of them twice");
        let late = rule("late", 0);
        (0..2).for_each(|_| turns.join(Reach::Node, &rule("late", 1)));
        turns.join(Reach::Node, &late);
        assert_eq!(
            taken(&mut turns, Reach::Node),
            ["late"],
            "its first waits for nobody else's, its second does"
        );
        turns.leave(&late);
        turns.is_over(Reach::Node, "late");
        while let Some(over) = seen.pop() {
            turns.is_over(Reach::Node, &over);
            assert!(taken(&mut turns, Reach::Node).len() <= 1);
        }
    }

    #[test]
    fn the_first_ones_have_a_bound_too() {
        let mut turns = Turns::default();
        (0..AT_ONCE_WITH_FIRSTS + 9)
            .for_each(|name| turns.join(Reach::Services, &rule(&format!("n{name}"), 0)));
        assert_eq!(taken(&mut turns, Reach::Services).len(), AT_ONCE_WITH_FIRSTS);
        turns.is_over(Reach::Services, "n0");
        assert_eq!(taken(&mut turns, Reach::Services).len(), 1);
    }
}
