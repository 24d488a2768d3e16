//! A file that describes a pod, as a pod of this node: the kubelet's rules (`pkg/kubelet/config/common.go`). Pure.

use std::path::Path;
use std::sync::Arc;

use apimachinery::static_pod::{
    HASH_ANNOTATION, MIRROR_ANNOTATION, SEEN_ANNOTATION, SOURCE_ANNOTATION, api_reference,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::pod::parsed_pod::{CRITICAL, ParsedPod};

/// The classes that every cluster has, of which nobody but the node can tell a static pod the priority.
const CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", CRITICAL), ("system-node-critical", CRITICAL + 1000)];

/// A static pod.
#[derive(Debug, Clone)]
pub(crate) struct StaticPod {
    pub(crate) parsed: Arc<ParsedPod>,
    /// As it runs here.
    pub(crate) json: String,
    /// As its mirror is made; the cloud says whose it is.
    pub(crate) mirror_json: String,
}

impl StaticPod {
    /// What the mirror's annotation says, and the pod's uid.
    pub(crate) fn hash(&self) -> &str {
        &self.parsed.id.uid
    }
}

/// Reads a file's content. `seen`: when that was first seen.
///
/// # Errors
/// Why it is no pod that can run here, in one sentence.
pub(crate) fn read(bytes: &[u8], file: &Path, node: &str, seen: &str) -> Result<StaticPod, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut pod = config::yaml_document(text).map_err(|why| {
        // Without the lines that show the place: an event has one.
        format!("it is neither YAML nor JSON: {}", why.lines().next().unwrap_or_default())
    })?;
    if pod["apiVersion"] != "v1" || pod["kind"] != "Pod" {
        return Err("it is no Pod of apiVersion v1: a file holds one Pod".to_owned());
    }
    let text = |pod: &Value, at: &str| pod.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = text(&pod, "/metadata/name");
    if name.is_empty() {
        return Err("invalid pod: name is needed for the pod".to_owned());
    }
    let spec = pod.get("spec").filter(|spec| spec.is_object()).ok_or("invalid pod: spec is missing")?;
    if let Some(what) = api_reference(spec) {
        return Err(format!("static pods may not reference {what}"));
    }
    if spec["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err("invalid pod: static pods do not support ephemeral containers".to_owned());
    }
    let own_uid = text(&pod, "/metadata/uid");
    let uid = if own_uid.is_empty() { uid_of(&pod, node, file) } else { own_uid };
    let namespace = text(&pod, "/metadata/namespace");
    let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
    let name = format!("{name}-{}", node.to_lowercase());

    let old = pod["metadata"].take();
    let kept = |field: &str| old.get(field).filter(|value| value.is_object()).cloned();
    let mut annotations = kept("annotations").and_then(|all| all.as_object().cloned()).unwrap_or_default();
    // Those are the node's own words.
    for (key, value) in
        [(HASH_ANNOTATION, uid.as_str()), (SOURCE_ANNOTATION, "file"), (SEEN_ANNOTATION, seen)]
    {
        annotations.insert(key.to_owned(), json!(value));
    }
    annotations.remove(MIRROR_ANNOTATION);
    let labels = kept("labels").unwrap_or_else(|| json!({}));
    place(&mut pod["spec"], node);
    let metadata = |annotations: &Map<String, Value>| json!({"name": name, "namespace": namespace, "labels": labels, "annotations": annotations});
    let spec = pod["spec"].take();
    let mut mirrored = annotations.clone();
    mirrored.insert(MIRROR_ANNOTATION.to_owned(), json!(uid));
    let mirror = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(&mirrored), "spec": spec});
    let mut own = metadata(&annotations);
    own["uid"] = json!(uid);
    let own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": mirror["spec"]});
    let json = own.to_string();
    let mut parsed = ParsedPod::parse(json.as_bytes()).map_err(|error| format!("invalid pod: {error}"))?;
    parsed.is_static = true;
    Ok(StaticPod { parsed: Arc::new(parsed), json, mirror_json: mirror.to_string() })
}

