//! Which devices there are, and who has which. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use contract::containermanager::{
    ActivePod, ContainerKind, DeviceCount, DeviceHealth, DeviceReport, PluginDevice, PluginRegistration,
};

use crate::plan::allocation::{ContainerAllocation, DeviceAllocation, MemoryBlock, PodAllocation};
use crate::plan::choice::{self, Candidates, Choice, Ids};
use crate::plan::cpus::CpuSet;
use crate::plan::reusable_memory::ReusableMemory;
use crate::plan::topology::NumaMask;

/// 5 min: a plugin that is away for longer is gone, and its devices are none (a kubelet's grace).
pub(crate) const GRACE: Duration = Duration::from_secs(300);
/// Extended resources of one node, of the 64 resources that CloudCore takes of it: a hostile plugin can register as many as it
/// finds names.
pub(crate) const RESOURCES_MAX: usize = 48;

/// How it stands with a resource's plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plugin {
    /// It was here before the node's daemon started.
    Awaited { since: Moment },
    /// It has registered then. One that says for too long of no device that it has is waited for no longer.
    Up { session: u64, registration: PluginRegistration, since: Moment, listing: Listing },
    /// It was here.
    Away { since: Moment },
    /// It has been away for too long.
    Gone,
}

/// Whether a plugin that has registered has said which devices it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Awaited,
    Overdue,
    Here,
}

/// An extended resource.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    devices: BTreeMap<String, PluginDevice>,
    plugin: Plugin,
}

/// A plugin that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LivePlugin {
    pub(crate) session: u64,
    pub(crate) registration: PluginRegistration,
}

/// How long somebody who needs a resource waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its plugin is here and has told of its devices.
    Here,
    /// Its plugin may come, or come back.
    MayCome,
    /// It is gone, or was never here.
    Absent,
}

/// Which devices there are, and who has which.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    resources: BTreeMap<String, Resource>,
    /// By the pods' uids.
    pods: BTreeMap<String, PodAllocation>,
    /// As Edged has told last; `None` before that.
    active: Option<BTreeMap<String, ActivePod>>,
    /// The machine's boot.
    boot: String,
    sessions: u64,
}

/// What has to be written to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Pods whose allocation is another.
    pub(crate) changed: BTreeSet<String>,
    /// Pods that have nothing any more.
    pub(crate) freed: BTreeSet<String>,
}

impl Ledger {
    /// What was kept over a restart: the pods' allocations and the resources that there were.
    pub(crate) fn new(
        boot: String,
        pods: BTreeMap<String, PodAllocation>,
        known: BTreeSet<String>,
        now: Moment,
    ) -> Ledger {
        let allocated =
            pods.values().flat_map(|pod| pod.containers.values()).flat_map(|one| one.devices.keys());
        let all = known.into_iter().chain(allocated.cloned());
        let awaited =
            |name| (name, Resource { devices: BTreeMap::new(), plugin: Plugin::Awaited { since: now } });
        Ledger { resources: all.map(awaited).collect(), pods, boot, ..Ledger::default() }
    }

    /// Makes room for a resource that is not here: one whose plugin is gone, and of which no pod has any, is none from now on. Answers
    /// which.
    pub(crate) fn make_room(&mut self, name: &str) -> Option<String> {
        if self.resources.contains_key(name) || self.resources.len() < RESOURCES_MAX {
            return None;
        }
        let gone = self.resources.iter().filter(|(_, resource)| resource.plugin == Plugin::Gone);
        let free = gone.map(|(name, _)| name).find(|name| self.used(name).is_empty()).cloned()?;
        self.resources.remove(&free);
        Some(free)
    }

    /// A plugin has registered; a newer one takes the place of an older one. `None`: there are too many resources.
    pub(crate) fn registered(&mut self, registration: PluginRegistration, now: Moment) -> Option<u64> {
        let name = registration.resource.clone();
        if !self.resources.contains_key(&name) && self.resources.len() >= RESOURCES_MAX {
            return None;
        }
        self.sessions += 1;
        let session = self.sessions;
        let plugin = Plugin::Up { session, registration, since: now, listing: Listing::Awaited };
        let resource =
            self.resources.entry(name).or_insert(Resource { devices: BTreeMap::new(), plugin: Plugin::Gone });
        resource.plugin = plugin;
        Some(session)
    }

