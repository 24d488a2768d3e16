//! New objects of the built-in kinds.

use std::collections::BTreeSet;

use apimachinery::resource;
use serde_json::{Value, json};

use super::super::pod_resources;
use super::metadata::{bad_key, bad_name};
use super::{rbac, security_context};
use crate::error::FieldError;
use crate::kind::NameRule;
use crate::unstructured::{list, text};

/// Everything that is wrong with a new object of a built-in kind.
pub(super) fn object(group_resource: &str, object: &Value) -> Vec<FieldError> {
    let mut causes = Vec::new();
    match group_resource {
        resource::PODS => {
            pod_spec(&object["spec"], "spec", &mut causes);
            let is_gated = !list(object, "/spec/schedulingGates").is_empty();
            if is_gated && !text(object, "/spec/nodeName").is_empty() {
                let what = "cannot be set until all schedulingGates have been cleared";
                causes.push(FieldError::forbidden("spec.nodeName", what));
            }
        }
        resource::DEPLOYMENTS | resource::REPLICA_SETS => workload(object, &mut causes),
        resource::CONFIG_MAPS => data_keys(object, &["data", "binaryData"], &mut causes),
        resource::SECRETS => secret(object, &mut causes),
        resource::NODES => taints(object, &mut causes),
        resource::ROLES | resource::CLUSTER_ROLES => rbac::role(group_resource, object, &mut causes),
        resource::ROLE_BINDINGS | resource::CLUSTER_ROLE_BINDINGS => {
            rbac::binding(group_resource, object, &mut causes);
        }
        _ => {}
    }
    causes
}

fn pod_spec(spec: &Value, path: &str, causes: &mut Vec<FieldError>) {
    if list(spec, "/containers").is_empty() {
        causes.push(FieldError::required(format!("{path}.containers"), ""));
    }
    // Once, and not for each container: there may be thousands of both.
    let declared: BTreeSet<&str> =
        list(spec, "/volumes").iter().map(|volume| text(volume, "/name")).collect();
    let mut names = BTreeSet::new();
    for field in ["initContainers", "containers"] {
        for (at, container) in list(spec, &format!("/{field}")).iter().enumerate() {
            let here = format!("{path}.{field}[{at}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(FieldError::required(format!("{here}.name"), ""));
            } else if let Some(what) = bad_name(NameRule::Label, name) {
                causes.push(FieldError::invalid(format!("{here}.name"), &json!(name), what));
            } else if !names.insert(name) {
                causes.push(FieldError::duplicate(format!("{here}.name"), &json!(name)));
            }
            self::container(&declared, container, &here, causes);
        }
    }
    let mut volumes = BTreeSet::new();
    for (at, volume) in list(spec, "/volumes").iter().enumerate() {
        let here = format!("{path}.volumes[{at}]");
        let name = text(volume, "/name");
        if name.is_empty() {
            causes.push(FieldError::required(format!("{here}.name"), ""));
        } else if !volumes.insert(name) {
            causes.push(FieldError::duplicate(format!("{here}.name"), &json!(name)));
        }
        if volume.as_object().is_some_and(|fields| fields.len() > 2) {
            causes.push(FieldError::forbidden(here, "may not specify more than 1 volume type"));
        }
    }
    pod_resources::causes(spec, path, causes);
    enumerated(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], causes);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    enumerated(spec, path, "dnsPolicy", &dns, causes);
    scheduling_gates(list(spec, "/schedulingGates"), path, causes);
    security_context::ids(spec, path, causes);
}

fn scheduling_gates(gates: &[Value], path: &str, causes: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (at, gate) in gates.iter().enumerate() {
        let (here, name) = (format!("{path}.schedulingGates[{at}]"), text(gate, "/name"));
        if let Some(what) = bad_key(name) {
            causes.push(FieldError::invalid(here, &json!(name), what));
        } else if !names.insert(name) {
            causes.push(FieldError::duplicate(here, &json!(name)));
        }
    }
}

fn container(volumes: &BTreeSet<&str>, container: &Value, here: &str, causes: &mut Vec<FieldError>) {
    if text(container, "/image").trim().is_empty() {
        causes.push(FieldError::required(format!("{here}.image"), ""));
    }
    enumerated(container, here, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], causes);
    for (at, port) in list(container, "/ports").iter().enumerate() {
        let number = port["containerPort"].as_i64().unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("{here}.ports[{at}].containerPort");
            causes.push(FieldError::invalid(field, &json!(number), "must be between 1 and 65535, inclusive"));
        }
    }
    for (at, variable) in list(container, "/env").iter().enumerate() {
        if text(variable, "/name").is_empty() {
            causes.push(FieldError::required(format!("{here}.env[{at}].name"), ""));
        }
        if variable.get("valueFrom").is_some() && !text(variable, "/value").is_empty() {
            let field = format!("{here}.env[{at}].valueFrom");
            causes.push(FieldError::invalid(
                field,
                &json!(""),
                "may not be specified when `value` is not empty",
            ));
        }
    }
    let mut paths = BTreeSet::new();
    for (at, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let (name, path) = (text(mount, "/name"), text(mount, "/mountPath"));
        if !volumes.contains(name) {
            let message = format!("Not found: \"{name}\"");
            let field = format!("{here}.volumeMounts[{at}].name");
            causes.push(FieldError { field, reason: "FieldValueNotFound", message });
        }
        if path.is_empty() {
            causes.push(FieldError::required(format!("{here}.volumeMounts[{at}].mountPath"), ""));
        } else if !paths.insert(path) {
            let field = format!("{here}.volumeMounts[{at}].mountPath");
            causes.push(FieldError::invalid(field, &json!(path), "must be unique"));
        }
    }
    pod_resources::amounts_causes(&container["resources"], &format!("{here}.resources"), causes);
}

