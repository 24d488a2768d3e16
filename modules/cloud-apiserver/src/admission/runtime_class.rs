//! The RuntimeClass plugin: what the class of a pod takes for itself, and where its pods can run.

use apimachinery::{ObjectKey, kind, resource};
use kubeapi::unstructured::{entry, list, name, text};
use kubeapi::{ApiError, ReadStore};
use serde_json::{Map, Value, json};

/// # Errors
/// 403 without such a class, or when the pod says something else than it.
pub(super) async fn mutate(store: &impl ReadStore, pod: &mut Value) -> Result<(), ApiError> {
    let class = text(pod, "/spec/runtimeClassName").to_owned();
    let refused = |what: String, pod: &Value| {
        Err(ApiError::forbidden_by_admission(&kind::PODS, name(pod), &format!("pod rejected: {what}")))
    };
    let class: Value = if class.is_empty() {
        Value::Null
    } else {
        match store.get(&ObjectKey::new(resource::RUNTIME_CLASSES, "", &*class)).await? {
            Some(item) => serde_json::from_slice(&item.json).unwrap_or_default(),
            None => return refused(format!("RuntimeClass {class:?} not found"), pod),
        }
    };
    match apply(&class, pod) {
        Ok(()) => Ok(()),
        Err(what) => refused(what, pod),
    }
}

/// Takes over what the class says; `class` is null for a pod without one.
fn apply(class: &Value, pod: &mut Value) -> Result<(), String> {
    let fixed = class.pointer("/overhead/podFixed").cloned().unwrap_or_default();
    let spec = entry(pod, "spec");
    match (spec.get("overhead").filter(|own| !own.is_null()), fixed.is_null()) {
        (Some(_), true) => {
            return Err("Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
        }
        (Some(own), false) if *own != fixed => {
            return Err("Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
        (None, false) => spec["overhead"] = fixed,
        (Some(_), false) | (None, true) => {}
    }
    if let Some(Value::Object(wanted)) = class.pointer("/scheduling/nodeSelector") {
        let own = entry(spec, "nodeSelector");
        if !own.is_object() {
            *own = Value::Object(Map::new());
        }
        for (key, value) in wanted {
            match own.get(key) {
                Some(other) if other != value => {
                    return Err(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                        shown(value),
                        shown(other)
                    ));
                }
                Some(_) | None => own[key] = value.clone(),
            }
        }
    }
    let more: Vec<Value> = list(class, "/scheduling/tolerations").to_vec();
    if !more.is_empty() {
        let mut all = list(spec, "/tolerations").to_vec();
        let new: Vec<Value> = more.into_iter().filter(|one| !all.contains(one)).collect();
        all.extend(new);
        spec["tolerations"] = json!(all);
    }
    Ok(())
}

fn shown(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> Value {
        json!({"handler": "kata", "overhead": {"podFixed": {"cpu": "250m", "memory": "120Mi"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}})
    }

    #[test]
    fn a_pod_takes_over_what_its_class_says() {
        let mut pod = json!({"spec": {"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "own"}]}});
        for _ in 0..2 {
            apply(&class(), &mut pod).unwrap();
        }
        assert_eq!(pod["spec"]["overhead"], json!({"cpu": "250m", "memory": "120Mi"}));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"zone": "a", "kata": "yes"}));
        let tolerations = json!([{"key": "own"}, {"key": "kata", "operator": "Exists"}]);
        assert_eq!(pod["spec"]["tolerations"], tolerations);
        let mut plain = json!({"spec": {}});
        apply(&Value::Null, &mut plain).unwrap();
        assert_eq!(plain, json!({"spec": {}}));
    }

    #[test]
    fn a_pod_that_says_something_else_is_refused_in_kubernetes_words() {
        for (class, spec, words) in [
            (Value::Null, json!({"overhead": {"cpu": "1"}}), "Pod Overhead set without corresponding"),
            (class(), json!({"overhead": {"cpu": "1"}}), "Pod's Overhead doesn't match"),
            (
                class(),
                json!({"nodeSelector": {"kata": "no"}}),
                "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes",
            ),
        ] {
            let error = apply(&class, &mut json!({ "spec": spec })).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
