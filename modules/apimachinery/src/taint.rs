//! Taints of Nodes, and how long pods tolerate those that drive them away (`NoExecute`). After component-helpers
//! `scheduling/corev1/helpers.go` and pkg/controller/tainteviction of Kubernetes 1.36.

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

/// Whether the toleration covers the taint.
pub fn covers(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
    if !effect.is_empty() && effect != text(taint, "effect") {
        return false;
    }
    match text(toleration, "operator") {
        "Exists" => key.is_empty() || key == text(taint, "key"),
        "" | "Equal" => key == text(taint, "key") && text(toleration, "value") == text(taint, "value"),
        _ => false,
    }
}

/// What the pod's tolerations say about those of `taints` that are `NoExecute`.
pub fn toleration_time<'a>(
    tolerations: &[Value],
    taints: impl IntoIterator<Item = &'a Value>,
) -> TolerationTime {
    let mut shortest: Option<Duration> = None;
    for taint in taints.into_iter().filter(|taint| text(taint, "effect") == NO_EXECUTE) {
        let mut covering = tolerations.iter().filter(|toleration| covers(toleration, taint)).peekable();
        if covering.peek().is_none() {
            return TolerationTime::For(Duration::ZERO);
        }
        for limit in covering.filter_map(|toleration| toleration.get("tolerationSeconds")?.as_i64()) {
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
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({}), false),
        ];
        for (toleration, wanted) in cases {
            assert_eq!(covers(&toleration, &taint), wanted, "{toleration}");
        }
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
