//! What the node's kubelet API is told by the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use config::edge::{CgroupDriver, EdgeCore};
use serde_json::{Value, json};

/// The settings of one node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// As the Node says it (`status.nodeInfo.kubeletVersion`).
    pub version: String,
    /// Containers' logs lie below this folder.
    pub logs: PathBuf,
    /// What the node's own services log lies below this folder.
    pub node_logs: PathBuf,
    /// Pods' volumes lie below this folder: its disk is the node's.
    pub root: PathBuf,
    /// The kernel's cgroups.
    pub cgroups: PathBuf,
    /// Who writes pods' cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Where agents on the node itself ask; `None`: nowhere.
    pub local: Option<SocketAddr>,
    /// The Unix socket where they may, too; `None`: nowhere.
    pub socket: Option<PathBuf>,
    /// Holds the credential that they need at the port.
    pub token_file: PathBuf,
    /// What `/configz` shows.
    pub shown: Value,
}

impl Settings {
    /// Of `edgecore.yaml`; `node` is the name of the node's certificate.
    pub fn new(node: &str, settings: &EdgeCore) -> Settings {
        let edged = &settings.modules.edged;
        let kubelet = &edged.tailored_kubelet_config;
        Settings {
            node: node.to_owned(),
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            logs: kubelet.pod_logs_dir.clone(),
            node_logs: PathBuf::from("/var/log"),
            root: edged.root_directory.clone(),
            cgroups: PathBuf::from("/sys/fs/cgroup"),
            cgroup_driver: kubelet.cgroup_driver,
            local: kubelet.local_address().filter(|_| settings.modules.edge_stream.enable),
            socket: settings.modules.edge_stream.socket().map(PathBuf::from),
            token_file: settings.modules.edge_stream.token_file.clone(),
            shown: configz(kubelet),
        }
    }

    /// The kubelet's configuration as far as it is honoured: what `/configz` shows.
    pub(crate) fn kubelet(&self) -> &Value {
        self.shown.get("kubeletconfig").unwrap_or(&Value::Null)
    }
}

/// The kubelet's configuration as far as it is honoured.
fn configz(kubelet: &config::edge::TailoredKubeletConfig) -> Value {
    let mut shown = serde_json::to_value(kubelet).unwrap_or_default();
    if let Some(parts) = shown.as_object_mut() {
        parts.insert("kind".to_owned(), json!("KubeletConfiguration"));
        parts.insert("apiVersion".to_owned(), json!("kubelet.config.k8s.io/v1beta1"));
    }
    json!({ "kubeletconfig": shown })
}
