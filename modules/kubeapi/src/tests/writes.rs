//! Writes that have rules of their own.

use super::reads::things;
use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/x.io/v1/namespaces/d/things";

#[tokio::test]
async fn a_json_patch_has_limits() {
    let server = server().await;
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
async fn a_namespaces_own_finalizers_have_their_own_door() {
    let server = server().await;
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
async fn what_a_definition_keeps_as_it_was_made_is_kept_so() {
    let server = server().await;
    let mut definition = things();
    let rule = |rule: &str| json!([{"rule": rule, "message": "make another one"}]);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
        "type": "object", "x-kubernetes-validations": rule("has(self.spec) == has(oldSelf.spec)"),
        "properties": {"spec": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-validations": rule("self == oldSelf"),
        }},
    });
    server.ok(Method::POST, DEFINITIONS, definition).await;
    let thing =
        json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"k": 1}});
    server.ok(Method::POST, THINGS, thing).await;
    let uri = format!("{THINGS}/a");
    for spec in [json!({"k": 2}), json!({"other": 1}), Value::Null] {
        let (code, answer) = server.patch(&uri, "merge", json!({ "spec": spec })).await;
        assert_eq!(code, 422, "{spec}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains("make another one"), "{answer}");
    }
    let (code, _) =
        server.patch(&uri, "merge", json!({"spec": {"k": 1}, "metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_scale_is_a_number_or_refused() {
    let server = server().await;
    const SETS: &str = "/apis/apps/v1/namespaces/d/replicasets";
    let template =
        json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let set = json!({"metadata": {"name": "w"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "w"}}, "template": template}});
    server.ok(Method::POST, SETS, set.clone()).await;
    let uri = format!("{SETS}/w/scale");
    let specs = [
        (json!({"replicas": "3"}), 400),
        (json!({"replicas": 1.5}), 400),
        (json!({"replicas": 2_147_483_648_u64}), 400),
        (json!({"replicas": -1}), 422),
        (json!("x"), 422),
        (Value::Null, 422),
    ];
    for (spec, code) in specs {
        let found = server.refused(Method::PUT, &uri, json!({"kind": "Scale", "spec": spec})).await;
        assert_eq!(found.0, code, "{spec}: {}", found.1);
    }
    assert_eq!(server.refused(Method::PUT, &uri, json!({"kind": "ReplicaSet", "spec": {}})).await.0, 400);
    for (replicas, code) in [(json!(null), 422), (json!("3"), 400)] {
        assert_eq!(server.patch(&uri, "merge", json!({"spec": {"replicas": replicas}})).await.0, code);
    }
    assert_eq!(server.ok(Method::GET, &uri, Value::Null).await["spec"]["replicas"], 2);
    // A client in Go writes no zero.
    let none = server.ok(Method::PUT, &uri, json!({"kind": "Scale", "spec": {}})).await;
    assert_eq!(none["spec"]["replicas"], 0);
}

#[tokio::test]
async fn the_objects_of_a_definition_go_with_its_last_finalizer() {
    let server = server().await;
    let mut definition = things();
    definition["metadata"]["finalizers"] = json!(["x/y"]);
    server.ok(Method::POST, DEFINITIONS, definition).await;
    server.ok(Method::POST, THINGS, json!({"metadata": {"name": "t"}})).await;
    let key = ObjectKey::new("things.x.io", "d", "t");
    let store = Arc::clone(server.0.store());
    let uri = format!("{DEFINITIONS}/things.x.io");
    server.ok(Method::DELETE, &uri, Value::Null).await;
    assert!(store.get(&key).await.unwrap().is_some());
    // Another write comes between the list of what has to go and its removal.
    let held = store.lists.lock().await;
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
async fn nothing_new_holds_up_what_is_being_deleted() {
    let server = server().await;
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
    let server = server().await;
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
    let server = server().await;
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
