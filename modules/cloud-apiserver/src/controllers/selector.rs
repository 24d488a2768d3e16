//! Label selectors, and what nodes a pod may go to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::object::{labels, list, name, text};

/// A LabelSelector, read once for all objects that it is held against: it may say tens of thousands of things, and an object is
/// looked at in time by its own labels.
#[derive(Debug, Default)]
pub(crate) struct LabelSelector<'a> {
    keys: BTreeMap<&'a str, WantedLabel<'a>>,
    /// How many of the keys an object has to have.
    required: usize,
    picks_nothing: bool,
}

/// What a selector says of one key.
#[derive(Debug, Default)]
struct WantedLabel<'a> {
    is_required: bool,
    is_forbidden: bool,
    among: Option<BTreeSet<&'a str>>,
    not_among: BTreeSet<&'a str>,
}

impl<'a> LabelSelector<'a> {
    /// An empty one picks everything; none, or one that says what is unknown, picks nothing.
    pub(crate) fn of(selector: &'a Value) -> Self {
        let mut read = LabelSelector { picks_nothing: !selector.is_object(), ..LabelSelector::default() };
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            read.must_be_among(key, value.as_str().into_iter().collect());
        }
        for expression in list(selector, "/matchExpressions") {
            let key = text(expression, "/key");
            let values = list(expression, "/values").iter().filter_map(Value::as_str);
            match text(expression, "/operator") {
                "In" => read.must_be_among(key, values.collect()),
                "NotIn" => read.keys.entry(key).or_default().not_among.extend(values),
                "Exists" => read.keys.entry(key).or_default().is_required = true,
                "DoesNotExist" => read.keys.entry(key).or_default().is_forbidden = true,
                _ => read.picks_nothing = true,
            }
        }
        read.required = read.keys.values().filter(|wanted| wanted.is_required).count();
        read
    }

    fn must_be_among(&mut self, key: &'a str, values: BTreeSet<&'a str>) {
        let wanted = self.keys.entry(key).or_default();
        wanted.is_required = true;
        wanted.among = Some(match wanted.among.take() {
            Some(before) => before.intersection(&values).copied().collect(),
            None => values,
        });
    }

    /// Whether it picks these labels.
    pub(crate) fn picks(&self, labels: &Value) -> bool {
        let mut found = 0;
        for (key, value) in labels.as_object().into_iter().flatten() {
            let Some((wanted, value)) = self.keys.get(key.as_str()).zip(value.as_str()) else { continue };
            let is_good = !wanted.is_forbidden
                && !wanted.not_among.contains(value)
                && wanted.among.as_ref().is_none_or(|among| among.contains(value));
            if !is_good {
                return false;
            }
            found += usize::from(wanted.is_required);
        }
        !self.picks_nothing && found == self.required
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selects(selector: &Value, labels: &Value) -> bool {
        LabelSelector::of(selector).picks(labels)
    }

    #[test]
    fn all_that_a_selector_says_of_a_key_holds() {
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let selector =
            |expressions: &[Value]| json!({"matchLabels": {"app": "web"}, "matchExpressions": expressions});
        let labels = json!({"app": "web", "tier": "a"});
        for (expressions, wanted) in [
            (vec![], true),
            (vec![expression("app", "In", &["web", "db"]), expression("app", "Exists", &[])], true),
            (vec![expression("app", "In", &["db"])], false),
            (vec![expression("app", "NotIn", &["web"])], false),
            (vec![expression("app", "DoesNotExist", &[])], false),
            (vec![expression("tier", "In", &["a", "b"]), expression("tier", "In", &["b", "c"])], false),
            (vec![expression("tier", "In", &["a", "b"]), expression("tier", "In", &["a", "c"])], true),
            (vec![expression("zone", "Exists", &[])], false),
            (vec![expression("zone", "DoesNotExist", &[]), expression("zone", "NotIn", &["x"])], true),
            (vec![expression("app", "Gt", &["0"])], false),
        ] {
            assert_eq!(selects(&selector(&expressions), &labels), wanted, "{expressions:?}");
        }
        assert!(!selects(&selector(&[]), &Value::Null) && !selects(&selector(&[]), &json!({"app": "db"})));
    }

    #[test]
    fn a_long_selector_is_not_gone_through_for_each_object() {
        let began = std::time::Instant::now();
        let values: Vec<String> = (0..30_000).map(|n| format!("v{n}")).collect();
        let absent = (0..30_000).map(|n| json!({"key": format!("k{n}"), "operator": "DoesNotExist"}));
        let mut expressions = vec![json!({"key": "app", "operator": "In", "values": values})];
        expressions.extend(absent);
        let selector = json!({"matchExpressions": expressions});
        let selector = LabelSelector::of(&selector);
        for n in 0..30_000 {
            assert!(selector.picks(&json!({"app": format!("v{n}")})));
        }
        // What was a product took minutes.
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

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
            let (expression, node) =
                (expression(key, operator, values), json!({"metadata": {"labels": labels}}));
            assert_eq!(term_picks(&expression, &node), wanted, "{key} {operator} {values:?}");
            if !matches!(operator, "Gt" | "Lt") {
                assert_eq!(selects(&expression, &labels), wanted, "{key} {operator} {values:?}");
            }
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
