//! What Edged is told by the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::EvictionHard;
use config::edge::{CgroupDriver, ImageVerification, SwapBehavior, Taint};

use crate::eviction::plan::{self, Bound};
use crate::images::collection;
use crate::shutdown::{self, plan::Group};
use crate::versions;

/// Where the kernel shows its cgroups.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// Pulls at a time when they are not serial.
const PULLS: usize = 5;
/// 2 pulls for jobs of the cloud at a time, an image's and an installation package's: TaskManager asks for no more. They have turns of
/// their own, so that no pod waits for a registry that a job has named.
pub(crate) const JOB_PULLS: usize = 2;
/// 5.7 s: see [`Settings::report_node_every`].
const REPORT_NODE_EVERY: Duration = Duration::from_millis(5700);

/// Edged's settings: those of `edgecore.yaml`, and what has no key there yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The node's name.
    pub node_name: String,
    /// The node's addresses; empty: found out from the route to the outside.
    pub node_ips: Vec<String>,
    /// Labels that the node registers with, beside the usual ones.
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    pub taints: Vec<Taint>,
    /// Whether pods may be scheduled to the node when it registers.
    pub schedulable: bool,
    /// Pods' volumes live below this folder.
    pub root: PathBuf,
    /// Files that describe static pods, if there are to be any.
    pub static_pods: Option<PathBuf>,
    /// In which groups pods end when the machine does, and how long each has; none: they are not ended for that.
    pub(crate) shutdown: Vec<Group>,
    /// The socket of the system's bus, where logind is.
    pub system_bus: PathBuf,
    /// Where logind reads how long it may be kept waiting.
    pub logind_config: PathBuf,
    /// How often those are looked at though nothing tells of a change.
    pub static_look_every: Duration,
    /// Containers' logs live below this folder.
    pub logs: PathBuf,
    /// Links to the logs of containers, as collectors of logs look for them: `containers` beside `logs`.
    pub links: PathBuf,
    /// A log is rotated at so many bytes; `None`: never.
    pub log_max_size: Option<u64>,
    /// How many files a log has at most, at least 2.
    pub log_max_files: usize,
    /// How often the sizes of logs are looked at.
    pub log_look_every: Duration,
    /// The node's own resolver file.
    pub resolv_conf: PathBuf,
    /// DNS servers of pods with dnsPolicy ClusterFirst.
    pub cluster_dns: Vec<String>,
    /// The search domain of pods.
    pub cluster_domain: String,
    /// The same as the runtime's.
    pub cgroup_driver: CgroupDriver,
    /// How much containers may have of the machine's swap.
    pub swap_behavior: SwapBehavior,
    /// Where the kernel shows its cgroups: `/sys/fs/cgroup`.
    pub cgroups: PathBuf,
    /// Below which cgroup the pods' are: `/kubepods`.
    pub cgroup_root: String,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// What has to be left on the node.
    pub eviction: EvictionHard,
    /// What pods may not have of it in any case.
    pub reserved: Reserved,
    /// Sysctls that pods may set beside the safe ones: names, or beginnings that end in `*`.
    pub allowed_sysctls: Vec<String>,
    /// When a pod must show that it may pull an image that is here already.
    pub image_verification: ImageVerification,
    /// Images that need no credentials, by that policy.
    pub image_allowlist: Vec<String>,
    /// Folders in which docker's own files with credentials are looked for, beside `root`: the home of edgecore's user and `/`.
    pub homes: Vec<PathBuf>,
    /// When the node is short of something, and what it does then.
    pub eviction_rules: EvictionRules,
    /// When images are removed.
    pub image_collection: ImageCollection,
    /// How often the volumes of a pod are measured while somebody asks, and up to as long again; zero: never.
    pub volume_stats_every: Duration,
    /// Dead instances of a container that are kept beside the newest; one if this is 0.
    pub dead_kept: usize,
    /// How long a dead instance stays at least.
    pub dead_min_age: Duration,
    /// One pull at a time.
    pub serial_pulls: bool,
    /// How often Edged says that it makes progress, and looks whether the node is to be reported. A little less than the
    /// silence after which the link asks: on an idle node nothing else travels.
    pub report_node_every: Duration,
    /// Whether ordinary events of pods are sent; what was not honoured is told in any case.
    pub report_events: bool,
    /// The version in `status.nodeInfo.kubeletVersion`.
    pub version: String,
}

/// When the node is short of something, and what it does then.
#[derive(Debug, Clone, PartialEq)]
pub struct EvictionRules {
    pub(crate) bounds: Vec<Bound>,
    /// How long the node says that it is pressed after it was.
    pub transition: Duration,
    /// The longest grace of a pod that is evicted for a soft bound.
    pub max_grace: Duration,
    /// How often that is looked at.
    pub every: Duration,
}

impl EvictionRules {
    /// Those of the configuration.
    pub fn new(kubelet: &config::edge::TailoredKubeletConfig) -> EvictionRules {
        let transition = kubelet.eviction_pressure_transition_period.0;
        EvictionRules {
            bounds: plan::bounds(kubelet),
            transition: if transition.is_zero() { plan::TRANSITION } else { transition },
            max_grace: Duration::from_secs(u64::from(kubelet.eviction_max_pod_grace_period)),
            every: plan::LOOK_EVERY,
        }
    }
}

