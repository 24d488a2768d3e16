//! The mirrors of nodes' static pods: what a node may have made, and what becomes of what is there. Pure.
//!
//! The rules are those of the API server's NodeRestriction for a kubelet: a mirror pod of its own node alone, which says so,
//! belongs to the node's Node, and refers to no object of the API. Nodes run no mirror pods, so it gives no node anything to
//! run. Beyond those rules it has labels only in namespaces that say so: by them a Service takes a pod for one of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::static_pod::{
    HASH_ANNOTATION, MIRROR_ANNOTATION, SEEN_ANNOTATION, SOURCE_ANNOTATION, api_reference,
};
use beehive::{Bucket, Moment};
use contract::NodeName;
use contract::ids::{MIRROR_LABELS_LABEL, Namespace, OWN_LABEL, ObjectName};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// 128 at once of one node, and one more in 10 s: more than a node has pods.
const OF_NODE: (u32, Duration) = (128, Duration::from_secs(10));
/// 250 mirrors of one node: a pod that is made is made for ever.
pub(crate) const MIRRORS_MAX: usize = 250;
/// 8 MiB of mirrors of one node, with their status: beyond that no more are made.
pub(crate) const BYTES_MAX: usize = 8 << 20;
/// The longest hash.
const HASH_MAX: usize = 64;
/// Labels by which the API server itself says where a pod's node is (Kubernetes 1.35: PodTopologyLabels).
const BY_SERVER: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
/// Fields of a PodSpec that only who schedules or starts it sets, or that refer to something.
const DENIED: [&str; 2] = ["schedulingGates", "ephemeralContainers"];

/// A Pod as it is to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MirrorPod {
    pub(crate) hash: String,
    /// What the node says, and no part of `pod`: who may choose a pod's labels chooses the Services that it answers for.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) pod: Value,
}

impl MirrorPod {
    /// The pod as it is made where nodes may choose labels or not.
    pub(crate) fn labelled(&self, may_label: bool) -> Value {
        let mut pod = self.pod.clone();
        pod["metadata"]["labels"] = if may_label { json!(self.labels) } else { json!({}) };
        pod
    }
}

/// Whether the nodes may choose the labels of their mirrors in a namespace with these.
pub(crate) fn may_label(namespace: Option<&BTreeMap<String, String>>) -> bool {
    namespace.and_then(|labels| labels.get(MIRROR_LABELS_LABEL)).is_some_and(|word| word == "allowed")
}

/// Reads the mirror of `node`, whose Node has the uid `node_uid`. Of the metadata labels and annotations are taken.
///
/// # Errors
/// Why it is none that a node may have made.
pub(crate) fn parse(
    node: &NodeName,
    node_uid: &str,
    (namespace, name): (&Namespace, &ObjectName),
    text: &str,
) -> Result<MirrorPod, &'static str> {
    let mut said: Value = serde_json::from_str(text).map_err(|_| "a mirror pod that is no JSON")?;
    let texts = |field: &str| -> BTreeMap<String, String> {
        said.pointer(field).and_then(|all| serde_json::from_value(all.clone()).ok()).unwrap_or_default()
    };
    let (mut labels, annotations) = (texts("/metadata/labels"), texts("/metadata/annotations"));
    labels.retain(|key, _| key != OWN_LABEL && !BY_SERVER.contains(&key.as_str()));
    let hash = annotations.get(MIRROR_ANNOTATION).cloned().unwrap_or_default();
    if hash.is_empty() || hash.len() > HASH_MAX || annotations.get(HASH_ANNOTATION) != Some(&hash) {
        return Err("a mirror pod without its hash");
    }
    let own = [MIRROR_ANNOTATION, HASH_ANNOTATION, SEEN_ANNOTATION, SOURCE_ANNOTATION];
    if annotations.keys().any(|key| key.contains("kubehive.io/") && !own.contains(&key.as_str())) {
        return Err("a mirror pod with an annotation of KubeHive's own");
    }
    let spec = said.get_mut("spec").map(Value::take).filter(Value::is_object);
    let mut spec = spec.ok_or("a mirror pod without a spec")?;
    if spec["nodeName"] != node.as_str() {
        return Err("a mirror pod of another node");
    }
    if api_reference(&spec).is_some() {
        return Err("a mirror pod that refers to objects of the API");
    }
    if let Some(fields) = spec.as_object_mut() {
        for field in DENIED {
            if fields.remove(field).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()))
            {
                return Err("a mirror pod with a field that no static pod has");
            }
        }
    }
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node.as_str(), "uid": node_uid, "controller": true});
    let metadata = json!({
        "namespace": namespace.as_str(), "name": name.as_str(),
        "annotations": annotations, "ownerReferences": [owner],
    });
    Ok(MirrorPod {
        hash,
        labels,
        pod: json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
    })
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Done,
    /// It is made.
    Create,
    /// What has its name is removed.
    Remove,
    /// What has its name is not this node's mirror.
    Refuse(&'static str),
}

