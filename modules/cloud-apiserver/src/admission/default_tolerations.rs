//! What plugins of a plain cluster add to every new pod: how long it tolerates a node that is away (DefaultTolerationSeconds), the
//! Priority plugin's policy, and `enableServiceLinks`, which a template must not have.

use kubeapi::unstructured::{default, entry, text};
use serde_json::{Value, json};

pub(super) fn mutate(pod: &mut Value) {
    let spec = entry(pod, "spec");
    default(spec, "enableServiceLinks", json!(true));
    default(spec, "preemptionPolicy", json!("PreemptLowerPriority"));
    let tolerations = entry(spec, "tolerations");
    if !tolerations.is_array() {
        *tolerations = json!([]);
    }
    let Value::Array(tolerations) = tolerations else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|toleration| {
            matches!(text(toleration, "/key"), "") && text(toleration, "/operator") == "Exists"
                || text(toleration, "/key") == key && matches!(text(toleration, "/effect"), "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_tolerates_a_node_that_is_away_for_a_while() {
        let mut pod = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}});
        mutate(&mut pod);
        assert_eq!(pod["spec"]["tolerations"][1]["tolerationSeconds"], 300);
        let once = pod.clone();
        mutate(&mut pod);
        assert_eq!(pod, once);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        mutate(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().map(Vec::len), Some(1));
    }
}
