//! What ContainerManager is told by the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::edge::{CpuManagerPolicy, MemoryManagerPolicy, TopologyManagerPolicy, TopologyManagerScope};

use crate::plan::cpus::{self, CpuSet, Options};
use crate::plan::topology::{Policy, Scope};

/// ContainerManager's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder in which plugins listen, and `kubelet.sock`; empty: none are served.
    pub(crate) plugins: PathBuf,
    /// The folder of the socket at which agents ask who has what; empty: none.
    pub(crate) pod_resources: PathBuf,
    pub(crate) cpus: CpuSettings,
    pub(crate) memory: MemorySettings,
    pub(crate) topology: Policy,
    pub(crate) scope: Scope,
}

/// What the CPU manager is told; what comes of it depends on the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuSettings {
    pub(crate) is_static: bool,
    pub(crate) options: Options,
    /// Named ones; empty: the lowest ones, as many as `reserved_milli` says.
    pub(crate) reserved: CpuSet,
    pub(crate) reserved_milli: u64,
    /// How often it is seen to that containers keep off others' CPUs.
    pub(crate) every: Duration,
}

/// What the memory manager is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemorySettings {
    pub(crate) is_static: bool,
    /// What pods can't have: NUMA node, kind, bytes.
    pub(crate) reserved: BTreeMap<u32, BTreeMap<String, u64>>,
    /// The same of all nodes together, as Node Allocatable has it, but for what eviction keeps free.
    pub(crate) reserved_bytes: u64,
    /// What eviction keeps free of memory.
    pub(crate) kept_free: Option<config::Threshold>,
}

impl Settings {
    /// Settings from the file's section.
    pub fn new(edged: &config::edge::Edged) -> Settings {
        let kubelet = &edged.tailored_kubelet_config;
        let is_on = |options: &BTreeMap<String, String>, name: &str| {
            options.get(name).is_some_and(|value| value == "true")
        };
        let options = &kubelet.cpu_manager_policy_options;
        Settings {
            plugins: edged.device_plugin_path.clone(),
            pod_resources: edged.pod_resources_path.clone(),
            cpus: CpuSettings {
                is_static: kubelet.cpu_manager_policy == CpuManagerPolicy::Static,
                options: Options {
                    full_cores: is_on(options, "full-pcpus-only"),
                    strict_reservation: is_on(options, "strict-cpu-reservation"),
                    align_by_cache: is_on(options, "prefer-align-cpus-by-uncorecache"),
                },
                reserved: cpus::parse_list(&kubelet.reserved_system_cpus).unwrap_or_default(),
                reserved_milli: kubelet.reserved_milli_cpu(),
                every: kubelet.cpu_manager_reconcile_period.0,
            },
            memory: MemorySettings {
                is_static: kubelet.memory_manager_policy == MemoryManagerPolicy::Static,
                reserved: kubelet.reserved_memory_by_node(),
                reserved_bytes: kubelet.reserved_bytes("memory"),
                kept_free: Some(kubelet.eviction_hard.memory_available),
            },
            topology: match kubelet.topology_manager_policy {
                TopologyManagerPolicy::None => Policy::None,
                TopologyManagerPolicy::BestEffort => Policy::BestEffort,
                TopologyManagerPolicy::Restricted => Policy::Restricted,
                TopologyManagerPolicy::SingleNumaNode => Policy::SingleNumaNode,
            },
            scope: match kubelet.topology_manager_scope {
                TopologyManagerScope::Container => Scope::Container,
                TopologyManagerScope::Pod => Scope::Pod,
            },
        }
    }
}
