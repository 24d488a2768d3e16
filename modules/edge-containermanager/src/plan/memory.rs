//! From which NUMA nodes a container's memory comes: the kubelet's memory manager with the policy Static. Pure.
//!
//! A container of a guaranteed pod has its memory and huge pages from as few nodes as can be. A node is given either alone, or
//! together with others as one group that stays the same as long as somebody has something of it; never both at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::allocation::MemoryBlock;
use crate::plan::ledger::Ledger;
use crate::plan::refusal::Refusal;
use crate::plan::reusable_memory::{ReusableMemory, mask_of};
use crate::plan::topology::{Hints, NumaMask, Policy};

/// The resource that is plain memory.
pub(crate) const MEMORY: &str = "memory";

/// How many bytes of each kind there are to be given, by NUMA node; empty: nobody is given any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemoryNodes(pub(crate) BTreeMap<u32, BTreeMap<String, u64>>);

/// What a container asks for, by kind.
pub(crate) type Requests = BTreeMap<String, u64>;

/// A set of nodes that suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    nodes: NumaMask,
    is_preferred: bool,
}

impl MemoryNodes {
    /// Whether memory is managed at all.
    pub(crate) fn is_managed(&self) -> bool {
        !self.0.is_empty()
    }

    fn all(&self) -> NumaMask {
        self.0.keys().copied().collect()
    }

    /// What could be given, used or not.
    pub(crate) fn blocks(&self) -> Vec<MemoryBlock> {
        let of_node = |(node, kinds): (&u32, &BTreeMap<String, u64>)| {
            let block = |(kind, bytes): (&String, &u64)| MemoryBlock {
                kind: kind.clone(),
                nodes: BTreeSet::from([*node]),
                bytes: *bytes,
            };
            kinds.iter().filter(|(_, bytes)| **bytes > 0).map(block).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_node).collect()
    }

    /// Whether a block is of what there is.
    pub(crate) fn has(&self, block: &MemoryBlock) -> bool {
        let has_kind = |node: &u32| self.0.get(node).is_some_and(|kinds| kinds.contains_key(&block.kind));
        !block.nodes.is_empty() && block.nodes.iter().all(has_kind)
    }

    fn allocatable(&self, nodes: NumaMask, kind: &str) -> u64 {
        let own = nodes.nodes().filter_map(|node| self.0.get(&node)?.get(kind));
        own.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The sets of nodes from which somebody has something.
    fn groups(ledger: &Ledger) -> BTreeSet<NumaMask> {
        ledger.memory().map(mask_of).collect()
    }

    /// What is left on a set of nodes. Of a group of which the set has only a part nothing counts.
    fn free(&self, ledger: &Ledger, nodes: NumaMask, kind: &str) -> u64 {
        let mut free = self.allocatable(nodes, kind);
        for group in Self::groups(ledger).into_iter().filter(|group| group.overlaps(nodes)) {
            let used = ledger.memory().filter(|block| block.kind == kind && mask_of(block) == group);
            let used = used.fold(0, |sum: u64, block| sum.saturating_add(block.bytes));
            let lost =
                if group.is_within(nodes) { used } else { self.allocatable(group.common(nodes), kind) };
            free = free.saturating_sub(lost);
        }
        free
    }

    /// Whether a set can be given from beside what others have: no node of it is in another group.
    fn is_open(ledger: &Ledger, nodes: NumaMask) -> bool {
        Self::groups(ledger).into_iter().all(|group| group == nodes || !group.overlaps(nodes))
    }

    /// The kubelet's `calculateHints`.
    fn candidates(&self, ledger: &Ledger, requests: &Requests, reusable: &ReusableMemory) -> Vec<Candidate> {
        let mut least = self.all().count();
        let mut fitting = Vec::new();
        for nodes in self.all().subsets() {
            if requests.iter().any(|(kind, bytes)| self.allocatable(nodes, kind) < *bytes) {
                continue;
            }
            least = least.min(nodes.count());
            let suffices = |(kind, bytes): (&String, &u64)| {
                self.free(ledger, nodes, kind).saturating_add(reusable.of(nodes, kind)) >= *bytes
            };
            if Self::is_open(ledger, nodes) && requests.iter().all(suffices) {
                fitting.push(nodes);
            }
        }
        let candidate = |nodes: NumaMask| Candidate { nodes, is_preferred: nodes.count() == least };
        fitting.into_iter().map(candidate).collect()
    }

    /// What the topology manager is told, a giver for each kind; of a container that has its memory already, that.
    pub(crate) fn hints(
        &self,
        ledger: &Ledger,
        requests: &Requests,
        has: &[MemoryBlock],
        reusable: &ReusableMemory,
    ) -> Vec<Hints> {
        if !self.is_managed() || requests.is_empty() {
            return Vec::new();
        }
        if let Some(block) = has.first() {
            let nodes = mask_of(block);
            return vec![Hints::of(std::iter::once(nodes), nodes.count())];
        }
        let found = self.candidates(ledger, requests, reusable);
        let least = found.iter().find(|one| one.is_preferred).map_or(0, |one| one.nodes.count());
        let hints = Hints::of(found.iter().map(|one| one.nodes), least);
        requests.keys().map(|_| hints.clone()).collect()
    }

    /// Gives a container its memory. `affinity`: where the topology manager wants it.
    ///
    /// # Errors
    /// In the kubelet's words.
    pub(crate) fn take(
        &self,
        ledger: &Ledger,
        requests: &Requests,
        reusable: &ReusableMemory,
        (policy, affinity): (Policy, Option<NumaMask>),
    ) -> Result<Vec<MemoryBlock>, Refusal> {
        let refused = |words: &str| Err(Refusal::Other(format!("[memorymanager] {words}")));
        // What these policies answer is always preferred.
        let wants_preferred = matches!(policy, Policy::Restricted | Policy::SingleNumaNode);
        let candidates = self.candidates(ledger, requests, reusable);
        let best = |within: Option<NumaMask>| {
            let fits = |one: &&Candidate| within.is_none_or(|inner| inner.is_within(one.nodes));
            // Preferred ones first, and of these the narrowest: so they are sorted.
            let mut fitting: Vec<&Candidate> = candidates.iter().filter(fits).collect();
            fitting.sort_by_key(|one| !one.is_preferred);
            fitting.first().copied().copied()
        };
        let mut nodes = match affinity {
            Some(nodes) => nodes,
            None => match best(None) {
                None => {
                    return refused(
                        "failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
                    );
                }
                Some(one) if wants_preferred && !one.is_preferred => {
                    return refused("failed to find the default preferred hint");
                }
                Some(one) => one.nodes,
            },
        };
        let suffices = |nodes: NumaMask| {
            requests.iter().all(|(kind, bytes)| {
                self.free(ledger, nodes, kind).saturating_add(reusable.of(nodes, kind)) >= *bytes
            })
        };
        if !suffices(nodes) {
            nodes = match best(Some(nodes)) {
                None => return refused("failed to find NUMA nodes to extend the current topology hint"),
                Some(one) if wants_preferred && !one.is_preferred => {
                    return refused("failed to find the extended preferred hint");
                }
                Some(one) => one.nodes,
            };
        }
        if !Self::is_open(ledger, nodes) {
            return refused("preferred hint violates NUMA node allocation");
        }
        let block = |(kind, bytes): (&String, &u64)| MemoryBlock {
            kind: kind.clone(),
            nodes: nodes.nodes().collect(),
            bytes: *bytes,
        };
        Ok(requests.iter().map(block).collect())
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
