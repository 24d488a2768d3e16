//! One look at what everything uses.

use std::collections::BTreeMap;

use apimachinery::NamespacedName;

use crate::stats::cgroup::Cgroup;
use crate::stats::proc::{Disk, Interface, Machine};

/// Processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    /// Nanoseconds since 1970 when it was looked at.
    pub(crate) at: i64,
    /// Nanoseconds of one core.
    pub(crate) usage: u64,
    /// Billionths of a core; `None` until it was looked at twice, ten seconds apart.
    pub(crate) rate: Option<u64>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Memory {
    /// Nanoseconds since 1970 when it was looked at.
    pub(crate) at: i64,
    pub(crate) available: Option<u64>,
    pub(crate) usage: Option<u64>,
    pub(crate) working_set: Option<u64>,
    pub(crate) rss: Option<u64>,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
}

/// Swap in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Swap {
    pub(crate) available: Option<u64>,
    pub(crate) usage: u64,
}

/// A container that runs.
#[derive(Debug, Clone)]
pub(crate) struct ContainerUse {
    pub(crate) pod: NamespacedName,
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) image: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) memory: Option<Memory>,
    pub(crate) swap: Option<Swap>,
    pub(crate) rootfs: Disk,
    pub(crate) logs: Disk,
    /// Its cgroup's path, if it was found, and what is there.
    pub(crate) cgroup: Option<(String, Cgroup)>,
}

/// A sandbox that is ready.
#[derive(Debug, Clone)]
pub(crate) struct PodUse {
    pub(crate) pod: NamespacedName,
    pub(crate) uid: String,
    pub(crate) sandbox: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) memory: Option<Memory>,
    pub(crate) processes: Option<u64>,
    pub(crate) network: Vec<Interface>,
    /// The pod's cgroup.
    pub(crate) cgroup: Option<(String, Cgroup)>,
    /// The sandbox's own.
    pub(crate) sandbox_cgroup: Option<(String, Cgroup)>,
    /// Files directly in the pod's folder of logs.
    pub(crate) logs: Disk,
}

/// The node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeUse {
    pub(crate) machine: Machine,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) memory: Memory,
    pub(crate) swap: Option<Swap>,
    pub(crate) network: Vec<Interface>,
    /// Where the pods' volumes lie.
    pub(crate) disk: Disk,
    /// By the devices on which they lie.
    pub(crate) disks: Vec<(String, Disk)>,
    /// `/`, the pods' and their classes'.
    pub(crate) cgroups: BTreeMap<String, Cgroup>,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Nanoseconds since 1970.
    pub(crate) at: i64,
    pub(crate) node: NodeUse,
    pub(crate) images: Disk,
    pub(crate) pods: Vec<PodUse>,
    pub(crate) containers: Vec<ContainerUse>,
}

impl Sample {
    pub(crate) fn containers_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a ContainerUse> {
        self.containers.iter().filter(move |container| container.uid == uid)
    }
}
