//! Where a container is placed, and which CPUs it has for itself. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::containermanager::{ContainerDemand, ContainerKind, PluginDevice, PodDemand};

use crate::plan::allocation::MemoryBlock;
use crate::plan::choice::Ids;
use crate::plan::cpus::{self, CpuSet, CpuTopology, Options};
use crate::plan::ledger::{Ledger, Reusable};
use crate::plan::memory::{MemoryNodes, Requests};
use crate::plan::refusal::Refusal;
use crate::plan::reusable_memory::ReusableMemory;
use crate::plan::topology::{self, Hints, NumaMask, Policy};

/// What the CPU manager does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum CpuPolicy {
    /// Nothing: every container runs anywhere.
    #[default]
    None,
    /// Containers of guaranteed pods that ask for whole CPUs have them for themselves.
    Static {
        options: Options,
        /// Nobody has these for himself.
        reserved: CpuSet,
    },
}

/// By which rules, on which machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement<'a> {
    pub(crate) machine: &'a CpuTopology,
    pub(crate) cpus: &'a CpuPolicy,
    pub(crate) memory: &'a MemoryNodes,
    pub(crate) policy: Policy,
}

impl Placement<'_> {
    /// The NUMA nodes of one container.
    pub(crate) fn of_container(
        &self,
        ledger: &Ledger,
        pod: &PodDemand,
        container: &ContainerDemand,
        reusable: &Reusable,
    ) -> Result<Option<NumaMask>, Refusal> {
        if self.policy == Policy::None {
            return Ok(None);
        }
        let mut givers = Vec::new();
        for (resource, wanted) in &container.devices {
            let has = ledger.container(&pod.uid, &container.name).and_then(|has| has.devices.get(resource));
            let has = has.map(|has| has.devices.keys().cloned().collect());
            givers.push(self.device_hints(ledger, resource, *wanted, has, &reusable.devices(resource)));
        }
        if let Some(wanted) = self.exclusive(container.cpus) {
            let has = ledger.container(&pod.uid, &container.name).map(|has| has.cpus.clone());
            givers.push(match has.filter(|has| !has.is_empty()) {
                Some(has) if has.len() == wanted => self.machine.hints(&has, &CpuSet::new(), wanted),
                Some(_) => Hints::On(Vec::new()),
                None => self.machine.hints(&self.free(ledger), &reusable.cpus, wanted),
            });
        }
        let has = ledger.container(&pod.uid, &container.name).map(|has| has.memory.as_slice());
        givers.extend(self.memory.hints(
            ledger,
            &container.memory,
            has.unwrap_or_default(),
            &reusable.memory,
        ));
        Ok(topology::merge(self.policy, self.machine.nodes(), &givers)?)
    }

    /// The NUMA nodes of a pod as a whole.
    pub(crate) fn of_pod(&self, ledger: &Ledger, pod: &PodDemand) -> Result<Option<NumaMask>, Refusal> {
        if self.policy == Policy::None {
            return Ok(None);
        }
        let mut givers = Vec::new();
        let resources: BTreeSet<&String> = pod.containers.iter().flat_map(|one| one.devices.keys()).collect();
        for resource in resources {
            let wanted = at_once(pod, |container| container.devices.get(resource).copied().unwrap_or(0));
            let has = ledger.pod(&pod.uid).map(|has| {
                let devices = has.containers.values().filter_map(|one| one.devices.get(resource));
                devices.flat_map(|one| one.devices.keys().cloned()).collect::<Ids>()
            });
            let has = has.filter(|has| !has.is_empty());
            givers.push(self.device_hints(ledger, resource, wanted, has, &Ids::new()));
        }
        let cpus = at_once(pod, |container| u64::from(container.cpus));
        if let Some(wanted) = self.exclusive(u32::try_from(cpus).unwrap_or(u32::MAX)) {
            let has: CpuSet = ledger
                .pod(&pod.uid)
                .iter()
                .flat_map(|has| has.containers.values())
                .flat_map(|one| one.cpus.iter().copied())
                .collect();
            givers.push(if has.len() == wanted {
                self.machine.hints(&has, &CpuSet::new(), wanted)
            } else {
                self.machine.hints(&self.free(ledger), &has, wanted)
            });
        }
        let has = ledger.pod(&pod.uid).into_iter().flat_map(|has| has.containers.values());
        let has: Vec<MemoryBlock> = has.flat_map(|one| one.memory.iter().cloned()).collect();
        givers.extend(self.memory.hints(ledger, &memory_of(pod), &has, &ReusableMemory::default()));
        Ok(topology::merge(self.policy, self.machine.nodes(), &givers)?)
    }

    /// How many CPUs a container has for itself; `None`: it shares.
    fn exclusive(&self, cpus: u32) -> Option<usize> {
        match self.cpus {
            CpuPolicy::None => None,
            CpuPolicy::Static { .. } => usize::try_from(cpus).ok().filter(|cpus| *cpus > 0),
        }
    }

    /// The CPUs that pods can have for themselves.
    pub(crate) fn allocatable(&self) -> CpuSet {
        match self.cpus {
            CpuPolicy::None => CpuSet::new(),
            CpuPolicy::Static { reserved, .. } => self.machine.all().difference(reserved).copied().collect(),
        }
    }

    /// Those that nobody has for himself.
    fn free(&self, ledger: &Ledger) -> CpuSet {
        self.allocatable().difference(&ledger.used_cpus()).copied().collect()
    }

    /// The CPUs of whoever has none for himself, as the kernel lists them; empty: any.
    pub(crate) fn shared_cpus(&self, ledger: &Ledger) -> String {
        let CpuPolicy::Static { options, reserved } = self.cpus else { return String::new() };
        let mut all: CpuSet = self.machine.all().difference(&ledger.used_cpus()).copied().collect();
        if options.strict_reservation {
            all.retain(|cpu| !reserved.contains(cpu));
        }
        cpus::list(&all)
    }

    fn device_hints(
        &self,
        ledger: &Ledger,
        resource: &str,
        wanted: u64,
        has: Option<Ids>,
        reusable: &Ids,
    ) -> Hints {
        let none = BTreeMap::new();
        let devices = ledger.devices(resource).unwrap_or(&none);
        if wanted == 0 || devices.values().all(|device| device.nodes.is_empty()) {
            return Hints::Any;
        }
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if let Some(has) = has {
            if has.len() != wanted {
                return Hints::On(Vec::new());
            }
            return hints_of(devices, &has, &Ids::new(), wanted);
        }
        let healthy = devices.iter().filter(|(_, device)| device.is_healthy).map(|(id, _)| id.clone());
        let used = ledger.used(resource);
        let available: Ids = healthy.filter(|id| !used.contains(id)).collect();
        if available.union(reusable).count() < wanted {
            return Hints::On(Vec::new());
        }
        hints_of(devices, &available, reusable, wanted)
    }

    /// Gives a container the CPUs that it has for itself.
    pub(crate) fn take_cpus(
        &self,
        ledger: &mut Ledger,
        pod: &PodDemand,
        container: &ContainerDemand,
        reusable: &CpuSet,
        affinity: Option<NumaMask>,
    ) -> Result<(), Refusal> {
        let Some(wanted) = self.exclusive(container.cpus) else { return Ok(()) };
        let CpuPolicy::Static { options, reserved } = self.cpus else { return Ok(()) };
        if ledger.container(&pod.uid, &container.name).is_some_and(|has| !has.cpus.is_empty()) {
            return Ok(());
        }
        let mut free = self.free(ledger);
        if options.full_cores {
            self.check_cores(ledger, reserved, wanted)?;
            // A core of which a thread is reserved is nobody's.
            let broken = self.machine.whole_cores(reserved);
            free.retain(|cpu| !broken.contains(cpu));
        }
        free.extend(reusable);
        let near: CpuSet = match affinity {
            Some(mask) => {
                let is_near = |cpu: &&u32| self.machine.0.get(cpu).is_some_and(|cpu| mask.has(cpu.node));
                free.iter().filter(is_near).copied().collect()
            }
            None => CpuSet::new(),
        };
        let take = |from: &CpuSet, wanted| {
            self.machine.take(from, wanted, options.align_by_cache).map_err(Refusal::Other)
        };
        let mut taken = take(&near, wanted.min(near.len()))?;
        let rest: CpuSet = free.difference(&taken).copied().collect();
        taken.extend(take(&rest, wanted - taken.len())?);
        let entry = ledger.entry(&pod.uid, &pod.namespace, &pod.name);
        entry.containers.entry(container.name.clone()).or_default().cpus = taken;
        Ok(())
    }

    /// Gives a container the memory that comes from the same NUMA nodes.
    pub(crate) fn take_memory(
        &self,
        ledger: &mut Ledger,
        pod: &PodDemand,
        container: &ContainerDemand,
        reusable: &ReusableMemory,
        affinity: Option<NumaMask>,
    ) -> Result<(), Refusal> {
        let has = ledger.container(&pod.uid, &container.name).is_some_and(|has| !has.memory.is_empty());
        if !self.memory.is_managed() || container.memory.is_empty() || has {
            return Ok(());
        }
        let taken = self.memory.take(ledger, &container.memory, reusable, (self.policy, affinity))?;
        let before = pod.containers.iter().take_while(|one| one.name != container.name);
        let inits = before.filter(|one| one.kind == ContainerKind::Init).map(|one| one.name.as_str());
        let inits: Vec<&str> = inits.collect();
        for block in &taken {
            ledger.pass_memory(&pod.uid, &inits, block, reusable.of_block(block));
        }
        let entry = ledger.entry(&pod.uid, &pod.namespace, &pod.name);
        entry.containers.entry(container.name.clone()).or_default().memory = taken;
        Ok(())
    }

    fn check_cores(&self, ledger: &Ledger, reserved: &CpuSet, wanted: usize) -> Result<(), Refusal> {
        let refusal = |message: String| {
            Err(Refusal::Named {
                reason: "SMTAlignmentError",
                message: format!("SMT Alignment Error: {message}"),
            })
        };
        let per_core = self.machine.per_core();
        if !wanted.is_multiple_of(per_core) {
            return refusal(format!("requested {wanted} cpus not multiple cpus per core = {per_core}"));
        }
        let used = ledger.used_cpus();
        let broken = self.machine.whole_cores(reserved);
        let there =
            self.machine.all().iter().filter(|cpu| !used.contains(cpu) && !broken.contains(cpu)).count();
        if wanted > there {
            return refusal(format!(
                "not enough free physical CPUs: available physical CPUs = {there}, requested CPUs = {wanted}, \
                 CPUs per core = {per_core}"
            ));
        }
        Ok(())
    }
}

