//! What a Kubernetes API server refuses of its built-in kinds.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::failure::Cause;
use crate::field::{list, text};
use crate::kind::{Kind, NameRule};

/// Everything that is wrong with `object`'s metadata.
pub(crate) fn metadata(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Some(what) = bad_name(kind.name_rule, name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), what));
    }
    for (map, values_too) in [("labels", true), ("annotations", false)] {
        let Some(Value::Object(pairs)) = object.pointer(&format!("/metadata/{map}")) else { continue };
        let mut size = 0;
        for (key, value) in pairs {
            size += key.len() + value.as_str().map_or(0, str::len);
            if let Some(what) = bad_key(key) {
                causes.push(Cause::invalid(format!("metadata.{map}"), &json!(key), what));
            }
            if values_too && let Some(what) = value.as_str().and_then(bad_label_value) {
                causes.push(Cause::invalid(format!("metadata.{map}"), value, what));
            }
        }
        if !values_too && size > 256 << 10 {
            let message = "Too long: may not be more than 262144 bytes".to_owned();
            causes.push(Cause { field: "metadata.annotations".into(), reason: "FieldValueTooLong", message });
        }
    }
    causes
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

pub(crate) fn bad_name(rule: NameRule, name: &str) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain if name.len() > 253 => Some("must be no more than 253 characters"),
        NameRule::Subdomain => (!name.split('.').all(is_label)).then_some(SUBDOMAIN),
        NameRule::Label | NameRule::Label1035 if name.len() > 63 => {
            Some("must be no more than 63 characters")
        }
        NameRule::Label => (!is_label(name)).then_some(LABEL),
        NameRule::Label1035 => {
            let letter = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
            (!is_label(name) || !letter).then_some(LABEL_1035)
        }
        NameRule::Segment if matches!(name, "." | "..") => Some("may not be '.' or '..'"),
        NameRule::Segment => name.contains(['/', '%']).then_some("may not contain '/' or '%'"),
    }
}

fn is_qualified(part: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = part.as_bytes();
    !part.is_empty()
        && part.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn bad_key(key: &str) -> Option<&'static str> {
    let good = match key.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= 253 && prefix.to_ascii_lowercase().split('.').all(is_label) && is_qualified(name)
        }
        None => is_qualified(key),
    };
    (!good).then_some("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')")
}

fn bad_label_value(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!value.is_empty() && !is_qualified(value)).then_some("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")
}

/// Everything that is wrong with a new object of a built-in kind.
pub(crate) fn object(group_resource: &str, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match group_resource {
        "pods" => pod_spec(&object["spec"], "spec", &mut causes),
        "deployments.apps" | "replicasets.apps" => workload(object, &mut causes),
        "services" => service(object, &mut causes),
        "configmaps" => data_keys(object, &["data", "binaryData"], &mut causes),
        "secrets" => secret(object, &mut causes),
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object, &mut causes),
        "nodes" => taints(object, &mut causes),
        _ => {}
    }
    causes
}

fn pod_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if list(spec, "/containers").is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for field in ["initContainers", "containers"] {
        for (at, container) in list(spec, &format!("/{field}")).iter().enumerate() {
            let here = format!("{path}.{field}[{at}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{here}.name"), ""));
            } else if let Some(what) = bad_name(NameRule::Label, name) {
                causes.push(Cause::invalid(format!("{here}.name"), &json!(name), what));
            } else if !names.insert(name) {
                causes.push(Cause::duplicate(format!("{here}.name"), &json!(name)));
            }
            self::container(spec, container, &here, causes);
        }
    }
    let mut volumes = BTreeSet::new();
    for (at, volume) in list(spec, "/volumes").iter().enumerate() {
        let here = format!("{path}.volumes[{at}]");
        let name = text(volume, "/name");
        if name.is_empty() {
            causes.push(Cause::required(format!("{here}.name"), ""));
        } else if !volumes.insert(name) {
            causes.push(Cause::duplicate(format!("{here}.name"), &json!(name)));
        }
        if volume.as_object().is_some_and(|fields| fields.len() > 2) {
            causes.push(Cause::forbidden(here, "may not specify more than 1 volume type"));
        }
    }
    enumerated(spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], causes);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    enumerated(spec, path, "dnsPolicy", &dns, causes);
}

