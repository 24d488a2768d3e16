//! Discovery and OpenAPI: what a client asks before it asks for objects.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};

use crate::kind::{Kind, Source, Status};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `/api`
pub(crate) fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

fn group(name: &str, versions: &[String]) -> Value {
    let of = |version: &String| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(of).collect();
    let preferred = versions.first().cloned();
    json!({ "name": name, "versions": versions, "preferredVersion": preferred })
}

fn versions(kinds: &[Kind]) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let ours = [("authentication.k8s.io", "v1"), ("authorization.k8s.io", "v1")];
    let all = kinds.iter().map(|kind| (&*kind.group, &*kind.version)).chain(ours);
    for (group, version) in all.filter(|(group, _)| !group.is_empty()) {
        let versions = groups.entry(group.to_owned()).or_default();
        if !versions.iter().any(|known| known == version) {
            versions.push(version.to_owned());
        }
    }
    for versions in groups.values_mut() {
        // A stable version goes before a beta, a beta before an alpha, the higher before the lower.
        versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
    }
    groups
}

fn rank(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(end);
    let major = major.parse().unwrap_or_default();
    let number = |text: &str| text.parse().unwrap_or_default();
    match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (2, major, number(minor)),
        (_, Some(minor)) => (1, major, number(minor)),
        _ if rest.is_empty() => (3, major, 0),
        _ => (0, 0, 0),
    }
}

/// `/apis`
pub(crate) fn groups(kinds: &[Kind]) -> Value {
    let groups: Vec<Value> = versions(kinds).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`
pub(crate) fn one_group(kinds: &[Kind], name: &str) -> Option<Value> {
    let mut found = group(name, versions(kinds).get(name)?);
    found["kind"] = json!("APIGroup");
    found["apiVersion"] = json!("v1");
    Some(found)
}

/// `/api/v1`, `/apis/<group>/<version>`
pub(crate) fn resources(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    let of_version = kinds.iter().filter(|kind| &*kind.group == group && &*kind.version == version);
    for kind in of_version {
        let resource = |name: String, kind_name: &str, verbs: &[&str]| json!({ "name": name, "singularName": "", "namespaced": kind.namespaced, "kind": kind_name, "verbs": verbs });
        let mut main = resource(kind.plural.to_string(), &kind.kind, &VERBS);
        main["singularName"] = json!(&*kind.singular);
        if !kind.short_names.is_empty() {
            main["shortNames"] = kind.short_names.iter().map(|name| Value::from(&**name)).collect();
        }
        if !kind.categories.is_empty() {
            main["categories"] = kind.categories.iter().map(|name| Value::from(&**name)).collect();
        }
        resources.push(main);
        let sub = |name: &str| format!("{}/{name}", kind.plural);
        if kind.status != Status::None {
            resources.push(resource(sub("status"), &kind.kind, &["get", "patch", "update"]));
        }
        if kind.scale {
            let mut scale = resource(sub("scale"), "Scale", &["get", "patch", "update"]);
            scale["group"] = json!("autoscaling");
            scale["version"] = json!("v1");
            resources.push(scale);
        }
        let more: &[(&str, &str, &str, &str, &[&str])] = match kind.group_resource().as_str() {
            "pods" => &[
                ("binding", "Binding", "", "v1", &["create"]),
                ("eviction", "Eviction", "policy", "v1", &["create"]),
            ],
            "serviceaccounts" => &[("token", "TokenRequest", "authentication.k8s.io", "v1", &["create"])],
            "namespaces" => &[("finalize", "Namespace", "", "v1", &["update"])],
            _ => &[],
        };
        for (name, kind_name, group, version, verbs) in more {
            let mut entry = resource(sub(name), kind_name, verbs);
            if !group.is_empty() {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    for (of, name, kind) in [
        ("authentication.k8s.io", "tokenreviews", "TokenReview"),
        ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
    ] {
        if of == group && version == "v1" {
            resources.push(json!({ "name": name, "singularName": kind.to_ascii_lowercase(),
                "namespaced": false, "kind": kind, "verbs": ["create"] }));
        }
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

fn group_path(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("api/{}", kind.version)
    } else {
        format!("apis/{}", kind.api_version())
    }
}

/// `/openapi/v2`: an old client looks here for a kind that `/openapi/v3` does not know, and only then says that it is not
/// served. There is nothing in it that is not in the other.
pub(crate) fn openapi_v2(accept: Option<&HeaderValue>) -> (&'static str, Bytes) {
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
pub(crate) fn openapi_index(kinds: &[Kind]) -> Value {
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
/// itself. Schemas are there for custom kinds; of built-in kinds clients know more than we would say.
pub(crate) fn openapi(kinds: &[Kind], path: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
    for kind in kinds.iter().filter(|kind| group_path(kind) == path) {
        let gvk = json!({ "group": &*kind.group, "version": &*kind.version, "kind": &*kind.kind });
        let schema_name = schema_name(kind);
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
        let mut schema = match &kind.source {
            Source::Custom(custom) => custom.schema.clone(),
            Source::BuiltIn(_) => json!({ "type": "object" }),
        };
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(schema_name, schema);
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "unversioned" },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

fn schema_name(kind: &Kind) -> String {
    let reversed: Vec<&str> = kind.group.rsplit('.').filter(|part| !part.is_empty()).collect();
    let group = if reversed.is_empty() { "io.k8s.api.core".to_owned() } else { reversed.join(".") };
    format!("{group}.{}.{}", kind.version, kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_discovered_once() {
        let kinds = crate::kind::built_in();
        let core = resources(&kinds, "", "v1").unwrap();
        let names: Vec<&str> =
            core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        for name in
            ["pods", "pods/status", "pods/binding", "nodes", "serviceaccounts/token", "namespaces/finalize"]
        {
            assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name}");
        }
        assert!(resources(&kinds, "apps", "v2").is_none());
        assert!(one_group(&kinds, "apps").is_some() && one_group(&kinds, "nope").is_none());
        assert!(resources(&kinds, "authorization.k8s.io", "v1").is_some());
        let document = openapi(&kinds, "apis/apps/v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["parameters"][2]["name"], "fieldValidation");
    }

    #[test]
    fn stable_versions_go_first() {
        let mut versions = ["v1alpha1", "v2", "v1beta1", "v1", "v1beta2"];
        versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }
}
