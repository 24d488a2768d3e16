//! On which NUMA nodes a container is placed: the kubelet's topology manager. Pure.
//!
//! Whoever gives something (devices, CPUs, memory) says on which sets of NUMA nodes it could, and which of these are as
//! narrow as can be (preferred). Every combination of their sets is intersected, and the best is taken; the policy says
//! whether it is good enough.

use std::collections::BTreeSet;

/// More NUMA nodes than these are not managed by a kubelet either, unless it is told to.
pub(crate) const NODES_MAX: usize = 8;
/// Combinations that are looked at. With 8 nodes a resource has at most 255 sets; beyond this the widest sets of a resource
/// are left out, which a kubelet does not do, as it has no bound.
const COMBINATIONS_MAX: usize = 1 << 20;

/// A set of NUMA nodes, each below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct NumaMask(u64);

impl NumaMask {
    pub(crate) fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn has(self, node: u32) -> bool {
        1_u64.checked_shl(node).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether one of `nodes` is in it.
    pub(crate) fn has_any(self, nodes: &BTreeSet<u32>) -> bool {
        nodes.iter().any(|node| self.has(*node))
    }

    /// Whether they have a node in common.
    pub(crate) fn overlaps(self, other: NumaMask) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the other one has all of its nodes.
    pub(crate) fn is_within(self, other: NumaMask) -> bool {
        self.0 & !other.0 == 0
    }

    /// The nodes that both have.
    pub(crate) fn common(self, other: NumaMask) -> NumaMask {
        NumaMask(self.0 & other.0)
    }

    /// Fewer nodes, and of as many the lower ones.
    fn is_narrower(self, than: NumaMask) -> bool {
        (self.count(), self.0) < (than.count(), than.0)
    }

    pub(crate) fn nodes(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |node| self.has(*node))
    }

    /// All sets but the empty one, small ones first.
    pub(crate) fn subsets(self) -> Vec<NumaMask> {
        let nodes: Vec<u32> = self.nodes().take(NODES_MAX).collect();
        let mut all: Vec<NumaMask> = (1_u32..(1 << nodes.len()))
            .map(|chosen| {
                let own = nodes.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0);
                own.map(|(_, node)| *node).collect()
            })
            .collect();
        all.sort_by_key(|mask| (mask.count(), mask.0));
        all
    }
}

impl FromIterator<u32> for NumaMask {
    fn from_iter<I: IntoIterator<Item = u32>>(nodes: I) -> Self {
        NumaMask(nodes.into_iter().filter_map(|node| 1_u64.checked_shl(node)).fold(0, |mask, bit| mask | bit))
    }
}

/// A set of NUMA nodes on which something could be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hint {
    /// `None`: any.
    pub(crate) nodes: Option<NumaMask>,
    /// No other set is narrower.
    pub(crate) is_preferred: bool,
}

/// What a giver says of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hints {
    /// It does not matter.
    Any,
    /// On these; on none when it is empty.
    On(Vec<Hint>),
}

impl Hints {
    /// Of the sets on which `fits`, those of the fewest nodes that could hold it if nothing were used (`least`) are
    /// preferred.
    pub(crate) fn of(sets: impl Iterator<Item = NumaMask>, least: u32) -> Hints {
        Hints::On(
            sets.map(|nodes| Hint { nodes: Some(nodes), is_preferred: nodes.count() == least }).collect(),
        )
    }

    fn list(&self) -> Vec<Hint> {
        match self {
            Hints::Any => vec![Hint { nodes: None, is_preferred: true }],
            Hints::On(list) if list.is_empty() => vec![Hint { nodes: None, is_preferred: false }],
            Hints::On(list) => list.clone(),
        }
    }
}

/// What is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Policy {
    /// Nobody is asked.
    #[default]
    None,
    /// Anything.
    BestEffort,
    /// Nothing but preferred sets.
    Restricted,
    /// Nothing but one node.
    SingleNumaNode,
}

/// Whether the sets are looked for by container or for the pod as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Scope {
    #[default]
    Container,
    Pod,
}

