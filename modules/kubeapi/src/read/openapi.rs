//! OpenAPI: what a client asks before it patches or explains.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};

use crate::kind::{ServedKind, Source};

fn group_path(kind: &ServedKind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}", kind.api_version())
    }
}

/// `/openapi/v2`: an old client looks here for a kind that `/openapi/v3` does not know, and only then says that it is not
/// served. There is nothing in it that is not in the other.
pub(super) fn v2(accept: Option<&HeaderValue>) -> (&'static str, Bytes) {
    // Asked for with an `@` before the version, which an answer may not have.
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("proto-openapi") {
        // swagger: "2.0", info: {title: "Kubernetes", version: "1"}, paths: {}
        return (PROTOBUF, Bytes::from_static(b"\x0a\x032.0\x12\x0f\x0a\x0aKubernetes\x12\x011\x42\x00"));
    }
    let document = json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "1" },
        "paths": {}, "definitions": {} });
    ("application/json", Bytes::from(document.to_string()))
}

/// `/openapi/v3`: which documents there are.
pub(super) fn v3_index(kinds: &[ServedKind]) -> Value {
    let paths: BTreeSet<String> = kinds.iter().map(group_path).collect();
    let paths: serde_json::Map<String, Value> = paths
        .into_iter()
        .map(|path| {
            let url = format!("/openapi/v3/{path}");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// `/openapi/v3/<path>`: the paths and their parameters, from which a client learns that the server checks fields
/// itself. Of built-in kinds there are fields and types alone, for `kubectl explain`. How their lists are merged is not said, and
/// no media type of a patch: clients know that themselves, and would believe us instead.
pub(super) fn v3(kinds: &[ServedKind], path: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
    for kind in kinds.iter().filter(|kind| group_path(kind) == path) {
        let gvk = json!({ "group": &*kind.group, "version": &*kind.version, "kind": &*kind.kind });
        let schema_name = add_schema(kind, &mut schemas);
        if let Some(schema) = schemas.get_mut(&schema_name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        }
        let reference = json!({ "$ref": format!("#/components/schemas/{schema_name}") });
        let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
        let operation = |action: &str| {
            json!({
                "operationId": format!("{action}{}", kind.kind),
                "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
                "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": reference } } } },
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": gvk,
            })
        };
        let within = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{path}{within}/{}", kind.plural);
        paths.insert(format!("{collection}/{{name}}"), json!({
            "get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete"),
        }));
        paths.insert(collection, json!({ "get": operation("list"), "post": operation("post") }));
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "unversioned" },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

/// Puts the schema of a kind into `schemas`, and answers its name there.
fn add_schema(kind: &ServedKind, schemas: &mut serde_json::Map<String, Value>) -> String {
    #[cfg(feature = "write")]
    if matches!(kind.source, Source::BuiltIn)
        && let Some(name) = super::openapi_schema::add(kind, schemas)
    {
        return name;
    }
    let schema = match &kind.source {
        Source::Custom(custom) => custom.schema.clone(),
        Source::BuiltIn => json!({ "type": "object" }),
    };
    let name = schema_name(kind);
    schemas.insert(name.clone(), schema);
    name
}

fn schema_name(kind: &ServedKind) -> String {
    let reversed: Vec<&str> = kind.group.rsplit('.').filter(|part| !part.is_empty()).collect();
    let group = if reversed.is_empty() { "io.k8s.api.core".to_owned() } else { reversed.join(".") };
    format!("{group}.{}.{}", kind.version, kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_the_parameter_field_validation() {
        let document = v3(&crate::kind::built_in(), "apis/apps/v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["parameters"][2]["name"], "fieldValidation");
    }
}
