//! Taints of Nodes, and how long pods tolerate those that drive them away (`NoExecute`). After component-helpers
//! `scheduling/corev1/helpers.go` and pkg/controller/tainteviction of Kubernetes 1.36.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

/// The node said that it is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Nothing is heard of the node.
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The effect of a taint that drives pods away.
pub const NO_EXECUTE: &str = "NoExecute";

/// How long a pod may stay on a node with certain taints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TolerationTime {
    /// The taints don't drive it away.
    Forever,
    /// From when the taints were first seen.
    For(Duration),
}

/// Whether the taint is one of the two that Kubernetes' node lifecycle controller gives a node that is cut off, and drives pods
/// away.
pub fn drives_away_when_cut_off(taint: &Value) -> bool {
    text(taint, "effect") == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&text(taint, "key"))
}

/// What the tolerations of a pod cover, found without going through all of them: a pod may have some ten thousand, and what is
/// held against them is as many taints of as many nodes.
#[derive(Debug)]
pub struct Tolerations<'a>(BTreeMap<Covered<'a>, Option<i64>>);

/// What one toleration covers: a key (the empty one of `Exists`: any), its value (`None`: any), an effect (the empty one: any).
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Covered<'a> {
    key: &'a str,
    value: Option<&'a str>,
    effect: &'a str,
}

impl<'a> Tolerations<'a> {
    /// Of `spec.tolerations`. What has an operator that nobody knows covers nothing.
    pub fn of(tolerations: &'a [Value]) -> Self {
        let mut covered = BTreeMap::new();
        for toleration in tolerations {
            let value = match text(toleration, "operator") {
                "Exists" => None,
                "" | "Equal" => Some(text(toleration, "value")),
                _ => continue,
            };
            let what = Covered { key: text(toleration, "key"), value, effect: text(toleration, "effect") };
            let seconds = toleration.get("tolerationSeconds").and_then(Value::as_i64);
            let shortest: &mut Option<i64> = covered.entry(what).or_default();
            *shortest = [*shortest, seconds].into_iter().flatten().min();
        }
        Tolerations(covered)
    }

    /// Of those that cover the taint: the shortest of their times, where they have one.
    fn covering(&self, taint: &Value) -> impl Iterator<Item = Option<i64>> {
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        let mut whats = vec![(key, None), (key, Some(value))];
        if !key.is_empty() {
            whats.push(("", None));
        }
        let effects = if effect.is_empty() { vec![""] } else { vec!["", effect] };
        whats.into_iter().flat_map(move |(key, value)| {
            let of = effects.clone().into_iter();
            of.filter_map(move |effect| self.0.get(&Covered { key, value, effect }).copied())
        })
    }

    /// Whether one of them covers the taint.
    pub fn cover(&self, taint: &Value) -> bool {
        self.covering(taint).next().is_some()
    }
}

/// What the pod's tolerations say about those of `taints` that are `NoExecute`.
pub fn toleration_time<'a>(
    tolerations: &[Value],
    taints: impl IntoIterator<Item = &'a Value>,
) -> TolerationTime {
    let mut taints = taints.into_iter().filter(|taint| text(taint, "effect") == NO_EXECUTE).peekable();
    if taints.peek().is_none() {
        return TolerationTime::Forever;
    }
    let tolerations = Tolerations::of(tolerations);
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let mut covering = tolerations.covering(taint).peekable();
        if covering.peek().is_none() {
            return TolerationTime::For(Duration::ZERO);
        }
        for limit in covering.flatten() {
            let limit = Duration::from_secs(u64::try_from(limit).unwrap_or_default());
            shortest = Some(shortest.map_or(limit, |shortest| shortest.min(limit)));
        }
    }
    shortest.map_or(TolerationTime::Forever, TolerationTime::For)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_cover_by_key_value_and_effect() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoSchedule"});
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "operator": "Equal", "value": "w"}), false),
            (json!({"key": "k", "operator": "Near"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({}), false),
        ];
        for (toleration, wanted) in cases {
            let tolerations = [json!({"key": "elsewhere"}), toleration];
            assert_eq!(Tolerations::of(&tolerations).cover(&taint), wanted, "{tolerations:?}");
        }
    }

    #[test]
    fn many_taints_are_held_against_many_tolerations_in_time_by_their_number() {
        let began = std::time::Instant::now();
        let many = |of: &str| {
            (0..40_000).map(|n| json!({"key": format!("{of}{n}"), "effect": NO_EXECUTE})).collect::<Vec<_>>()
        };
        let (taints, mut tolerations) = (many("k"), many("k"));
        tolerations.reverse();
        assert_eq!(toleration_time(&tolerations, &taints), TolerationTime::Forever);
        let time = toleration_time(&tolerations[1..], &taints);
        assert_eq!(time, TolerationTime::For(Duration::ZERO), "one of them is not covered");
        // What went through all of them for each took minutes.
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }

    #[test]
    fn tolerations_say_how_long_a_pod_stays() {
        let taints = [
            json!({"key": UNREACHABLE, "effect": "NoSchedule"}),
            json!({"key": UNREACHABLE, "effect": "NoExecute"}),
        ];
        let time = |tolerations: Value| toleration_time(tolerations.as_array().unwrap(), &taints);
        let lasting = |seconds: Value| json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let seconds = |seconds| TolerationTime::For(Duration::from_secs(seconds));
        assert_eq!(time(json!([])), seconds(0));
        assert_eq!(time(json!([lasting(json!(300))])), seconds(300));
        assert_eq!(time(json!([lasting(json!(-7))])), seconds(0));
        assert_eq!(time(json!([lasting(Value::Null)])), TolerationTime::Forever);
        assert_eq!(time(json!([lasting(Value::Null), lasting(json!(5))])), seconds(5));
        assert_eq!(time(json!([{"operator": "Exists"}])), TolerationTime::Forever);
        assert_eq!(toleration_time(&[], &[]), TolerationTime::Forever);
    }

    #[test]
    fn two_taints_drive_pods_off_a_node_that_is_cut_off() {
        let drives =
            |key: &str, effect: &str| drives_away_when_cut_off(&json!({"key": key, "effect": effect}));
        assert!(drives(UNREACHABLE, "NoExecute") && drives(NOT_READY, "NoExecute"));
        assert!(
            !drives(UNREACHABLE, "NoSchedule") && !drives("node.kubernetes.io/out-of-service", "NoExecute")
        );
    }
}
