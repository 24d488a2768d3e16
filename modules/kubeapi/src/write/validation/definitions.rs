//! CustomResourceDefinitions: their names, and the groups that they may be of (Kubernetes: `ValidateCustomResourceDefinition`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::metadata::bad_name;
use super::objects::enumerated;
use crate::error::FieldError;
use crate::kind::{self, NameRule};
use crate::read::jsonpath::is_path;
use crate::unstructured::{list, text};

/// What the definitions of Kubernetes' own groups carry: where they were approved, or that they were not.
const APPROVAL: &str = "api-approved.kubernetes.io";

/// Everything that is wrong with a definition, new or in the place of `old`.
pub(super) fn definition(old: Option<&Value>, object: &Value) -> Vec<FieldError> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    group(spec, &mut causes);
    causes.extend(approval(old, object));
    names(spec, &mut causes);
    let (name, plural, group) =
        (text(object, "/metadata/name"), text(spec, "/names/plural"), text(spec, "/group"));
    if name != format!("{plural}.{group}") {
        let what = "must be spec.names.plural+\".\"+spec.group";
        causes.push(FieldError::invalid("metadata.name", &json!(name), what));
    }
    enumerated(spec, "spec", "scope", &["Cluster", "Namespaced"], &mut causes);
    versions(list(spec, "/versions"), &mut causes);
    let changed = |pointer: &str| old.is_some_and(|old| old.pointer(pointer) != object.pointer(pointer));
    for (pointer, field) in [("/spec/scope", "spec.scope"), ("/spec/names/kind", "spec.names.kind")] {
        if changed(pointer) {
            let value = object.pointer(pointer).unwrap_or(&Value::Null);
            causes.push(FieldError::invalid(field, value, "field is immutable"));
        }
    }
    causes
}

fn group(spec: &Value, causes: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.group";
    let group = text(spec, "/group");
    let mut invalid = |what: &str| causes.push(FieldError::invalid(FIELD, &json!(group), what));
    if group.is_empty() {
        causes.push(FieldError::required(FIELD, ""));
    } else if let Some(what) = bad_name(NameRule::Subdomain, group) {
        invalid(what);
    } else if !group.contains('.') {
        invalid("should be a domain with at least one dot");
    } else if kind::is_built_in(group, text(spec, "/names/plural")) {
        causes.push(FieldError::forbidden(FIELD, &format!("{group} is served by this server itself")));
    }
}

/// Whether a definition of Kubernetes' own groups says that it was approved, or that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Approval {
    Missing,
    Invalid,
    Said,
}

impl Approval {
    fn of(definition: &Value) -> Approval {
        let annotations = definition.pointer("/metadata/annotations");
        let said = annotations.and_then(|all| all.get(APPROVAL)).and_then(Value::as_str).unwrap_or_default();
        if said.is_empty() {
            return Approval::Missing;
        }
        let is_url =
            said.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        if is_url || said.starts_with("unapproved") { Approval::Said } else { Approval::Invalid }
    }
}

/// Groups of Kubernetes are its community's. One that was taken without approval may stay as it is.
fn approval(old: Option<&Value>, object: &Value) -> Option<FieldError> {
    let group = text(object, "/spec/group");
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    let found = Approval::of(object);
    if !is_protected || old.is_some_and(|old| Approval::of(old) == found) {
        return None;
    }
    let field = format!("metadata.annotations[{APPROVAL}]");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match found {
        Approval::Said => None,
        Approval::Missing => {
            let what = format!("protected groups must have approval annotation \"{APPROVAL}\", {see}");
            Some(FieldError::required(field, &what))
        }
        Approval::Invalid => {
            let what = format!(
                "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting with \
                 \"unapproved\", {see}"
            );
            Some(FieldError::invalid(field, &object["metadata"]["annotations"][APPROVAL], &what))
        }
    }
}