/// On which sets of NUMA nodes there are `wanted` devices of `available`, with all of `reusable`.
fn hints_of(
    devices: &BTreeMap<String, PluginDevice>,
    available: &Ids,
    reusable: &Ids,
    wanted: usize,
) -> Hints {
    let nodes: NumaMask = devices.values().flat_map(|device| device.nodes.iter().copied()).collect();
    let near =
        |id: &String, mask: NumaMask| devices.get(id).is_some_and(|device| mask.has_any(&device.nodes));
    let sets = nodes.subsets();
    let suffices = |mask: &&NumaMask| devices.keys().filter(|id| near(id, **mask)).count() >= wanted;
    let least = sets.iter().filter(suffices).map(|mask| mask.count()).min().unwrap_or(nodes.count());
    let fitting = sets.into_iter().filter(|mask| {
        let placed = |id: &&String| devices.get(*id).is_some_and(|device| !device.nodes.is_empty());
        let reused = reusable.iter().filter(placed).filter(|id| near(id, *mask)).count();
        let others = available.iter().filter(|id| !reusable.contains(*id) && near(id, *mask)).count();
        reused == reusable.iter().filter(placed).count() && reused + others >= wanted
    });
    Hints::of(fitting, least)
}

/// The memory that a pod needs at a time, of the kinds that containers ask for which stay (the kubelet's
/// `getPodRequestedResources`).
fn memory_of(pod: &PodDemand) -> Requests {
    let mains = pod.containers.iter().filter(|one| one.kind == ContainerKind::Main);
    let kinds: BTreeSet<&String> = mains.flat_map(|one| one.memory.keys()).collect();
    let of_kind = |kind: &String| at_once(pod, |one| one.memory.get(kind).copied().unwrap_or(0));
    kinds.into_iter().map(|kind| (kind.clone(), of_kind(kind))).collect()
}

/// How much a pod needs at a time: its init containers one after another, beside the sidecars that have begun by then.
fn at_once(pod: &PodDemand, of: impl Fn(&ContainerDemand) -> u64) -> u64 {
    let (mut sidecars, mut mains, mut most) = (0_u64, 0_u64, 0_u64);
    for container in &pod.containers {
        let own = of(container);
        match container.kind {
            ContainerKind::Init => most = most.max(sidecars.saturating_add(own)),
            ContainerKind::Sidecar => sidecars = sidecars.saturating_add(own),
            ContainerKind::Main => mains = mains.saturating_add(own),
        }
    }
    most.max(sidecars.saturating_add(mains))
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
