//! Decides what each node should hold, and what to make of its reports. Pure.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{PodReferences, resource, taint, volume};
pub use contract::ids::EDGE_LABEL;
use contract::ids::PODS;
use contract::{NodeName, ObjectKey};
pub use noderegistry::plan::is_edge;
use serde_json::Value;

/// On a pod with the value `true`: it is evicted from a node that is cut off, when its tolerations of not-ready and unreachable end.
pub const KEEP_EVICTION_LABEL: &str = "kubehive.io/keep-eviction";

/// The node that a pod is bound to, if any.
pub fn node_of(pod: &Value) -> Option<NodeName> {
    NodeName::parse(pod.pointer("/spec/nodeName")?.as_str()?).ok()
}

/// 1,024 objects are looked after for one pod: each Secret and config map is a watch.
pub const NEEDS_MAX: usize = 1024;

/// What the API server holds of claims, volumes and what belongs to them, by key.
pub type FindVolume<'a> = dyn Fn(&ObjectKey) -> Option<&'a Value> + 'a;

/// Whether objects of this kind stand behind claims or runtime classes: they are watched all together, and read by [`FindVolume`].
pub fn is_watched_whole(key: &ObjectKey) -> bool {
    matches!(
        key.resource.as_str(),
        resource::PERSISTENT_VOLUME_CLAIMS
            | resource::PERSISTENT_VOLUMES
            | resource::CSI_DRIVERS
            | resource::RUNTIME_CLASSES
            | resource::VOLUME_ATTACHMENTS
    )
}

/// What a pod refers to, init containers' too, and what stands behind its claims as far as it is known; the first
/// [`NEEDS_MAX`] of them. Of a volume that does not say itself that it is the claim's nothing but itself is needed.
pub fn needs_of(pod: &Value, find: &FindVolume<'_>) -> BTreeSet<ObjectKey> {
    let text = |at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let (namespace, node) = (text("/metadata/namespace"), text("/spec/nodeName"));
    let references = PodReferences::of_pod(text("/metadata/name"), &pod["spec"]);
    let mut needs: BTreeSet<ObjectKey> = references.keys(namespace).take(NEEDS_MAX).collect();
    for claim in references.claims.iter().take(NEEDS_MAX) {
        let claim = find(&ObjectKey::new(resource::PERSISTENT_VOLUME_CLAIMS, namespace, claim));
        let Some((claim, key)) = claim.and_then(|claim| Some((claim, volume::volume_of_claim(claim)?)))
        else {
            continue;
        };
        let found = find(&key).filter(|found| volume::is_bound(found, claim));
        needs.insert(key);
        needs.extend(found.into_iter().flat_map(|found| volume::needs_of_volume(found, node)));
    }
    while needs.len() > NEEDS_MAX {
        needs.pop_last();
    }
    needs
}

/// What one node should hold: its pods and what they need, by the version that the caches have.
pub type DesiredKeys = BTreeMap<NodeName, BTreeSet<ObjectKey>>;

/// What every edge node should hold. A need that does not exist (yet) is left out.
pub fn desired_keys<'a>(
    edge_nodes: &BTreeSet<NodeName>,
    pods: impl IntoIterator<Item = (&'a ObjectKey, &'a Value)>,
    find: &FindVolume<'_>,
    exists: impl Fn(&ObjectKey) -> bool,
) -> DesiredKeys {
    let mut desired_keys = DesiredKeys::new();
    for (key, pod) in pods {
        let Some(node) = node_of(pod).filter(|node| edge_nodes.contains(node)) else { continue };
        let held = desired_keys.entry(node).or_default();
        held.insert(ObjectKey::new(PODS, &key.namespace, &key.name));
        held.extend(needs_of(pod, find).into_iter().filter(|need| exists(need)));
    }
    desired_keys
}

/// Whether the pod is to be evicted from a node that is cut off.
pub fn asks_for_eviction(pod: &Value) -> bool {
    let label = pod.pointer("/metadata/labels").and_then(|labels| labels.get(KEEP_EVICTION_LABEL));
    label.and_then(Value::as_str) == Some("true")
}

/// The tolerations of a pod without the end of those for not-ready and unreachable, or `None` when there is nothing to
/// lift. Kubernetes allows a bound pod's `tolerationSeconds` to change; without an end the pod is never evicted.
pub fn lifted_tolerations(pod: &Value) -> Option<Value> {
    if asks_for_eviction(pod) {
        return None;
    }
    let mut tolerations = pod.pointer("/spec/tolerations")?.as_array()?.clone();
    let mut lifted = false;
    for toleration in &mut tolerations {
        let ours =
            [taint::NOT_READY, taint::UNREACHABLE].contains(&toleration["key"].as_str().unwrap_or_default());
        if ours && let Some(fields) = toleration.as_object_mut() {
            lifted |= fields.remove("tolerationSeconds").is_some();
        }
    }
    lifted.then_some(Value::Array(tolerations))
}

#[cfg(test)]
mod tests {
    use super::*;
    use noderegistry::{ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION};
    use serde_json::json;

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
        let names: Vec<String> = needs_of(&pod(), &|_| None).into_iter().map(|key| key.name).collect();
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
        assert!(needs_of(&pod(), &|_| None).iter().all(|key| key.namespace == "shop"));
        assert!(needs_of(&json!({ "spec": { "volumes": 3, "containers": [null] } }), &|_| None).is_empty());
    }

    #[test]
    fn only_edge_nodes_hold_anything_and_only_what_exists() {
        let edge = NodeName::parse("edge-1").unwrap();
        let key = ObjectKey::new(PODS, "shop", "till");
        let pod = pod();
        let held = desired_keys(&BTreeSet::from([edge.clone()]), [(&key, &pod)], &|_| None, |need| {
            need.name == "registry"
        });
        let names: Vec<&str> = held[&edge].iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["till", "registry"]);
        assert!(desired_keys(&BTreeSet::new(), [(&key, &pod)], &|_| None, |_| true).is_empty());
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
    fn a_label_alone_makes_no_node_ours() {
        let node = |uid: &str, annotations: Value| {
            is_edge(
                &json!({ "metadata": { "uid": uid, "labels": { EDGE_LABEL: "" }, "annotations": annotations } }),
            )
        };
        assert!(!node("u", json!({})));
        assert!(
            node("u", json!({ ENROLMENT_ANNOTATION: "0a" })) && node("u", json!({ ADOPTED_ANNOTATION: "u" }))
        );
        assert!(!node("u", json!({ ADOPTED_ANNOTATION: "v" })), "copied from another one");
        assert!(!node("u", json!({ ENROLMENT_ANNOTATION: "", ADOPTED_ANNOTATION: "" })));
        assert!(!is_edge(
            &json!({ "metadata": { "uid": "u", "annotations": { ENROLMENT_ANNOTATION: "0a" } } })
        ));
        assert!(!is_edge(&json!({})));
        let mut ending = json!({ "uid": "u", "labels": { EDGE_LABEL: "" }, "annotations": { ENROLMENT_ANNOTATION: "0a" } });
        assert!(is_edge(&json!({ "metadata": ending })));
        ending["deletionTimestamp"] = json!("2026-11-28T00:00:00Z");
        ending["finalizers"] = json!(["example.com/hold"]);
        assert!(!is_edge(&json!({ "metadata": ending })), "it was deleted, whatever holds it");
    }
}
