//! What a node may say of itself when its Node is made. Pure.
//!
//! CloudCore writes under an account of its own, which Kubernetes' NodeRestriction does not look at: so what that allows a
//! kubelet is allowed here (plugin/pkg/admission/noderestriction and pkg/apis/well_known_labels.go of the kubelet, 1.36), and
//! nothing else.

use std::collections::BTreeMap;

use contract::NodeName;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use noderegistry::ENROLMENT_ANNOTATION;
use serde_json::Value;

use crate::plan::EDGE_LABEL;

/// 64 labels, beside those that CloudCore sets.
const LABELS_MAX: usize = 64;
/// 316 bytes: a prefix of 253, a `/` and a name of 63.
const LABEL_KEY_MAX: usize = 317;
/// 63 bytes of a label's value.
const LABEL_VALUE_MAX: usize = 63;
/// 32 taints.
const TAINTS_MAX: usize = 32;

/// Tells the attach/detach controller that it attaches the Node's volumes, as a kubelet sets it when it registers
/// (`ControllerManagedAttachAnnotation`, pkg/kubelet/kubelet_node_status.go): without it, it passes the Node over.
pub(crate) const ATTACH_ANNOTATION: (&str, &str) =
    ("volumes.kubernetes.io/controller-managed-attach-detach", "true");

/// Adds that to a patch of the metadata of a Node that is there.
pub(crate) fn complete(metadata: &mut Value) {
    metadata["annotations"][ATTACH_ANNOTATION.0] = Value::from(ATTACH_ANNOTATION.1);
}

