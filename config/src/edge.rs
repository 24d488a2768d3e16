//! `edgecore.yaml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::edge_page::EdgePage;
pub use crate::eventbus::{EventBus, MqttTls, MqttUnixSocket, MqttWebSocket};
pub use crate::external_broker::{ExternalServer, ExternalTls, Password};
pub use crate::service_bus::ServiceBus;
use crate::{EvictionHard, EvictionSignals, FileSize, KubeletDuration, Threshold, Tracing};

/// The annotated default file.
pub const DEFAULT_FILE: &str = include_str!("../edgecore.yaml");

/// Where `edgecore` looks without `--config`. KubeEdge has it below `/etc/kubeedge`, the folder that its mappers mount:
/// whoever writes this file there says what a process of root does at its next start.
pub const DEFAULT_PATH: &str = "/etc/kubehive/edgecore.yaml";

/// Where KubeEdge's users look for it: `keadm join` leaves a link to [`DEFAULT_PATH`] there.
pub const KUBEEDGE_PATH: &str = "/etc/kubeedge/config/edgecore.yaml";

/// All of EdgeCore's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeCore {
    /// `edgecore.config.kubeedge.io/v1alpha2`.
    pub api_version: ApiVersion,
    /// `EdgeCore`.
    pub kind: Kind,
    /// The store.
    pub database: Database,
    /// The modules.
    pub modules: Modules,
}

/// The accepted version of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiVersion {
    /// The only one that KubeEdge loads since 1.12.
    #[default]
    #[serde(rename = "edgecore.config.kubeedge.io/v1alpha2")]
    V1alpha2,
}

/// The kind of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The only one.
    #[default]
    EdgeCore,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// Path of the SQLite file.
    pub data_source: PathBuf,
}

impl Default for Database {
    fn default() -> Self {
        Database { data_source: PathBuf::from("/var/lib/kubeedge/edgecore.db") }
    }
}

/// EdgeCore's modules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Modules {
    /// Pods.
    pub edged: Edged,
    /// The link.
    pub edge_hub: EdgeHub,
    /// MQTT.
    pub event_bus: EventBus,
    /// Twins and mappers.
    pub device_twin: DeviceTwin,
    /// The node's kubelet API.
    pub edge_stream: EdgeStream,
    /// A page for people on the node.
    pub edge_page: EdgePage,
    /// HTTP of the node and rules.
    pub service_bus: ServiceBus,
    /// The node's parts of jobs.
    pub task_manager: TaskManager,
}

/// The node's parts of jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskManager {
    /// Whether the node does them: jobs of the cloud pull images here, exchange edgecore, and change some of these settings.
    pub enable: bool,
}

/// Pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edged {
    /// The node's name; empty: the host's.
    pub hostname_override: String,
    /// The node's address; empty: the one on the way to the cloud.
    #[serde(rename = "nodeIP")]
    pub node_ip: String,
    /// Labels that the node registers with.
    pub node_labels: BTreeMap<String, String>,
    /// Whether pods may be scheduled to the node when it registers.
    pub register_schedulable: bool,
    /// Pods' volumes live here.
    pub root_directory: PathBuf,
    /// The image of the sandbox container.
    pub pod_sandbox_image: String,
    /// How many dead instances of a container are kept beside the newest; less than 1 counts as 1.
    pub max_per_pod_container_count: i32,
    /// How long an instance that has ended stays at least.
    #[serde(rename = "minimumGCAge")]
    pub minimum_gc_age: KubeletDuration,
    /// The folder in which device plugins listen, and register at `kubelet.sock`; empty: the node takes none.
    pub device_plugin_path: PathBuf,
    /// The folder in whose `kubelet.sock` agents ask which pods have which devices, CPUs and memory; empty: none can.
    pub pod_resources_path: PathBuf,
    /// Where the machine's boot id stands: a start after a power cut is told by it from one after a fault.
    #[serde(rename = "bootIDFile")]
    pub boot_id_file: PathBuf,
    /// What kubelet calls its own configuration.
    pub tailored_kubelet_config: TailoredKubeletConfig,
}

