//! What CloudCore itself reads of a pod: where it is bound, what it refers to, and what decides whether it stays there. The rest goes to its
//! node as text. Pure.

use apimachinery::PodReferences;
use apimachinery::static_pod::MIRROR_ANNOTATION;
use serde_json::{Map, Value, json};

use crate::plan::KEEP_EVICTION_LABEL;

/// These fields alone, with what the pod refers to in as few volumes as name it.
pub(crate) fn read_of_pod(pod: &Value) -> Value {
    let metadata = fields(&pod["metadata"], &["name", "namespace", "uid", "deletionTimestamp"]);
    let mut kept = json!({
        "metadata": metadata,
        "spec": fields(&pod["spec"], &["nodeName", "enableServiceLinks", "tolerations", "runtimeClassName"]),
    });
    for (kind, name) in [("labels", KEEP_EVICTION_LABEL), ("annotations", MIRROR_ANNOTATION)] {
        if let Some(value) = pod["metadata"].get(kind).and_then(|all| all.get(name)) {
            kept["metadata"][kind] = json!({ name: value });
        }
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let PodReferences { config_maps, secrets, claims, csi_drivers, runtime_classes: _ } =
        PodReferences::of_pod(name, &pod["spec"]);
    let mut volumes = Vec::new();
    volumes.extend(config_maps.iter().map(|name| json!({ "configMap": { "name": name } })));
    volumes.extend(secrets.iter().map(|name| json!({ "secret": { "secretName": name } })));
    volumes.extend(claims.iter().map(|name| json!({ "persistentVolumeClaim": { "claimName": name } })));
    volumes.extend(csi_drivers.iter().map(|name| json!({ "csi": { "driver": name } })));
    if !volumes.is_empty() {
        kept["spec"]["volumes"] = Value::Array(volumes);
    }
    kept
}

fn fields(of: &Value, names: &[&str]) -> Map<String, Value> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), of.get(name)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan, service_links};
    use apimachinery::static_pod::mirror_of;

    #[test]
    fn whoever_asks_hears_the_same_of_what_is_kept_as_of_the_pod() {
        let mut pod = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "deletionTimestamp": "2026-11-29T10:00:00Z",
                "labels": { KEEP_EVICTION_LABEL: "true", "app": "web" }, "annotations": { MIRROR_ANNOTATION: "m", "a": "b" },
            },
            "spec": {
                "nodeName": "edge-1", "enableServiceLinks": false, "runtimeClassName": "kata",
                "tolerations": [{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300 }],
                "volumes": [
                    { "name": "v", "projected": { "sources": [{ "configMap": { "name": "m" } }, { "secret": { "name": "s" } }] } },
                    { "name": "scratch", "ephemeral": { "volumeClaimTemplate": {} } }, { "name": "x", "emptyDir": {} },
                    { "name": "c", "csi": { "driver": "d.example", "nodePublishSecretRef": { "name": "of-csi" } } },
                ],
                "imagePullSecrets": [{ "name": "pull" }],
                "containers": [{ "name": "c", "image": "web:1", "env": [
                    { "name": "A", "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } }] }],
            },
            "status": { "phase": "Succeeded" },
        });
        for _ in 0..2 {
            let kept = read_of_pod(&pod);
            let references = |pod: &Value| PodReferences::of_pod("web", &pod["spec"]);
            assert_eq!(references(&kept), references(&pod));
            assert_eq!(plan::needs_of(&kept, &|_| None), plan::needs_of(&pod, &|_| None));
            assert_eq!(plan::node_of(&kept), plan::node_of(&pod));
            assert_eq!(plan::asks_for_eviction(&kept), plan::asks_for_eviction(&pod));
            assert_eq!(plan::lifted_tolerations(&kept), plan::lifted_tolerations(&pod));
            assert_eq!(service_links::need_of(&kept), service_links::need_of(&pod));
            assert_eq!(mirror_of(&kept), mirror_of(&pod));
            for pointer in
                ["/metadata/uid", "/metadata/namespace", "/metadata/deletionTimestamp", "/spec/tolerations"]
            {
                assert_eq!(kept.pointer(pointer), pod.pointer(pointer), "{pointer}");
            }
            assert_eq!(read_of_pod(&kept), kept);
            assert!(kept.pointer("/spec/containers").is_none() && kept.get("status").is_none());
            // A pod that nobody asks to evict, and with nothing at all.
            (pod["metadata"]["labels"], pod["spec"]["enableServiceLinks"]) = (json!({}), Value::Bool(true));
        }
        assert_eq!(read_of_pod(&json!({})), json!({ "metadata": {}, "spec": {} }));
    }
}
