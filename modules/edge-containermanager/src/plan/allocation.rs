//! What a pod has. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// What the containers of a pod have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodAllocation {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// By the containers' names.
    pub(crate) containers: BTreeMap<String, ContainerAllocation>,
}

/// What a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerAllocation {
    /// By the extended resource.
    pub(crate) devices: BTreeMap<String, DeviceAllocation>,
    /// CPUs of its own.
    pub(crate) cpus: BTreeSet<u32>,
    /// Memory of its own.
    pub(crate) memory: Vec<MemoryBlock>,
}

impl ContainerAllocation {
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.cpus.is_empty() && self.memory.is_empty()
    }
}

/// Devices of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeviceAllocation {
    /// The devices, and the NUMA nodes that each was near to.
    pub(crate) devices: BTreeMap<String, BTreeSet<u32>>,
    /// The plugin's answer, encoded; `None` while it is asked.
    pub(crate) response: Option<Vec<u8>>,
    /// The machine's boot in which the plugin has last called all of them healthy.
    pub(crate) boot: String,
}

/// Bytes from the same NUMA nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemoryBlock {
    /// `memory`, or a size of huge pages.
    pub(crate) kind: String,
    pub(crate) nodes: BTreeSet<u32>,
    pub(crate) bytes: u64,
}
