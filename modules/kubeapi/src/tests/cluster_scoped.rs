//! What a register of cluster-scoped objects needs: metadata alone, pages, selectors, one writer at a time.

use super::*;

const ITEMS: &str = "/apis/k.io/v1alpha1/edgenodes";
const METADATA: &[(&str, &str)] =
    &[("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json")];

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "owner": {"type": "string"}, "notAfter": {"type": "string"}}}}});
    let columns = json!([
        {"name": "Certificate", "type": "string", "jsonPath": ".metadata.annotations.k\\.io/certificate"},
        {"name": "Revoked", "type": "string", "jsonPath": ".metadata.labels['k\\.io/revoked']"},
        {"name": "Owner", "type": "string", "jsonPath": ".spec.owner"},
        {"name": "Uid", "type": "string", "jsonPath": ".spec.nodeUID", "priority": 1},
    ]);
    json!({"metadata": {"name": "edgenodes.k.io"}, "spec": {
        "group": "k.io", "scope": "Cluster",
        "names": {"plural": "edgenodes", "kind": "EdgeNode", "shortNames": ["en"]},
        "versions": [{"name": "v1alpha1", "served": true, "storage": true,
            "additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": schema}}]}})
}

fn item(name: &str) -> Value {
    json!({"metadata": {"name": name, "annotations": {"k.io/certificate": format!("c-{name}")}},
        "spec": {"owner": "made"}})
}

async fn register(names: &[&str]) -> TestServer {
    let server = server().await;
    server.ok(Method::POST, DEFINITIONS, definition()).await;
    for name in names {
        server.ok(Method::POST, ITEMS, item(name)).await;
    }
    server
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::test]
async fn columns_and_short_names_are_served() {
    let server = register(&["n1"]).await;
    let mut barred = item("n1");
    barred["metadata"]["labels"] = json!({"k.io/revoked": "true"});
    server.patch(&format!("{ITEMS}/n1"), "merge", barred).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let (_, table, _) = server.ask(Method::GET, ITEMS, &accept, Value::Null).await;
    let names: Vec<&Value> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["Name", "Certificate", "Revoked", "Owner", "Uid"]);
    assert_eq!(table["rows"][0]["cells"], json!(["n1", "c-n1", "true", "made", null]));
    let resources = server.ok(Method::GET, "/apis/k.io/v1alpha1", Value::Null).await;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["en"]));
    assert_eq!(resources["resources"][0]["namespaced"], false);
}

#[tokio::test]
async fn metadata_alone_is_listed_in_pages_and_watched() {
    let server = register(&["a", "b", "c"]).await;
    let (mut names, mut from) = (Vec::new(), String::new());
    let revision = loop {
        let uri = format!("{ITEMS}?limit=2&continue={from}");
        let (code, page, _) = server.ask(Method::GET, &uri, METADATA, Value::Null).await;
        assert_eq!((code, &page["kind"]), (200, &json!("PartialObjectMetadataList")));
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item.get("spec"), None);
            assert!(item["metadata"]["annotations"]["k.io/certificate"].is_string());
            names.push(item["metadata"]["name"].as_str().unwrap().to_owned());
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) => from = next.to_owned(),
            None => break page["metadata"]["resourceVersion"].clone(),
        }
    };
    assert_eq!(names, ["a", "b", "c"]);
    let accept = ("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json");
    let watch = |query: String| server.watch_as(format!("{ITEMS}?watch=true&{query}"), accept);
    let from = revision.as_str().unwrap();
    let mut all = std::pin::pin!(watch(format!("resourceVersion={from}&allowWatchBookmarks=true")).await);
    let mut barred =
        std::pin::pin!(watch(format!("resourceVersion={from}&labelSelector=k.io/revoked=true")).await);
    let mut one =
        std::pin::pin!(watch(format!("resourceVersion={from}&fieldSelector=metadata.name%3Dc")).await);
    let label = |value: Value| json!({"metadata": {"labels": {"k.io/revoked": value}}});
    server.patch(&format!("{ITEMS}/b"), "merge", label(json!("true"))).await;
    server.patch(&format!("{ITEMS}/b"), "merge", label(Value::Null)).await;
    server.ok(Method::DELETE, &format!("{ITEMS}/c"), Value::Null).await;
    let next_event = async |watch: &mut (dyn futures::Stream<Item = Value> + Unpin + Send)| {
        let line = watch.next().await.unwrap();
        assert_eq!(line["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(line["object"].get("spec"), None);
        format!("{} {}", line["type"], line["object"]["metadata"]["name"]).replace('"', "")
    };
    for expected in ["MODIFIED b", "MODIFIED b", "DELETED c"] {
        assert_eq!(next_event(&mut all).await, expected);
    }
    // What a selector no longer takes is gone for its reader.
    for expected in ["ADDED b", "DELETED b"] {
        assert_eq!(next_event(&mut barred).await, expected);
    }
    assert_eq!(next_event(&mut one).await, "DELETED c");
}

#[tokio::test]
async fn of_two_writers_with_one_version_one_is_told() {
    let server = register(&["a"]).await;
    let uri = format!("{ITEMS}/a");
    let mut first = server.ok(Method::GET, &uri, Value::Null).await;
    let mut second = first.clone();
    first["spec"]["owner"] = json!("adopted");
    second["metadata"]["annotations"]["k.io/certificate"] = json!("other");
    server.ok(Method::PUT, &uri, first.clone()).await;
    let (code, message) = server.refused(Method::PUT, &uri, second).await;
    assert!(code == 409 && message.contains("has been modified"), "{message}");
    first["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    // Custom objects are not replaced blindly.
    assert_eq!(server.refused(Method::PUT, &uri, first).await.0, 422);
}

#[tokio::test]
async fn a_status_patch_carries_annotations() {
    let server = server().await;
    server.ok(Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    for (kind, value) in [("strategic-merge", "1"), ("merge", "2")] {
        let body = json!({"metadata": {"annotations": {"k.io/reported": value}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"unschedulable": true}});
        let (code, node) = server.patch("/api/v1/nodes/n/status", kind, body).await;
        assert_eq!(code, 200, "{node}");
        assert_eq!(node["metadata"]["annotations"]["k.io/reported"], value);
        assert_eq!(node["spec"].get("unschedulable"), None);
    }
}

#[tokio::test]
async fn a_group_that_is_not_served_is_not_found() {
    let server = server().await;
    // Clients that look for admission policies have to hear that there are none here.
    for uri in [
        "/apis/admissionregistration.k8s.io/v1",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    ] {
        assert_eq!(server.refused(Method::GET, uri, Value::Null).await.0, 404);
    }
}