/// What the host's services and Kubernetes' daemons have of the node (`systemReserved` and `kubeReserved`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    /// In thousandths of a CPU.
    pub cpu_milli: u64,
    /// In bytes.
    pub memory: u64,
    /// In bytes.
    pub ephemeral_storage: u64,
}

/// When images that nothing uses are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCollection {
    /// Above this part of the images' disk; 100: never for that.
    pub high_percent: u64,
    /// Down to this part.
    pub low_percent: u64,
    /// Not before an image has been here for so long.
    pub min_age: Duration,
    /// After so long without a use; `None`: not for that.
    pub max_age: Option<Duration>,
    /// How often that is looked at.
    pub every: Duration,
}

impl Settings {
    /// Settings from the file's section. `node_name` is the parsed `hostnameOverride` or the host's own name.
    pub fn new(node_name: &str, edged: &config::edge::Edged) -> Settings {
        let kubelet = &edged.tailored_kubelet_config;
        let ips = edged.node_ip.split(',').map(str::trim).filter(|ip| !ip.is_empty());
        Settings {
            node_name: node_name.to_owned(),
            node_ips: ips.map(str::to_owned).collect(),
            node_labels: edged.node_labels.clone(),
            taints: kubelet.register_with_taints.clone(),
            schedulable: edged.register_schedulable,
            root: edged.root_directory.clone(),
            static_pods: Some(kubelet.static_pod_path.clone()).filter(|path| !path.as_os_str().is_empty()),
            shutdown: shutdown::plan::groups(kubelet),
            system_bus: PathBuf::from("/run/dbus/system_bus_socket"),
            logind_config: PathBuf::from("/etc/systemd/logind.conf.d"),
            static_look_every: kubelet.file_check_frequency.0,
            logs: kubelet.pod_logs_dir.clone(),
            links: kubelet.pod_logs_dir.with_file_name("containers"),
            log_max_size: kubelet.container_log_max_size.0,
            log_max_files: usize::try_from(kubelet.container_log_max_files).unwrap_or(usize::MAX),
            log_look_every: kubelet.container_log_monitor_interval.0,
            resolv_conf: kubelet.resolv_conf.clone(),
            cluster_dns: kubelet.cluster_dns.clone(),
            cluster_domain: kubelet.cluster_domain.clone(),
            cgroup_driver: kubelet.cgroup_driver,
            swap_behavior: kubelet.memory_swap.swap_behavior,
            cgroups: PathBuf::from(CGROUPS),
            cgroup_root: "/kubepods".to_owned(),
            max_pods: kubelet.max_pods,
            eviction: kubelet.eviction_hard.clone(),
            reserved: Reserved {
                cpu_milli: kubelet.reserved_milli_cpu(),
                memory: kubelet.reserved_bytes("memory"),
                ephemeral_storage: kubelet.reserved_bytes("ephemeral-storage"),
            },
            allowed_sysctls: kubelet.allowed_unsafe_sysctls.clone(),
            image_verification: kubelet.image_pull_credentials_verification_policy,
            image_allowlist: kubelet.preloaded_images_verification_allowlist.clone(),
            homes: std::env::var_os("HOME")
                .into_iter()
                .map(PathBuf::from)
                .chain([PathBuf::from("/")])
                .collect(),
            eviction_rules: EvictionRules::new(kubelet),
            image_collection: ImageCollection {
                high_percent: u64::from(kubelet.image_gc_high_threshold_percent),
                low_percent: u64::from(kubelet.image_gc_low_threshold_percent),
                min_age: kubelet.image_minimum_gc_age.0,
                max_age: Some(kubelet.image_maximum_gc_age.0).filter(|age| !age.is_zero()),
                every: collection::LOOK_EVERY,
            },
            volume_stats_every: kubelet.volume_stats_agg_period.0,
            dead_kept: usize::try_from(edged.max_per_pod_container_count).unwrap_or(0),
            dead_min_age: edged.minimum_gc_age.0,
            serial_pulls: true,
            report_node_every: REPORT_NODE_EVERY,
            report_events: true,
            version: format!("{}-kubehive-{}", versions::NODE, buildinfo::SEMANTIC),
        }
    }

    /// Pods end with the machine as `kubelet` says.
    pub fn end_by(&mut self, kubelet: &config::edge::TailoredKubeletConfig) {
        self.shutdown = shutdown::plan::groups(kubelet);
    }

    /// How many images are pulled for pods at a time.
    pub(crate) fn pulls_at_once(&self) -> usize {
        if self.serial_pulls { 1 } else { PULLS }
    }

    /// With a sign of life at least every `heartbeat` (`modules.edgeHub.heartbeat`).
    #[must_use]
    pub fn alive_every(mut self, heartbeat: Duration) -> Settings {
        self.report_node_every = self.report_node_every.min(heartbeat);
        self
    }
}
