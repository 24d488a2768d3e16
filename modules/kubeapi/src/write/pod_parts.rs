//! What of a pod is changed by subresources of its own: the resources of its containers (`resize`) and its ephemeral containers.
//! The rules are `pkg/apis/core/validation`'s.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::static_pod::mirror_of;
use serde_json::{Map, Value, json};

use super::defaults::qos_class;
use super::pod_resources;
use crate::error::FieldError;
use crate::unstructured::{entry, list, put, text};

/// The lists of containers that can be resized.
const LISTS: [&str; 2] = ["containers", "initContainers"];
/// The resources that can be.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
/// What an ephemeral container may not have.
const FORBIDDEN: [&str; 6] =
    ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"];

/// Containers by their names, of which the first counts: there may be ten thousand, and each is looked for.
fn by_name(containers: &[Value]) -> BTreeMap<&str, &Value> {
    containers.iter().rev().map(|container| (text(container, "/name"), container)).collect()
}

/// Takes the resources of `asked`'s containers, and when a change restarts them, over into `pod`.
pub(super) fn take_resources(asked: &Value, pod: &mut Value) {
    put(entry(pod, "spec"), "resources", asked.pointer("/spec/resources").cloned());
    for name in LISTS {
        let Some(containers) = pod["spec"].get_mut(name).and_then(Value::as_array_mut) else { continue };
        let asked = by_name(list(asked, &format!("/spec/{name}")));
        for container in containers {
            let Some(of) = asked.get(text(container, "/name")) else { continue };
            for field in ["resources", "resizePolicy"] {
                put(container, field, of.get(field).cloned());
            }
        }
    }
}

/// Why the containers may not be given these resources.
pub(super) fn resize_causes(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut causes = Vec::new();
    if mirror_of(old).is_some() {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    if matches!(text(old, "/status/phase"), "Succeeded" | "Failed") {
        return vec![FieldError::forbidden("", "pods that are terminal cannot be resized")];
    }
    if qos_class(old) != qos_class(new) {
        let what = "Pod QOS Class may not change as a result of resizing";
        causes.push(FieldError::invalid("spec", &json!(qos_class(new)), what));
    }
    causes.extend(pod_resources::resize_cause(old, new));
    for name in LISTS {
        let (before, after) = (list(old, &format!("/spec/{name}")), list(new, &format!("/spec/{name}")));
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            for part in ["requests", "limits"] {
                let field = format!("spec.{name}[{at}].resources.{part}");
                part_causes(&field, &before["resources"][part], &after["resources"][part], &mut causes);
            }
        }
    }
    causes
}

