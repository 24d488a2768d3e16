//! Writes that have rules of their own.

use super::reads::things;
use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/x.io/v1/namespaces/d/things";
const SERVICES: &str = "/api/v1/namespaces/d/services";

fn service(name: &str, address: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "clusterIP": address}})
}

#[tokio::test]
async fn a_json_patch_has_limits() {
    let server = Server::new().await;
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await;
    let uri = format!("{MAPS}/a");
    let test = json!({"op": "test", "path": "/data/k", "value": "v"});
    let (code, answer) = server.patch(&uri, "json", Value::from(vec![test; 10_001])).await;
    assert_eq!((code, &answer["reason"]), (413, &json!("RequestEntityTooLarge")));
    // Each fits; both do not.
    for (key, code) in [("x", 200), ("y", 413)] {
        server.ok(Method::DELETE, &uri, Value::Null).await;
        let half = "x".repeat(900 << 10);
        server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a"}, "data": {"x": half}})).await;
        let grown = "y".repeat(if key == "x" { 10 } else { 2300 << 10 });
        let (found, answer) = server.patch(&uri, "merge", json!({"data": {"y": grown}})).await;
        assert_eq!(found, code, "{}", answer["message"]);
    }
}

#[tokio::test]
async fn a_token_is_bound_to_a_pod_of_its_account_only() {
    let server = Server::new().await;
    let accounts = "/api/v1/namespaces/d/serviceaccounts";
    server.ok(Method::POST, accounts, json!({"metadata": {"name": "other"}})).await;
    server.ok(Method::POST, PODS, pod("a")).await;
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "a"}}});
    server.ok(Method::POST, &format!("{accounts}/default/token"), bound.clone()).await;
    let (code, message) = server.refused(Method::POST, &format!("{accounts}/other/token"), bound).await;
    assert!(code == 400 && message.contains("running with different serviceaccount name"), "{message}");
}

#[tokio::test]
async fn a_namespaces_own_finalizers_have_their_own_door() {
    let server = Server::new().await;
    let uri = "/api/v1/namespaces/d";
    let (_, answer) = server.patch(uri, "merge", json!({"spec": {"finalizers": []}})).await;
    assert_eq!(answer["spec"]["finalizers"], json!(["kubernetes"]));
    let bare = json!({"metadata": {"name": "d"}, "spec": {"finalizers": ["x/y"]}});
    let answer = server.ok(Method::PUT, uri, bare).await;
    assert_eq!(answer["spec"]["finalizers"], json!(["kubernetes"]));
    let made = json!({"metadata": {"name": "e"}, "spec": {"finalizers": ["x/y"]}});
    let made = server.ok(Method::POST, "/api/v1/namespaces", made).await;
    assert_eq!(made["spec"]["finalizers"], json!(["x/y", "kubernetes"]));
    let wrong = json!({"metadata": {"name": "d"}, "spec": {"finalizers": [1]}});
    assert_eq!(server.refused(Method::PUT, &format!("{uri}/finalize"), wrong).await.0, 400);
    let none = json!({"metadata": {"name": "d"}, "spec": {}});
    let answer = server.ok(Method::PUT, &format!("{uri}/finalize"), none).await;
    assert_eq!(answer["spec"]["finalizers"], json!([]));
    // It does not come back with the next write.
    let (_, answer) = server.patch(uri, "merge", json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(answer["spec"]["finalizers"], json!([]));
}

#[tokio::test]
async fn a_scale_is_a_number_or_refused() {
    let server = Server::new().await;
    const SETS: &str = "/apis/apps/v1/namespaces/d/replicasets";
    let template =
        json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let set = json!({"metadata": {"name": "w"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "w"}}, "template": template}});
    server.ok(Method::POST, SETS, set.clone()).await;
    let uri = format!("{SETS}/w/scale");
    let wishes = [
        (json!({"replicas": "3"}), 400),
        (json!({"replicas": 1.5}), 400),
        (json!({"replicas": 2_147_483_648_u64}), 400),
        (json!({"replicas": -1}), 422),
        (json!("x"), 422),
        (Value::Null, 422),
    ];
    for (spec, code) in wishes {
        let found = server.refused(Method::PUT, &uri, json!({"kind": "Scale", "spec": spec})).await;
        assert_eq!(found.0, code, "{spec}: {}", found.1);
    }
    assert_eq!(server.refused(Method::PUT, &uri, json!({"kind": "ReplicaSet", "spec": {}})).await.0, 400);
    for (wish, code) in [(json!(null), 422), (json!("3"), 400)] {
        assert_eq!(server.patch(&uri, "merge", json!({"spec": {"replicas": wish}})).await.0, code);
    }
    assert_eq!(server.ok(Method::GET, &uri, Value::Null).await["spec"]["replicas"], 2);
    // A client in Go writes no zero.
    let none = server.ok(Method::PUT, &uri, json!({"kind": "Scale", "spec": {}})).await;
    assert_eq!(none["spec"]["replicas"], 0);
}

