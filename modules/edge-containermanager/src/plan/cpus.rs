//! Which CPUs a container gets for itself: the kubelet's static CPU manager. Pure.
//!
//! As few parts of the machine as possible are broken up: whole NUMA nodes and sockets first, then whole cores, then single
//! threads, and of each kind those first of which the least is free.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::topology::{Hints, NumaMask};

/// Numbers of CPUs.
pub(crate) type CpuSet = BTreeSet<u32>;

/// Where a CPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// The lowest CPU of its core.
    pub(crate) core: u32,
    pub(crate) socket: u32,
    /// Its NUMA node.
    pub(crate) node: u32,
    /// The lowest CPU that it shares its last cache with.
    pub(crate) cache: u32,
}

/// The machine's CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuTopology(pub(crate) BTreeMap<u32, Cpu>);

/// What of the static policy is wanted beyond it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Nobody shares a core (`full-pcpus-only`).
    pub(crate) full_cores: bool,
    /// What is reserved is for nobody's pods (`strict-cpu-reservation`).
    pub(crate) strict_reservation: bool,
    /// One cache is better than two (`prefer-align-cpus-by-uncorecache`).
    pub(crate) align_by_cache: bool,
}

/// Which part of the machine.
#[derive(Clone, Copy)]
enum Part {
    Node,
    Socket,
    Cache,
    Core,
}

impl Part {
    fn of(self, cpu: Cpu) -> u32 {
        match self {
            Part::Node => cpu.node,
            Part::Socket => cpu.socket,
            Part::Cache => cpu.cache,
            Part::Core => cpu.core,
        }
    }
}

impl CpuTopology {
    pub(crate) fn all(&self) -> CpuSet {
        self.0.keys().copied().collect()
    }

    pub(crate) fn nodes(&self) -> NumaMask {
        self.0.values().map(|cpu| cpu.node).collect()
    }

    /// How many threads a core has.
    pub(crate) fn per_core(&self) -> usize {
        let cores: BTreeSet<u32> = self.0.values().map(|cpu| cpu.core).collect();
        self.0.len().checked_div(cores.len()).unwrap_or(1).max(1)
    }

    fn count(&self, part: Part) -> usize {
        self.0.values().map(|cpu| part.of(*cpu)).collect::<BTreeSet<u32>>().len()
    }

    /// The CPUs in one part, of all.
    fn within(&self, part: Part, id: u32) -> CpuSet {
        self.0.iter().filter(|(_, cpu)| part.of(**cpu) == id).map(|(number, _)| *number).collect()
    }

    /// All threads of the cores of these.
    pub(crate) fn whole_cores(&self, of: &CpuSet) -> CpuSet {
        let cores: BTreeSet<u32> =
            of.iter().filter_map(|number| self.0.get(number)).map(|cpu| cpu.core).collect();
        self.0.iter().filter(|(_, cpu)| cores.contains(&cpu.core)).map(|(number, _)| *number).collect()
    }

    /// `wanted` of the `available` ones.
    ///
    /// # Errors
    /// The kubelet's sentence.
    pub(crate) fn take(
        &self,
        available: &CpuSet,
        wanted: usize,
        align_by_cache: bool,
    ) -> Result<CpuSet, String> {
        let there = available.len();
        if wanted > there {
            return Err(format!(
                "not enough cpus available to satisfy request: requested={wanted}, available={there}"
            ));
        }
        let mut taking = Taking { topology: self, left: available.clone(), taken: CpuSet::new(), wanted };
        let nodes_first = self.count(Part::Socket) >= self.count(Part::Node);
        let wide = if nodes_first { [Part::Node, Part::Socket] } else { [Part::Socket, Part::Node] };
        for part in wide {
            taking.whole(part, &taking.sorted(part));
        }
        if align_by_cache {
            taking.by_cache();
        }
        taking.whole(Part::Core, &taking.cores());
        taking.rest();
        Ok(taking.taken)
    }

    /// The NUMA nodes on which `wanted` of the `available` ones could be given, with those of an init container
    /// (`reusable`) among them.
    pub(crate) fn hints(&self, available: &CpuSet, reusable: &CpuSet, wanted: usize) -> Hints {
        let on = |mask: NumaMask, set: &CpuSet| {
            set.iter().filter(|number| self.0.get(number).is_some_and(|cpu| mask.has(cpu.node))).count()
        };
        let (all, sets) = (self.all(), self.nodes().subsets());
        let least = sets.iter().filter(|mask| on(**mask, &all) >= wanted).map(|mask| mask.count()).min();
        let least = least.unwrap_or_else(|| self.nodes().count());
        let fitting = sets.into_iter().filter(|mask| {
            let reused = on(*mask, reusable);
            reused == reusable.len() && reused + on(*mask, available) >= wanted
        });
        Hints::of(fitting, least)
    }
}