impl Default for Edged {
    fn default() -> Self {
        Edged {
            hostname_override: String::new(),
            node_ip: String::new(),
            node_labels: BTreeMap::new(),
            register_schedulable: true,
            root_directory: PathBuf::from("/var/lib/kubelet"),
            pod_sandbox_image: "kubeedge/pause:3.6".to_owned(),
            max_per_pod_container_count: 1,
            minimum_gc_age: KubeletDuration::default(),
            device_plugin_path: PathBuf::from("/var/lib/kubelet/device-plugins"),
            pod_resources_path: PathBuf::from("/var/lib/kubelet/pod-resources"),
            boot_id_file: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            tailored_kubelet_config: TailoredKubeletConfig::default(),
        }
    }
}

/// The part of KubeletConfiguration that is honoured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TailoredKubeletConfig {
    /// `unix://` and a path.
    pub container_runtime_endpoint: String,
    /// Where agents on the node itself ask for health, metrics, statistics and pods: an address of loopback.
    pub address: String,
    /// The port there; 0: none. KubeEdge's name: here whoever asks shows the token in [`EdgeStream::token_file`].
    pub read_only_port: u16,
    /// Where files that describe static pods lie: a folder, or one file; empty: there are none.
    pub static_pod_path: PathBuf,
    /// How often the files are looked at though nothing tells of a change.
    pub file_check_frequency: KubeletDuration,
    /// Containers' logs.
    pub pod_logs_dir: PathBuf,
    /// The same as the runtime's.
    pub cgroup_driver: CgroupDriver,
    /// What containers may have of the machine's swap.
    pub memory_swap: MemorySwap,
    /// The search domain of pods.
    pub cluster_domain: String,
    /// DNS servers of pods with dnsPolicy ClusterFirst.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    /// The node's own resolver file.
    pub resolv_conf: PathBuf,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Sysctls that pods may set beside Kubernetes' safe ones: names, or beginnings that end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// When a pod must show that it may pull an image that is here already.
    pub image_pull_credentials_verification_policy: ImageVerification,
    /// Images that need no credentials with [`ImageVerification::NeverVerifyAllowlistedImages`].
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// Taints that the node registers with.
    pub register_with_taints: Vec<Taint>,
    /// A container's log is rotated at this size.
    pub container_log_max_size: FileSize,
    /// How many files a container's log has at most, the one that is written included.
    pub container_log_max_files: u32,
    /// How often the logs' sizes are looked at.
    pub container_log_monitor_interval: KubeletDuration,
    /// Above this part of the images' disk, in percent, unused images are removed; 100: never.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u32,
    /// Down to this part.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u32,
    /// An image stays so long after it was first seen.
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: KubeletDuration,
    /// An image that was not used for so long is removed; 0: none is for that.
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: KubeletDuration,
    /// What has to be left on the node.
    pub eviction_hard: EvictionHard,
    /// What should be left: below it pods are evicted after the grace period.
    pub eviction_soft: EvictionSignals<Threshold>,
    /// How long what is left may be below a soft bound.
    pub eviction_soft_grace_period: EvictionSignals<KubeletDuration>,
    /// How much more than a bound has to be left before pods stay.
    pub eviction_minimum_reclaim: EvictionSignals<Threshold>,
    /// How long the node says that it is pressed after it was.
    pub eviction_pressure_transition_period: KubeletDuration,
    /// The longest grace of a pod that is evicted for a soft bound, in seconds.
    pub eviction_max_pod_grace_period: u32,
    /// How long all pods have to end when the machine does; 0: they are not ended for that.
    pub shutdown_grace_period: KubeletDuration,
    /// How much of that is kept for critical pods, which end last.
    pub shutdown_grace_period_critical_pods: KubeletDuration,
    /// How long the pods of each priority have instead.
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriod>,
    /// Whether containers of guaranteed pods that ask for whole CPUs have them for themselves.
    pub cpu_manager_policy: CpuManagerPolicy,
    /// `full-pcpus-only`, `strict-cpu-reservation`, `prefer-align-cpus-by-uncorecache`: `true` or `false` each.
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    /// How often it is seen to that the other containers keep off these CPUs.
    pub cpu_manager_reconcile_period: KubeletDuration,
    /// CPUs that no container has for itself, as `0-1,8`; empty: the lowest ones, as many as are reserved.
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    /// What the host's own services have of the node: `cpu`, `memory`, `ephemeral-storage`.
    pub system_reserved: BTreeMap<String, String>,
    /// What the daemons of Kubernetes have of it: the same keys.
    pub kube_reserved: BTreeMap<String, String>,
    /// Whether containers of guaranteed pods have their memory from NUMA nodes of their own.
    pub memory_manager_policy: MemoryManagerPolicy,
    /// What of each NUMA node's memory pods can't have then.
    pub reserved_memory: Vec<MemoryReservation>,
    /// How often the volumes of a pod are measured, while somebody asks what they hold, and up to as long again; 0: never.
    pub volume_stats_agg_period: KubeletDuration,
    /// Where traces of all of edgecore go, and how many.
    pub tracing: Tracing,
    /// How near to each other a container's devices and CPUs have to be.
    pub topology_manager_policy: TopologyManagerPolicy,
    /// Whether that is asked of each container, or of the pod as a whole.
    pub topology_manager_scope: TopologyManagerScope,
}