fn part_causes(field: &str, before: &Value, after: &Value, causes: &mut Vec<FieldError>) {
    let empty = Map::new();
    let of = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let (before, after) = (of(before), of(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let is_resizable = RESIZABLE.contains(&name.as_str());
        if before.contains_key(name) && !after.contains_key(name) {
            causes.push(FieldError::forbidden(field, &format!("resource {name} cannot be removed")));
        } else if !is_resizable && before.get(name) != after.get(name) {
            causes.push(FieldError::forbidden(field, "only cpu and memory resources are mutable"));
        }
    }
}

/// Why a pod may not have these ephemeral containers.
pub(super) fn ephemeral_causes(old: &Value, new: &Value) -> Vec<FieldError> {
    const FIELD: &str = "spec.ephemeralContainers";
    if mirror_of(old).is_some() {
        return vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
    }
    let (before, after) = (list(old, "/spec/ephemeralContainers"), list(new, "/spec/ephemeralContainers"));
    let (mut causes, now) = (Vec::new(), by_name(after));
    for known in before {
        let name = text(known, "/name");
        match now.get(name).copied() {
            None => {
                let what = format!("existing ephemeral containers \"{name}\" may not be removed\n");
                causes.push(FieldError::forbidden(FIELD, &what));
            }
            Some(own) if own != known => {
                let what = format!("existing ephemeral containers \"{name}\" may not be changed\n");
                causes.push(FieldError::forbidden(FIELD, &what));
            }
            Some(_) => {}
        }
    }
    let mut names: BTreeSet<&str> = LISTS
        .iter()
        .flat_map(|name| list(new, &format!("/spec/{name}")))
        .map(|container| text(container, "/name"))
        .collect();
    let others = names.clone();
    for (at, own) in after.iter().enumerate() {
        let field = |part: &str| format!("{FIELD}[{at}].{part}");
        let (name, target) = (text(own, "/name"), text(own, "/targetContainerName"));
        if name.is_empty() {
            causes.push(FieldError::required(field("name"), ""));
        } else if !names.insert(name) {
            causes.push(FieldError::duplicate(field("name"), &own["name"]));
        }
        if text(own, "/image").is_empty() {
            causes.push(FieldError::required(field("image"), ""));
        }
        if !target.is_empty() && !others.contains(target) {
            causes.push(FieldError::invalid(
                field("targetContainerName"),
                &own["targetContainerName"],
                "Not found",
            ));
        }
        let has = |part: &&&str| own.get(**part).is_some_and(|value| !value.is_null());
        for part in FORBIDDEN.iter().filter(has) {
            causes.push(FieldError::forbidden(field(part), "cannot be set for an Ephemeral Container"));
        }
        let resources = own.get("resources").and_then(Value::as_object);
        if resources.is_some_and(|own| !own.is_empty()) {
            causes
                .push(FieldError::forbidden(field("resources"), "cannot be set for an Ephemeral Container"));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> Value {
        json!({"metadata": {}, "spec": {"nodeName": "n", "containers": [
            {"name": "a", "image": "x", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}},
            {"name": "b", "image": "x"}]}})
    }

    #[test]
    fn of_what_is_asked_for_the_resources_alone_are_taken() {
        let mut asked = pod("2");
        asked["spec"]["nodeName"] = json!("other");
        asked["spec"]["containers"][0]["image"] = json!("y");
        asked["spec"]["containers"].as_array_mut().unwrap().swap(0, 1);
        let mut taken = pod("1");
        take_resources(&asked, &mut taken);
        assert_eq!(taken, pod("2"));
    }

    #[test]
    fn resources_may_change_but_not_go_and_the_class_stays() {
        assert!(resize_causes(&pod("1"), &pod("2")).is_empty());
        let without = |pointer: &str| {
            let mut pod = pod("2");
            let (at, field) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(field);
            resize_causes(&self::pod("1"), &pod)
        };
        assert_eq!(without("/spec/containers/0/resources/requests/cpu").len(), 1);
        assert_eq!(without("/spec/containers/0/resources").len(), 3, "both, and the class");
        let mut gpu = pod("1");
        gpu["spec"]["containers"][0]["resources"]["limits"] = json!({"nvidia.com/gpu": 1});
        assert_eq!(resize_causes(&pod("1"), &gpu).len(), 1);
        let mut mirror = pod("1");
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0a"});
        assert_eq!(resize_causes(&mirror, &pod("2")).len(), 1);
    }

    #[test]
    fn ephemeral_containers_come_and_never_change_or_go() {
        let with = |all: Value| {
            let mut pod = pod("1");
            pod["spec"]["ephemeralContainers"] = all;
            pod
        };
        let debugger = json!({"name": "d", "image": "x", "targetContainerName": "a"});
        let one = with(json!([debugger]));
        assert!(ephemeral_causes(&pod("1"), &one).is_empty());
        let count = |all: Value| ephemeral_causes(&one, &with(all)).len();
        assert_eq!(count(json!([debugger, {"name": "e", "image": "x"}])), 0);
        assert_eq!(count(json!([])), 1);
        assert_eq!(count(json!([{"name": "d", "image": "y", "targetContainerName": "a"}])), 1);
        for bad in [
            json!({"name": "a", "image": "x"}),
            json!({"name": "e"}),
            json!({"image": "x"}),
            json!({"name": "e", "image": "x", "targetContainerName": "z"}),
            json!({"name": "e", "image": "x", "ports": []}),
            json!({"name": "e", "image": "x", "resources": {"limits": {"cpu": "1"}}}),
        ] {
            assert_eq!(count(json!([debugger, bad])), 1, "{bad}");
        }
    }
}
