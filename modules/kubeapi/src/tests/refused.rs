//! What was taken once and must not be: definitions of built-in kinds, amounts that are none, defaults without end.

use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/d/deployments";

fn definition(group: &str, plural: &str, kind: &str, schema: Value) -> Value {
    json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {
        "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
        "versions": [{"name": "v9", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

fn deployment() -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template}})
}

/// Writes past the rules, as an earlier release may have written.
async fn put(server: &TestServer, resource: &str, namespace: &str, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    let key = ObjectKey::new(resource, namespace, name);
    server.0.store().write(Write::Create { key, json: Bytes::from(object.to_string()) }).await.unwrap();
}

#[tokio::test]
async fn a_definition_is_not_of_what_is_built_in() {
    let server = server().await;
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    for (group, plural, kind) in [
        ("apps", "deployments", "Deployment"),
        ("coordination.k8s.io", "leases", "Lease"),
        ("rbac.authorization.k8s.io", "clusterroles", "ClusterRole"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition"),
        ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
        ("k8s.io", "leases.coordination", "Lease"),
        ("networking.k8s.io", "ingresses", "Ingress"),
    ] {
        let mut definition = definition(group, plural, kind, free.clone());
        let refused = server.refused(Method::POST, DEFINITIONS, definition.clone()).await;
        assert_eq!(refused.0, 422, "{group}: {}", refused.1);
        // Whoever says that nobody approved of it may have a group of Kubernetes, but none that is served here.
        let said = json!({"api-approved.kubernetes.io": "unapproved, mine"});
        definition["metadata"]["annotations"] = said;
        let (code, answer, _) = server.ask(Method::POST, DEFINITIONS, &[], definition).await;
        assert_eq!(code, if group == "networking.k8s.io" { 201 } else { 422 }, "{group}: {answer}");
    }
}

#[tokio::test]
async fn a_definition_that_got_in_touches_nothing_built_in() {
    let server = server().await;
    server.ok(Method::POST, DEPLOYMENTS, deployment()).await;
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = definition("apps", "deployments", "Deployment", free);
    put(&server, "customresourcedefinitions.apiextensions.k8s.io", "", &definition).await;
    server.0.reader().forget_kinds();
    let rubbish =
        json!({"apiVersion": "apps/v9", "kind": "Deployment", "metadata": {"name": "r"}, "spec": "x"});
    let refused = server.refused(Method::POST, "/apis/apps/v9/namespaces/d/deployments", rubbish).await;
    assert_eq!(refused.0, 404, "{}", refused.1);
    let group = server.ok(Method::GET, "/apis/apps", Value::Null).await;
    assert_eq!(group["versions"].as_array().map(Vec::len), Some(1), "{group}");
    server.ok(Method::DELETE, &format!("{DEFINITIONS}/deployments.apps"), Value::Null).await;
    server.ok(Method::GET, &format!("{DEPLOYMENTS}/w"), Value::Null).await;
}

#[tokio::test]
async fn amounts_are_read_with_their_object() {
    let server = server().await;
    let words = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "zz"}}});
    let refused = server.refused(Method::POST, "/api/v1/nodes", node.clone()).await;
    let what = format!(
        "Node in version \"v1\" cannot be handled as a Node: json: cannot unmarshal field status.capacity[cpu]: {words}"
    );
    assert_eq!(refused, (400, what));
    server.ok(Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let report = json!({"status": {"allocatable": {"pods": "x"}}});
    let (code, answer) = server.patch("/api/v1/nodes/n/status", "strategic-merge", report).await;
    assert_eq!(code, 400, "{answer}");
    let mut template = deployment();
    template["spec"]["template"]["spec"]["overhead"] = json!({"cpu": "zz"});
    assert_eq!(server.refused(Method::POST, DEPLOYMENTS, template).await.0, 400);
    // What an earlier release took is mended, or let go of.
    let mut old = node;
    old["metadata"] = json!({"name": "o", "uid": "u", "finalizers": ["a/b"]});
    put(&server, "nodes", "", &old).await;
    let uri = "/api/v1/nodes/o";
    let (code, answer) = server.patch(uri, "merge", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!((code, &answer["status"]["capacity"]["cpu"]), (200, &json!("zz")));
    let worse = json!({"status": {"capacity": {"cpu": "yy"}}});
    assert_eq!(server.patch(&format!("{uri}/status"), "merge", worse).await.0, 400);
    let mended = json!({"status": {"capacity": {"cpu": "2"}}});
    assert_eq!(server.patch(&format!("{uri}/status"), "merge", mended).await.0, 200);
}

#[tokio::test]
async fn an_object_is_measured_with_its_defaults() {
    let server = server().await;
    let item =
        json!({"type": "object", "properties": {"k": {"type": "string", "default": "x".repeat(1000)}}});
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": item}}});
    server.ok(Method::POST, DEFINITIONS, definition("x.io", "ones", "One", schema)).await;
    let ones = "/apis/x.io/v9/namespaces/d/ones";
    let one = |count: usize| json!({"metadata": {"name": "o"}, "l": vec![json!({}); count]});
    let refused = server.refused(Method::POST, ones, one(100_000)).await;
    assert!(refused.0 == 413 && refused.1.contains("limit is 1572864"), "{refused:?}");
    server.ok(Method::POST, ones, one(1000)).await;
    let (code, answer) = server.patch(&format!("{ones}/o"), "merge", one(2000)).await;
    assert_eq!(code, 413, "{answer}");
    // Of a built-in kind as well.
    let env: Vec<Value> =
        (0..20_000).map(|n| json!({"name": format!("v{n}"), "value": "x".repeat(60)})).collect();
    let mut large = pod("p");
    large["spec"]["containers"][0]["env"] = json!(env);
    assert_eq!(server.refused(Method::POST, PODS, large).await.0, 413);
}

#[tokio::test]
async fn options_that_were_passed_over_are_kept_or_refused() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        server.ok(Method::POST, MAPS, json!({"metadata": {"name": name}})).await;
    }
    for (query, code) in [
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422),
        ("sendInitialEvents=true", 422),
        ("watch=true&sendInitialEvents=true", 422),
        ("limit=1", 200),
    ] {
        assert_eq!(
            server.ask(Method::GET, &format!("{MAPS}?{query}"), &[], Value::Null).await.0,
            code,
            "{query}"
        );
    }
    let page = server.ok(Method::GET, &format!("{MAPS}?limit=1"), Value::Null).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let refused =
        server.refused(Method::GET, &format!("{MAPS}?continue={token}&resourceVersion=5"), Value::Null).await;
    assert_eq!(refused, (400, "specifying resource version is not allowed when using continue".to_owned()));
    let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
    let refused = server.refused(Method::DELETE, &format!("{MAPS}/a"), both).await;
    assert!(refused.0 == 422 && refused.1.ends_with("cannot be both set"), "{refused:?}");
    let removed = server.ok(Method::DELETE, &format!("{MAPS}?limit=1"), Value::Null).await;
    assert_eq!(removed["items"].as_array().map(Vec::len), Some(1));
    assert!(removed["metadata"]["continue"].is_string(), "{removed}");
    let left = server.ok(Method::GET, MAPS, Value::Null).await;
    assert_eq!(left["items"].as_array().map(Vec::len), Some(2), "no more than was asked for");
}