/// The Node that is made of a node's first report, for the certificate with this serial.
pub(crate) fn registration(node: &NodeName, certificate: &str, report: &Value) -> Node {
    let said = report.pointer("/metadata/labels").and_then(Value::as_object);
    let mut labels: BTreeMap<String, String> = said
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| may_claim(key) && is_label_value(value))
        .take(LABELS_MAX)
        .map(|(key, value)| (key.clone(), value.to_owned()))
        .collect();
    labels.insert("kubernetes.io/hostname".to_owned(), node.as_str().to_owned());
    labels.insert(EDGE_LABEL.to_owned(), String::new());
    labels.insert("node-role.kubernetes.io/agent".to_owned(), String::new());
    let taints = report.pointer("/spec/taints").and_then(Value::as_array);
    let taints: Vec<Taint> = taints
        .into_iter()
        .flatten()
        .filter_map(|taint| serde_json::from_value::<Taint>(taint.clone()).ok())
        .filter(is_taint)
        .take(TAINTS_MAX)
        .map(|taint| Taint { time_added: None, ..taint })
        .collect();
    let unschedulable = report.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    Node {
        metadata: ObjectMeta {
            name: Some(node.as_str().to_owned()),
            labels: Some(labels),
            annotations: Some(
                [(ENROLMENT_ANNOTATION, certificate), ATTACH_ANNOTATION]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!taints.is_empty()).then_some(taints),
            unschedulable: unschedulable.then_some(true),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// Whether a node may set this label on itself.
pub(crate) fn may_claim(key: &str) -> bool {
    if key.len() > LABEL_KEY_MAX {
        return false;
    }
    let Some((prefix, name)) = key.split_once('/') else { return is_qualified_name(key) };
    let of = |domain: &str| is_within(prefix, domain);
    if !contract::ids::is_dns1123_subdomain(prefix) || !is_qualified_name(name) {
        return false;
    }
    if of("node-restriction.kubernetes.io") || of("kubehive.io") {
        return false;
    }
    let reserved = of("kubernetes.io") || of("k8s.io");
    let kubelets = of("kubelet.kubernetes.io") || of("node.kubernetes.io");
    !reserved || kubelets || is_kubelet_label(key)
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

/// The part of a label's key behind the `/` (Kubernetes' qualified names).
fn is_qualified_name(name: &str) -> bool {
    !name.is_empty() && is_label_value(name)
}

/// At most 63 of letters, digits, `-`, `_` and `.`, with letters or digits at the ends; or nothing.
pub(crate) fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= LABEL_VALUE_MAX
        && end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_taint(taint: &Taint) -> bool {
    let key = match taint.key.split_once('/') {
        Some((prefix, name)) => contract::ids::is_dns1123_subdomain(prefix) && is_qualified_name(name),
        None => is_qualified_name(&taint.key),
    };
    key && taint.value.as_deref().is_none_or(is_label_value)
        && matches!(taint.effect.as_str(), "NoSchedule" | "PreferNoSchedule" | "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(report: Value) -> Node {
        registration(&NodeName::parse("edge-1").unwrap(), "0a", &report)
    }

    #[test]
    fn a_node_sets_the_labels_that_a_kubelet_may_and_no_others() {
        let refused = [
            "node-role.kubernetes.io/control-plane",
            "node-role.kubernetes.io/master",
            "node-restriction.kubernetes.io/vault",
            "a.node-restriction.kubernetes.io/vault",
            "kubernetes.io/cluster-service",
            "x.k8s.io/y",
            "k8s.io/y",
            "kubehive.io/keep-eviction",
            "a.kubehive.io/b",
            "node.kubernetes.io.evil/../x",
            "a b",
            "",
            "-a",
            "a/b/c",
        ];
        let taken = [
            "kubernetes.io/arch",
            "kubernetes.io/os",
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/region",
            "beta.kubernetes.io/instance-type",
            "x.node.kubernetes.io/y",
            "kubelet.kubernetes.io/y",
            "site",
            "example.com/site",
            "notkubernetes.io/x",
        ];
        let labels: serde_json::Map<String, Value> =
            refused.iter().chain(&taken).map(|key| ((*key).to_owned(), json!("quay-7"))).collect();
        let mut labels = Value::Object(labels);
        labels["kubernetes.io/hostname"] = json!("other");
        labels["odd"] = json!("a b");
        labels["number"] = json!(7);
        let node = made(json!({ "metadata": { "labels": labels } }));
        let labels = node.metadata.labels.unwrap();
        for key in refused.iter().chain(&["odd", "number"]) {
            assert!(!labels.contains_key(*key), "{key}");
        }
        for key in taken {
            assert_eq!(labels.get(key).map(String::as_str), Some("quay-7"), "{key}");
        }
        assert_eq!(labels["kubernetes.io/hostname"], "edge-1");
        assert!(labels.contains_key(EDGE_LABEL));
    }

    #[test]
    fn there_is_an_end_to_labels_and_taints() {
        let labels: serde_json::Map<String, Value> =
            (0..1000).map(|n| (format!("l{n}"), json!(""))).collect();
        let taint = |n: usize| json!({ "key": format!("t{n}"), "effect": "NoSchedule", "timeAdded": null });
        let taints: Vec<Value> = (0..1000).map(taint).collect();
        let node = made(json!({ "metadata": { "labels": labels }, "spec": { "taints": taints } }));
        assert_eq!(node.metadata.labels.unwrap().len(), LABELS_MAX + 3);
        assert_eq!(node.spec.unwrap().taints.unwrap().len(), TAINTS_MAX);
        let odd = json!([{ "key": "a", "effect": "Everything" }, { "key": "a b", "effect": "NoExecute" }, 7]);
        let node = made(json!({ "spec": { "taints": odd, "unschedulable": true, "podCIDR": "10.0.0.0/8" } }));
        let spec = node.spec.unwrap();
        assert_eq!((spec.taints, spec.unschedulable, spec.pod_cidr), (None, Some(true), None));
        let annotations = node.metadata.annotations.unwrap();
        let attach = ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
        assert_eq!(annotations, [(ENROLMENT_ANNOTATION.to_owned(), "0a".to_owned()), attach].into());
    }

    #[test]
    fn a_node_that_is_there_is_marked_for_the_attach_detach_controller_beside_what_is_written() {
        let mut metadata = json!({ "uid": "u", "annotations": { "kubehive.io/reported": "1" } });
        complete(&mut metadata);
        let marked = json!({ "kubehive.io/reported": "1",
            "volumes.kubernetes.io/controller-managed-attach-detach": "true" });
        assert_eq!(metadata, json!({ "uid": "u", "annotations": marked }));
    }
}
