//! Objects as an API server has them, and how they come into a node's store.

use contract::rows;
use edge_store::{ObjectKey, Store, Write};
use serde_json::{Value, json};

/// A script that runs until it is asked to end, and ends well.
pub const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

/// Resources by kind, and whether their objects lie in a namespace.
const KINDS: [(&str, &str, bool); 9] = [
    ("Pod", "pods", true),
    ("ConfigMap", "configmaps", true),
    ("Secret", "secrets", true),
    ("Service", "services", true),
    ("PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("PersistentVolume", "persistentvolumes", false),
    ("CSIDriver", "csidrivers.storage.k8s.io", false),
    ("VolumeAttachment", "volumeattachments.storage.k8s.io", false),
    ("RuntimeClass", "runtimeclasses.node.k8s.io", false),
];

/// Puts objects into a store, as MetaManager does.
pub async fn put(store: &Store, objects: &[Value]) {
    store.commit(objects.iter().map(write).collect()).await.unwrap();
}

fn write(object: &Value) -> Write {
    let kind = object["kind"].as_str().unwrap();
    let (_, resource, is_namespaced) =
        KINDS.iter().find(|(own, _, _)| *own == kind).unwrap_or_else(|| panic!("no resource for {kind}"));
    let namespace = if *is_namespaced { "default" } else { "" };
    let metadata = &object["metadata"];
    let json = serde_json::to_vec(object).unwrap();
    Write::PutObject {
        key: ObjectKey::new(*resource, namespace, text(&metadata["name"])),
        uid: text(&metadata["uid"]),
        // Any text that differs when the object does.
        content_hash: format!("{}-{}", json.len(), json.iter().map(|b| u64::from(*b)).sum::<u64>()),
        resource_version: "1".to_owned(),
        json,
    }
}

/// Forgets a pod in a store.
pub async fn forget(store: &Store, pod: &str) {
    let key = ObjectKey::new("pods", "default", pod);
    store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
}

/// Everything in a store's outbox, the oldest first.
pub(crate) fn outbox(store: &Store) -> Vec<contract::UpReport> {
    let rows = store.outbox_head(10_000, 64 << 20).unwrap();
    rows.iter().map(|row| rows::decode_report(&row.body).unwrap()).collect()
}

/// The uid of a pod that [`pod`] makes.
pub fn uid(pod: &str) -> String {
    format!("uid-of-{pod}")
}

/// A pod of one busybox container `c` that runs `script`, with `spec` merged over it.
pub fn pod(name: &str, script: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid(name), "labels": {"app": name},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "containers": [container("c", script)],
            "restartPolicy": "Always", "nodeName": "edge-1", "terminationGracePeriodSeconds": 2,
            "serviceAccountName": "default", "dnsPolicy": "Default",
        },
    });
    for (key, value) in spec.as_object().cloned().unwrap_or_default() {
        pod["spec"][key] = value;
    }
    pod
}

/// A busybox container that runs `script`.
pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": testhost::BUSYBOX, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script]})
}

/// The pod as the API server has it after `kubectl delete`.
pub fn deleted(pod: &Value, grace: u32) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod
}

/// A condition of a status; null when it is not there.
pub fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let list = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The first container's status.
pub fn first(status: &Value) -> &Value {
    &status["containerStatuses"][0]
}

/// The first container's id in the runtime.
pub fn container_id(status: &Value) -> String {
    text(&first(status)["containerID"]).trim_start_matches("containerd://").to_owned()
}

/// A text; empty when it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
