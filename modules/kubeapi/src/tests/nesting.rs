//! Objects that are nested deep, and rows of the store that cannot be read: nothing else suffers for them.

use super::*;
use crate::testing::options;

const THINGS: &str = "/apis/x.io/v1/namespaces/d/things";

async fn with_things() -> TestServer {
    let server = server().await;
    let definition = json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {
            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    server.ok(Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    server
}

/// `levels` objects around a value.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
}

fn thing(name: &str, levels: usize) -> Value {
    // The object itself is one, too.
    json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": name}, "spec": nested(levels - 1)})
}

#[tokio::test]
async fn no_write_makes_an_object_that_is_nested_deeper_than_a_list_can_carry() {
    let server = with_things().await;
    server.ok(Method::POST, THINGS, thing("flat", 3)).await;
    server.ok(Method::POST, THINGS, thing("just", 64)).await;
    let uri = format!("{THINGS}/flat");
    let replacing = |levels| {
        let mut next = thing("flat", levels);
        next["metadata"]["resourceVersion"] = json!("0");
        next
    };
    let part = "nested deeper than 64 levels";
    for levels in [65, 100, 124] {
        let (code, message) = server.refused(Method::POST, THINGS, thing("deep", levels)).await;
        assert!(code == 422 && message.contains(part), "{levels}: {code} {message}");
        let (code, message) = server.refused(Method::PUT, &uri, replacing(levels)).await;
        assert!(code == 422 && message.contains(part), "{levels}: {code} {message}");
        let (code, told) = server.patch(&uri, "merge", json!({"spec": nested(levels - 1)})).await;
        assert!(code == 422 && told["message"].as_str().unwrap().contains(part), "{levels}: {told}");
        let add = json!([{"op": "add", "path": "/spec/b", "value": nested(levels - 2)}]);
        let (code, told) = server.patch(&uri, "json", add).await;
        assert!(
            code == 422 && told["message"].as_str().unwrap().contains("deeper than 64"),
            "{levels}: {told}"
        );
        let status = json!({"status": nested(levels - 1)});
        let (code, told) = server.patch(&format!("{uri}/status"), "merge", status).await;
        assert!(code == 422 && told["message"].as_str().unwrap().contains(part), "{levels}: {told}");
        let managed = json!({"metadata": {"managedFields": [{"manager": "m", "operation": "Update",
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": nested(levels)}]}});
        let (_, told) = server.patch(&uri, "merge", managed).await;
        assert_eq!(
            told.pointer("/metadata/managedFields"),
            None,
            "{levels}: none are kept, so none are deep"
        );
    }
    let (code, _) = server.refused(Method::POST, THINGS, thing("deeper", 120)).await;
    assert_eq!(code, 422);
    let yaml = [("content-type", "application/yaml")];
    let (code, told, _) = server.ask(Method::POST, THINGS, &yaml, thing("y", 70)).await;
    // JSON is YAML, whose reader has a bound of its own, too.
    assert!(matches!(code, 400 | 422), "{code} {told}");
    let list = server.ok(Method::GET, THINGS, Value::Null).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn one_that_was_stored_deeper_can_be_changed_and_removed() {
    let server = with_things().await;
    let stored = thing("old", 90).to_string();
    let key = ObjectKey::new("things.x.io", "d", "old");
    server.0.store().write(Write::Create { key, json: stored.into() }).await.unwrap();
    let uri = format!("{THINGS}/old");
    let (code, told) = server.patch(&uri, "merge", json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(code, 200, "{told}");
    let (code, _) = server.patch(&uri, "merge", json!({"spec": nested(95)})).await;
    assert_eq!(code, 422, "but no deeper");
    server.ok(Method::DELETE, &uri, Value::Null).await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_and_named() {
    let server = with_things().await;
    for name in ["a", "z"] {
        server.ok(Method::POST, MAPS, json!({"metadata": {"name": name, "labels": {"l": "1"}}})).await;
    }
    let rows = [
        "",
        "{\"metadata\":{\"na",
        "[1]",
        "null",
        "\u{0}\u{1}",
        "{}",
        "{\"metadata\":[]}",
        "{\"metadata\":{\"name\":7}}",
    ];
    for (at, row) in rows.iter().enumerate() {
        let key = ObjectKey::new("configmaps", "d", format!("torn-{at}"));
        server.0.store().write(Write::Create { key, json: Bytes::from(*row) }).await.unwrap();
    }
    // A definition that cannot be read takes no kind with it.
    let key = ObjectKey::new("customresourcedefinitions.apiextensions.k8s.io", "", "torn.x.io");
    server.0.store().write(Write::Create { key, json: "{".into() }).await.unwrap();
    let server = TestServer(Api::new(Arc::clone(server.0.store()), options(), Arc::new(NoPolicy)));

    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (code, list, warnings) = server.ask(Method::GET, MAPS, &[], Value::Null).await;
    assert_eq!((code, names(&list)), (200, vec!["a".to_owned(), "z".to_owned()]));
    assert_eq!(warnings.len(), rows.len());
    assert!(warnings[0].contains("configmaps/d/torn-0 cannot be read and is left out"), "{}", warnings[0]);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (code, table, warnings) = server.ask(Method::GET, MAPS, &table, Value::Null).await;
    assert_eq!((code, table["rows"].as_array().unwrap().len(), warnings.len()), (200, 2, rows.len()));
    let (code, list, _) =
        server.ask(Method::GET, &format!("{MAPS}?labelSelector=l%3D1"), &[], Value::Null).await;
    assert_eq!((code, names(&list).len()), (200, 2));
    assert_eq!(server.ok(Method::GET, THINGS, Value::Null).await["items"], json!([]));
    let events: Vec<Value> = server.watch(&format!("{MAPS}?watch=true")).await.take(2).collect().await;
    assert_eq!(events.iter().filter(|event| event["type"] == "ADDED").count(), 2);

    let (code, message) = server.refused(Method::GET, &format!("{MAPS}/torn-1"), Value::Null).await;
    assert!(code == 500 && message.contains("configmaps/d/torn-1 cannot be read"), "{message}");
    for at in 0..rows.len() {
        server.ok(Method::DELETE, &format!("{MAPS}/torn-{at}"), Value::Null).await;
    }
    let (_, _, warnings) = server.ask(Method::GET, MAPS, &[], Value::Null).await;
    assert_eq!(warnings, [] as [String; 0]);
}
