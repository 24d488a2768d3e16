//! Lists and watches, and what is served.

use super::*;

/// The definition of `things.x.io`.
pub(super) fn things() -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}

async fn line(watch: &mut (impl futures::Stream<Item = Value> + Unpin)) -> Value {
    tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_named_watch_sees_one_object_only() {
    let server = server().await;
    for name in ["a", "b"] {
        server.ok(Method::POST, MAPS, json!({"metadata": {"name": name}})).await;
    }
    let one = server.ok(Method::GET, &format!("{MAPS}/a?watch=true"), Value::Null).await;
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("ConfigMap"), &json!("a")));
    let ways = [
        "/api/v1/watch/namespaces/d/configmaps/b".to_owned(),
        "/api/v1/watch/namespaces/d/configmaps/b?fieldSelector=metadata.name=b".to_owned(),
        format!("{MAPS}?watch=true&fieldSelector=metadata.name=b"),
        "/api/v1/configmaps?watch=true&fieldSelector=metadata.name=b".to_owned(),
    ];
    for (at, uri) in ways.iter().enumerate() {
        let mut watch = std::pin::pin!(server.watch(uri).await);
        assert_eq!(line(&mut watch).await["object"]["metadata"]["name"], "b", "{uri}");
        for name in ["a", "b"] {
            server.patch(&format!("{MAPS}/{name}"), "merge", json!({"data": {"k": at.to_string()}})).await;
        }
        let next = line(&mut watch).await;
        assert_eq!((&next["type"], &next["object"]["metadata"]["name"]), (&json!("MODIFIED"), &json!("b")));
    }
    for selector in ["metadata.name=a", "metadata.namespace=d"] {
        let uri = format!("{}?fieldSelector={selector}", ways[0]);
        let (code, message) = server.refused(Method::GET, &uri, Value::Null).await;
        assert!(code == 400 && message.contains("doesn't match requested name"), "{message}");
    }
}

#[tokio::test]
async fn every_page_of_a_list_shows_the_first_ones_revision() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        server.ok(Method::POST, MAPS, json!({"metadata": {"name": name}})).await;
    }
    let first = server.ok(Method::GET, &format!("{MAPS}?limit=1"), Value::Null).await;
    let mut page = first.clone();
    for expected in ["b", "c"] {
        server.patch(&format!("{MAPS}/a"), "merge", json!({"data": {"k": expected}})).await;
        let next = page["metadata"]["continue"].as_str().unwrap();
        page = server.ok(Method::GET, &format!("{MAPS}?limit=1&continue={next}"), Value::Null).await;
        assert_eq!(page["items"][0]["metadata"]["name"], expected);
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    }
    assert_eq!(page["metadata"].get("continue"), None);
}

