//! What of the cluster landed on the node that has no place there. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::finding::Finding;
use crate::words::short;

const DAEMON_SETS: &str = "DaemonSets";
/// So many names are said.
const NAMED: usize = 8;
/// Daemon sets that find no API server on an edge node, by the beginnings of their pods' names: kube-proxy and network plugins.
const NOT_FOR_EDGE_NODES: [&str; 9] = [
    "kube-proxy",
    "calico-node",
    "canal",
    "cilium",
    "kube-flannel",
    "kube-router",
    "kindnet",
    "antrea-agent",
    "weave-net",
];

/// The daemon sets to which pods belong, by namespace and name, of a pod as it is in the store.
pub fn of_pod(pod: &Value) -> Vec<(String, String)> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let sets = owners.into_iter().flatten().filter(|owner| owner["kind"] == "DaemonSet");
    sets.filter_map(|owner| Some((namespace.to_owned(), owner["name"].as_str()?.to_owned()))).collect()
}

/// Of the daemon sets that have pods here those that find no API server.
pub fn verdict(sets: &[(String, String)]) -> Finding {
    let is_such = |name: &str| NOT_FOR_EDGE_NODES.iter().any(|known| name.starts_with(known));
    let such = sets.iter().filter(|(_, name)| is_such(name));
    let landed: BTreeSet<String> =
        such.map(|(namespace, name)| format!("{}/{}", short(namespace), short(name))).collect();
    if landed.is_empty() {
        return Finding::passed(DAEMON_SETS, "none of those that need an API server on the node");
    }
    let named: Vec<String> = landed.into_iter().take(NAMED).collect();
    Finding::warned(
        DAEMON_SETS,
        format!(
            "{} landed here and find no API server: `keadm init --dry-run --force` prints a patch for each that keeps it off edge nodes; `keadm init \
             --keep-daemonsets-off --force`, with the flags and values of before, installs CloudCore over itself and applies them",
            named.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finding::Grade::{Passed, Warned};
    use crate::finding::tests::grade;

    fn daemon_sets(pods: &[Value]) -> Finding {
        verdict(&pods.iter().flat_map(of_pod).collect::<Vec<_>>())
    }

    #[test]
    fn a_kube_proxy_on_the_node_is_said() {
        let pod = |set: &str, kind: &str| json!({"metadata": {"namespace": "kube-system", "name": format!("{set}-x"), "ownerReferences": [{"kind": kind, "name": set}]}});
        grade(
            &daemon_sets(&[pod("shop", "DaemonSet"), pod("kube-proxy", "ReplicaSet"), json!({})]),
            Passed,
            "none",
        );
        let found = daemon_sets(&[pod("kube-proxy", "DaemonSet"), pod("kube-flannel-ds", "DaemonSet")]);
        grade(&found, Warned, "kube-system/kube-flannel-ds, kube-system/kube-proxy landed here");
        // A node is there, and so is CloudCore: without --force its check `Installed` fails before a daemon set is looked at.
        grade(&found, Warned, "`keadm init --dry-run --force`");
        grade(&found, Warned, "--keep-daemonsets-off --force`");
    }
}