pub(super) fn enumerated(
    object: &Value,
    path: &str,
    field: &str,
    allowed: &[&str],
    causes: &mut Vec<FieldError>,
) {
    if let Some(value) = object.get(field)
        && !value.as_str().is_some_and(|value| allowed.contains(&value))
    {
        let mut sorted = allowed.to_vec();
        sorted.sort_unstable();
        let here = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        causes.push(FieldError::unsupported(here, value, &sorted));
    }
}

fn workload(object: &Value, causes: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    if let Some(replicas) = spec["replicas"].as_i64().filter(|replicas| *replicas < 0) {
        causes.push(FieldError::invalid(
            "spec.replicas",
            &json!(replicas),
            "must be greater than or equal to 0",
        ));
    }
    let selector = &spec["selector"];
    let empty = selector["matchLabels"].as_object().is_none_or(serde_json::Map::is_empty)
        && list(selector, "/matchExpressions").is_empty();
    if selector.is_null() {
        causes.push(FieldError::required("spec.selector", ""));
    } else if empty {
        causes.push(FieldError::invalid(
            "spec.selector",
            selector,
            "empty selector is invalid for deployment",
        ));
    } else if !selects(selector, &spec["template"]) {
        let labels = spec.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
        let what = "`selector` does not match template `labels`";
        causes.push(FieldError::invalid("spec.template.metadata.labels", labels, what));
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let policy = text(spec, "/template/spec/restartPolicy");
    if !matches!(policy, "" | "Always") {
        causes.push(FieldError::unsupported("spec.template.spec.restartPolicy", &json!(policy), &["Always"]));
    }
}

/// Whether a `metav1.LabelSelector` selects an object.
fn selects(selector: &Value, object: &Value) -> bool {
    let label =
        |key: &str| object.pointer("/metadata/labels").and_then(|l| l.get(key)).and_then(Value::as_str);
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    equal.into_iter().all(|(key, value)| label(key) == value.as_str())
        && list(selector, "/matchExpressions").iter().all(|expression| {
            let found = label(text(expression, "/key"));
            let among = list(expression, "/values").iter().any(|value| value.as_str() == found);
            match text(expression, "/operator") {
                "In" => found.is_some() && among,
                "NotIn" => found.is_none() || !among,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

fn data_keys(object: &Value, maps: &[&str], causes: &mut Vec<FieldError>) {
    let mut size = 0;
    for map in maps {
        for (key, value) in object[*map].as_object().into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            let good = !key.is_empty()
                && key.len() <= 253
                && !matches!(key.as_str(), "." | "..")
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if !good {
                let what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(FieldError::invalid(format!("{map}[{key}]"), &json!(key), what));
            }
        }
    }
    if size > 1 << 20 {
        let message = "Too long: may not be more than 1048576 bytes".to_owned();
        causes.push(FieldError { field: String::new(), reason: "FieldValueTooLong", message });
    }
}

fn secret(object: &Value, causes: &mut Vec<FieldError>) {
    use base64::Engine as _;
    data_keys(object, &["data"], causes);
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if base64::engine::general_purpose::STANDARD.decode(text).is_err() {
            causes.push(FieldError::invalid(format!("data[{key}]"), &json!("…"), "illegal base64 data"));
        }
    }
}

fn taints(object: &Value, causes: &mut Vec<FieldError>) {
    for (at, taint) in list(object, "/spec/taints").iter().enumerate() {
        let here = format!("spec.taints[{at}]");
        if text(taint, "/key").is_empty() {
            causes.push(FieldError::required(format!("{here}.key"), ""));
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        enumerated(taint, &here, "effect", &effects, causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(causes: Vec<FieldError>) -> Vec<String> {
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn pods_are_refused_as_by_a_server() {
        let pod = json!({"spec": {"restartPolicy": "Sometimes", "containers": [
            {"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"name": "a", "image": " ", "resources": {"limits": {"cpu": "1 core"}}}, {"image": "x"}]}});
        let messages = messages(object("pods", &pod));
        for part in [
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.containers[1].name: Duplicate value: \"a\"",
            "spec.containers[1].image: Required value",
            "spec.containers[2].name: Required value",
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ] {
            assert!(messages.iter().any(|t| t == part), "{part}\n{messages:#?}");
        }
        assert!(messages.iter().any(|t| t.starts_with("spec.containers[1].resources.limits[cpu]: Invalid")));
    }

    #[test]
    fn a_pod_with_gates_has_no_node_yet() {
        let pod = |gates: Value| {
            json!({"spec": {"nodeName": "n", "schedulingGates": gates,
            "containers": [{"name": "a", "image": "x"}]}})
        };
        assert_eq!(messages(object("pods", &pod(json!([])))), Vec::<String>::new());
        let told =
            messages(object("pods", &pod(json!([{"name": "x.io/a"}, {"name": "x.io/a"}, {"name": "-"}]))));
        for part in [
            "spec.schedulingGates[1]: Duplicate value: \"x.io/a\"",
            "spec.schedulingGates[2]: Invalid value: \"-\"",
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ] {
            assert!(told.iter().any(|told| told.starts_with(part)), "{part}\n{told:#?}");
        }
    }

    #[test]
    fn selectors_match_templates() {
        let template = json!({"metadata": {"labels": {"app": "web"}}});
        assert!(selects(&json!({"matchLabels": {"app": "web"}}), &template));
        assert!(!selects(&json!({"matchLabels": {"app": "db"}}), &template));
        let expression = |operator: &str| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": ["web"]}]});
        assert!(selects(&expression("In"), &template) && !selects(&expression("NotIn"), &template));
        assert!(
            selects(&expression("Exists"), &template) && !selects(&expression("DoesNotExist"), &template)
        );
    }
}
