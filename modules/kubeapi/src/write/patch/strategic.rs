//! Strategic merge patch: lists of the built-in kinds are merged by their key instead of being replaced.

use std::collections::{BTreeSet, HashMap, HashSet};

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
        let retained: BTreeSet<&str> = retained.iter().filter_map(Value::as_str).collect();
        fields.retain(|name, _| retained.contains(name.as_str()));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (fields.get_mut(list), value) {
                let gone: HashSet<&Value> = gone.iter().collect();
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
    match strategy {
        Merge::By(key) => merge_by_key(items, patch, key, kind, path, name),
        Merge::Set | Merge::Atomic => {
            let mut known: HashSet<Value> = items.iter().cloned().collect();
            items.extend(patch.iter().filter(|change| known.insert((*change).clone())).cloned());
            Ok(())
        }
    }
}

/// Each change finds its item by an index: a list and its patch may have some ten thousand items each.
fn merge_by_key(
    items: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    kind: &str,
    path: &mut Vec<String>,
    name: &str,
) -> Result<(), ApiError> {
    // Those that go leave their places empty until the end, so that the index stays right.
    let mut places: Vec<Option<Value>> = std::mem::take(items).into_iter().map(Some).collect();
    let mut index: HashMap<Value, Vec<usize>> = HashMap::new();
    for (at, item) in places.iter().enumerate() {
        if let Some(of) = item.as_ref().and_then(|item| item.get(key)) {
            index.entry(of.clone()).or_default().push(at);
        }
    }
    for change in patch {
        let Some(wanted) = change.get(key) else {
            let message = format!("map: {change} does not contain declared merge key: {key}");
            return Err(ApiError::bad_request(message));
        };
        if change.get("$patch") == Some(&Value::from("delete")) {
            for at in index.remove(wanted).unwrap_or_default() {
                places[at] = None;
            }
            continue;
        }
        let Value::Object(fields) = change else { continue };
        path.push(name.to_owned());
        let first = index.get(wanted).and_then(|found| found.first()).copied();
        match first.and_then(|at| places.get_mut(at)).and_then(Option::as_mut) {
            Some(item) => merge_fields(item, fields, kind, path)?,
            None => {
                let mut item = Value::Null;
                merge_fields(&mut item, fields, kind, path)?;
                index.entry(wanted.clone()).or_default().push(places.len());
                places.push(Some(item));
            }
        }
        path.pop();
    }
    items.extend(places.into_iter().flatten());
    Ok(())
}

/// Orders what `order` names as it says; the others keep their places behind.
fn reorder(items: &mut [Value], order: &[Value], strategy: &Merge) {
    let key_of = |item: &Value| match strategy {
        Merge::By(key) => item.get(*key).cloned(),
        Merge::Set | Merge::Atomic => Some(item.clone()),
    };
    let mut ranks = HashMap::new();
    for (rank, wanted) in order.iter().enumerate() {
        if let Some(key) = key_of(wanted) {
            ranks.entry(key).or_insert(rank);
        }
    }
    items.sort_by_cached_key(|item| {
        key_of(item).and_then(|key| ranks.get(&key)).copied().unwrap_or(usize::MAX)
    });
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
    fn a_patch_as_large_as_a_body_takes_time_by_its_size_and_no_more() {
        let began = std::time::Instant::now();
        let count = 60_000;
        let names: Vec<String> = (0..count).map(|n| format!("f{n}/x")).collect();
        let reversed: Vec<&String> = names.iter().rev().collect();
        let next = merged(
            "Pod",
            json!({"metadata": {"finalizers": names}}),
            json!({"metadata": {"finalizers": names, "$setElementOrder/finalizers": reversed}}),
        );
        assert_eq!(next["metadata"]["finalizers"], json!(reversed));
        let gone = merged("Pod", next, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": names}}));
        assert_eq!(gone["metadata"]["finalizers"], json!([]));

        let volumes = |at: &dyn Fn(usize) -> Value| (0..count).map(at).collect::<Vec<Value>>();
        let named = |n: usize| json!({"name": format!("v{n}")});
        let last = |n: usize| named(count - 1 - n);
        let dead = |n: usize| json!({"name": format!("v{n}"), "$patch": "delete"});
        let next = merged(
            "Pod",
            json!({"spec": {"volumes": volumes(&named)}}),
            json!({"spec": {"volumes": volumes(&last), "$setElementOrder/volumes": volumes(&last)}}),
        );
        assert_eq!(next["spec"]["volumes"], json!(volumes(&last)));
        let gone = merged("Pod", next, json!({"spec": {"volumes": volumes(&dead)}}));
        assert_eq!(gone["spec"]["volumes"], json!([]));
        let keys: Map<String, Value> = (0..count).map(|n| (format!("k{n}"), json!(1))).collect();
        let kept: Vec<String> = keys.keys().rev().cloned().collect();
        let next = merged("Pod", json!({"spec": keys}), json!({"spec": {"$retainKeys": kept}}));
        assert_eq!(next["spec"].as_object().unwrap().len(), count);
        // What was quadratic took minutes for each.
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let mut object = json!({"spec": {"containers": []}});
        let error =
            merge(&mut object, &json!({"spec": {"containers": [{"image": "x"}]}}), "Pod").unwrap_err();
        assert!(error.message.contains("merge key: name"), "{}", error.message);
    }
}