#[tokio::test]
async fn a_service_keeps_its_address_and_asks_for_free_ones_only() {
    let server = Server::new().await;
    let made = server.ok(Method::POST, SERVICES, service("a", json!("10.96.0.10"))).await;
    let uri = format!("{SERVICES}/a");
    let bare = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 81}]}});
    let next = server.ok(Method::PUT, &uri, bare).await;
    assert_eq!(next["spec"]["ports"][0]["port"], 81);
    assert_eq!(
        (&next["spec"]["clusterIP"], &next["spec"]["clusterIPs"][0]),
        (&json!("10.96.0.10"), &json!("10.96.0.10"))
    );
    assert_eq!(made["spec"]["clusterIPs"], next["spec"]["clusterIPs"]);
    let (code, answer) = server.patch(&uri, "merge", json!({"spec": {"clusterIP": "10.96.0.11"}})).await;
    assert!(code == 422 && answer["message"].as_str().unwrap().contains("field is immutable"), "{answer}");
    for (address, part) in [
        ("10.96.0.10", "provided IP is already allocated"),
        ("10.95.0.1", "is not in the valid range"),
        ("x", "must be a valid IP address"),
    ] {
        let (code, message) = server.refused(Method::POST, SERVICES, service("b", json!(address))).await;
        assert!(code == 422 && message.contains(part), "{message}");
    }
    // The same service again is there already.
    assert_eq!(server.refused(Method::POST, SERVICES, service("a", json!("10.96.0.10"))).await.0, 409);
    let headless = server.ok(Method::POST, SERVICES, service("h", json!("None"))).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    // A mere name has no address, and gets one when it becomes more.
    let (code, named) =
        server.patch(&uri, "merge", json!({"spec": {"type": "ExternalName", "externalName": "x.io"}})).await;
    assert_eq!((code, named["spec"].get("clusterIP"), named["spec"].get("clusterIPs")), (200, None, None));
    let back = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.112.0.1"}});
    assert_eq!(server.patch(&uri, "merge", back).await.0, 422);
    let (code, back) = server.patch(&uri, "merge", json!({"spec": {"type": "ClusterIP"}})).await;
    assert!(code == 200 && back["spec"]["clusterIP"].as_str().unwrap().starts_with("10."), "{back}");
}

#[tokio::test]
async fn two_services_at_once_get_two_addresses() {
    let server = Server::new().await;
    let store = Arc::clone(server.0.store());
    // Both would read the list before either is written.
    let held = store.gate.lock().await;
    let ask = |name: &str| {
        let body = service(name, json!("10.96.0.10"));
        async { server.ask(Method::POST, SERVICES, &[], body).await.0 }
    };
    let release = async {
        tokio::task::yield_now().await;
        drop(held);
    };
    let (a, b, ()) = tokio::join!(ask("a"), ask("b"), release);
    assert_eq!((a, b), (201, 422));
}

