//! What may not change from an object to the next.

use std::collections::{BTreeSet, HashSet};

use apimachinery::resource;
use serde_json::{Value, json};

use super::objects::enumerated;
use crate::error::FieldError;
use crate::unstructured::{list, remove, text};

/// Finalizers that `new` has and `old`, which is being deleted, has not.
pub(super) fn new_finalizers(old: &Value, new: &Value) -> Option<FieldError> {
    let known: HashSet<&Value> = list(old, "/metadata/finalizers").iter().collect();
    let added = list(new, "/metadata/finalizers").iter().filter(|finalizer| !known.contains(finalizer));
    let added: BTreeSet<String> = added.map(Value::to_string).collect();
    let added = Vec::from_iter(added).join(", ");
    let what = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"
    );
    (!added.is_empty()).then(|| FieldError::forbidden("metadata.finalizers", &what))
}

/// What may not change from `old` to `new` of a built-in kind.
pub(super) fn change(group_resource: &str, old: &Value, new: &Value) -> Vec<FieldError> {
    let mut causes = Vec::new();
    let differs = |pointer: &str| old.pointer(pointer) != new.pointer(pointer);
    match group_resource {
        resource::PODS => {
            pod_change(old, new, &mut causes);
            if differs("/status/phase") {
                let phases = ["Failed", "Pending", "Running", "Succeeded", "Unknown"];
                enumerated(&new["status"], "status", "phase", &phases, &mut causes);
            }
        }
        resource::DEPLOYMENTS | resource::REPLICA_SETS if differs("/spec/selector") => {
            causes.push(FieldError::invalid("spec.selector", &new["spec"]["selector"], "field is immutable"));
        }
        resource::CONFIG_MAPS | resource::SECRETS => {
            let data = ["/data", "/binaryData", "/type"].iter().any(|pointer| differs(pointer));
            let frozen = old["immutable"] == json!(true);
            if frozen && new["immutable"] != json!(true) {
                causes.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
            if frozen && data {
                causes.push(FieldError::forbidden("data", "field is immutable when `immutable` is set"));
            }
            if group_resource == resource::SECRETS && differs("/type") {
                causes.push(FieldError::invalid("type", &new["type"], "field is immutable"));
            }
        }
        resource::SERVICES if differs("/spec/clusterIP") && !text(old, "/spec/clusterIP").is_empty() => {
            // A service that becomes a mere name gives its address back.
            let gives_back = text(new, "/spec/type") == "ExternalName" && new["spec"]["clusterIP"].is_null();
            if !gives_back {
                let what = "field is immutable";
                causes.push(FieldError::invalid("spec.clusterIP", &new["spec"]["clusterIP"], what));
            }
        }
        resource::ROLE_BINDINGS | resource::CLUSTER_ROLE_BINDINGS if differs("/roleRef") => {
            causes.push(FieldError::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
        }
        _ => {}
    }
    causes
}

/// A pod's spec is fixed but for its images, its deadline, its grace, more tolerations and fewer gates; and as long as it has
/// gates, it may also be more choosy about nodes (Kubernetes: `ValidatePodUpdate`).
fn pod_change(old: &Value, new: &Value, causes: &mut Vec<FieldError>) {
    let is_gated = !list(old, "/spec/schedulingGates").is_empty();
    gates_change(old, new, causes);
    if is_gated {
        choice_of_nodes_change(old, new, causes);
    }
    let neutral = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in ["containers", "initContainers"] {
            for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                remove(container, "image");
            }
        }
        for field in
            ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"]
        {
            remove(&mut spec, field);
        }
        if is_gated {
            remove(&mut spec, "nodeSelector");
            without_node_affinity(&mut spec);
        }
        spec
    };
    // Only the time of a toleration may change.
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let left: HashSet<Value> = list(new, "/spec/tolerations").iter().map(timeless).collect();
    let kept = list(old, "/spec/tolerations").iter().all(|toleration| left.contains(&timeless(toleration)));
    if neutral(old) != neutral(new) || !kept {
        causes.push(FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

/// Gates only go.
fn gates_change(old: &Value, new: &Value, causes: &mut Vec<FieldError>) {
    let known: HashSet<&str> =
        list(old, "/spec/schedulingGates").iter().map(|gate| text(gate, "/name")).collect();
    for (at, gate) in list(new, "/spec/schedulingGates").iter().enumerate() {
        let name = text(gate, "/name");
        if !known.contains(name) {
            let what = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            causes.push(FieldError::forbidden(format!("spec.schedulingGates[{at}].name"), &what));
        }
    }
}

/// A pod that has gates may ask for more of its node, and for nothing less (Kubernetes: `validateNodeSelectorMutation`,
/// `validateNodeAffinityMutation`).
fn choice_of_nodes_change(old: &Value, new: &Value, causes: &mut Vec<FieldError>) {
    let selector = &new["spec"]["nodeSelector"];
    let mut before = old["spec"]["nodeSelector"].as_object().into_iter().flatten();
    if before.any(|(key, value)| selector.get(key) != Some(value)) {
        let what = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        causes.push(FieldError::invalid("spec.nodeSelector", selector, what));
    }
    let required =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let here = required.trim_start_matches('/').replace('/', ".");
    let (before, after) = (list(old, required), list(new, required));
    if !before.is_empty() && before.len() != after.len() {
        let what = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        causes.push(FieldError::invalid(here, &json!(after), what));
        return;
    }
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        let fields = ["/matchExpressions", "/matchFields"];
        // One that picks no node goes on picking none.
        let picks_nothing = fields.iter().all(|field| list(before, field).is_empty());
        let only_more = if picks_nothing {
            fields.iter().all(|field| list(after, field).is_empty())
        } else {
            fields.iter().all(|field| list(after, field).starts_with(list(before, field)))
        };
        if !only_more {
            let what = "only additions are allowed (no mutations or deletions)";
            causes.push(FieldError::invalid(format!("{here}[{at}]"), after, what));
        }
    }
}

/// Affinity that says nothing else is none.
fn without_node_affinity(spec: &mut Value) {
    let Some(affinity) = spec.get_mut("affinity") else { return };
    remove(affinity, "nodeAffinity");
    if affinity.is_null() || affinity.as_object().is_some_and(serde_json::Map::is_empty) {
        remove(spec, "affinity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_go_and_a_gated_pod_may_only_be_more_choosy() {
        let term = |values: &[&str]| json!({"key": "zone", "operator": "In", "values": values});
        let affinity = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let gated = json!({"spec": {"schedulingGates": [{"name": "x.io/a"}, {"name": "x.io/b"}],
            "nodeSelector": {"a": "1"}, "affinity": affinity(json!([{"matchExpressions": [term(&["z"])]}]))}});
        let told = |old: &Value, new: &Value| {
            change("pods", old, new).into_iter().map(|cause| cause.field).collect::<Vec<_>>()
        };
        let with = |pointer: &str, value: Value| {
            let mut new = gated.clone();
            *new.pointer_mut(pointer).unwrap() = value;
            new
        };
        for (pointer, value, refused) in [
            ("/spec/schedulingGates", json!([{"name": "x.io/b"}]), None),
            ("/spec/schedulingGates", Value::Null, None),
            ("/spec/schedulingGates", json!([{"name": "x.io/c"}]), Some("spec.schedulingGates[0].name")),
            ("/spec/nodeSelector", json!({"a": "1", "b": "2"}), None),
            ("/spec/nodeSelector", json!({"a": "2"}), Some("spec.nodeSelector")),
            ("/spec/nodeSelector", Value::Null, Some("spec.nodeSelector")),
            ("/spec/affinity", affinity(json!([{"matchExpressions": [term(&["z"]), term(&["y"])]}])), None),
            (
                "/spec/affinity",
                affinity(json!([{"matchExpressions": [term(&["y"])]}])),
                Some(
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]",
                ),
            ),
            (
                "/spec/affinity",
                Value::Null,
                Some(
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
                ),
            ),
        ] {
            assert_eq!(
                told(&gated, &with(pointer, value.clone())),
                Vec::from_iter(refused),
                "{pointer} {value}"
            );
        }
        // Affinity where none was; and what is not about nodes stays fixed.
        let mut bare = gated.clone();
        bare["spec"]["affinity"] = Value::Null;
        assert_eq!(told(&bare, &gated), Vec::<String>::new());
        let pods = with("/spec/affinity", json!({"podAffinity": {"x": 1}}));
        assert_eq!(told(&bare, &pods), ["spec"]);
        // Without gates it is fixed, and gets none.
        let mut free = gated.clone();
        free["spec"]["schedulingGates"] = json!([]);
        let mut choosy = free.clone();
        choosy["spec"]["nodeSelector"]["b"] = json!("2");
        assert_eq!(told(&free, &choosy), ["spec"]);
        assert_eq!(told(&free, &gated), ["spec.schedulingGates[0].name", "spec.schedulingGates[1].name"]);
    }

    #[test]
    fn long_lists_are_compared_in_time_by_their_length() {
        let began = std::time::Instant::now();
        let items =
            |from: usize| (from..from + 60_000).map(|n| json!({"key": format!("k{n}")})).collect::<Vec<_>>();
        let pod =
            |from| json!({"metadata": {"finalizers": items(from)}, "spec": {"tolerations": items(from)}});
        assert_eq!(change("pods", &pod(0), &pod(0)), []);
        assert_eq!(change("pods", &pod(0), &pod(1)).len(), 1);
        assert_eq!(new_finalizers(&pod(0), &pod(0)), None);
        // What was quadratic took minutes.
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn a_pods_spec_is_fixed_but_for_little() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}], "tolerations": [{"key": "a", "tolerationSeconds": 3}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("2");
        new["spec"]["tolerations"] = json!([{"key": "a"}, {"key": "b"}]);
        assert_eq!(change("pods", &old, &new), []);
        new["spec"]["tolerations"] = json!([]);
        assert_eq!(change("pods", &old, &new).len(), 1);
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!("n");
        assert_eq!(change("pods", &old, &new).len(), 1);
    }
}
