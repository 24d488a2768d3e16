//! What ContainerManager accepts, and what it speaks of: who has which of the node's devices, CPUs and memory.

use std::collections::{BTreeMap, BTreeSet};

use beehive::{Message, Reply};

/// How long a container of a pod has what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// Until it ends: the containers after it may have the same.
    Init,
    /// As long as the pod, before the other containers.
    Sidecar,
    /// As long as the pod.
    Main,
}

/// What one container of a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerDemand {
    /// Its name.
    pub name: String,
    /// How long it has it.
    pub kind: ContainerKind,
    /// How many of each extended resource.
    pub devices: BTreeMap<String, u64>,
    /// How many CPUs for itself alone; 0: none.
    pub cpus: u32,
    /// How many bytes of `memory` and of each size of huge pages it must have from its NUMA nodes; empty: it doesn't matter.
    pub memory: BTreeMap<String, u64>,
}

/// What a pod asks for, its init containers first and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDemand {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its containers but for the ephemeral ones.
    pub containers: Vec<ContainerDemand>,
}

/// Why a pod can't have what it asks for, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// As in `status.reason`.
    pub reason: String,
    /// As in `status.message`.
    pub message: String,
}

/// A file or folder of the host that a container has for its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMount {
    /// Where the container sees it.
    pub container_path: String,
    /// Where it lies on the host.
    pub host_path: String,
    /// Whether the container may not write.
    pub read_only: bool,
}

/// A device file that a container has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where the container sees it.
    pub container_path: String,
    /// Where it lies on the host.
    pub host_path: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// What a container is made with so that it has what its pod was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerGrant {
    /// Variables; the pod's own come after them.
    pub envs: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<DeviceMount>,
    /// Device files.
    pub devices: Vec<DeviceNode>,
    /// Annotations of the container in the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Devices by their names in the Container Device Interface.
    pub cdi_devices: Vec<String>,
    /// The CPUs that it runs on, as a list of the kernel's (`0-3,8`); empty: any.
    pub cpus: String,
    /// The NUMA nodes that its memory comes from, likewise.
    pub memory_nodes: String,
    /// Whether the CPUs are its own, so that no quota holds it back.
    pub exclusive: bool,
}

/// Why a container can't be made with what its pod was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantRefusal {
    /// Its devices' plugin has not come back since the machine started; it may.
    NotYet(String),
    /// The plugin says no, or the pod was given nothing.
    Failed(String),
}

/// How many of an extended resource there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceCount {
    /// In all.
    pub capacity: u64,
    /// Healthy ones.
    pub allocatable: u64,
    /// Its plugin was known before the node's daemon started, and may yet come back.
    pub is_awaited: bool,
}

/// A device of a container, and how it fares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceHealth {
    /// The container.
    pub container: String,
    /// The extended resource.
    pub resource: String,
    /// The device.
    pub id: String,
    /// Whether its plugin calls it healthy.
    pub is_healthy: bool,
}

/// What Edged knows of the node's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceReport {
    /// The extended resources of the node.
    pub resources: BTreeMap<String, DeviceCount>,
    /// The devices of the pods that have some, by the pods' uids.
    pub health: BTreeMap<String, Vec<DeviceHealth>>,
    /// Whether a container has to be told which CPUs it runs on although its pod asks for none.
    pub manages_cpus: bool,
    /// Whether containers of guaranteed pods have their memory from NUMA nodes of their own.
    pub manages_memory: bool,
}

/// A pod that is not to lose what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its containers, but for init containers that end.
    pub containers: Vec<String>,
}

/// What a plugin says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginDevice {
    /// Whether it is healthy.
    pub is_healthy: bool,
    /// The NUMA nodes it is near to.
    pub nodes: BTreeSet<u32>,
}

/// A plugin that registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRegistration {
    /// The extended resource that it has.
    pub resource: String,
    /// The name of its socket in the plugins' folder.
    pub endpoint: String,
    /// It wants to hear of a container before each start.
    pub pre_start_required: bool,
    /// It has a say in which devices belong together.
    pub preferred_allocation: bool,
}

/// What an agent on the node asks for.
#[derive(Debug)]
pub enum ResourceQuery {
    /// Of all pods. The answer is a message of the pod resources API.
    List(Reply<Vec<u8>>),
    /// Of one pod; `None`: there is none.
    Get {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Likewise.
        reply: Reply<Option<Vec<u8>>>,
    },
    /// What can be given at all.
    Allocatable(Reply<Vec<u8>>),
}

/// Messages to ContainerManager.
#[derive(Debug)]
pub enum ContainerManagerMsg {
    /// A pod is to have what it asks for. The answer comes when it has, which may be long: a plugin is asked.
    Admit {
        /// What it asks for.
        pod: PodDemand,
        /// When it has it, or why it can't.
        reply: Reply<Result<(), Rejection>>,
    },
    /// A task of its own: a pod has what it asks for, or can't have it.
    Admitted {
        /// The pod's uid.
        uid: String,
        /// Why it can't.
        outcome: Result<(), Rejection>,
    },
    /// A container is about to be made.
    Grant {
        /// Its pod.
        pod: PodDemand,
        /// Its name.
        container: String,
        /// What it is made with.
        reply: Reply<Result<ContainerGrant, GrantRefusal>>,
    },
    /// These pods are here and have not ended, by uid: what others had is free.
    ActivePods(BTreeMap<String, ActivePod>),
    /// The same while it is not known which others are here, too: who was named before and is not now has gone, and of those that
    /// were never named nobody knows.
    KnownPods(BTreeMap<String, ActivePod>),
    /// The registration server: a plugin is there.
    Registered(PluginRegistration),
    /// The watch of a plugin: its devices.
    Listed {
        /// The extended resource.
        resource: String,
        /// Which of its plugins: they are counted.
        session: u64,
        /// All that there are.
        devices: BTreeMap<String, PluginDevice>,
    },
    /// The watch of a plugin: it is gone.
    PluginGone {
        /// The extended resource.
        resource: String,
        /// Which of its plugins.
        session: u64,
        /// Why.
        reason: String,
    },
    /// The pod resources server: an agent asks.
    Query(ResourceQuery),
    /// Time to see which plugins have been away for too long.
    Tick,
    /// Time to see which containers have to move to other CPUs.
    Pin,
}

impl Message for ContainerManagerMsg {
    fn name(&self) -> &'static str {
        match self {
            ContainerManagerMsg::Admit { .. } => "Admit",
            ContainerManagerMsg::Admitted { .. } => "Admitted",
            ContainerManagerMsg::Grant { .. } => "Grant",
            ContainerManagerMsg::ActivePods(_) => "ActivePods",
            ContainerManagerMsg::KnownPods(_) => "KnownPods",
            ContainerManagerMsg::Registered(_) => "Registered",
            ContainerManagerMsg::Listed { .. } => "Listed",
            ContainerManagerMsg::PluginGone { .. } => "PluginGone",
            ContainerManagerMsg::Query(_) => "Query",
            ContainerManagerMsg::Tick => "Tick",
            ContainerManagerMsg::Pin => "Pin",
        }
    }
}