/// What is to be done when `found` has the name, and a mirror of this hash is wanted; `None`: none is.
pub(crate) fn step(
    found: Option<&Pod>,
    wanted: Option<&MirrorPod>,
    may_label: bool,
    (node, node_uid): (&NodeName, &str),
) -> Step {
    let Some(found) = found else { return if wanted.is_some() { Step::Create } else { Step::Done } };
    let held = hash_of(found);
    let has_labels = |wanted: &MirrorPod| {
        let labels = wanted.labels.keys();
        labels
            .into_iter()
            .all(|key| found.metadata.labels.as_ref().is_some_and(|all| all.contains_key(key)) == may_label)
    };
    let bound = found.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    match (held, wanted) {
        (None, None) => return Step::Done,
        (None, Some(_)) => return Step::Refuse("a mirror pod whose name a pod of the cloud has"),
        (Some(_), _) if bound != Some(node.as_str()) => return Step::Refuse("a mirror pod of another node"),
        (Some(_), _) => {}
    }
    let owners = found.metadata.owner_references.iter().flatten();
    let is_owned = owners.into_iter().any(|owner| owner.kind == "Node" && owner.uid == node_uid);
    let is_it = held == wanted.map(|wanted| wanted.hash.as_str()) && wanted.is_none_or(has_labels);
    let is_right = is_it && is_owned && found.metadata.deletion_timestamp.is_none();
    if is_right { Step::Done } else { Step::Remove }
}

/// Of a mirror the hash of what it shows.
pub(crate) fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(MIRROR_ANNOTATION).map(String::as_str)
}

/// How many mirrors of each node are made.
#[derive(Debug, Default)]
pub(crate) struct MirrorRates(BTreeMap<NodeName, Bucket>);

impl MirrorRates {
    /// Whether one more may be made for the node now.
    pub(crate) fn take(&mut self, node: &NodeName, now: Moment) -> bool {
        self.0.entry(node.clone()).or_insert_with(|| Bucket::new(OF_NODE.0, OF_NODE.1)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeName {
        NodeName::parse("edge-1").unwrap()
    }

    fn said() -> Value {
        json!({
            "metadata": {
                "name": "other", "namespace": "kube-system", "uid": "u", "finalizers": ["f/g"],
                "labels": {"app": "web", "topology.kubernetes.io/zone": "z", "kubehive.io/own": "x"},
                "ownerReferences": [{"kind": "Node", "name": "control-plane"}],
                "annotations": {"kubernetes.io/config.mirror": "0a", "kubernetes.io/config.hash": "0a",
                    "kubernetes.io/config.source": "file"},
            },
            "spec": {"nodeName": "edge-1", "hostNetwork": true, "containers": [{"name": "c", "image": "x"}]},
            "status": {"phase": "Succeeded"},
        })
    }

    fn read(said: &Value) -> Result<MirrorPod, &'static str> {
        let (namespace, name) = (Namespace::parse("shop").unwrap(), ObjectName::parse("web-edge-1").unwrap());
        parse(&node(), "n1", (&namespace, &name), &said.to_string())
    }

    #[test]
    fn a_mirror_is_made_of_what_a_node_may_say() {
        let made = read(&said()).unwrap();
        assert_eq!(made.hash, "0a");
        let owner =
            json!({"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "n1", "controller": true});
        assert_eq!(
            made.pod["metadata"],
            json!({"namespace": "shop", "name": "web-edge-1", "annotations": said()["metadata"]["annotations"],
                "ownerReferences": [owner]})
        );
        assert_eq!((&made.pod["spec"]["hostNetwork"], made.pod.get("status")), (&json!(true), None));
        let labels = |may_label| made.labelled(may_label)["metadata"]["labels"].clone();
        assert_eq!(labels(false), json!({}), "no Service takes it for its own");
        assert_eq!(labels(true), json!({"app": "web"}));
        let of = |word: &str| {
            may_label(Some(&BTreeMap::from([(MIRROR_LABELS_LABEL.to_owned(), word.to_owned())])))
        };
        assert_eq!((of("allowed"), of("no"), may_label(None)), (true, false, false));
    }

    #[test]
    fn what_a_kubelet_could_not_make_is_refused() {
        let with = |pointer: &str, value: Value| {
            let mut said = said();
            let (at, field) = pointer.rsplit_once('/').unwrap();
            said.pointer_mut(at).unwrap()[field.replace("~1", "/")] = value;
            read(&said)
        };
        for (pointer, value) in [
            ("/spec/nodeName", json!("edge-2")),
            ("/spec/serviceAccountName", json!("default")),
            ("/spec/imagePullSecrets", json!([{"name": "s"}])),
            ("/spec/volumes", json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}])),
            ("/spec/ephemeralContainers", json!([{"name": "e"}])),
            ("/metadata/annotations/kubernetes.io~1config.mirror", json!("")),
            ("/metadata/annotations/kubernetes.io~1config.hash", json!("0b")),
            ("/metadata/annotations/kubehive.io~1reported", json!("1.1/u")),
            ("/metadata/annotations", json!("none")),
            ("/spec", json!([])),
        ] {
            assert!(with(pointer, value.clone()).is_err(), "{pointer} {value}");
        }
    }