/// The best set for what the givers say; an error when it is not good enough.
pub(crate) fn merge(
    policy: Policy,
    machine: NumaMask,
    givers: &[Hints],
) -> Result<Option<NumaMask>, NotAligned> {
    if policy == Policy::None {
        return Ok(None);
    }
    let mut lists: Vec<Vec<Hint>> = givers.iter().map(Hints::list).collect();
    if policy == Policy::SingleNumaNode {
        for list in &mut lists {
            list.retain(|hint| hint.is_preferred && hint.nodes.is_none_or(|nodes| nodes.count() == 1));
        }
    }
    bound(&mut lists);
    let narrowest = |list: &Vec<Hint>| {
        let sets = list.iter().filter_map(|hint| hint.nodes);
        sets.reduce(|best, next| if next.is_narrower(best) { next } else { best })
    };
    let most = lists.iter().filter_map(narrowest).map(NumaMask::count).max().unwrap_or(0);
    let mut best: Option<Merged> = None;
    for_each_combination(&lists, &mut |combination| {
        let merged = intersect(machine, combination);
        best = Some(match best {
            None if merged.nodes.count() == 0 => return,
            None => merged,
            Some(best) => best.or(merged, most),
        });
    });
    let best = best.unwrap_or(Merged { nodes: machine, is_preferred: false });
    match policy {
        Policy::None | Policy::BestEffort => Ok(Some(best.nodes)),
        Policy::Restricted | Policy::SingleNumaNode if !best.is_preferred => Err(NotAligned),
        Policy::Restricted => Ok(Some(best.nodes)),
        // All nodes is what comes of nobody's caring.
        Policy::SingleNumaNode => Ok(Some(best.nodes).filter(|nodes| *nodes != machine)),
    }
}

/// The policy's refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAligned;

/// Leaves the widest sets out until there are few enough combinations.
fn bound(lists: &mut [Vec<Hint>]) {
    let combinations = |lists: &[Vec<Hint>]| lists.iter().map(Vec::len).fold(1, usize::saturating_mul);
    while combinations(lists) > COMBINATIONS_MAX {
        let Some(longest) = lists.iter_mut().max_by_key(|list| list.len()) else { return };
        longest.sort_by_key(|hint| hint.nodes.map_or(0, NumaMask::count));
        longest.pop();
    }
}

fn for_each_combination(lists: &[Vec<Hint>], visit: &mut impl FnMut(&[Hint])) {
    fn go(lists: &[Vec<Hint>], chosen: &mut Vec<Hint>, visit: &mut impl FnMut(&[Hint])) {
        let Some((first, rest)) = lists.split_first() else { return visit(chosen) };
        for hint in first {
            chosen.push(*hint);
            go(rest, chosen, visit);
            chosen.pop();
        }
    }
    go(lists, &mut Vec::new(), visit);
}

#[derive(Debug, Clone, Copy)]
struct Merged {
    nodes: NumaMask,
    is_preferred: bool,
}

/// Preferred only if all sets are, and are the same.
fn intersect(machine: NumaMask, combination: &[Hint]) -> Merged {
    let mut sets = combination.iter().filter_map(|hint| hint.nodes);
    let first = sets.next();
    let same = first.is_none_or(|first| sets.all(|other| other == first));
    let is_preferred = same && combination.iter().all(|hint| hint.is_preferred);
    let nodes = combination.iter().filter_map(|hint| hint.nodes).fold(machine, NumaMask::common);
    Merged { nodes, is_preferred }
}

impl Merged {
    fn narrower(self, other: Merged) -> Merged {
        if other.nodes.is_narrower(self.nodes) { other } else { self }
    }

