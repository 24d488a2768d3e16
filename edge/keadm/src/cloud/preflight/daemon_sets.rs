//! Daemon sets that would land on edge nodes: kube-proxy and network plugins run wherever they may, and on an edge node they find no API
//! server. No taint keeps them off, since an edge node has none by default; an affinity does.

use std::collections::BTreeMap;

use contract::ids::{EDGE_LABEL, EDGE_ROLES};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use serde_json::{Value, json};

/// A daemon set that would land on edge nodes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Landing {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// A JSON merge patch that keeps it off.
    pub(crate) patch: Value,
}

/// Those of the daemon sets that would land on an edge node, and are not meant for one.
pub(crate) fn landing(daemon_sets: &[DaemonSet]) -> Vec<Landing> {
    let lands = daemon_sets.iter().filter(|set| lands(set));
    lands
        .map(|set| Landing {
            namespace: set.metadata.namespace.clone().unwrap_or_default(),
            name: set.metadata.name.clone().unwrap_or_default(),
            patch: patch(set),
        })
        .collect()
}

/// What every edge node has. Whatever else a selector asks for, this cluster's edge nodes are not known to have.
fn labels() -> BTreeMap<&'static str, Option<&'static str>> {
    // `None`: some value, which is not known before.
    let mut labels = BTreeMap::from([
        ("kubernetes.io/os", Some("linux")),
        ("kubernetes.io/arch", None),
        ("kubernetes.io/hostname", None),
        ("beta.kubernetes.io/os", Some("linux")),
        ("beta.kubernetes.io/arch", None),
    ]);
    labels.extend(EDGE_ROLES.map(|role| (role, Some(""))));
    labels
}

fn terms(set: &DaemonSet) -> &[NodeSelectorTerm] {
    let affinity = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.affinity.as_ref());
    let node = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let required = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |required| &required.node_selector_terms)
}

fn lands(set: &DaemonSet) -> bool {
    let Some(pod) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return false };
    let labels = labels();
    let selector = pod.node_selector.clone().unwrap_or_default();
    let is_meant = selector.keys().any(|key| key == EDGE_LABEL)
        || terms(set)
            .iter()
            .flat_map(expressions)
            .any(|one| one.key == EDGE_LABEL && one.operator != "DoesNotExist");
    let selected = selector.iter().all(|(key, value)| match labels.get(key.as_str()) {
        Some(Some(ours)) => ours == value,
        Some(None) => true,
        None => false,
    });
    let terms = terms(set);
    let in_terms =
        terms.is_empty() || terms.iter().any(|term| expressions(term).all(|one| holds(one, &labels)));
    !is_meant && selected && in_terms
}

fn expressions(term: &NodeSelectorTerm) -> impl Iterator<Item = &NodeSelectorRequirement> {
    term.match_expressions.iter().flatten()
}

/// Whether an expression can hold for an edge node.
fn holds(one: &NodeSelectorRequirement, labels: &BTreeMap<&str, Option<&str>>) -> bool {
    let label = labels.get(one.key.as_str());
    let values = one.values.as_deref().unwrap_or_default();
    match (one.operator.as_str(), label) {
        ("Exists", label) => label.is_some(),
        ("DoesNotExist", label) => label.is_none(),
        ("In", Some(Some(ours))) => values.iter().any(|value| value == ours),
        ("NotIn", Some(Some(ours))) => !values.iter().any(|value| value == ours),
        ("In" | "NotIn", Some(None)) | ("NotIn", None) => true,
        _ => false,
    }
}

/// Every term keeps what it says, and is not for edge nodes.
fn patch(set: &DaemonSet) -> Value {
    let off = json!({ "key": EDGE_LABEL, "operator": "DoesNotExist" });
    let given = terms(set);
    let mut terms: Vec<Value> =
        given.iter().map(|term| serde_json::to_value(term).unwrap_or_else(|_| json!({}))).collect();
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in &mut terms {
        match term.get_mut("matchExpressions").and_then(Value::as_array_mut) {
            Some(expressions) => expressions.push(off.clone()),
            None => term["matchExpressions"] = json!([off]),
        }
    }
    let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
    json!({ "spec": { "template": { "spec": { "affinity": affinity } } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, pod: Value) -> DaemonSet {
        let template = json!({ "spec": pod });
        let selector = json!({ "matchLabels": {} });
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "kube-system" }, "spec": { "selector": selector, "template": template },
        }))
        .unwrap()
    }

    fn term(expressions: Value) -> Value {
        let terms = json!([{ "matchExpressions": expressions }]);
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } })
    }

    #[test]
    fn what_would_land_on_an_edge_node_is_found_and_its_patch_keeps_it_off() {
        let everything = json!([{ "operator": "Exists" }]);
        let on = |affinity: Value| json!({ "containers": [], "affinity": affinity });
        let all = [
            (
                true,
                set(
                    "kube-proxy",
                    json!({ "containers": [], "tolerations": everything, "nodeSelector": {"kubernetes.io/os": "linux"} }),
                ),
            ),
            (true, set("plain", json!({ "containers": [] }))),
            (
                true,
                set(
                    "cni",
                    on(term(json!([{ "key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"] }]))),
                ),
            ),
            (
                true,
                set(
                    "not-windows",
                    on(term(
                        json!([{ "key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"] }]),
                    )),
                ),
            ),
            (
                false,
                set("windows", json!({ "containers": [], "nodeSelector": {"kubernetes.io/os": "windows"} })),
            ),
            (false, set("gpu", json!({ "containers": [], "nodeSelector": {"gpu": "true"} }))),
            (false, set("kept-off", on(term(json!([{ "key": EDGE_LABEL, "operator": "DoesNotExist" }]))))),
            (false, set("mapper", json!({ "containers": [], "nodeSelector": {EDGE_LABEL: ""} }))),
            (
                false,
                set("mapper-by-affinity", on(term(json!([{ "key": EDGE_LABEL, "operator": "Exists" }])))),
            ),
        ];
        for (lands, mut set) in all {
            let found = landing(std::slice::from_ref(&set));
            assert_eq!(!found.is_empty(), lands, "{:?}", set.metadata.name);
            let Some(found) = found.first() else { continue };
            let affinity = found.patch["spec"]["template"]["spec"]["affinity"].clone();
            let pod = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
            pod.affinity = serde_json::from_value(affinity).unwrap();
            assert!(landing(&[set]).is_empty(), "{found:?}");
        }
    }

    #[test]
    fn the_patch_keeps_what_the_affinity_said_in_each_term() {
        let terms = json!([
            { "matchExpressions": [{ "key": "a", "operator": "Exists" }] },
            { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n"] }] },
        ]);
        let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
        let patch = patch(&set("x", json!({ "containers": [], "affinity": affinity })));
        let patched = &patch["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        let off = json!({ "key": EDGE_LABEL, "operator": "DoesNotExist" });
        assert_eq!(patched[0]["matchExpressions"], json!([{ "key": "a", "operator": "Exists" }, off]));
        assert_eq!(patched[1]["matchExpressions"], json!([off]));
        assert_eq!(patched[1]["matchFields"], terms[1]["matchFields"]);
    }
}
