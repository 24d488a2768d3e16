//! Which fields of a pod are honoured. What is not in the tables is named, never ignored in silence.

use serde_json::Value;

use crate::pod::field_table::{POD, Rule};
use Rule::{Honoured, Inside, NoMatter, Only, Refused};

/// What became of the fields of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Review {
    /// Fields on which the pod's safety or sense depends: it must not run.
    pub(crate) refused: Vec<String>,
    /// Fields that are not known here and so have no effect.
    pub(crate) unhonoured: Vec<String>,
}

impl Review {
    /// What is not honoured, in a sentence; `None` when all is.
    pub(crate) fn message(&self) -> Option<String> {
        let refused = self.refused_message();
        let unhonoured = (!self.unhonoured.is_empty())
            .then(|| format!("not honoured on this node: {}", self.unhonoured.join(", ")));
        match (refused, unhonoured) {
            (Some(refused), Some(unhonoured)) => Some(format!("{refused}; {unhonoured}")),
            (one, other) => one.or(other),
        }
    }

    /// Why the pod must not run here.
    pub(crate) fn refused_message(&self) -> Option<String> {
        (!self.refused.is_empty())
            .then(|| format!("not run, because this node cannot honour: {}", self.refused.join(", ")))
    }
}

/// At most so many are named; the rest is counted.
const NAMED_MAX: usize = 32;

/// Looks at every field of a pod's `spec`.
pub(crate) fn review(spec: &Value) -> Review {
    let mut review = Review::default();
    look(spec, POD, "spec", &mut review);
    bound(&mut review.refused);
    bound(&mut review.unhonoured);
    review
}

fn bound(names: &mut Vec<String>) {
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        names.truncate(NAMED_MAX);
        names.push(format!("and {more} more"));
    }
}

fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn look(value: &Value, rules: &[(&str, Rule)], path: &str, review: &mut Review) {
    let Value::Object(map) = value else { return };
    for (key, below) in map {
        // An empty object means something where it chooses a kind (`emptyDir: {}`), and those are honoured below.
        if below.is_null() {
            continue;
        }
        let at = format!("{path}.{}", key.chars().take(64).collect::<String>());
        match rules.iter().find(|(name, _)| name == key).map(|(_, rule)| rule) {
            Some(Honoured | NoMatter) => {}
            Some(Refused) if is_absent(below) => {}
            Some(Refused) => review.refused.push(at),
            Some(Only(values)) => {
                let text = match below {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                if !values.contains(&text.as_str()) {
                    review.refused.push(format!("{at}={}", text.chars().take(64).collect::<String>()));
                }
            }
            Some(Inside(rules)) => look_inside(below, rules, &at, review),
            // An unknown kind of volume or source would leave a hole where the pod expects its data.
            None if (path.contains(".volumes[") || path.contains(".valueFrom")) && !below.is_null() => {
                review.refused.push(at);
            }
            None if is_absent(below) => {}
            None => review.unhonoured.push(at),
        }
    }
}

fn look_inside(value: &Value, rules: &[(&str, Rule)], at: &str, review: &mut Review) {
    let Value::Array(list) = value else { return look(value, rules, at, review) };
    for (index, element) in list.iter().enumerate() {
        let label = element.get("name").and_then(Value::as_str).map(|name| name.chars().take(64).collect());
        let label: String = label.unwrap_or_else(|| index.to_string());
        look(element, rules, &format!("{at}[{label}]"), review);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plain_pod_has_nothing_to_name() {
        let spec = json!({
            "containers": [{"name": "a", "image": "x", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}], "resources": {"limits": {"cpu": "1"}},
                "securityContext": {"runAsUser": 1}}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "t", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}}],
            "tolerations": [{"key": "k"}], "securityContext": {}, "affinity": {},
            "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
        });
        assert_eq!(review(&spec), Review::default());
    }

    #[test]
    fn what_is_not_honoured_is_named() {
        let spec = json!({
            "containers": [{"name": "a", "livenessProbe": {"exec": {}, "newKind": {"x": 1}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}, "brandNew": {"x": 1}}],
            "futureField": 7,
        });
        let review = review(&spec);
        assert!(review.refused.is_empty());
        assert_eq!(
            review.unhonoured,
            ["spec.containers[a].brandNew", "spec.containers[a].livenessProbe.newKind", "spec.futureField",]
        );
    }

    #[test]
    fn what_safety_depends_on_is_refused() {
        let spec = json!({
            "containers": [{"name": "a",
                "restartPolicyRules": [{"action": "RestartPod"}],
                "securityContext": {"procMount": "Bare"}}],
            "volumes": [{"name": "p", "iscsi": {"iqn": "i"}}, {"name": "n", "newKind": {}}],
        });
        assert_eq!(
            review(&spec).refused,
            [
                "spec.containers[a].restartPolicyRules[0].action=RestartPod",
                "spec.containers[a].securityContext.procMount=Bare",
                "spec.volumes[n].newKind",
                "spec.volumes[p].iscsi",
            ]
        );
    }

    #[test]
    fn the_list_is_bounded() {
        let spec: serde_json::Map<String, Value> = (0..100).map(|i| (format!("f{i}"), json!(1))).collect();
        assert_eq!(review(&Value::Object(spec)).unhonoured.len(), NAMED_MAX + 1);
    }
}