struct Taking<'a> {
    topology: &'a CpuTopology,
    left: CpuSet,
    taken: CpuSet,
    wanted: usize,
}

impl Taking<'_> {
    fn needed(&self) -> usize {
        self.wanted.saturating_sub(self.taken.len())
    }

    fn cpu(&self, number: u32) -> Option<Cpu> {
        self.topology.0.get(&number).copied()
    }

    fn left_in(&self, part: Part, id: u32) -> CpuSet {
        let inside = |number: &&u32| self.cpu(**number).is_some_and(|cpu| part.of(cpu) == id);
        self.left.iter().filter(inside).copied().collect()
    }

    /// The parts that hold some of `left`, those first of which the least is left.
    fn sorted(&self, part: Part) -> Vec<u32> {
        self.sorted_within(part, |_| true)
    }

    fn sorted_within(&self, part: Part, inside: impl Fn(Cpu) -> bool) -> Vec<u32> {
        let cpus = self.left.iter().filter_map(|number| self.cpu(*number));
        let found: BTreeSet<u32> = cpus.filter(|cpu| inside(*cpu)).map(|cpu| part.of(cpu)).collect();
        let mut found: Vec<u32> = found.into_iter().collect();
        found.sort_by_key(|id| (self.left_in(part, *id).len(), *id));
        found
    }

    /// Cores, by the node and the socket that they are in.
    fn cores(&self) -> Vec<u32> {
        let nodes_first = self.topology.count(Part::Socket) >= self.topology.count(Part::Node);
        let (outer, inner) =
            if nodes_first { (Part::Node, Part::Socket) } else { (Part::Socket, Part::Node) };
        let mut cores = Vec::new();
        for wide in self.sorted(outer) {
            for narrow in self.sorted_within(inner, |cpu| outer.of(cpu) == wide) {
                let inside = |cpu: Cpu| outer.of(cpu) == wide && inner.of(cpu) == narrow;
                cores.extend(self.sorted_within(Part::Core, inside));
            }
        }
        cores
    }

    fn take(&mut self, cpus: &CpuSet) {
        self.left.retain(|number| !cpus.contains(number));
        self.taken.extend(cpus);
    }

    /// Whole parts, as long as no more comes of it than is needed.
    fn whole(&mut self, part: Part, ids: &[u32]) {
        for id in ids {
            let all = self.topology.within(part, *id);
            if !all.is_empty() && all.len() <= self.needed() && all.is_subset(&self.left) {
                self.take(&all);
            }
        }
    }

    fn by_cache(&mut self) {
        let caches: Vec<u32> = self
            .sorted(Part::Node)
            .into_iter()
            .flat_map(|node| self.sorted_within(Part::Cache, |cpu| cpu.node == node))
            .collect();
        for cache in &caches {
            if self.needed() == 0 {
                return;
            }
            self.whole(Part::Cache, &caches);
            self.part_of_cache(*cache);
        }
    }

    /// All that is still needed from one cache, or nothing.
    fn part_of_cache(&mut self, cache: u32) {
        let (needed, per_core) = (self.needed(), self.topology.per_core());
        let mut cores: BTreeSet<u32> = BTreeSet::new();
        cores.extend(
            self.left_in(Part::Cache, cache)
                .iter()
                .filter_map(|number| self.cpu(*number))
                .map(|cpu| cpu.core),
        );
        let cores = cores.into_iter().take(needed.div_ceil(per_core));
        let cpus: CpuSet = cores.flat_map(|core| self.left_in(Part::Core, core)).take(needed).collect();
        if needed > 0 && cpus.len() == needed {
            self.take(&cpus);
        }
    }

    /// Single threads, of the cores that are broken up already first.
    fn rest(&mut self) {
        for core in self.cores() {
            let threads: CpuSet = self.left_in(Part::Core, core).into_iter().take(self.needed()).collect();
            self.take(&threads);
        }
    }
}

/// A list as the kernel writes it: `0-3,8`.
pub(crate) fn list(cpus: &CpuSet) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in cpus {
        match parts.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(*number) => *end = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let part = |(from, to): &(u32, u32)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// The numbers of such a list, at most 4096 of them.
pub(crate) fn parse_list(text: &str) -> Option<CpuSet> {
    let mut cpus = CpuSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to || to >= 4096 {
            return None;
        }
        cpus.extend(from..=to);
    }
    Some(cpus)
}

#[cfg(test)]
#[path = "cpus_tests.rs"]
pub(crate) mod tests;
