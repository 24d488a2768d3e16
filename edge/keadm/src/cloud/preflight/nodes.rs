//! Checks of the machines of the cluster, and of what runs there.

use std::collections::BTreeSet;

use contract::ids::EDGE_LABEL;
use k8s_openapi::api::core::v1::{Node, Pod};
use nodechecks::Finding;

/// What a check says that is about CloudCore's pods where there are to be none.
pub(crate) const NO_PODS: &str = "no pod is asked for";
/// Providers whose Nodes nobody deletes: clusters on one machine.
const NO_CLOUDS: [&str; 1] = ["kind"];

/// The machines on which CloudCore's pods may be placed, by name.
pub(crate) fn places(nodes: &[Node]) -> Vec<&str> {
    let is_ready = |node: &&Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready =
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
        let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let is_edge = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EDGE_LABEL));
        ready && !is_cordoned && !is_edge
    };
    nodes.iter().filter(is_ready).map(|node| node.metadata.name.as_deref().unwrap_or_default()).collect()
}

/// Whether there is a place for CloudCore's pods.
pub(crate) fn nodes_ready(nodes: &[Node], replicas: u64) -> Finding {
    const CHECK: &str = "NodesReady";
    let ready = places(nodes).len() as u64;
    if replicas == 0 {
        return Finding::passed(CHECK, NO_PODS);
    }
    match ready {
        0 => Finding::failed(
            CHECK,
            format!(
                "of {} Nodes none is Ready, open for pods and no edge node: CloudCore's pods would wait (`kubectl get nodes`). One that runs outside of the cluster has none: --set cloudCore.replicaCount=0",
                nodes.len()
            ),
        ),
        fewer if fewer < replicas => Finding::warned(
            CHECK,
            format!(
                "{fewer} for {replicas} pods of CloudCore: the end of one machine ends several, and with cloudCore.hostNetWork or hostPorts the others wait"
            ),
        ),
        _ => Finding::passed(CHECK, format!("{ready} Ready")),
    }
}

/// Whether names are answered, for pods of CloudCore.
pub(crate) fn cluster_dns(pods: &[Pod], replicas: u64) -> Finding {
    const CHECK: &str = "ClusterDNS";
    if replicas == 0 {
        return Finding::passed(CHECK, NO_PODS);
    }
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    match pods.iter().find(is_ready) {
        Some(pod) => Finding::passed(CHECK, pod.metadata.name.clone().unwrap_or_default()),
        None if pods.is_empty() => Finding::failed(
            CHECK,
            "kube-system has no pod with k8s-app=kube-dns or app=coredns: install CoreDNS, or go on without (--skip-preflight-checks) if another part answers names",
        ),
        None => Finding::failed(
            CHECK,
            "no pod of CoreDNS is Ready: `kubectl -n kube-system describe pod -l k8s-app=kube-dns`",
        ),
    }
}

/// Whether a cloud's controller manager may be there, which deletes Nodes that are not Ready and that its cloud does not know.
pub(crate) fn cloud_provider(nodes: &[Node]) -> Finding {
    const CHECK: &str = "CloudProvider";
    let provider = |node: &Node| {
        let id = node.spec.as_ref()?.provider_id.as_deref()?;
        let (provider, _) = id.split_once("://")?;
        (!NO_CLOUDS.contains(&provider)).then(|| provider.escape_debug().to_string())
    };
    let providers: BTreeSet<String> = nodes.iter().filter_map(provider).collect();
    if providers.is_empty() {
        return Finding::passed(CHECK, "no Node is of a cloud");
    }
    let providers: Vec<String> = providers.into_iter().collect();
    Finding::warned(
        CHECK,
        format!(
            "Nodes are of {} (spec.providerID): a cloud controller manager deletes the Node of an edge machine that is cut off, since its cloud does not know it, and the pods with it. Have it run with --controllers=*,-cloud-node-lifecycle-controller, or ask the provider; `keadm adopt NODE` brings such a Node back",
            providers.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade;

    use super::*;
    use crate::debug::testing::grade;
    use serde_json::{Value, json};

    #[test]
    fn a_place_for_pods_is_a_ready_open_node_that_is_no_edge_node() {
        let node = |ready: &str, cordoned: bool, edge: bool| -> Node {
            let labels = if edge { json!({ EDGE_LABEL: "" }) } else { json!({}) };
            let conditions = json!([{ "type": "Ready", "status": ready }]);
            serde_json::from_value(json!({
                "metadata": { "labels": labels }, "spec": { "unschedulable": cordoned }, "status": { "conditions": conditions },
            }))
            .unwrap()
        };
        let none = [
            node("False", false, false),
            node("Unknown", false, false),
            node("True", true, false),
            node("True", false, true),
        ];
        grade(&nodes_ready(&none, 2), Grade::Failed, "of 4 Nodes none");
        grade(&nodes_ready(&none, 0), Grade::Passed, "no pod");
        grade(&nodes_ready(&[node("True", false, false)], 2), Grade::Warned, "1 for 2");
        grade(&nodes_ready(&[node("True", false, false)], 1), Grade::Passed, "1 Ready");
    }

    #[test]
    fn dns_is_a_ready_pod() {
        let pod = |ready: &str| -> Pod {
            let conditions = json!([{ "type": "Ready", "status": ready }]);
            serde_json::from_value(
                json!({ "metadata": { "name": "coredns-1" }, "status": { "conditions": conditions } }),
            )
            .unwrap()
        };
        grade(&cluster_dns(&[], 2), Grade::Failed, "install CoreDNS");
        grade(&cluster_dns(&[pod("False")], 2), Grade::Failed, "describe pod");
        grade(&cluster_dns(&[pod("False"), pod("True")], 2), Grade::Passed, "coredns-1");
        grade(&cluster_dns(&[], 0), Grade::Passed, "no pod is asked for");
    }

    #[test]
    fn a_cloud_that_deletes_what_it_does_not_know_is_named() {
        let of = |id: Value| -> Node {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "providerID": id } })).unwrap()
        };
        grade(
            &cloud_provider(&[of(json!(null)), of(json!("kind://docker/a/b")), of(json!("odd"))]),
            Grade::Passed,
            "no Node",
        );
        let clouds = [of(json!("aws:///eu-central-1a/i-0")), of(json!("gce://p/z/n")), of(json!("aws:///x"))];
        grade(&cloud_provider(&clouds), Grade::Warned, "Nodes are of aws, gce (spec.providerID)");
    }
}