    /// A plugin's devices. What an older plugin says is passed over.
    pub(crate) fn listed(
        &mut self,
        name: &str,
        from: u64,
        devices: BTreeMap<String, PluginDevice>,
    ) -> Changes {
        let mut changes = Changes::default();
        let Some(resource) = self.resources.get_mut(name) else { return changes };
        match &mut resource.plugin {
            Plugin::Up { session, listing, .. } if *session == from => *listing = Listing::Here,
            Plugin::Up { .. } | Plugin::Awaited { .. } | Plugin::Away { .. } | Plugin::Gone => {
                return changes;
            }
        }
        resource.devices = devices;
        // What was given before the machine started anew is there again.
        for (uid, pod) in &mut self.pods {
            for allocation in pod.containers.values_mut().filter_map(|one| one.devices.get_mut(name)) {
                let healthy = |id: &String| resource.devices.get(id).is_some_and(|device| device.is_healthy);
                if allocation.boot != self.boot && allocation.devices.keys().all(healthy) {
                    allocation.boot.clone_from(&self.boot);
                    changes.changed.insert(uid.clone());
                }
            }
        }
        changes
    }

    /// A plugin is gone: nobody gets its devices, until it is back. True when it was the one that counts.
    pub(crate) fn plugin_gone(&mut self, name: &str, from: u64, now: Moment) -> bool {
        let Some(resource) = self.resources.get_mut(name) else { return false };
        let counts = matches!(&resource.plugin, Plugin::Up { session, .. } if *session == from);
        if counts {
            resource.plugin = Plugin::Away { since: now };
            resource.devices.values_mut().for_each(|device| device.is_healthy = false);
        }
        counts
    }

    /// The resources whose plugins have been away for too long by now, or have said of no device for too long.
    pub(crate) fn expire(&mut self, now: Moment) -> Vec<String> {
        let mut gone = Vec::new();
        for (name, resource) in &mut self.resources {
            match &mut resource.plugin {
                Plugin::Awaited { since } | Plugin::Away { since } if now.since(*since) >= GRACE => {
                    resource.plugin = Plugin::Gone;
                    resource.devices.clear();
                    gone.push(name.clone());
                }
                Plugin::Up { since, listing, .. }
                    if *listing == Listing::Awaited && now.since(*since) >= GRACE =>
                {
                    *listing = Listing::Overdue;
                    gone.push(name.clone());
                }
                Plugin::Awaited { .. } | Plugin::Away { .. } | Plugin::Up { .. } | Plugin::Gone => {}
            }
        }
        gone
    }

    /// The names of the resources that are kept over a restart.
    #[cfg(test)]
    pub(crate) fn known(&self) -> impl Iterator<Item = &String> {
        self.resources.keys()
    }

    pub(crate) fn presence(&self, name: &str) -> Presence {
        match self.resources.get(name).map(|resource| &resource.plugin) {
            Some(Plugin::Up { listing: Listing::Here, .. }) => Presence::Here,
            Some(
                Plugin::Up { listing: Listing::Awaited, .. } | Plugin::Awaited { .. } | Plugin::Away { .. },
            ) => Presence::MayCome,
            Some(Plugin::Up { listing: Listing::Overdue, .. } | Plugin::Gone) | None => Presence::Absent,
        }
    }

    /// Whether a resource is or was a plugin's; of others nobody here knows, and they are no concern of the node's.
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    pub(crate) fn live_plugin(&self, name: &str) -> Option<LivePlugin> {
        match &self.resources.get(name)?.plugin {
            Plugin::Up { session, registration, .. } => {
                Some(LivePlugin { session: *session, registration: registration.clone() })
            }
            Plugin::Awaited { .. } | Plugin::Away { .. } | Plugin::Gone => None,
        }
    }

    /// What Edged is to know.
    pub(crate) fn report(&self) -> DeviceReport {
        let count = |resource: &Resource| {
            let healthy = resource.devices.values().filter(|device| device.is_healthy).count();
            let capacity = u64::try_from(resource.devices.len()).unwrap_or(u64::MAX);
            let allocatable = u64::try_from(healthy).unwrap_or(u64::MAX);
            let is_awaited = match &resource.plugin {
                Plugin::Awaited { .. } => true,
                Plugin::Up { listing, .. } => *listing == Listing::Awaited,
                Plugin::Away { .. } | Plugin::Gone => false,
            };
            DeviceCount { capacity, allocatable, is_awaited }
        };
        let resources =
            self.resources.iter().map(|(name, resource)| (name.clone(), count(resource))).collect();
        let health = self.pods.iter().map(|(uid, pod)| (uid.clone(), self.health(pod)));
        let health = health.filter(|(_, devices)| !devices.is_empty()).collect();
        DeviceReport { resources, health, ..DeviceReport::default() }
    }