fn container(spec: &Value, container: &Value, here: &str, causes: &mut Vec<Cause>) {
    if text(container, "/image").trim().is_empty() {
        causes.push(Cause::required(format!("{here}.image"), ""));
    }
    enumerated(container, here, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], causes);
    for (at, port) in list(container, "/ports").iter().enumerate() {
        let number = port["containerPort"].as_i64().unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("{here}.ports[{at}].containerPort");
            causes.push(Cause::invalid(field, &json!(number), "must be between 1 and 65535, inclusive"));
        }
    }
    for (at, variable) in list(container, "/env").iter().enumerate() {
        if text(variable, "/name").is_empty() {
            causes.push(Cause::required(format!("{here}.env[{at}].name"), ""));
        }
        if variable.get("valueFrom").is_some() && !text(variable, "/value").is_empty() {
            let field = format!("{here}.env[{at}].valueFrom");
            causes.push(Cause::invalid(field, &json!(""), "may not be specified when `value` is not empty"));
        }
    }
    let volumes: Vec<&str> = list(spec, "/volumes").iter().map(|volume| text(volume, "/name")).collect();
    let mut paths = BTreeSet::new();
    for (at, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let (name, path) = (text(mount, "/name"), text(mount, "/mountPath"));
        if !volumes.contains(&name) {
            let message = format!("Not found: \"{name}\"");
            let field = format!("{here}.volumeMounts[{at}].name");
            causes.push(Cause { field, reason: "FieldValueNotFound", message });
        }
        if path.is_empty() {
            causes.push(Cause::required(format!("{here}.volumeMounts[{at}].mountPath"), ""));
        } else if !paths.insert(path) {
            let field = format!("{here}.volumeMounts[{at}].mountPath");
            causes.push(Cause::invalid(field, &json!(path), "must be unique"));
        }
    }
    for which in ["limits", "requests"] {
        let Some(Value::Object(amounts)) = container.pointer(&format!("/resources/{which}")) else {
            continue;
        };
        for (name, amount) in amounts {
            let shown = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            if !is_quantity(&shown) {
                let what = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                causes.push(Cause::invalid(format!("{here}.resources.{which}[{name}]"), amount, what));
            }
        }
    }
}

/// Whether `text` is a quantity (resource.Quantity).
fn is_quantity(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    let number_fits = !number.is_empty() && number.parse::<f64>().is_ok();
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|e| e.parse::<i32>().is_ok());
    let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
        .contains(&suffix);
    number_fits && (known || exponent)
}

fn enumerated(object: &Value, path: &str, field: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    if let Some(value) = object.get(field)
        && !value.as_str().is_some_and(|value| allowed.contains(&value))
    {
        let mut sorted = allowed.to_vec();
        sorted.sort_unstable();
        causes.push(Cause::unsupported(format!("{path}.{field}"), value, &sorted));
    }
}

fn workload(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if let Some(replicas) = spec["replicas"].as_i64().filter(|replicas| *replicas < 0) {
        causes.push(Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0"));
    }
    let selector = &spec["selector"];
    let empty = selector["matchLabels"].as_object().is_none_or(serde_json::Map::is_empty)
        && list(selector, "/matchExpressions").is_empty();
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else if empty {
        causes.push(Cause::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
    } else if !selects(selector, &spec["template"]) {
        let labels = spec.pointer("/template/metadata/labels").unwrap_or(&Value::Null);
        let what = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, what));
    }
    pod_spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let policy = text(spec, "/template/spec/restartPolicy");
    if !matches!(policy, "" | "Always") {
        causes.push(Cause::unsupported("spec.template.spec.restartPolicy", &json!(policy), &["Always"]));
    }
}

/// Whether a `metav1.LabelSelector` selects an object.
pub(crate) fn selects(selector: &Value, object: &Value) -> bool {
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

fn service(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let headless = text(spec, "/clusterIP") == "None";
    if list(spec, "/ports").is_empty() && !headless && text(spec, "/type") != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (at, port) in list(spec, "/ports").iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("spec.ports[{at}].port");
            causes.push(Cause::invalid(field, &json!(number), "must be between 1 and 65535, inclusive"));
        }
    }
    if text(spec, "/type") == "ExternalName"
        && (!text(spec, "/clusterIP").is_empty() || !list(spec, "/clusterIPs").is_empty())
    {
        causes.push(Cause::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
    }
    enumerated(spec, "spec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], causes);
}

fn data_keys(object: &Value, maps: &[&str], causes: &mut Vec<Cause>) {
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
                causes.push(Cause::invalid(format!("{map}[{key}]"), &json!(key), what));
            }
        }
    }
    if size > 1 << 20 {
        let message = "Too long: may not be more than 1048576 bytes".to_owned();
        causes.push(Cause { field: String::new(), reason: "FieldValueTooLong", message });
    }
}

fn secret(object: &Value, causes: &mut Vec<Cause>) {
    use base64::Engine as _;
    data_keys(object, &["data"], causes);
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if base64::engine::general_purpose::STANDARD.decode(text).is_err() {
            causes.push(Cause::invalid(format!("data[{key}]"), &json!("…"), "illegal base64 data"));
        }
    }
}