    /// The better one. Of two that are not preferred the one whose size is nearest to, and not above, what the most
    /// demanding giver needs at least (`most`).
    fn or(self, other: Merged, most: u32) -> Merged {
        let (own, others) = (self.nodes.count(), other.nodes.count());
        if others == 0 {
            return self;
        }
        match (self.is_preferred, other.is_preferred) {
            (false, true) => other,
            (true, false) => self,
            (true, true) => self.narrower(other),
            (false, false) if own > most => self.narrower(other),
            (false, false) if own == most => {
                if others == most {
                    self.narrower(other)
                } else {
                    self
                }
            }
            (false, false) if others > most => self,
            (false, false) if others == most || others > own => other,
            (false, false) if others < own => self,
            (false, false) => self.narrower(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(nodes: &[u32]) -> NumaMask {
        nodes.iter().copied().collect()
    }

    fn on(list: &[(&[u32], bool)]) -> Hints {
        Hints::On(
            list.iter()
                .map(|(nodes, preferred)| Hint { nodes: Some(mask(nodes)), is_preferred: *preferred })
                .collect(),
        )
    }

    /// Two nodes, as the kubelet's own table of cases has it: what comes of the hints under each policy.
    fn merged(givers: &[Hints]) -> [Result<Option<NumaMask>, NotAligned>; 3] {
        [Policy::BestEffort, Policy::Restricted, Policy::SingleNumaNode]
            .map(|policy| merge(policy, mask(&[0, 1]), givers))
    }

    #[test]
    fn subsets_come_small_ones_first() {
        let all = mask(&[0, 1, 2]).subsets();
        let wanted: [&[u32]; 7] = [&[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
        assert_eq!(all, wanted.map(mask));
        assert_eq!(mask(&[2, 5]).subsets(), [mask(&[2]), mask(&[5]), mask(&[2, 5])]);
    }

    #[test]
    fn nobody_who_cares_means_anywhere() {
        let all = Ok(Some(mask(&[0, 1])));
        assert_eq!(merged(&[]), [all, all, Ok(None)]);
        assert_eq!(merged(&[Hints::Any]), [all, all, Ok(None)]);
        assert_eq!(merge(Policy::None, mask(&[0, 1]), &[on(&[])]), Ok(None));
    }

    #[test]
    fn nowhere_is_refused_unless_the_policy_takes_anything() {
        let (all, no) = (Ok(Some(mask(&[0, 1]))), Err(NotAligned));
        assert_eq!(merged(&[on(&[])]), [all, no, no]);
        assert_eq!(merged(&[on(&[]), on(&[(&[0], true)])]), [Ok(Some(mask(&[0]))), no, no]);
    }

    #[test]
    fn what_all_prefer_is_taken_and_of_equal_ones_the_lower_node() {
        let zero = Ok(Some(mask(&[0])));
        assert_eq!(merged(&[on(&[(&[0], true)]), Hints::Any]), [zero; 3]);
        assert_eq!(merged(&[on(&[(&[0], true)]), on(&[(&[0], true), (&[1], true)])]), [zero; 3]);
        let both = || on(&[(&[0], true), (&[1], true), (&[0, 1], false)]);
        assert_eq!(merged(&[both(), both()]), [zero; 3]);
        let one = Ok(Some(mask(&[1])));
        assert_eq!(merged(&[both(), on(&[(&[1], true), (&[0, 1], false)])]), [one; 3]);
    }

    #[test]
    fn what_only_some_prefer_is_for_best_effort() {
        let no = Err(NotAligned);
        let apart = [on(&[(&[0], true)]), on(&[(&[1], true)])];
        assert_eq!(merged(&apart), [Ok(Some(mask(&[0, 1]))), no, no]);
        let wide = [on(&[(&[0], true), (&[1], true)]), on(&[(&[0, 1], false)])];
        assert_eq!(merged(&wide), [Ok(Some(mask(&[0]))), no, no]);
        // Preferred, and two nodes: enough for restricted, too much for a single node.
        let two = [on(&[(&[0, 1], true)]), on(&[(&[0, 1], true)])];
        assert_eq!(merged(&two), [Ok(Some(mask(&[0, 1]))), Ok(Some(mask(&[0, 1]))), no]);
    }

    #[test]
    fn of_sets_that_nobody_prefers_the_size_of_the_most_demanding_is_wanted() {
        // One needs two nodes at least; the other could be on any.
        let givers = [
            on(&[(&[0, 1], false), (&[0, 2], false), (&[0, 1, 2], false)]),
            on(&[(&[0], true), (&[1], true), (&[0, 1], false), (&[0, 1, 2], false)]),
        ];
        assert_eq!(merge(Policy::BestEffort, mask(&[0, 1, 2, 3]), &givers), Ok(Some(mask(&[0, 1]))));
    }

    #[test]
    fn many_givers_of_many_sets_end() {
        let all: Vec<NumaMask> = mask(&[0, 1, 2, 3, 4, 5, 6, 7]).subsets();
        let many: Vec<Hints> = (0..6).map(|_| Hints::of(all.iter().copied(), 1)).collect();
        let machine = mask(&[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(merge(Policy::Restricted, machine, &many), Ok(Some(mask(&[0]))));
    }
}