    #[test]
    fn only_a_mirror_of_the_node_is_replaced_or_removed() {
        let found = |pointer: &str, value: Value| -> Pod {
            let mut pod = read(&said()).unwrap().pod;
            let (at, field) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(at).unwrap()[field] = value;
            serde_json::from_value(pod).unwrap()
        };
        let whole = found("/metadata/uid", json!("m1"));
        let mirror = |hash: &str| MirrorPod { hash: hash.to_owned(), ..read(&said()).unwrap() };
        let of_node = |found: Option<&Pod>, wanted: Option<&str>, uid: &str| {
            step(found, wanted.map(mirror).as_ref(), false, (&node(), uid))
        };
        let of = |found: &Pod, wanted: Option<&str>| of_node(Some(found), wanted, "n1");
        assert_eq!(of_node(None, Some("0a"), "n1"), Step::Create);
        assert_eq!(of_node(None, None, "n1"), Step::Done);
        // Made before its namespace said otherwise.
        let labelled = found("/metadata/labels", json!({"app": "web"}));
        let allowed = |found: &Pod| step(Some(found), Some(&mirror("0a")), true, (&node(), "n1"));
        assert_eq!((of(&labelled, Some("0a")), allowed(&labelled)), (Step::Remove, Step::Done));
        assert_eq!((of(&whole, Some("0a")), allowed(&whole)), (Step::Done, Step::Remove));
        let others = found("/metadata/labels", json!({"of": "an administrator"}));
        assert_eq!(of(&others, Some("0a")), Step::Done);
        assert_eq!(
            (of(&whole, Some("0a")), of(&whole, Some("0b")), of(&whole, None)),
            (Step::Done, Step::Remove, Step::Remove)
        );
        assert_eq!(of_node(Some(&whole), Some("0a"), "n2"), Step::Remove, "the Node is another one");
        let deleted = found("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
        assert_eq!(of(&deleted, Some("0a")), Step::Remove);
        let plain = found("/metadata/annotations", json!({}));
        assert!(matches!(of(&plain, Some("0a")), Step::Refuse(_)));
        assert_eq!(of(&plain, None), Step::Done, "it is not ours to remove");
        let elsewhere = found("/spec/nodeName", json!("edge-2"));
        assert!(
            matches!(of(&elsewhere, Some("0a")), Step::Refuse(_))
                && matches!(of(&elsewhere, None), Step::Refuse(_))
        );
    }

    #[test]
    fn a_node_makes_so_many_and_no_more() {
        let (mut rates, now) = (MirrorRates::default(), Moment(Duration::from_secs(100)));
        assert_eq!((0..1000).filter(|_| rates.take(&node(), now)).count(), 128);
        assert!(rates.take(&NodeName::parse("edge-2").unwrap(), now));
    }
}
