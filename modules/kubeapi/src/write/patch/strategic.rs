//! Strategic merge patch: lists of the built-in kinds are merged by their key instead of being replaced.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// How a list is merged.
enum Merge {
    /// Replaced as a whole.
    Atomic,
    /// By the value of this field.
    By(&'static str),
    /// As a set of plain values.
    Set,
}

/// How Kubernetes' types say that the list `field` of `kind` is merged (`patchStrategy` and `patchMergeKey`).
fn strategy(kind: &str, path: &[String], field: &str) -> Merge {
    let parent = path.last().map(String::as_str).unwrap_or_default();
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "schedulingGates"
        | "resourceClaims" => Merge::By("name"),
        "secrets" if kind == "ServiceAccount" => Merge::By("name"),
        // Those of a pod; an account's are replaced.
        "imagePullSecrets" if kind != "ServiceAccount" => Merge::By("name"),
        "volumeMounts" => Merge::By("mountPath"),
        "volumeDevices" => Merge::By("devicePath"),
        "hostAliases" | "podIPs" | "hostIPs" => Merge::By("ip"),
        "topologySpreadConstraints" => Merge::By("topologyKey"),
        "conditions" | "addresses" => Merge::By("type"),
        "ownerReferences" => Merge::By("uid"),
        "ports" if kind == "Service" && parent == "spec" => Merge::By("port"),
        "ports" if matches!(parent, "containers" | "initContainers" | "ephemeralContainers") => {
            Merge::By("containerPort")
        }
        "finalizers" | "podCIDRs" => Merge::Set,
        _ => Merge::Atomic,
    }
}

/// Changes `object` of `kind` by `patch`.
pub(super) fn merge(object: &mut Value, patch: &Value, kind: &str) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("a strategic merge patch is an object"));
    };
    merge_fields(object, patch, kind, &mut Vec::new())
}