/// How long the pods of a priority, up to the next one that is given, have to end when the machine does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShutdownGracePeriod {
    /// The priority.
    pub priority: i32,
    /// So many seconds.
    pub shutdown_grace_period_seconds: u32,
}

impl Default for TailoredKubeletConfig {
    fn default() -> Self {
        TailoredKubeletConfig {
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            address: "127.0.0.1".to_owned(),
            read_only_port: 10350,
            static_pod_path: PathBuf::new(),
            file_check_frequency: KubeletDuration::from_secs(20),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            cgroup_driver: CgroupDriver::Cgroupfs,
            memory_swap: MemorySwap::default(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            max_pods: 110,
            allowed_unsafe_sysctls: Vec::new(),
            image_pull_credentials_verification_policy: ImageVerification::NeverVerifyPreloadedImages,
            preloaded_images_verification_allowlist: Vec::new(),
            register_with_taints: Vec::new(),
            container_log_max_size: FileSize(Some(10 << 20)),
            container_log_max_files: 5,
            container_log_monitor_interval: KubeletDuration::from_secs(10),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: KubeletDuration::from_secs(120),
            image_maximum_gc_age: KubeletDuration::default(),
            eviction_hard: EvictionHard::default(),
            eviction_soft: EvictionSignals::default(),
            eviction_soft_grace_period: EvictionSignals::default(),
            eviction_minimum_reclaim: EvictionSignals::default(),
            eviction_pressure_transition_period: KubeletDuration::from_secs(300),
            eviction_max_pod_grace_period: 0,
            shutdown_grace_period: KubeletDuration::default(),
            shutdown_grace_period_critical_pods: KubeletDuration::default(),
            shutdown_grace_period_by_pod_priority: Vec::new(),
            cpu_manager_policy: CpuManagerPolicy::None,
            cpu_manager_policy_options: BTreeMap::new(),
            cpu_manager_reconcile_period: KubeletDuration::from_secs(10),
            reserved_system_cpus: String::new(),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            memory_manager_policy: MemoryManagerPolicy::None,
            reserved_memory: Vec::new(),
            volume_stats_agg_period: KubeletDuration::from_secs(60),
            tracing: Tracing::default(),
            topology_manager_policy: TopologyManagerPolicy::None,
            topology_manager_scope: TopologyManagerScope::Container,
        }
    }
}

impl TailoredKubeletConfig {
    /// Where agents on the node itself ask; `None`: nowhere.
    pub fn local_address(&self) -> Option<SocketAddr> {
        let ip = self.address.parse().ok()?;
        (self.read_only_port > 0).then(|| SocketAddr::new(ip, self.read_only_port))
    }

