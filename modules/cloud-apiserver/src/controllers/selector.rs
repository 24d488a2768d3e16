//! Label selectors, and what nodes a pod may go to.

use apimachinery::taint::covers;
use serde_json::Value;

use super::object::{labels, list, name, text};

/// Whether a LabelSelector picks these labels. An empty one picks everything, none picks nothing.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    if !selector.is_object() {
        return false;
    }
    picks_all(&selector["matchLabels"], labels)
        && list(selector, "/matchExpressions").iter().all(|expression| holds(expression, labels))
}

/// Whether every pair of `wanted` is in `labels`.
pub(crate) fn picks_all(wanted: &Value, labels: &Value) -> bool {
    wanted.as_object().into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a LabelSelector says anything at all.
pub(crate) fn is_empty(selector: &Value) -> bool {
    selector["matchLabels"].as_object().is_none_or(serde_json::Map::is_empty)
        && list(selector, "/matchExpressions").is_empty()
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let found = labels.get(text(expression, "/key")).and_then(Value::as_str);
    holds_for(expression, found)
}

fn holds_for(expression: &Value, found: Option<&str>) -> bool {
    let values = || list(expression, "/values").iter().filter_map(Value::as_str);
    let compare = |order: std::cmp::Ordering| {
        let bound = values().next().and_then(|value| value.parse::<i64>().ok());
        let found = found.and_then(|value| value.parse::<i64>().ok());
        matches!((found, bound), (Some(found), Some(bound)) if found.cmp(&bound) == order)
    };
    match text(expression, "/operator") {
        "In" => found.is_some_and(|found| values().any(|value| value == found)),
        "NotIn" => found.is_none_or(|found| values().all(|value| value != found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// Whether one term of a node selector picks the node. A term that says nothing picks none.
pub(crate) fn term_picks(term: &Value, node: &Value) -> bool {
    let (expressions, fields) = (list(term, "/matchExpressions"), list(term, "/matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|expression| holds(expression, labels(node)))
        && fields
            .iter()
            .all(|field| text(field, "/key") == "metadata.name" && holds_for(field, Some(name(node))))
}

/// Whether `nodeSelector` and required node affinity let the pod go to the node.
pub(crate) fn wants_node(pod: &Value, node: &Value) -> bool {
    if !picks_all(&pod["spec"]["nodeSelector"], labels(node)) {
        return false;
    }
    let required = pod.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    match required.filter(|required| required.is_object()) {
        Some(required) => list(required, "/nodeSelectorTerms").iter().any(|term| term_picks(term, node)),
        None => true,
    }
}

/// Whether one of the tolerations covers the taint.
pub(crate) fn tolerates(pod: &Value, taint: &Value) -> bool {
    list(pod, "/spec/tolerations").iter().any(|toleration| covers(toleration, taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operators_of_expressions() {
        let labels = json!({"a": "1", "b": "x"});
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let cases = [
            ("a", "In", &["1", "2"][..], true),
            ("a", "In", &["2"], false),
            ("c", "In", &["2"], false),
            ("c", "NotIn", &["2"], true),
            ("a", "NotIn", &["1"], false),
            ("a", "Exists", &[], true),
            ("c", "DoesNotExist", &[], true),
            ("a", "Gt", &["0"], true),
            ("a", "Gt", &["1"], false),
            ("a", "Lt", &["2"], true),
            ("b", "Lt", &["2"], false),
            ("b", "Near", &["2"], false),
        ];
        for (key, operator, values, wanted) in cases {
            assert_eq!(
                selects(&expression(key, operator, values), &labels),
                wanted,
                "{key} {operator} {values:?}"
            );
        }
        assert!(selects(&json!({}), &labels));
        assert!(!selects(&Value::Null, &labels));
    }

    #[test]
    fn affinity_terms_are_alternatives_and_an_empty_one_picks_nothing() {
        let node = json!({"metadata": {"name": "n", "labels": {"zone": "a"}}});
        let pod = |terms: Value| {
            json!({"spec": {"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}})
        };
        let zone =
            |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        let named = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        assert!(wants_node(&pod(json!([zone("b"), zone("a")])), &node));
        assert!(wants_node(&pod(json!([named])), &node));
        assert!(!wants_node(&pod(json!([zone("b")])), &node));
        assert!(!wants_node(&pod(json!([{}])), &node));
        assert!(wants_node(&json!({"spec": {"nodeSelector": {"zone": "a"}}}), &node));
        assert!(!wants_node(&json!({"spec": {"nodeSelector": {"zone": "b"}}}), &node));
    }
}
