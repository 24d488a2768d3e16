//! What a node may say of itself when its Node is made. Pure.
//!
//! CloudCore writes under an account of its own, which Kubernetes' NodeRestriction does not look at: so what that allows a
//! kubelet is allowed here ([`apimachinery::node_label`]), and nothing else.

use std::collections::BTreeMap;

use apimachinery::names::{is_label_value, is_qualified_name};
use apimachinery::node_label::{EDGE_ROLES, LABELS_MAX, TAINTS_MAX, check_node_label};
use contract::NodeName;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use noderegistry::ENROLMENT_ANNOTATION;
use serde_json::Value;

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
        .filter(|(key, value)| check_node_label(key).is_ok() && is_label_value(value))
        .take(LABELS_MAX)
        .map(|(key, value)| (key.clone(), value.to_owned()))
        .collect();
    labels.insert("kubernetes.io/hostname".to_owned(), node.as_str().to_owned());
    labels.extend(EDGE_ROLES.map(|role| (role.to_owned(), String::new())));
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

fn is_taint(taint: &Taint) -> bool {
    is_qualified_name(&taint.key)
        && taint.value.as_deref().is_none_or(is_label_value)
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
        assert!(EDGE_ROLES.iter().all(|role| labels.contains_key(*role)));
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
