//! Which labels a node may give its own Node, as Kubernetes' NodeRestriction has it for kubelets (plugin/pkg/admission/noderestriction
//! and pkg/apis/well_known_labels.go of the kubelet, 1.36). Whoever holds a node's settings refuses the others by name; CloudCore,
//! which writes under an account that NodeRestriction does not look at, takes none of them; and the policy `kubehive-cloudcore-nodes`
//! (`policy.yaml` of the chart) repeats the list, in case somebody else has CloudCore's token.

use crate::names::is_qualified_name;

/// The label that makes a Node one of an edge node (KubeEdge).
pub const EDGE_LABEL: &str = "node-role.kubernetes.io/edge";
/// The roles that each edge node has, with nothing as their values (KubeEdge).
pub const EDGE_ROLES: [&str; 2] = [EDGE_LABEL, "node-role.kubernetes.io/agent"];
/// The roles of nodes that hold a cluster up: no edge machine is one.
pub const CONTROL_PLANE_ROLES: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// 64 labels, beside those that CloudCore sets.
pub const LABELS_MAX: usize = 64;
/// 32 taints.
pub const TAINTS_MAX: usize = 32;

/// Whether a node may set a label with this key on itself.
///
/// # Errors
/// Why not, as the rest of a sentence that begins with the key.
pub fn check_node_label(key: &str) -> Result<(), &'static str> {
    if !is_qualified_name(key) {
        return Err(
            "is no label's key: [prefix/]name, a name of at most 63 letters, digits, `-`, `_` and `.`",
        );
    }
    let Some((prefix, _)) = key.split_once('/') else { return Ok(()) };
    let of = |domain: &str| is_within(prefix, domain);
    if of("node-restriction.kubernetes.io") || of("kubehive.io") {
        return Err("is an administrator's to set, not the node's own");
    }
    let reserved = of("kubernetes.io") || of("k8s.io");
    let kubelets = of("kubelet.kubernetes.io") || of("node.kubernetes.io");
    if reserved && !kubelets && !is_kubelet_label(key) {
        return Err(
            "is Kubernetes' own: of kubernetes.io and k8s.io a node sets those below kubelet.kubernetes.io and node.kubernetes.io \
             and the known ones (topology.kubernetes.io/zone, …) alone",
        );
    }
    Ok(())
}

/// The domain, or one below it.
fn is_within(prefix: &str, domain: &str) -> bool {
    prefix.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `KubeletLabels()` of the kubelet.
fn is_kubelet_label(key: &str) -> bool {
    matches!(
        key,
        "kubernetes.io/hostname"
            | "topology.kubernetes.io/zone"
            | "topology.kubernetes.io/region"
            | "failure-domain.beta.kubernetes.io/zone"
            | "failure-domain.beta.kubernetes.io/region"
            | "beta.kubernetes.io/instance-type"
            | "node.kubernetes.io/instance-type"
            | "kubernetes.io/os"
            | "kubernetes.io/arch"
            | "beta.kubernetes.io/os"
            | "beta.kubernetes.io/arch"
    )
}