/// The names are parts of paths and of keys: one with a dot in it would be another's.
fn names(spec: &Value, causes: &mut Vec<FieldError>) {
    let names = &spec["names"];
    let mut look = |field: String, name: &str, is_required: bool| {
        if name.is_empty() {
            if is_required {
                causes.push(FieldError::required(field, ""));
            }
        } else if let Some(what) = bad_name(NameRule::Label1035, name) {
            causes.push(FieldError::invalid(field, &json!(name), what));
        }
    };
    for (field, is_required) in [("plural", true), ("singular", false), ("kind", true), ("listKind", false)] {
        let name = text(names, &format!("/{field}"));
        // Kinds alone have capitals.
        let name = if field.ends_with("ind") { name.to_lowercase() } else { name.to_owned() };
        look(format!("spec.names.{field}"), &name, is_required);
    }
    for field in ["shortNames", "categories"] {
        for (at, name) in list(names, &format!("/{field}")).iter().enumerate() {
            look(format!("spec.names.{field}[{at}]"), name.as_str().unwrap_or_default(), true);
        }
    }
    if !text(names, "/kind").is_empty() && names["kind"] == names["listKind"] {
        let what = "kind and listKind may not be the same";
        causes.push(FieldError::invalid("spec.names.listKind", &names["listKind"], what));
    }
}

fn versions(versions: &[Value], causes: &mut Vec<FieldError>) {
    if versions.iter().filter(|version| version["storage"] == json!(true)).count() != 1 {
        let what = "must have exactly one version marked as storage version";
        causes.push(FieldError::invalid("spec.versions", &json!([]), what));
    }
    let mut known = BTreeSet::new();
    for (at, version) in versions.iter().enumerate() {
        let name = text(version, "/name");
        if let Some(what) = bad_name(NameRule::Label1035, name) {
            causes.push(FieldError::invalid(format!("spec.versions[{at}].name"), &json!(name), what));
        }
        if !known.insert(name) {
            let what = "must contain unique version names";
            causes.push(FieldError::invalid("spec.versions", &json!(name), what));
        }
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes.push(FieldError::required(field, "schemas are required"));
        }
        for (column, definition) in list(version, "/additionalPrinterColumns").iter().enumerate() {
            let field = format!("spec.versions[{at}].additionalPrinterColumns[{column}]");
            printer_column(definition, &field, causes);
        }
    }
}