#[tokio::test]
async fn a_bookmark_has_the_form_that_was_asked_for() {
    let server = server().await;
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    for (accept, kind, version) in
        [(accept, "PartialObjectMetadata", "meta.k8s.io/v1"), ("application/json", "ConfigMap", "v1")]
    {
        let uri = format!(
            "{MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        );
        let request = Request::builder().uri(uri).header("accept", accept).body(Bytes::new()).unwrap();
        let body = server.0.handle(request, &User::default()).await.into_body();
        let Body::Stream(mut lines) = body else { panic!("not a stream") };
        let bookmark: Value = serde_json::from_slice(&lines.next().await.unwrap()).unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        let object = &bookmark["object"];
        assert_eq!((&object["kind"], &object["apiVersion"]), (&json!(kind), &json!(version)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_bookmark_of_a_quiet_kind_is_as_new_as_the_store() {
    let server = server().await;
    let made = server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a"}})).await;
    let from = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let uri = format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={from}");
    let mut lines = std::pin::pin!(server.watch_as(uri, ("accept", "application/json")).await);
    let mut last = from;
    for n in 0..3 {
        // What others write is not told, and moves the bookmark.
        for pod_of in ["x", "y"] {
            let made = server.ok(Method::POST, PODS, pod(&format!("{pod_of}{n}"))).await;
            last = made["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        }
        let bookmark = lines.next().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], json!(last));
    }
    // It goes on from there and misses nothing.
    let uri = format!("{MAPS}?watch=true&resourceVersion={last}");
    let mut resumed = std::pin::pin!(server.watch_as(uri, ("accept", "application/json")).await);
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "b"}})).await;
    assert_eq!(resumed.next().await.unwrap()["object"]["metadata"]["name"], "b");
    assert_eq!(lines.next().await.unwrap()["object"]["metadata"]["name"], "b");
}

#[tokio::test]
async fn what_was_read_before_a_definition_was_written_is_not_kept() {
    let server = server().await;
    let api = ReadApi::new(Arc::clone(server.0.store()), crate::testing::options(), &[]);
    let store = Arc::clone(api.store());
    let held = store.lists.lock().await;
    let mut reading = std::pin::pin!(api.kinds());
    assert!(futures::poll!(&mut reading).is_pending());
    server.ok(Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", things()).await;
    api.forget_kinds();
    drop(held);
    let serves = |kinds: &[crate::kind::ServedKind]| kinds.iter().any(|kind| kind.is("things.x.io"));
    assert!(!serves(&reading.await.unwrap()));
    assert!(serves(&api.kinds().await.unwrap()));
}

#[tokio::test]
async fn a_list_lets_others_work_and_says_the_same_in_every_form() {
    let server = server().await;
    for n in 0..40 {
        let map = json!({"metadata": {"name": format!("m{n:02}"), "labels": {"n": n.to_string()}},
            "data": {"k": "x".repeat(100_000)}});
        server.ok(Method::POST, MAPS, map).await;
    }
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    for (uri, accept, count) in [
        (MAPS.to_owned(), "application/json", 40),
        (MAPS.to_owned(), table, 40),
        (format!("{MAPS}?includeObject=Object"), table, 40),
        (MAPS.to_owned(), metadata, 40),
        (format!("{MAPS}?labelSelector=n%3D7"), "application/json", 1),
        (format!("{MAPS}?labelSelector=none"), "application/json", 0),
    ] {
        let request = Request::builder().uri(&uri).header("accept", accept).body(Bytes::new()).unwrap();
        let user = User::default();
        let mut answer = std::pin::pin!(server.0.handle(request, &user));
        // 4 MB of objects are many times looked away from.
        let mut turns = 0;
        let response = loop {
            match futures::poll!(&mut answer) {
                std::task::Poll::Ready(response) => break response,
                std::task::Poll::Pending => turns += 1,
            }
            tokio::task::yield_now().await;
        };
        assert!(turns >= 10, "{uri}: {turns}");
        let Body::Whole(bytes) = response.into_body() else { panic!("a stream") };
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        let field = if accept == table { "rows" } else { "items" };
        let items = list[field].as_array().unwrap();
        assert_eq!(items.len(), count, "{uri}");
        assert!(list["metadata"]["resourceVersion"].is_string() && list["kind"].is_string(), "{uri}");
        let names: Vec<&Value> = items
            .iter()
            .map(|item| {
                if accept == table { &item["object"]["metadata"]["name"] } else { &item["metadata"]["name"] }
            })
            .collect();
        assert!(names.is_sorted_by_key(|name| name.as_str()), "{names:?}");
        if accept == table {
            assert_eq!(list["columnDefinitions"][0]["name"], "Name");
            assert_eq!(items[3]["cells"][0], "m03");
        }
    }
    // A deletecollection answers what it removed.
    let gone = server.ok(Method::DELETE, &format!("{MAPS}?labelSelector=n%3D7"), Value::Null).await;
    assert_eq!((gone["items"].as_array().unwrap().len(), &gone["kind"]), (1, &json!("ConfigMapList")));
    assert_eq!(gone["items"][0]["metadata"]["name"], "m07");
}

#[tokio::test]
async fn one_change_is_written_once_for_all_who_watch_it() {
    let server = server().await;
    let lines = async |uri: &str, accept: &str| {
        let request = Request::builder().uri(uri).header("accept", accept).body(Bytes::new()).unwrap();
        let Body::Stream(lines) = server.0.handle(request, &User::default()).await.into_body() else {
            panic!()
        };
        lines
    };
    let from = server.0.store().revision();
    let watch = format!("{MAPS}?watch=true&resourceVersion={from}");
    let mut all = Vec::new();
    for _ in 0..50 {
        all.push(lines(&watch, "application/json").await);
        all.push(lines(&format!("{watch}&labelSelector=a%3Db"), "application/json").await);
    }
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut partial = lines(&watch, partial).await;
    let map = json!({"metadata": {"name": "m", "labels": {"a": "b"}}, "data": {"k": "x".repeat(1 << 16)}});
    server.ok(Method::POST, MAPS, map).await;
    let mut places = std::collections::BTreeSet::new();
    for lines in &mut all {
        let line = lines.next().await.unwrap();
        let event: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("m")));
        places.insert(line.as_ptr().addr());
    }
    assert_eq!(places.len(), 1, "all have the same bytes");
    assert!(partial.next().await.unwrap().len() < 1024, "another form is another line");
}
