//! Decides what each node should hold, and what to make of its reports. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::{CONFIG_MAPS, PODS, SECRETS};
use contract::{NodeName, ObjectKey};
use serde_json::{Value, json};

/// The label that makes a node ours (KubeEdge).
pub const EDGE_LABEL: &str = "node-role.kubernetes.io/edge";
/// On a pod or its node with the value `true`: leave the tolerations of not-ready and unreachable as they are.
pub const KEEP_EVICTION_LABEL: &str = "kubehive.io/keep-eviction";

/// The node that a pod is bound to, if any.
pub fn node_of(pod: &Value) -> Option<NodeName> {
    NodeName::parse(pod.pointer("/spec/nodeName")?.as_str()?).ok()
}

/// 256 Secrets and config maps are looked after for one pod: each is a watch.
pub const NEEDS_MAX: usize = 256;

/// The config maps and secrets that a pod needs, init containers' too; the first [`NEEDS_MAX`] of them.
pub fn needs_of(pod: &Value) -> BTreeSet<ObjectKey> {
    let namespace = pod.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let mut needs = BTreeSet::new();
    let mut need = |resource: &str, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty())
            && needs.len() < NEEDS_MAX
        {
            needs.insert(ObjectKey::new(resource, namespace, name));
        }
    };
    let spec = &pod["spec"];
    for volume in list(&spec["volumes"]) {
        need(CONFIG_MAPS, volume.pointer("/configMap/name"));
        need(SECRETS, volume.pointer("/secret/secretName"));
        for source in list(&volume["projected"]["sources"]) {
            need(CONFIG_MAPS, source.pointer("/configMap/name"));
            need(SECRETS, source.pointer("/secret/name"));
        }
    }
    for secret in list(&spec["imagePullSecrets"]) {
        need(SECRETS, secret.get("name"));
    }
    for container in list(&spec["initContainers"]).chain(list(&spec["containers"])) {
        for from in list(&container["envFrom"]) {
            need(CONFIG_MAPS, from.pointer("/configMapRef/name"));
            need(SECRETS, from.pointer("/secretRef/name"));
        }
        for variable in list(&container["env"]) {
            need(CONFIG_MAPS, variable.pointer("/valueFrom/configMapKeyRef/name"));
            need(SECRETS, variable.pointer("/valueFrom/secretKeyRef/name"));
        }
    }
    needs
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What one node should hold: its pods and what they need, by the version that the caches have.
pub type Wanted = BTreeMap<NodeName, BTreeSet<ObjectKey>>;

/// What every edge node should hold. A need that does not exist (yet) is left out.
pub fn wanted<'a>(
    edge_nodes: &BTreeSet<NodeName>,
    pods: impl IntoIterator<Item = (&'a ObjectKey, &'a Value)>,
    exists: impl Fn(&ObjectKey) -> bool,
) -> Wanted {
    let mut wanted = Wanted::new();
    for (key, pod) in pods {
        let Some(node) = node_of(pod).filter(|node| edge_nodes.contains(node)) else { continue };
        let held = wanted.entry(node).or_default();
        held.insert(ObjectKey::new(PODS, &key.namespace, &key.name));
        held.extend(needs_of(pod).into_iter().filter(|need| exists(need)));
    }
    wanted
}

/// The tolerations of a pod without the end of those for not-ready and unreachable, or `None` when there is nothing to
/// lift. Kubernetes allows a bound pod's `tolerationSeconds` to change; without an end the pod is never evicted.
pub fn lifted_tolerations(pod: &Value) -> Option<Value> {
    let label = pod.pointer("/metadata/labels").and_then(|labels| labels.get(KEEP_EVICTION_LABEL));
    if label.and_then(Value::as_str) == Some("true") {
        return None;
    }
    let mut tolerations = pod.pointer("/spec/tolerations")?.as_array()?.clone();
    let mut lifted = false;
    for toleration in &mut tolerations {
        let key = toleration["key"].as_str().unwrap_or_default();
        let ours = matches!(key, "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable");
        if ours && let Some(fields) = toleration.as_object_mut() {
            lifted |= fields.remove("tolerationSeconds").is_some();
        }
    }
    lifted.then_some(Value::Array(tolerations))
}

/// The labels and taints of a node's report that the cloud takes over when it registers the node; roles and names of
/// others are not a node's to claim.
pub fn registration(node: &NodeName, report: &Value) -> Value {
    let mut labels = serde_json::Map::new();
    for (key, value) in report.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        if may_claim(key) && value.is_string() {
            labels.insert(key.clone(), value.clone());
        }
    }
    labels.insert("kubernetes.io/hostname".to_owned(), json!(node.as_str()));
    labels.insert(EDGE_LABEL.to_owned(), json!(""));
    labels.insert("node-role.kubernetes.io/agent".to_owned(), json!(""));
    let mut spec = serde_json::Map::new();
    if let Some(taints) = report.pointer("/spec/taints").filter(|t| t.is_array()) {
        spec.insert("taints".to_owned(), taints.clone());
    }
    if report.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        spec.insert("unschedulable".to_owned(), Value::Bool(true));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.as_str(), "labels": labels },
        "spec": spec,
    })
}