/// What a column of a table is called, what it holds, and where that is found.
fn printer_column(column: &Value, field: &str, causes: &mut Vec<FieldError>) {
    if text(column, "/name").is_empty() {
        causes.push(FieldError::required(format!("{field}.name"), ""));
    }
    enumerated(column, field, "type", &["boolean", "date", "integer", "number", "string"], causes);
    let path = text(column, "/jsonPath");
    let field = format!("{field}.jsonPath");
    if path.is_empty() {
        causes.push(FieldError::required(field, ""));
    } else if !is_path(path) {
        let what =
            "must be a simple json path starting with .: .a.b, .a['b'], .a[0], .a[*] or .a[?(@.b==\"c\")]";
        causes.push(FieldError::invalid(field, &json!(path), what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition_of(group: &str, plural: &str) -> Value {
        json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": "x", "kind": "X", "listKind": "XList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    fn told(old: Option<&Value>, object: &Value) -> Vec<String> {
        let causes = definition(old, object);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn groups_and_objects_of_the_server_are_not_defined_again() {
        assert_eq!(told(None, &definition_of("x.io", "things")), Vec::<String>::new());
        assert_eq!(
            told(None, &definition_of("apps", "deployments")),
            ["spec.group: Invalid value: \"apps\": should be a domain with at least one dot"]
        );
        for (group, plural) in [
            ("rbac.authorization.k8s.io", "clusterroles"),
            ("coordination.k8s.io", "xs"),
            ("authorization.k8s.io", "subjectaccessreviews"),
            ("k8s.io", "leases.coordination"),
        ] {
            let mut approved = definition_of(group, plural);
            approved["metadata"]["annotations"] = json!({APPROVAL: "unapproved, mine"});
            let told = told(None, &approved);
            let part = format!("spec.group: Forbidden: {group} is served by this server itself");
            assert!(told.contains(&part), "{told:#?}");
        }
        assert!(told(None, &definition_of("a.b", "x.y"))[0].starts_with("spec.names.plural: Invalid value"));
        assert_eq!(told(None, &definition_of("", "x"))[0], "spec.group: Required value");
    }

    #[test]
    fn groups_of_kubernetes_say_who_approved_of_them() {
        let with = |said: Value| {
            let mut object = definition_of("gateway.networking.k8s.io", "gateways");
            object["metadata"]["annotations"] = said;
            object
        };
        let bare = with(json!({}));
        let told_bare = told(None, &bare);
        assert!(told_bare[0].starts_with(
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation"
        ));
        assert_eq!(told_bare.len(), 1, "{told_bare:#?}");
        assert_eq!(told(Some(&bare), &bare), Vec::<String>::new(), "what is there may stay");
        assert!(told(None, &with(json!({APPROVAL: "yes"})))[0].contains("with either a URL or a reason"));
        for said in ["https://github.com/kubernetes/enhancements/pull/1923", "unapproved, experimental"] {
            assert_eq!(told(None, &with(json!({APPROVAL: said}))), Vec::<String>::new(), "{said}");
        }
        assert_eq!(told(None, &definition_of("notk8s.io", "xs")), Vec::<String>::new());
    }

    #[test]
    fn columns_of_tables_are_such_as_can_be_filled() {
        let with = |column: Value| {
            let mut object = definition_of("x.io", "things");
            object["spec"]["versions"][0]["additionalPrinterColumns"] = json!([column]);
            told(None, &object)
        };
        for path in
            [".spec.size", ".a['b']", ".a[0]", ".a[*].c", ".c[?(@.type==\"Ready\")].status", ".x\\.io/y"]
        {
            let column = json!({"name": "C", "type": "string", "jsonPath": path});
            assert_eq!(with(column), Vec::<String>::new(), "{path}");
        }
        for path in [".spec['x", "$..*", ".spec[\"x", "spec", ".a[b]", ".a[?(@.b=1)]"] {
            let told = with(json!({"name": "C", "type": "string", "jsonPath": path}));
            let field = "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value";
            assert!(told.len() == 1 && told[0].starts_with(field), "{path} {told:?}");
        }
        let told = with(json!({"type": "text"}));
        let fields: Vec<&str> = told.iter().map(|told| told.split(':').next().unwrap()).collect();
        let column = "spec.versions[0].additionalPrinterColumns[0]";
        assert_eq!(fields, ["name", "type", "jsonPath"].map(|field| format!("{column}.{field}")));
    }

    #[test]
    fn names_are_labels_and_what_objects_are_stored_by_does_not_change() {
        let old = definition_of("x.io", "things");
        let mut next = old.clone();
        next["spec"]["scope"] = json!("Cluster");
        next["spec"]["names"]["kind"] = json!("Y");
        assert_eq!(
            told(Some(&old), &next),
            [
                "spec.scope: Invalid value: \"Cluster\": field is immutable",
                "spec.names.kind: Invalid value: \"Y\": field is immutable"
            ]
        );
        let mut odd = old.clone();
        odd["spec"]["names"]["shortNames"] = json!(["a/b"]);
        odd["spec"]["names"]["listKind"] = json!("X");
        odd["spec"]["versions"] =
            json!([odd["spec"]["versions"][0], {"name": "v1", "schema": {"openAPIV3Schema": {}}}]);
        let told = told(None, &odd);
        for part in [
            "spec.names.shortNames[0]",
            "spec.names.listKind",
            "spec.versions: Invalid value: \"v1\": must contain unique",
        ] {
            assert!(told.iter().any(|told| told.starts_with(part)), "{part} {told:#?}");
        }
        assert_eq!(told.len(), 3, "{told:#?}");
    }
}
