//! Static pods, which a file of the node describes, and their mirrors in the API.

use serde_json::Value;

use crate::PodReferences;

/// On a mirror pod: the hash of its static pod, which is also that one's uid (Kubernetes).
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// On a static pod and its mirror: the same hash.
pub const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Where a pod comes from: `file` for a static one.
pub const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// When the node saw it first.
pub const SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

/// Of a pod that is a mirror the hash of what it shows.
pub fn mirror_of(pod: &Value) -> Option<&str> {
    pod.get("metadata")?.get("annotations")?.get(MIRROR_ANNOTATION)?.as_str()
}

/// Volumes that need nothing of the API.
const VOLUMES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// Volumes that do, and what a kubelet says of them.
const API_VOLUMES: &[(&str, &str)] = &[
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

/// Sources of projected volumes that do.
const API_SOURCES: &[(&str, &str)] = &[
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// The first object of the API that a PodSpec refers to, in a kubelet's words: a static pod may refer to none (Kubernetes:
/// `HasAPIObjectReference`). What is not known counts as one.
pub fn api_reference(spec: &Value) -> Option<&'static str> {
    let account = ["serviceAccountName", "serviceAccount"];
    if account.iter().any(|field| spec.get(field).is_some_and(|name| !is_empty(name))) {
        return Some("serviceaccounts");
    }
    let references = PodReferences::of_pod("", spec);
    if !references.secrets.is_empty() {
        return Some("secrets");
    }
    if !references.config_maps.is_empty() {
        return Some("configmaps");
    }
    if list(spec, "resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    list(spec, "volumes").find_map(of_volume)
}

fn of_volume(volume: &Value) -> Option<&'static str> {
    let has = |field: &str| volume.get(field).is_some_and(|value| !value.is_null());
    if let Some((_, what)) = API_VOLUMES.iter().find(|(field, _)| has(field)) {
        return Some(what);
    }
    if let Some(projected) = volume.get("projected").filter(|value| !value.is_null()) {
        return list(projected, "sources").find_map(|source| {
            let has = |field: &str| source.get(field).is_some_and(|value| !value.is_null());
            let found = API_SOURCES.iter().find(|(field, _)| has(field)).map(|(_, what)| *what);
            found.or((!has("downwardAPI")).then_some("an unknown source of a projected volume"))
        });
    }
    // Without any source it is an emptyDir.
    let none = volume.as_object().is_none_or(|fields| fields.keys().all(|field| field == "name"));
    (!none && !VOLUMES.iter().any(|field| has(field))).then_some("an unknown type of volume")
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whatever_needs_the_api_is_named() {
        let volume = |source: Value| json!({"volumes": [source]});
        for (spec, what) in [
            (json!({"serviceAccountName": "default"}), "serviceaccounts"),
            (json!({"serviceAccount": "x"}), "serviceaccounts"),
            (json!({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
            (json!({"containers": [{"envFrom": [{"configMapRef": {"name": "m"}}]}]}), "configmaps"),
            (json!({"resourceClaims": [{"name": "c"}]}), "resourceclaims"),
            (volume(json!({"name": "v", "configMap": {}})), "configmaps (via configmap volumes)"),
            (
                volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})),
                "persistentvolumeclaims",
            ),
            (
                volume(
                    json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
                ),
                "serviceaccounts (via projected volumes)",
            ),
            (volume(json!({"name": "v", "newest": {}})), "an unknown type of volume"),
        ] {
            assert_eq!(api_reference(&spec), Some(what), "{spec}");
        }
        for spec in [
            json!({}),
            json!({"serviceAccountName": "", "automountServiceAccountToken": false}),
            volume(json!({"name": "v"})),
            volume(json!({"name": "v", "hostPath": {"path": "/"}})),
            volume(json!({"name": "v", "projected": {"sources": [{"downwardAPI": {"items": []}}]}})),
        ] {
            assert_eq!(api_reference(&spec), None, "{spec}");
        }
    }

    #[test]
    fn a_mirror_says_what_it_shows() {
        let pod = json!({"metadata": {"annotations": {MIRROR_ANNOTATION: "0a"}}});
        assert_eq!(mirror_of(&pod), Some("0a"));
        assert_eq!(mirror_of(&json!({"metadata": {}})), None);
    }
}
