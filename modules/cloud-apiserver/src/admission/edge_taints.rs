//! An edge node that is cut off keeps its pods: the taints that would drive them away come off its Node. The same rule as the policy
//! `kubehive-edge-nodes-keep-pods` in the chart's `eviction.yaml`.

use apimachinery::taint::drives_away_when_cut_off;
use noderegistry::plan::is_edge;
use serde_json::Value;

/// Takes them off, whoever writes them.
pub(super) fn mutate(node: &mut Value) {
    if is_edge(node)
        && let Some(Value::Array(taints)) = node.pointer_mut("/spec/taints")
    {
        taints.retain(|taint| !drives_away_when_cut_off(taint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn taints_that_keep_new_pods_away_and_those_of_others_stay() {
        let unreachable = |effect: &str| json!({"key": "node.kubernetes.io/unreachable", "effect": effect});
        let others = json!({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"});
        let taints = json!([unreachable("NoExecute"), unreachable("NoSchedule"), others]);
        let mut node =
            json!({"metadata": {"labels": {"node-role.kubernetes.io/edge": ""}}, "spec": {"taints": taints}});
        mutate(&mut node);
        assert_eq!(node["spec"]["taints"].as_array().map(Vec::len), Some(3), "it is no node of ours");
        node["metadata"]["annotations"] = json!({"kubehive.io/enrolment": "0a"});
        mutate(&mut node);
        assert_eq!(node["spec"]["taints"], json!([unreachable("NoSchedule"), others]));
        mutate(&mut json!({"metadata": node["metadata"]}));
    }
}
