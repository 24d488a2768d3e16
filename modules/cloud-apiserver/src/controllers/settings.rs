//! How patient the controllers are.

use std::time::Duration;

/// How patient the controllers are. The defaults are those of Kubernetes.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// The certificate of the API server's CA, for `kube-root-ca.crt` in every namespace.
    pub ca_pem: String,
    /// How long a node may be silent before it is Unknown.
    pub node_grace: Duration,
    /// The same for a node that was never heard of.
    pub node_startup_grace: Duration,
    /// How often nodes are looked at when nothing happens.
    pub node_check_period: Duration,
    /// How long pods of a node that does not exist are kept.
    pub lost_node_grace: Duration,
    /// How many pods of one namespace that have ended are kept: well below the 10,000 pods that it may have.
    pub ended_pods_in_namespace: usize,
    /// How many of all namespaces are kept (Kubernetes: `--terminated-pod-gc-threshold`, 12,500).
    pub ended_pods: usize,
    /// How often kinds are discovered anew when no definition changes.
    pub discovery_period: Duration,
    /// The first wait after a failed write; it doubles with each failure.
    pub retry_first: Duration,
    /// The longest wait after a failed write.
    pub retry_most: Duration,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            ca_pem: String::new(),
            node_grace: Duration::from_secs(40),
            node_startup_grace: Duration::from_secs(60),
            node_check_period: Duration::from_secs(5),
            lost_node_grace: Duration::from_secs(40),
            ended_pods_in_namespace: 1000,
            ended_pods: 12_500,
            discovery_period: Duration::from_secs(30),
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_secs(30),
        }
    }
}