fn merge_fields(
    target: &mut Value,
    patch: &Map<String, Value>,
    kind: &str,
    path: &mut Vec<String>,
) -> Result<(), ApiError> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut next = patch.clone();
            next.remove("$patch");
            *target = Value::Object(next);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "unrecognized $patch directive `{}`",
                other.escape_debug()
            )));
        }
    }
    let Value::Object(fields) = target else { return Ok(()) };
    if let Some(Value::Array(retained)) = patch.get("$retainKeys") {
        fields.retain(|name, _| retained.iter().any(|keep| keep == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (fields.get_mut(list), value) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(inner) => {
                if inner.get("$patch").and_then(Value::as_str) == Some("delete") {
                    fields.remove(name);
                    continue;
                }
                path.push(name.clone());
                merge_fields(fields.entry(name.clone()).or_insert(Value::Null), inner, kind, path)?;
                path.pop();
            }
            Value::Array(items) => {
                let here = fields.entry(name.clone()).or_insert(Value::Null);
                merge_list(here, items, kind, path, name)?;
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
    for (name, order) in patch {
        if let (Some(list), Value::Array(order)) = (name.strip_prefix("$setElementOrder/"), order)
            && let Some(Value::Array(items)) = fields.get_mut(list)
        {
            reorder(items, order, &strategy(kind, path, list));
        }
    }
    Ok(())
}

fn merge_list(
    target: &mut Value,
    patch: &[Value],
    kind: &str,
    path: &mut Vec<String>,
    name: &str,
) -> Result<(), ApiError> {
    let replaces = patch.iter().any(|item| item.get("$patch") == Some(&Value::from("replace")));
    let strategy = strategy(kind, path, name);
    if replaces || !target.is_array() || matches!(strategy, Merge::Atomic) {
        // What a directive names is not there to be deleted, and a directive is no item.
        let items = patch.iter().filter(|item| item.get("$patch").is_none());
        let mut items: Vec<Value> = items.cloned().collect();
        items.iter_mut().for_each(drop_directives);
        *target = Value::Array(items);
        return Ok(());
    }
    let Value::Array(items) = target else { return Ok(()) };
    for change in patch {
        let key = match strategy {
            Merge::By(key) => key,
            Merge::Set | Merge::Atomic => {
                if !items.contains(change) {
                    items.push(change.clone());
                }
                continue;
            }
        };
        let Some(wanted) = change.get(key) else {
            let message = format!("map: {change} does not contain declared merge key: {key}");
            return Err(ApiError::bad_request(message));
        };
        if change.get("$patch") == Some(&Value::from("delete")) {
            items.retain(|item| item.get(key) != Some(wanted));
            continue;
        }
        let Value::Object(fields) = change else { continue };
        path.push(name.to_owned());
        match items.iter_mut().find(|item| item.get(key) == Some(wanted)) {
            Some(item) => merge_fields(item, fields, kind, path)?,
            None => {
                let mut item = Value::Null;
                merge_fields(&mut item, fields, kind, path)?;
                items.push(item);
            }
        }
        path.pop();
    }
    Ok(())
}

/// Orders what `order` names as it says; the others keep their places behind.
fn reorder(items: &mut [Value], order: &[Value], strategy: &Merge) {
    let rank = |item: &Value| {
        order
            .iter()
            .position(|wanted| match strategy {
                Merge::By(key) => item.get(*key).is_some() && item.get(*key) == wanted.get(*key),
                Merge::Set | Merge::Atomic => item == wanted,
            })
            .unwrap_or(usize::MAX)
    };
    items.sort_by_key(rank);
}

fn drop_directives(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with('$'));
            fields.values_mut().for_each(drop_directives);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_directives),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(kind: &str, mut object: Value, patch: Value) -> Value {
        merge(&mut object, &patch, kind).unwrap();
        object
    }

    #[test]
    fn lists_merge_by_their_key() {
        let object = json!({"spec": {"containers": [
            {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}], "args": ["x"]},
            {"name": "b", "image": "1"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [
                {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}], "args": ["y"],
                 "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": "c", "image": "3"}]}});
        let next = merged("Pod", object, patch);
        assert_eq!(
            next["spec"]["containers"],
            json!([
                {"name": "b", "image": "1"},
                {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                 "ports": [{"containerPort": 80, "name": "http"}], "args": ["y"]},
                {"name": "c", "image": "3"}])
        );
    }

    #[test]
    fn directives_delete_replace_and_retain() {
        let object = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}},
            "spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
                     "tolerations": [{"key": "t"}]}});
        let next = merged(
            "Pod",
            object,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "labels": {"x": null}},
                "spec": {"volumes": [{"name": "w", "$patch": "delete"}, {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}],
                         "tolerations": [{"key": "u"}]}}),
        );
        assert_eq!(next["metadata"], json!({"finalizers": ["b", "c"], "labels": {"y": "2"}}));
        assert_eq!(next["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]));
        assert_eq!(next["spec"]["tolerations"], json!([{"key": "u"}]));
        let replaced = merged(
            "Pod",
            json!({"spec": {"volumes": [{"name": "v"}]}}),
            json!({"spec": {"volumes": [{"$patch": "replace"}, {"name": "z"}]}}),
        );
        assert_eq!(replaced["spec"]["volumes"], json!([{"name": "z"}]));
    }

    #[test]
    fn some_lists_depend_on_the_kind() {
        let merge = |kind: &str, path: &str| {
            let list = |name: &str| match path {
                "" => json!({"imagePullSecrets": [{"name": name}]}),
                field => json!({"spec": {field: [{"name": name}]}}),
            };
            let next = merged(kind, list("a"), list("b"));
            next.pointer("/imagePullSecrets").unwrap_or(&next["spec"][path]).as_array().unwrap().len()
        };
        assert_eq!(merge("Pod", "schedulingGates"), 2);
        assert_eq!(merge("Pod", "imagePullSecrets"), 2);
        assert_eq!(merge("ServiceAccount", ""), 1);
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let mut object = json!({"spec": {"containers": []}});
        let error =
            merge(&mut object, &json!({"spec": {"containers": [{"image": "x"}]}}), "Pod").unwrap_err();
        assert!(error.message.contains("merge key: name"), "{}", error.message);
    }
}
