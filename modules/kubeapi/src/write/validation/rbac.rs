//! Roles and their bindings (Kubernetes: `pkg/apis/rbac/validation`).

use apimachinery::resource;
use serde_json::{Value, json};

use super::references::bad_subdomain;
use crate::error::FieldError;
use crate::unstructured::{list, text};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Everything that is wrong with a role.
pub(super) fn role(group_resource: &str, object: &Value, causes: &mut Vec<FieldError>) {
    let is_namespaced = group_resource == resource::ROLES;
    for (at, rule) in list(object, "/rules").iter().enumerate() {
        self::rule(rule, is_namespaced, &format!("rules[{at}]"), causes);
    }
    let aggregation = object.get("aggregationRule").filter(|rule| rule.is_object());
    if aggregation.is_some_and(|rule| list(rule, "/clusterRoleSelectors").is_empty()) {
        let what = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.push(FieldError::required("aggregationRule.clusterRoleSelectors", what));
    }
}

fn rule(rule: &Value, is_namespaced: bool, path: &str, causes: &mut Vec<FieldError>) {
    let is_empty = |field: &str| list(rule, field).is_empty();
    let mut required = |field: &str, what: &str| {
        if is_empty(&format!("/{field}")) {
            causes.push(FieldError::required(format!("{path}.{field}"), what));
        }
    };
    required("verbs", "verbs must contain at least one value");
    if is_empty("/nonResourceURLs") {
        required("apiGroups", "resource rules must supply at least one api group");
        required("resources", "resource rules must supply at least one resource");
        return;
    }
    let mut refuse = |what: &str| {
        causes.push(FieldError::invalid(format!("{path}.nonResourceURLs"), &rule["nonResourceURLs"], what));
    };
    if is_namespaced {
        refuse("namespaced rules cannot apply to non-resource URLs");
    }
    if ["/apiGroups", "/resources", "/resourceNames"].iter().any(|field| !is_empty(field)) {
        refuse("rules cannot apply to both regular resources and non-resource URLs");
    }
}

/// Everything that is wrong with a binding. That the name of its role can be one is looked at with other references.
pub(super) fn binding(group_resource: &str, object: &Value, causes: &mut Vec<FieldError>) {
    let is_namespaced = group_resource == resource::ROLE_BINDINGS;
    let role = &object["roleRef"];
    if text(role, "/apiGroup") != GROUP {
        causes.push(FieldError::unsupported("roleRef.apiGroup", &json!(text(role, "/apiGroup")), &[GROUP]));
    }
    let kinds: &[&str] = if is_namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(role, "/kind")) {
        causes.push(FieldError::unsupported("roleRef.kind", &json!(text(role, "/kind")), kinds));
    }
    if text(role, "/name").is_empty() {
        causes.push(FieldError::required("roleRef.name", ""));
    }
    for (at, subject) in list(object, "/subjects").iter().enumerate() {
        self::subject(subject, is_namespaced, &format!("subjects[{at}]"), causes);
    }
}

fn subject(subject: &Value, is_namespaced: bool, path: &str, causes: &mut Vec<FieldError>) {
    let (name, group) = (text(subject, "/name"), text(subject, "/apiGroup"));
    if name.is_empty() {
        causes.push(FieldError::required(format!("{path}.name"), ""));
    }
    let mut group_is = |wanted: &str| {
        if group != wanted {
            causes.push(FieldError::unsupported(format!("{path}.apiGroup"), &json!(group), &[wanted]));
        }
    };
    match text(subject, "/kind") {
        "User" | "Group" => group_is(GROUP),
        "ServiceAccount" => {
            group_is("");
            if let Some(what) = bad_subdomain(name).filter(|_| !name.is_empty()) {
                causes.push(FieldError::invalid(format!("{path}.name"), &json!(name), what));
            }
            if !is_namespaced && text(subject, "/namespace").is_empty() {
                causes.push(FieldError::required(format!("{path}.namespace"), ""));
            }
        }
        other => {
            let kinds = ["Group", "ServiceAccount", "User"];
            causes.push(FieldError::unsupported(format!("{path}.kind"), &json!(other), &kinds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(look: fn(&str, &Value, &mut Vec<FieldError>), kind: &str, object: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        look(kind, object, &mut causes);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn a_binding_is_of_a_role_to_somebody() {
        let fine = json!({"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u", "apiGroup": GROUP}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        for kind in [resource::ROLE_BINDINGS, resource::CLUSTER_ROLE_BINDINGS] {
            assert_eq!(told(binding, kind, &fine), Vec::<String>::new());
        }
        let of = |role: Value| json!({ "roleRef": role });
        let role = of(json!({"apiGroup": GROUP, "kind": "Role", "name": "r"}));
        assert_eq!(told(binding, resource::ROLE_BINDINGS, &role), Vec::<String>::new());
        assert_eq!(
            told(binding, resource::CLUSTER_ROLE_BINDINGS, &role),
            ["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""]
        );
        assert_eq!(
            told(binding, resource::ROLE_BINDINGS, &of(json!({"apiGroup": "x", "kind": "role"}))),
            [
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.kind: Unsupported value: \"role\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Required value"
            ]
        );
        let mut odd = fine.clone();
        odd["subjects"] = json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "A b", "apiGroup": "x"},
            {"kind": "Foo", "name": ""}]);
        assert_eq!(
            told(binding, resource::CLUSTER_ROLE_BINDINGS, &odd)
                .iter()
                .map(|told| told.split(": ").take(2).collect::<Vec<_>>().join(": "))
                .collect::<Vec<_>>(),
            [
                "subjects[0].apiGroup: Unsupported value",
                "subjects[1].apiGroup: Unsupported value",
                "subjects[1].name: Invalid value",
                "subjects[1].namespace: Required value",
                "subjects[2].name: Required value",
                "subjects[2].kind: Unsupported value"
            ]
        );
    }

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        let rules = |rule: Value| json!({ "rules": [rule] });
        let fine = rules(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        let paths = rules(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}));
        for object in [&fine, &paths, &json!({})] {
            assert_eq!(told(role, resource::CLUSTER_ROLES, object), Vec::<String>::new());
        }
        assert_eq!(
            told(role, resource::ROLES, &paths),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"
            ]
        );
        assert_eq!(
            told(role, resource::ROLES, &rules(json!({}))),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource"
            ]
        );
        let both = rules(json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]}));
        assert_eq!(told(role, resource::CLUSTER_ROLES, &both).len(), 1);
        assert_eq!(told(role, resource::CLUSTER_ROLES, &json!({"aggregationRule": {}})).len(), 1);
    }
}