    fn health(&self, pod: &PodAllocation) -> Vec<DeviceHealth> {
        let mut all = Vec::new();
        for (container, has) in &pod.containers {
            for (resource, allocation) in &has.devices {
                let told = self.resources.get(resource);
                for id in allocation.devices.keys() {
                    // A kubelet calls one healthy of which it knows nothing.
                    let device = told.and_then(|told| told.devices.get(id));
                    all.push(DeviceHealth {
                        container: container.clone(),
                        resource: resource.clone(),
                        id: id.clone(),
                        is_healthy: device.is_none_or(|device| device.is_healthy),
                    });
                }
            }
        }
        all
    }

    /// These pods are here and have not ended; what others had is free, but for those of `admitting`. Unless `are_all`: then for
    /// those that were among them before.
    pub(crate) fn set_active(
        &mut self,
        active: BTreeMap<String, ActivePod>,
        are_all: bool,
        admitting: &BTreeSet<String>,
    ) -> Changes {
        let was_named = |uid: &String| self.active.as_ref().is_some_and(|before| before.contains_key(uid));
        let stays = |uid: &String| {
            active.contains_key(uid) || admitting.contains(uid) || !(are_all || was_named(uid))
        };
        let freed: BTreeSet<String> = self.pods.keys().filter(|uid| !stays(uid)).cloned().collect();
        self.pods.retain(|uid, _| !freed.contains(uid));
        self.active = Some(active);
        Changes { freed, ..Changes::default() }
    }

    /// Whether Edged has named a pod among those that are here.
    pub(crate) fn is_active(&self, uid: &str) -> bool {
        self.active.as_ref().is_some_and(|active| active.contains_key(uid))
    }

    pub(crate) fn active(&self) -> impl Iterator<Item = (&String, &ActivePod)> {
        self.active.iter().flatten()
    }

    pub(crate) fn pod(&self, uid: &str) -> Option<&PodAllocation> {
        self.pods.get(uid)
    }

    pub(crate) fn container(&self, uid: &str, container: &str) -> Option<&ContainerAllocation> {
        self.pods.get(uid)?.containers.get(container)
    }

    /// A pod's entry, made if there is none.
    pub(crate) fn entry(&mut self, uid: &str, namespace: &str, name: &str) -> &mut PodAllocation {
        let fresh = || PodAllocation {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            containers: BTreeMap::new(),
        };
        self.pods.entry(uid.to_owned()).or_insert_with(fresh)
    }

    /// A pod that could not have all has nothing.
    pub(crate) fn release(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// The devices of a resource that somebody has.
    pub(crate) fn used(&self, resource: &str) -> Ids {
        let containers = self.pods.values().flat_map(|pod| pod.containers.values());
        let allocations = containers.filter_map(|container| container.devices.get(resource));
        allocations.flat_map(|allocation| allocation.devices.keys().cloned()).collect()
    }

    /// The CPUs that somebody has for himself.
    pub(crate) fn used_cpus(&self) -> CpuSet {
        let containers = self.pods.values().flat_map(|pod| pod.containers.values());
        containers.flat_map(|container| container.cpus.iter().copied()).collect()
    }

    /// The memory that somebody has for himself.
    pub(crate) fn memory(&self) -> impl Iterator<Item = &MemoryBlock> {
        let containers = self.pods.values().flat_map(|pod| pod.containers.values());
        containers.flat_map(|container| &container.memory)
    }

    /// Takes from a pod's init containers what a container after them has in their place, so that the sum is what the pod has.
    pub(crate) fn pass_memory(&mut self, uid: &str, inits: &[&str], block: &MemoryBlock, bytes: u64) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let mut left = bytes;
        for init in inits {
            let own = pod.containers.get_mut(*init).into_iter().flat_map(|own| &mut own.memory);
            for own in own.filter(|own| own.kind == block.kind && own.nodes == block.nodes) {
                let passed = own.bytes.min(left);
                own.bytes -= passed;
                left -= passed;
            }
        }
    }

