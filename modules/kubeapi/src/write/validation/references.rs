//! Names in an object that become names of other objects, or parts of a path to them.

use apimachinery::resource;
use serde_json::{Value, json};

use super::metadata::bad_name;
use crate::error::FieldError;
use crate::kind::NameRule;
use crate::unstructured::{list, text};

/// What is wrong with a name that has to be a DNS-1123 subdomain, as those of nodes and service accounts.
pub fn bad_subdomain(name: &str) -> Option<&'static str> {
    bad_name(NameRule::Subdomain, name)
}

/// What is wrong with a name of which nothing is known but that it is one part of a path (Kubernetes'
/// `IsValidPathSegmentName`).
fn bad_segment(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        name if name.contains('/') => Some("may not contain '/'"),
        name if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// All such names of an object that cannot be. What is missing is not looked at here.
pub(super) fn causes(group_resource: &str, object: &Value) -> Vec<FieldError> {
    let mut causes = Vec::new();
    for (at, owner) in list(object, "/metadata/ownerReferences").iter().enumerate() {
        for (field, what) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let here = format!("metadata.ownerReferences[{at}].{field}");
                causes.push(FieldError::invalid(here, &json!(""), what));
            }
        }
    }
    let mut look = |object: &Value, pointer: &str, field: String, bad: fn(&str) -> Option<&'static str>| {
        let name = text(object, pointer);
        if let Some(what) = Some(name).filter(|name| !name.is_empty()).and_then(bad) {
            causes.push(FieldError::invalid(field, &json!(name), what));
        }
    };
    for (at, owner) in list(object, "/metadata/ownerReferences").iter().enumerate() {
        look(owner, "/name", format!("metadata.ownerReferences[{at}].name"), bad_segment);
    }
    let spec = match group_resource {
        resource::PODS => "/spec",
        resource::DEPLOYMENTS | resource::REPLICA_SETS => "/spec/template/spec",
        resource::ROLE_BINDINGS | resource::CLUSTER_ROLE_BINDINGS => {
            look(object, "/roleRef/name", "roleRef.name".to_owned(), bad_segment);
            return causes;
        }
        _ => return causes,
    };
    let path = spec.trim_start_matches('/').replace('/', ".");
    for field in ["nodeName", "serviceAccountName"] {
        look(object, &format!("{spec}/{field}"), format!("{path}.{field}"), bad_subdomain);
    }
    for (at, secret) in list(object, &format!("{spec}/imagePullSecrets")).iter().enumerate() {
        look(secret, "/name", format!("{path}.imagePullSecrets[{at}].name"), bad_segment);
    }
    for (at, volume) in list(object, &format!("{spec}/volumes")).iter().enumerate() {
        for (source, name) in
            [("secret", "secretName"), ("configMap", "name"), ("persistentVolumeClaim", "claimName")]
        {
            let field = format!("{path}.volumes[{at}].{source}.{name}");
            look(volume, &format!("/{source}/{name}"), field, bad_segment);
        }
    }
    causes
}