fn taints(object: &Value, causes: &mut Vec<Cause>) {
    for (at, taint) in list(object, "/spec/taints").iter().enumerate() {
        let here = format!("spec.taints[{at}]");
        if text(taint, "/key").is_empty() {
            causes.push(Cause::required(format!("{here}.key"), ""));
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        enumerated(taint, &here, "effect", &effects, causes);
    }
}

fn definition(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let (plural, group) = (text(spec, "/names/plural"), text(spec, "/group"));
    for (value, field) in
        [(plural, "spec.names.plural"), (group, "spec.group"), (text(spec, "/names/kind"), "spec.names.kind")]
    {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let name = text(object, "/metadata/name");
    if name != format!("{plural}.{group}") {
        causes.push(Cause::invalid(
            "metadata.name",
            &json!(name),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    enumerated(spec, "spec", "scope", &["Cluster", "Namespaced"], causes);
    let versions = list(spec, "/versions");
    if versions.iter().filter(|version| version["storage"] == json!(true)).count() != 1 {
        let what = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &json!([]), what));
    }
    for (at, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, "schemas are required"));
        }
    }
}

/// Finalizers that `new` has and `old`, which is being deleted, has not.
pub(crate) fn new_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    let known = list(old, "/metadata/finalizers");
    let added = list(new, "/metadata/finalizers").iter().filter(|finalizer| !known.contains(finalizer));
    let added: BTreeSet<String> = added.map(Value::to_string).collect();
    let added = Vec::from_iter(added).join(", ");
    let what = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"
    );
    (!added.is_empty()).then(|| Cause::forbidden("metadata.finalizers", &what))
}

/// What may not change from `old` to `new` of a built-in kind.
pub(crate) fn change(group_resource: &str, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let differs = |pointer: &str| old.pointer(pointer) != new.pointer(pointer);
    match group_resource {
        "pods" => pod_change(old, new, &mut causes),
        "deployments.apps" | "replicasets.apps" if differs("/spec/selector") => {
            causes.push(Cause::invalid("spec.selector", &new["spec"]["selector"], "field is immutable"));
        }
        "configmaps" | "secrets" => {
            let data = ["/data", "/binaryData", "/type"].iter().any(|pointer| differs(pointer));
            let frozen = old["immutable"] == json!(true);
            if frozen && new["immutable"] != json!(true) {
                causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
            if frozen && data {
                causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
            }
            if group_resource == "secrets" && differs("/type") {
                causes.push(Cause::invalid("type", &new["type"], "field is immutable"));
            }
        }
        "services" if differs("/spec/clusterIP") && !text(old, "/spec/clusterIP").is_empty() => {
            // A service that becomes a mere name gives its address back.
            let gives_back = text(new, "/spec/type") == "ExternalName" && new["spec"]["clusterIP"].is_null();
            if !gives_back {
                let what = "field is immutable";
                causes.push(Cause::invalid("spec.clusterIP", &new["spec"]["clusterIP"], what));
            }
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io"
            if differs("/roleRef") =>
        {
            causes.push(Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
        }
        _ => {}
    }
    causes
}

/// A pod's spec is fixed but for its images, its deadline, its grace and more tolerations.
fn pod_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let neutral = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in ["containers", "initContainers"] {
            for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                crate::field::remove(container, "image");
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            crate::field::remove(&mut spec, field);
        }
        spec
    };
    let kept = list(old, "/spec/tolerations").iter().all(|toleration| {
        // Only the time of a toleration may change.
        let same = |other: &Value| {
            let (mut a, mut b) = (toleration.clone(), other.clone());
            crate::field::remove(&mut a, "tolerationSeconds");
            crate::field::remove(&mut b, "tolerationSeconds");
            a == b
        };
        list(new, "/spec/tolerations").iter().any(same)
    });
    if neutral(old) != neutral(new) || !kept {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn pods_are_refused_as_by_a_server() {
        let pod = json!({"spec": {"restartPolicy": "Sometimes", "containers": [
            {"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"name": "a", "image": " ", "resources": {"limits": {"cpu": "1 core"}}}, {"image": "x"}]}});
        let told = told(object("pods", &pod));
        for part in [
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.containers[1].name: Duplicate value: \"a\"",
            "spec.containers[1].image: Required value",
            "spec.containers[2].name: Required value",
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ] {
            assert!(told.iter().any(|t| t == part), "{part}\n{told:#?}");
        }
        assert!(told.iter().any(|t| t.starts_with("spec.containers[1].resources.limits[cpu]: Invalid")));
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

    #[test]
    fn quantities() {
        for good in ["1", "0.5", "100m", "1Gi", "1e3", "2E", "5k"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1 core", "1gb", "1.2.3", "ten"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
