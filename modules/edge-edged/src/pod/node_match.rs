//! Whether a node is one of those that a pod wants, and whether the pod bears with the node's taints. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

type Labels = BTreeMap<String, String>;

/// Whether the node has the labels, and is one of those of the required affinity.
pub(crate) fn is_wanted(spec: &PodSpec, node: &str, labels: &Labels) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
    let is_one =
        required.is_none_or(|own| own.node_selector_terms.iter().any(|term| matches(term, node, labels)));
    selected && is_one
}

/// A term that asks for nothing matches nothing.
pub(crate) fn matches(term: &NodeSelectorTerm, node: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_label = |own: &NodeSelectorRequirement| holds(own, labels.get(&own.key).map(String::as_str));
    let by_field = |own: &NodeSelectorRequirement| own.key == "metadata.name" && holds(own, Some(node));
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(by_label)
        && fields.iter().all(by_field)
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || found.is_some_and(|found| values.iter().any(|value| value == found));
    let numbers = || {
        let [bound] = values else { return None };
        Some((found?.parse::<i64>().ok()?, bound.parse::<i64>().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(own, bound)| own > bound),
        "Lt" => numbers().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

/// Whether a pod may be on a node with these taints; only those count that end what runs (`NoExecute`).
pub(crate) fn tolerates(spec: &PodSpec, taints: &[Taint]) -> bool {
    let ending = taints.iter().filter(|taint| taint.effect == "NoExecute");
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    ending.into_iter().all(|taint| tolerations.iter().any(|own| bears(own, taint)))
}

fn bears(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let operator = given(&toleration.operator).unwrap_or_else(|| "Equal".to_owned());
    let key = given(&toleration.key);
    if given(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let (own, other) =
        (given(&toleration.value).unwrap_or_default(), given(&taint.value).unwrap_or_default());
    let numbers = || Some((other.parse::<i64>().ok()?, own.parse::<i64>().ok()?));
    match operator.as_str() {
        // Without a key: every taint.
        "Exists" => key.is_none_or(|key| key == taint.key),
        "Equal" => key.is_some_and(|key| key == taint.key) && own == other,
        "Gt" => key.is_some_and(|key| key == taint.key) && numbers().is_some_and(|(taint, own)| taint > own),
        "Lt" => key.is_some_and(|key| key == taint.key) && numbers().is_some_and(|(taint, own)| taint < own),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn required(terms: Value) -> Value {
        let terms = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    }

    #[test]
    fn a_pod_wants_nodes_by_labels_and_names() {
        let labels =
            BTreeMap::from([("zone", "a"), ("cores", "4")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let wanted = |spec: Value| is_wanted(pod(spec).spec(), "edge-1", &labels);
        let one = |key: &str, operator: &str, values: Value| {
            wanted(required(
                json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
            ))
        };
        assert!(wanted(json!({})) && wanted(json!({"nodeSelector": {"zone": "a"}})));
        assert!(!wanted(json!({"nodeSelector": {"zone": "a", "x": ""}})));
        for (key, operator, values, holds) in [
            ("zone", "In", json!(["b", "a"]), true),
            ("zone", "In", json!(["b"]), false),
            ("zone", "NotIn", json!(["b"]), true),
            ("none", "NotIn", json!(["b"]), true),
            ("zone", "Exists", json!([]), true),
            ("zone", "DoesNotExist", json!([]), false),
            ("cores", "Gt", json!(["3"]), true),
            ("cores", "Lt", json!(["4"]), false),
            ("zone", "Gt", json!(["1"]), false),
            ("zone", "Like", json!(["a"]), false),
        ] {
            assert_eq!(one(key, operator, values), holds, "{key} {operator}");
        }
        let by_name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        assert!(
            wanted(required(json!([by_name("edge-1")]))) && !wanted(required(json!([by_name("edge-2")])))
        );
        assert!(wanted(required(json!([by_name("edge-2"), by_name("edge-1")]))), "one term is enough");
        assert!(!wanted(required(json!([{}]))) && !wanted(required(json!([]))));
    }

    #[test]
    fn only_taints_that_end_pods_count() {
        let taints = |effect: &str| -> Vec<Taint> {
            serde_json::from_value(json!([{"key": "k", "value": "v", "effect": effect}])).unwrap()
        };
        let bears = |toleration: Value| {
            let spec = json!({"tolerations": [toleration]});
            tolerates(pod(spec).spec(), &taints("NoExecute"))
        };
        assert!(tolerates(pod(json!({})).spec(), &taints("NoSchedule")));
        assert!(!tolerates(pod(json!({})).spec(), &taints("NoExecute")));
        for (toleration, wanted) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"value": "v"}), false),
        ] {
            assert_eq!(bears(toleration.clone()), wanted, "{toleration}");
        }
    }
}