/// What Kubernetes' NodeRestriction lets a kubelet set of `kubernetes.io` and `k8s.io`, and everything of others.
fn may_claim(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return true };
    let reserved = prefix == "kubernetes.io"
        || prefix.ends_with(".kubernetes.io")
        || prefix == "k8s.io"
        || prefix.ends_with(".k8s.io");
    let allowed = matches!(
        key,
        "kubernetes.io/os"
            | "kubernetes.io/arch"
            | "beta.kubernetes.io/os"
            | "beta.kubernetes.io/arch"
            | "node.kubernetes.io/instance-type"
            | "topology.kubernetes.io/zone"
            | "topology.kubernetes.io/region"
    );
    let kubelets = prefix == "kubelet.kubernetes.io" || prefix == "node.kubernetes.io";
    !reserved || allowed || kubelets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": { "namespace": "shop", "name": "till" },
            "spec": {
                "nodeName": "edge-1",
                "imagePullSecrets": [{ "name": "registry" }],
                "volumes": [
                    { "name": "a", "configMap": { "name": "cm-volume" } },
                    { "name": "b", "secret": { "secretName": "secret-volume" } },
                    { "name": "c", "projected": { "sources": [
                        { "configMap": { "name": "kube-root-ca.crt" } }, { "secret": { "name": "projected" } },
                        { "serviceAccountToken": { "path": "token" } } ] } },
                    { "name": "d", "emptyDir": {} },
                ],
                "initContainers": [{ "envFrom": [{ "configMapRef": { "name": "cm-init" } }] }],
                "containers": [{ "env": [
                    { "name": "A", "valueFrom": { "secretKeyRef": { "name": "secret-env", "key": "k" } } },
                    { "name": "B", "value": "plain" },
                ] }],
            },
        })
    }

    #[test]
    fn everything_that_a_pod_needs_goes_with_it() {
        let names: Vec<String> = needs_of(&pod()).into_iter().map(|key| key.name).collect();
        let expected = [
            "cm-init",
            "cm-volume",
            "kube-root-ca.crt",
            "projected",
            "registry",
            "secret-env",
            "secret-volume",
        ];
        assert_eq!(names, expected);
        assert!(needs_of(&pod()).iter().all(|key| key.namespace == "shop"));
        assert!(needs_of(&json!({ "spec": { "volumes": 3, "containers": [null] } })).is_empty());
    }

    #[test]
    fn only_edge_nodes_hold_anything_and_only_what_exists() {
        let edge = NodeName::parse("edge-1").unwrap();
        let key = ObjectKey::new(PODS, "shop", "till");
        let pod = pod();
        let held = wanted(&BTreeSet::from([edge.clone()]), [(&key, &pod)], |need| need.name == "registry");
        let names: Vec<&str> = held[&edge].iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["till", "registry"]);
        assert!(wanted(&BTreeSet::new(), [(&key, &pod)], |_| true).is_empty());
    }

    #[test]
    fn tolerations_are_lifted_once_and_only_ours() {
        let mut pod = json!({ "metadata": {}, "spec": { "tolerations": [
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            { "key": "mine", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7 } ] } });
        let lifted = lifted_tolerations(&pod).unwrap();
        assert_eq!(lifted[0].get("tolerationSeconds"), None);
        assert_eq!(lifted[1]["tolerationSeconds"], 7);
        pod["spec"]["tolerations"] = lifted;
        assert_eq!(lifted_tolerations(&pod), None);
        pod["spec"]["tolerations"][0]["tolerationSeconds"] = json!(300);
        pod["metadata"]["labels"] = json!({ KEEP_EVICTION_LABEL: "true" });
        assert_eq!(lifted_tolerations(&pod), None);
    }

    #[test]
    fn a_node_cannot_claim_another_name_or_role() {
        let report = json!({ "metadata": { "labels": {
            "kubernetes.io/hostname": "other", "node-role.kubernetes.io/control-plane": "",
            "kubernetes.io/arch": "arm64", "site": "quay-7" } }, "spec": { "taints": [] } });
        let node = registration(&NodeName::parse("edge-1").unwrap(), &report);
        let labels = node["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels["kubernetes.io/hostname"], "edge-1");
        assert_eq!(labels["kubernetes.io/arch"], "arm64");
        assert_eq!(labels["site"], "quay-7");
        assert!(!labels.contains_key("node-role.kubernetes.io/control-plane"));
        assert!(labels.contains_key(EDGE_LABEL));
    }
}