#[tokio::test]
async fn the_objects_of_a_definition_go_with_its_last_finalizer() {
    let server = Server::new().await;
    let mut definition = things();
    definition["metadata"]["finalizers"] = json!(["x/y"]);
    server.ok(Method::POST, DEFINITIONS, definition).await;
    server.ok(Method::POST, THINGS, json!({"metadata": {"name": "t"}})).await;
    let key = Key { resource: "things.x.io".into(), namespace: "d".into(), name: "t".into() };
    let store = Arc::clone(server.0.store());
    let uri = format!("{DEFINITIONS}/things.x.io");
    server.ok(Method::DELETE, &uri, Value::Null).await;
    assert!(store.get(&key).await.unwrap().is_some());
    // Another write comes between the list of what has to go and its removal.
    let held = store.gate.lock().await;
    let between = async {
        tokio::task::yield_now().await;
        let item = store.get(&key).await.unwrap().unwrap();
        store
            .write(Write::Update { key: key.clone(), expected: item.revision, json: item.json })
            .await
            .unwrap();
        drop(held);
    };
    let last = server.patch(&uri, "merge", json!({"metadata": {"finalizers": null}}));
    let ((code, _), ()) = tokio::join!(last, between);
    assert_eq!(code, 200);
    assert!(store.get(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn a_binding_is_to_a_node_and_may_be_a_trial() {
    let server = Server::new().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    let uri = format!("{PODS}/a/binding");
    let binding = |kind: &str| json!({"target": {"kind": kind, "name": "n"}});
    let (code, message) = server.refused(Method::POST, &uri, binding("Pod")).await;
    assert!(code == 422 && message.contains("target.kind: Unsupported value: \"Pod\""), "{message}");
    server.ok(Method::POST, &format!("{uri}?dryRun=All"), binding("Node")).await;
    let found = server.ok(Method::GET, &format!("{PODS}/a"), Value::Null).await;
    assert_eq!(found["spec"].get("nodeName"), None);
    server.ok(Method::POST, &uri, binding("")).await;
    let found = server.ok(Method::GET, &format!("{PODS}/a"), Value::Null).await;
    assert_eq!(found["spec"]["nodeName"], "n");
}

#[tokio::test]
async fn nothing_new_holds_up_what_is_being_deleted() {
    let server = Server::new().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["x/y", "x/z"]}});
    server.ok(Method::POST, MAPS, held).await;
    let uri = format!("{MAPS}/a");
    server.ok(Method::DELETE, &uri, Value::Null).await;
    let (code, answer) =
        server.patch(&uri, "merge", json!({"metadata": {"finalizers": ["x/y", "x/new"]}})).await;
    let message = answer["message"].as_str().unwrap();
    let part = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/new\"}";
    assert!(code == 422 && message.contains(part), "{message}");
    let (code, _) = server.patch(&uri, "merge", json!({"metadata": {"finalizers": ["x/z"]}})).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn unknown_fields_count_when_they_are_empty_too() {
    let server = Server::new().await;
    let strict = format!("{PODS}?fieldValidation=Strict&dryRun=All");
    for empty in [json!({}), json!([])] {
        let mut odd = pod("a");
        odd["spec"]["colours"] = empty;
        let (code, message) = server.refused(Method::POST, &strict, odd).await;
        assert!(code == 400 && message.ends_with("unknown field \"spec.colours\""), "{message}");
    }
    let mut full = pod("a");
    full["metadata"]["annotations"] = json!({});
    full["metadata"]["ownerReferences"] = json!([]);
    full["status"] = json!({});
    full["spec"]["containers"][0]["env"] = json!([]);
    full["spec"]["containers"][0]["resources"] = json!({"limits": {}});
    full["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    full["spec"]["affinity"] = json!({"nodeAffinity": {}});
    server.ok(Method::POST, &strict, full).await;
    let mut definition = things();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {
        "a": {"type": "object", "additionalProperties": {}, "default": {}, "required": []},
        "b": {"type": "array", "items": {}, "default": []}, "c": {"not": {}, "allOf": [{}]}}});
    definition["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    let strict = format!("{DEFINITIONS}?fieldValidation=Strict&dryRun=All");
    server.ok(Method::POST, &strict, definition).await;
}

#[tokio::test]
async fn objects_come_in_yaml_too() {
    let server = Server::new().await;
    let ask = async |method: Method, uri: &str, body: &str| {
        let request = Request::builder().method(method).uri(uri).header("content-type", "application/yaml");
        let request = request.body(Bytes::from(body.to_owned())).unwrap();
        let response = server.0.handle(request, &User::default()).await;
        let code = response.status().as_u16();
        let Body::Whole(bytes) = response.into_body() else { panic!("a stream") };
        (code, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: \"1\"\n  text: |\n    two\n    lines\n";
    let (code, made) = ask(Method::POST, MAPS, yaml).await;
    assert_eq!((code, &made["data"]), (201, &json!({"k": "1", "text": "two\nlines\n"})));
    let (code, next) =
        ask(Method::PUT, &format!("{MAPS}/a"), "{metadata: {name: a}, data: {k: \"2\"}}").await;
    assert_eq!((code, &next["data"]), (200, &json!({"k": "2"})));
    let nested = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    for bad in ["a: [", "- a", "a: &x y\nb: *x", "a: 1\na: 2", "a: 1\n---\nb: 2", nested.as_str()] {
        let (code, answer) = ask(Method::POST, MAPS, bad).await;
        let message = answer["message"].as_str().unwrap();
        assert!(
            code == 400 && message.starts_with("the object provided is unrecognized"),
            "{bad}: {message}"
        );
    }
}