    /// The socket behind `containerRuntimeEndpoint`.
    pub fn runtime_socket(&self) -> PathBuf {
        let endpoint = &self.container_runtime_endpoint;
        PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
    }
}

/// The kubelet's cpuManagerPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuManagerPolicy {
    /// Every container runs on any CPU.
    None,
    /// Containers of guaranteed pods that ask for whole CPUs have them for themselves.
    Static,
}

/// The kubelet's memoryManagerPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryManagerPolicy {
    /// Memory comes from where the kernel finds some.
    None,
    /// That of guaranteed pods from as few NUMA nodes as can be, which are kept for them.
    Static,
}

/// What of a NUMA node's memory pods can't have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryReservation {
    /// The node.
    pub numa_node: u32,
    /// `memory`, and `hugepages-2Mi` and the like.
    pub limits: BTreeMap<String, String>,
}

/// The kubelet's topologyManagerPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyManagerPolicy {
    /// Anywhere.
    None,
    /// Near if that can be.
    BestEffort,
    /// On as few NUMA nodes as can be, or the pod fails.
    Restricted,
    /// On one NUMA node, or the pod fails.
    SingleNumaNode,
}

/// The kubelet's topologyManagerScope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopologyManagerScope {
    /// Each container for itself.
    Container,
    /// The pod as a whole.
    Pod,
}

/// Who writes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// The runtime itself.
    Cgroupfs,
    /// systemd on the runtime's behalf.
    Systemd,
}

/// The kubelet's memorySwap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MemorySwap {
    /// How much of it.
    pub swap_behavior: SwapBehavior,
}

/// The kubelet's swapBehavior.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SwapBehavior {
    /// Nothing.
    #[default]
    #[serde(alias = "")]
    NoSwap,
    /// Containers of burstable pods as much of the swap as they ask for of the memory; with cgroups of version 2 alone.
    LimitedSwap,
}

/// The kubelet's imagePullCredentialsVerificationPolicy (KEP-2535).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageVerification {
    /// An image that is here is everybody's.
    NeverVerify,
    /// An image that edgecore did not pull is everybody's.
    NeverVerifyPreloadedImages,
    /// An image on the list is everybody's.
    NeverVerifyAllowlistedImages,
    /// No image is everybody's.
    AlwaysVerify,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value.
    #[serde(default)]
    pub value: String,
    /// The effect.
    pub effect: TaintEffect,
}

/// What a taint does (core v1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaintEffect {
    /// Nothing new is scheduled.
    NoSchedule,
    /// Nothing new is scheduled if there is another place.
    PreferNoSchedule,
    /// What runs is evicted.
    NoExecute,
}

/// The link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeHub {
    /// Life sign of the node, in seconds.
    pub heartbeat: u32,
    /// Enrolment, `https://host:port`.
    pub http_server: String,
    /// The CA's certificate.
    pub tls_ca_file: PathBuf,
    /// The node's certificate.
    pub tls_cert_file: PathBuf,
    /// The node's key.
    pub tls_private_key_file: PathBuf,
    /// Whether the certificate is renewed over the link.
    pub rotate_certificates: bool,
    /// The link.
    pub quic: Quic,
    /// The link where UDP is blocked.
    pub websocket: WebSocket,
}

impl Default for EdgeHub {
    fn default() -> Self {
        EdgeHub {
            heartbeat: 10,
            http_server: "https://127.0.0.1:10002".to_owned(),
            tls_ca_file: PathBuf::from("/var/lib/kubeedge/pki/rootCA.crt"),
            tls_cert_file: PathBuf::from("/var/lib/kubeedge/pki/server.crt"),
            tls_private_key_file: PathBuf::from("/var/lib/kubeedge/pki/server.key"),
            rotate_certificates: true,
            quic: Quic::default(),
            websocket: WebSocket::default(),
        }
    }
}