/// What belongs to this node and no taint drives away.
fn place(spec: &mut Value, node: &str) {
    spec["nodeName"] = json!(node);
    let everything = json!({"operator": "Exists", "effect": "NoExecute"});
    match spec["tolerations"].as_array_mut() {
        Some(list) if !list.contains(&everything) => list.push(everything),
        Some(_) => {}
        None => spec["tolerations"] = json!([everything]),
    }
    if spec["priority"].is_null()
        && let Some((_, priority)) = CLASSES.iter().find(|(class, _)| spec["priorityClassName"] == *class)
    {
        spec["priority"] = json!(priority);
    }
}

/// Of the same pod in the same file on the same node the same, and of another pod another: a change is another pod.
fn uid_of(pod: &Value, node: &str, file: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(pod.to_string());
    hash.update(format!("host:{node}\0file:{}", file.display()));
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/etc/kubehive/manifests/web.yaml";

    fn of(text: &str) -> Result<StaticPod, String> {
        read(text.as_bytes(), Path::new(FILE), "Edge-1", "2026-11-28T12:00:00Z")
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: {app: web}\n  annotations: {own: 'yes', kubernetes.io/config.mirror: fake}\nspec:\n  priorityClassName: system-node-critical\n  containers:\n  - {name: c, image: 'busybox:1'}\n";

    #[test]
    fn a_file_becomes_a_pod_of_this_node_and_its_mirror() {
        let pod = of(WEB).unwrap();
        let id = &pod.parsed.id;
        assert_eq!((id.namespace.as_str(), id.name.as_str(), id.uid.len()), ("default", "web-edge-1", 32));
        assert!(pod.parsed.is_static && pod.parsed.is_critical());
        assert_eq!(pod.parsed.spec().priority, Some(2_000_001_000));
        let mirror: Value = serde_json::from_str(&pod.mirror_json).unwrap();
        let annotations = &mirror["metadata"]["annotations"];
        assert_eq!(annotations["kubernetes.io/config.mirror"], id.uid);
        assert_eq!(annotations["kubernetes.io/config.hash"], id.uid);
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations["kubernetes.io/config.seen"], "2026-11-28T12:00:00Z");
        assert_eq!((&annotations["own"], &mirror["metadata"]["uid"]), (&json!("yes"), &Value::Null));
        assert_eq!(mirror["spec"]["nodeName"], "Edge-1");
        assert_eq!(mirror["spec"]["tolerations"], json!([{"operator": "Exists", "effect": "NoExecute"}]));
        let own = pod.parsed.pod.metadata.annotations.as_ref().unwrap();
        assert!(!own.contains_key("kubernetes.io/config.mirror"), "{own:?}");
    }

    #[test]
    fn the_uid_is_of_the_content_the_file_and_the_node() {
        let uid = |text: &str, file: &str, node: &str| {
            read(text.as_bytes(), Path::new(file), node, "x").unwrap().parsed.id.uid.clone()
        };
        let same = uid(WEB, FILE, "a");
        assert_eq!(same, uid(WEB, FILE, "a"));
        // As JSON it is the same pod.
        let json = config::yaml_document(WEB).unwrap().to_string();
        assert_eq!(same, uid(&json, FILE, "a"));
        let others = [uid(&WEB.replace(":1", ":2"), FILE, "a"), uid(WEB, "/other", "a"), uid(WEB, FILE, "b")];
        assert!(!others.contains(&same));
        assert_eq!(uid(&WEB.replace("name: web\n", "name: web\n  uid: mine\n"), FILE, "a"), "mine");
    }

    #[test]
    fn what_is_no_static_pod_says_why() {
        let with = |spec: &str| WEB.replace("  priorityClassName: system-node-critical\n", spec);
        for (text, why) in [
            ("{".to_owned(), "neither YAML nor JSON"),
            ("apiVersion: v1\nkind: PodList\nitems: []\n".to_owned(), "it is no Pod"),
            (WEB.replace("name: web\n", "generateName: web\n"), "name is needed"),
            (WEB.replace("name: web\n", "name: We/b\n"), "metadata.name"),
            (with("  serviceAccountName: default\n"), "static pods may not reference serviceaccounts"),
            (with("  imagePullSecrets: [{name: s}]\n"), "static pods may not reference secrets"),
            (with("  ephemeralContainers: [{name: e, image: x}]\n"), "ephemeral containers"),
            (WEB.replace("image: 'busybox:1'", "imago: x"), "has no image"),
        ] {
            let error = of(&text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