#[tokio::test]
async fn what_contradicts_its_kind_is_refused() {
    let server = server().await;
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let bindings = format!("{RBAC}/clusterrolebindings");
    let binding = |kind: &str| {
        json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "u", "apiGroup": ""}],
        "roleRef": {"apiGroup": "", "kind": kind, "name": "r"}})
    };
    let refused = server.refused(Method::POST, &bindings, binding("Role")).await;
    assert!(refused.0 == 422 && refused.1.contains("supported values: \"ClusterRole\""), "{refused:?}");
    // An empty group is the default one, as Go cannot tell the two apart.
    let made = server.ok(Method::POST, &bindings, binding("ClusterRole")).await;
    assert_eq!(made["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(made["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    let empty = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]});
    assert_eq!(server.refused(Method::POST, &format!("{RBAC}/clusterroles"), empty).await.0, 422);
    let subsets = json!([{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 1}]}]);
    let endpoints = json!({"metadata": {"name": "e"}, "subsets": subsets});
    assert_eq!(server.refused(Method::POST, "/api/v1/namespaces/d/endpoints", endpoints).await.0, 422);
    let slice =
        json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["zz"]}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/d/endpointslices";
    assert_eq!(server.refused(Method::POST, slices, slice).await.0, 422);
    let mut root = pod("p");
    root["spec"]["securityContext"] = json!({"runAsUser": -1});
    assert_eq!(server.refused(Method::POST, PODS, root).await.0, 422);
    server.ok(Method::POST, PODS, pod("p")).await;
    let (code, answer) =
        server.patch(&format!("{PODS}/p/status"), "merge", json!({"status": {"phase": "Foo"}})).await;
    assert!(code == 422 && answer.to_string().contains("status.phase: Unsupported value"), "{answer}");
}
