//! What may not change from an object to the next.

use std::collections::{BTreeSet, HashSet};

use apimachinery::resource;
use serde_json::{Value, json};

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
        resource::PODS => pod_change(old, new, &mut causes),
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

/// A pod's spec is fixed but for its images, its deadline, its grace and more tolerations.
fn pod_change(old: &Value, new: &Value, causes: &mut Vec<FieldError>) {
    let neutral = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in ["containers", "initContainers"] {
            for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                remove(container, "image");
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            remove(&mut spec, field);
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

#[cfg(test)]
mod tests {
    use super::*;

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