/// The link over QUIC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quic {
    /// The cloud's end, host:port; several, separated by commas, are tried in turn.
    pub server: String,
}

/// The link over WebSocket, where UDP is blocked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebSocket {
    /// Whether it is used at all.
    pub enable: bool,
    /// The cloud's end, host:port; several, separated by commas.
    pub server: String,
}

impl Default for WebSocket {
    fn default() -> Self {
        WebSocket { enable: true, server: "127.0.0.1:10000".to_owned() }
    }
}

impl Default for Quic {
    fn default() -> Self {
        Quic { server: "127.0.0.1:10001".to_owned() }
    }
}

/// Twins and mappers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceTwin {
    /// Folder of `dmi.sock` and of the mappers' own sockets: the one that mappers mount. Nothing else of the node may lie
    /// below it.
    pub dmi_sock_path: PathBuf,
    /// Name or number of the group whose processes may open `dmi.sock`; empty: root alone.
    pub dmi_sock_group: String,
    /// Who may be a mapper; empty: whoever can open the socket.
    pub mappers: Vec<MapperRule>,
    /// At which port of this machine's loopback the REST interface of a mapper is, by the name that it registers with; of those not
    /// named [`MAPPER_PORT`].
    pub mapper_ports: BTreeMap<String, u16>,
    /// Whether rules of devices may call HTTP services on this node and in its private networks.
    pub rule_calls: bool,
}

/// KubeEdge's port of a mapper's REST interface.
pub const MAPPER_PORT: u16 = 7777;

impl DeviceTwin {
    /// The port of a mapper's REST interface.
    pub fn port_of(&self, mapper: &str) -> u16 {
        self.mapper_ports.get(mapper).copied().unwrap_or(MAPPER_PORT)
    }
}

impl Default for DeviceTwin {
    fn default() -> Self {
        DeviceTwin {
            dmi_sock_path: PathBuf::from("/etc/kubeedge/"),
            dmi_sock_group: String::new(),
            mappers: Vec::new(),
            mapper_ports: BTreeMap::new(),
            rule_calls: false,
        }
    }
}

/// Pods of a namespace, or processes outside of pods, that may be mappers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MapperRule {
    /// Pods of this namespace. Either this or `uid`.
    pub namespace: String,
    /// Of those the ones with this service account; empty: all.
    pub service_account: String,
    /// Processes outside of pods with this user id.
    pub uid: Option<u32>,
    /// The protocols that they may register for; empty: any.
    pub protocols: Vec<String>,
}

/// The node's kubelet API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EdgeStream {
    /// Whether CloudCore may ask for logs, exec, attach, port-forward and statistics over the link, and agents on the node for
    /// some of it.
    pub enable: bool,
    /// Holds the token that agents on the node show at the port, mode 0600. It is made anew each time that the port is opened.
    pub token_file: PathBuf,
    /// A Unix socket for the same agents and for `keadm ctl`, which gets containers' logs there, too, and has pods begin again and devices set;
    /// mode 0600; empty: none. Whoever can open it needs no token.
    pub socket: PathBuf,
}

impl EdgeStream {
    /// The socket for agents on the node, if there is to be one.
    pub fn socket(&self) -> Option<&Path> {
        Some(self.socket.as_path()).filter(|socket| self.enable && !socket.as_os_str().is_empty())
    }
}

impl Default for EdgeStream {
    fn default() -> Self {
        EdgeStream {
            enable: true,
            token_file: PathBuf::from("/var/lib/kubeedge/kubelet.token"),
            socket: PathBuf::from("/var/lib/kubeedge/kubelet.sock"),
        }
    }
}