    pub(crate) fn devices(&self, resource: &str) -> Option<&BTreeMap<String, PluginDevice>> {
        self.resources.get(resource).map(|resource| &resource.devices)
    }

    /// All devices that could be given, used ones included.
    pub(crate) fn allocatable(&self) -> impl Iterator<Item = (&String, &String, &PluginDevice)> {
        self.resources.iter().flat_map(|(name, resource)| {
            let healthy = resource.devices.iter().filter(|(_, device)| device.is_healthy);
            healthy.map(move |(id, device)| (name, id, device))
        })
    }

    /// Chooses devices for a container that has none of the resource yet.
    ///
    /// # Errors
    /// The kubelet's sentence.
    pub(crate) fn choose(
        &self,
        name: &str,
        wanted: usize,
        reusable: &Ids,
        affinity: Option<NumaMask>,
        preferred: Option<&Ids>,
    ) -> Result<Choice, String> {
        let resource = self.resources.get(name).filter(|resource| resource.plugin != Plugin::Gone);
        let resource = resource.ok_or_else(|| format!("cannot allocate unregistered device {name}"))?;
        let asks_plugin = match &resource.plugin {
            Plugin::Up { registration, .. } => registration.preferred_allocation,
            Plugin::Awaited { .. } | Plugin::Away { .. } | Plugin::Gone => false,
        };
        let used = self.used(name);
        let candidates = Candidates {
            resource: name,
            devices: &resource.devices,
            used: &used,
            reusable,
            affinity,
            asks_plugin,
        };
        choice::choose(&candidates, wanted, preferred)
    }

    /// Devices are a container's from now on, before its plugin has answered.
    pub(crate) fn reserve(&mut self, uid: &str, container: &str, resource: &str, ids: &Ids) {
        let nodes = |id: &String| {
            self.resources
                .get(resource)
                .and_then(|told| told.devices.get(id))
                .map(|device| device.nodes.clone())
        };
        let devices = ids.iter().map(|id| (id.clone(), nodes(id).unwrap_or_default())).collect();
        let allocation = DeviceAllocation { devices, response: None, boot: self.boot.clone() };
        if let Some(pod) = self.pods.get_mut(uid) {
            let container = pod.containers.entry(container.to_owned()).or_default();
            container.devices.insert(resource.to_owned(), allocation);
        }
    }

    /// The plugin has answered. False when the pod has gone meanwhile.
    pub(crate) fn answered(&mut self, uid: &str, container: &str, resource: &str, response: Vec<u8>) -> bool {
        let pod = self.pods.get_mut(uid);
        let container = pod.and_then(|pod| pod.containers.get_mut(container));
        let Some(allocation) = container.and_then(|container| container.devices.get_mut(resource)) else {
            return false;
        };
        allocation.response = Some(response);
        true
    }

    /// Takes a container's devices of a resource away again: its plugin has gone while it was asked.
    pub(crate) fn unreserve(&mut self, uid: &str, container: &str, resource: &str) {
        let pod = self.pods.get_mut(uid);
        if let Some(container) = pod.and_then(|pod| pod.containers.get_mut(container)) {
            container.devices.remove(resource);
        }
    }
}

/// What of a pod's init containers the others may have, too. Follows the containers in their order.
#[derive(Debug, Default)]
pub(crate) struct Reusable {
    devices: BTreeMap<String, Ids>,
    pub(crate) cpus: CpuSet,
    pub(crate) memory: ReusableMemory,
}

impl Reusable {
    pub(crate) fn devices(&self, resource: &str) -> Ids {
        self.devices.get(resource).cloned().unwrap_or_default()
    }

    /// A container has got what it gets: what an init container has had is free for the others, and what one has that stays is
    /// not.
    pub(crate) fn passed(&mut self, kind: ContainerKind, has: &ContainerAllocation) {
        for (resource, allocation) in &has.devices {
            let pool = self.devices.entry(resource.clone()).or_default();
            match kind {
                ContainerKind::Init => pool.extend(allocation.devices.keys().cloned()),
                ContainerKind::Sidecar | ContainerKind::Main => {
                    pool.retain(|id| !allocation.devices.contains_key(id));
                }
            }
        }
        self.memory.passed(kind, has);
        match kind {
            ContainerKind::Init => self.cpus.extend(&has.cpus),
            ContainerKind::Sidecar | ContainerKind::Main => self.cpus.retain(|cpu| !has.cpus.contains(cpu)),
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
