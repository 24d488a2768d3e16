//! The rules over a store in memory, without a policy.

use std::sync::Arc;

use apimachinery::ObjectKey;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::testing::{TestServer, pod};
use crate::*;

mod cluster_scoped;
mod nesting;
mod raw;
mod reads;
mod refused;
mod writes;

async fn server() -> TestServer {
    TestServer::new(|_| Arc::new(NoPolicy)).await
}

const PODS: &str = "/api/v1/namespaces/d/pods";
const MAPS: &str = "/api/v1/namespaces/d/configmaps";

#[tokio::test]
async fn an_object_is_made_read_changed_and_removed() {
    let server = server().await;
    let made = server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await;
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(made["metadata"][field].is_string(), "{field}");
    }
    assert_eq!(
        server.refused(Method::POST, MAPS, json!({"metadata": {"name": "a"}})).await,
        (409, "configmaps \"a\" already exists".to_owned())
    );
    let mut next = made.clone();
    next["data"]["k"] = json!("2");
    let uri = format!("{MAPS}/a");
    let updated = server.ok(Method::PUT, &uri, next.clone()).await;
    assert_ne!(updated["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (code, message) = server.refused(Method::PUT, &uri, next).await;
    assert_eq!(code, 409);
    assert!(
        message
            .starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified")
    );
    // Nothing changed, nothing is written.
    assert_eq!(server.ok(Method::PUT, &uri, updated.clone()).await, updated);
    let gone = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert_eq!(gone["status"], "Success");
    assert_eq!(
        server.refused(Method::GET, &uri, Value::Null).await,
        (404, "configmaps \"a\" not found".to_owned())
    );
}

#[tokio::test]
async fn a_server_refuses_what_a_server_refuses() {
    let server = server().await;
    let cases = [
        (
            MAPS,
            json!({"metadata": {"name": "A"}}),
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\"",
        ),
        (MAPS, json!({"metadata": {}}), 422, "name or generateName is required"),
        (MAPS, json!({"metadata": {"name": "a", "namespace": "e"}}), 400, "does not match the namespace"),
        (
            PODS,
            json!({"metadata": {"name": "a"}, "spec": {"containers": []}}),
            422,
            "spec.containers: Required value",
        ),
        (
            PODS,
            json!({"metadata": {"name": "a"}, "spec": {"containers": "x"}}),
            400,
            "cannot be handled as a Pod",
        ),
        (PODS, json!({"kind": "Node", "apiVersion": "v1"}), 400, "does not match the expected API version"),
        (PODS, json!([1]), 400, "unrecognized"),
        ("/api/v1/nothings", json!({}), 404, "could not find the requested resource"),
        ("/api/v1/namespaces/d/nodes", json!({}), 404, "could not find the requested resource"),
    ];
    for (uri, body, code, part) in cases {
        let (found, message) = server.refused(Method::POST, uri, body).await;
        assert!(found == code && message.contains(part), "{uri}: {found} {message}");
    }
    let strict = format!("{PODS}?fieldValidation=Strict");
    let mut odd = pod("a");
    odd["spec"]["colour"] = json!("red");
    let (code, message) = server.refused(Method::POST, &strict, odd.clone()).await;
    assert_eq!(
        (code, message.as_str()),
        (
            400,
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.colour\""
        )
    );
    let (code, made, warnings) = server.ask(Method::POST, PODS, &[], odd).await;
    assert_eq!((code, warnings), (201, vec!["299 - \"unknown field \\\"spec.colour\\\"\"".to_owned()]));
    assert_eq!(made["spec"].get("colour"), None);
    let twice = r#"{"metadata": {"name": "b"}, "data": {"a": "1"}, "data": {"b": "2"}}"#;
    let maps = "/api/v1/namespaces/d/configmaps";
    let (code, refused, _) =
        server.ask_text(Method::POST, &format!("{maps}?fieldValidation=Strict"), twice).await;
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(code == 400 && message.ends_with("strict decoding error: duplicate field \"data\""), "{message}");
    let (code, made, warnings) = server.ask_text(Method::POST, maps, twice).await;
    assert_eq!((code, warnings), (201, vec!["299 - \"duplicate field \\\"data\\\"\"".to_owned()]));
    assert_eq!(made["data"], json!({"b": "2"}));
    let lease = "/apis/coordination.k8s.io/v1/namespaces/d/leases";
    server.ok(Method::POST, lease, json!({"metadata": {"name": "l"}})).await;
    let (code, message) =
        server.refused(Method::PUT, &format!("{lease}/l"), json!({"metadata": {"name": "l"}})).await;
    assert!(code == 422 && message.contains("must be specified for an update"), "{message}");
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.ask(Method::POST, PODS, &protobuf, json!({})).await.0, 415);
    assert_eq!(
        server
            .ask(Method::GET, PODS, &[("accept", "application/vnd.kubernetes.protobuf")], Value::Null)
            .await
            .0,
        406
    );
    let large = json!({"metadata": {"name": "x".repeat(BODY_MAX)}});
    assert_eq!(server.refused(Method::POST, MAPS, large).await.0, 413);
}

#[tokio::test]
async fn status_is_written_by_its_subresource_only() {
    let server = server().await;
    let mut running = pod("a");
    running["status"] = json!({"phase": "Running"});
    let made = server.ok(Method::POST, PODS, running).await;
    assert_eq!(made["status"]["phase"], "Pending");
    let uri = format!("{PODS}/a");
    let (code, next) = server.patch(&uri, "merge", json!({"status": {"phase": "Failed"}})).await;
    assert_eq!((code, &next["status"]["phase"]), (200, &json!("Pending")));
    let status = format!("{uri}/status");
    let (code, next) = server
        .patch(&status, "strategic-merge", json!({"status": {"phase": "Running"}, "spec": {"nodeName": "n"}}))
        .await;
    assert_eq!((code, &next["status"]["phase"]), (200, &json!("Running")));
    assert_eq!(next["spec"].get("nodeName"), None);
}

#[tokio::test]
async fn a_bound_pod_goes_gracefully_and_an_unbound_one_at_once() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    server.ok(Method::DELETE, &format!("{PODS}/a"), Value::Null).await;
    assert_eq!(server.refused(Method::GET, &format!("{PODS}/a"), Value::Null).await.0, 404);
    let mut bound = pod("b");
    bound["spec"]["nodeName"] = json!("n");
    server.ok(Method::POST, PODS, bound).await;
    let uri = format!("{PODS}/b");
    let going = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    server.ok(Method::DELETE, &uri, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(server.refused(Method::GET, &uri, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_grace_that_no_calendar_has_is_never_a_time_that_is_past() {
    let server = server().await;
    for (at, grace) in [300_000_000_000_i64, i64::MAX, 1 << 40].into_iter().enumerate() {
        for own in [false, true] {
            let name = format!("p{at}-{own}");
            let mut bound = pod(&name);
            bound["spec"]["nodeName"] = json!("n");
            let mut options = json!({ "gracePeriodSeconds": grace });
            if own {
                bound["spec"]["terminationGracePeriodSeconds"] = json!(grace);
                options = Value::Null;
            }
            server.ok(Method::POST, PODS, bound).await;
            let going = server.ok(Method::DELETE, &format!("{PODS}/{name}"), options).await;
            let until: jiff::Timestamp =
                going["metadata"]["deletionTimestamp"].as_str().unwrap().parse().unwrap();
            assert!(until > jiff::Timestamp::from_second(200_000_000_000).unwrap(), "{until}");
            let seconds = going["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap();
            assert!(seconds > 100_000_000_000 && seconds <= grace, "{seconds}");
        }
    }
    server.ok(Method::POST, PODS, pod("odd")).await;
    for odd in [json!("0"), json!(1.5), json!(3e11), json!(u64::MAX)] {
        let (code, message) =
            server.refused(Method::DELETE, &format!("{PODS}/odd"), json!({"gracePeriodSeconds": odd})).await;
        assert!(code == 400 && message.contains("whole number of seconds"), "{odd}: {code} {message}");
    }
}

#[tokio::test]
async fn a_reference_to_an_owner_names_one() {
    let server = server().await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"});
    for field in ["apiVersion", "kind", "name", "uid"] {
        let mut odd = owner.clone();
        odd[field] = json!("");
        let map = json!({"metadata": {"name": "a", "ownerReferences": [odd]}});
        let (code, message) = server.refused(Method::POST, MAPS, map).await;
        assert!(code == 422 && message.contains(&format!("ownerReferences[0].{field}")), "{message}");
    }
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a", "ownerReferences": [owner]}})).await;
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = server().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
    server.ok(Method::POST, MAPS, held).await;
    let uri = format!("{MAPS}/a");
    let marked = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let (code, _) = server.patch(&uri, "merge", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(server.refused(Method::GET, &uri, Value::Null).await.0, 404);
    let foreground = json!({"propagationPolicy": "Foreground"});
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "b"}})).await;
    let marked = server.ok(Method::DELETE, &format!("{MAPS}/b"), foreground).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    // A namespace waits for its own finalizer.
    let space = server.ok(Method::DELETE, "/api/v1/namespaces/d", Value::Null).await;
    assert_eq!(space["status"]["phase"], "Terminating");
    let done = json!({"metadata": {"name": "d"}, "spec": {"finalizers": []}});
    server.ok(Method::PUT, "/api/v1/namespaces/d/finalize", done).await;
    assert_eq!(server.refused(Method::GET, "/api/v1/namespaces/d", Value::Null).await.0, 404);
}

#[tokio::test]
async fn lists_are_chosen_paged_and_drawn() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        server.ok(Method::POST, PODS, pod(name)).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = server.ok(Method::GET, &format!("{PODS}?labelSelector=app%20in%20(a,c)"), Value::Null).await;
    assert_eq!((names(&list), &list["kind"]), (vec!["a".to_owned(), "c".to_owned()], &json!("PodList")));
    let list = server
        .ok(Method::GET, "/api/v1/pods?fieldSelector=metadata.name=b,spec.nodeName=", Value::Null)
        .await;
    assert_eq!(names(&list), ["b"]);
    let first = server.ok(Method::GET, &format!("{PODS}?limit=2"), Value::Null).await;
    assert_eq!(names(&first), ["a", "b"]);
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = server.ok(Method::GET, &format!("{PODS}?limit=2&continue={next}"), Value::Null).await;
    assert_eq!((names(&second), second["metadata"].get("continue")), (vec!["c".to_owned()], None));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let (_, drawn, _) = server.ask(Method::GET, PODS, &table, Value::Null).await;
    assert_eq!(drawn["kind"], "Table");
    let cells = drawn["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("a"), json!("0/1"), json!("Pending"), json!("0")]);
    assert_eq!(server.refused(Method::GET, &format!("{PODS}?continue=%21"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn a_watch_tells_what_its_selector_sees() {
    let server = server().await;
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a", "labels": {"x": "1"}}})).await;
    let mut watch = std::pin::pin!(server.watch(&format!("{MAPS}?watch=true&labelSelector=x=1")).await);
    let mut next = async || {
        let event =
            tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
        (
            event["type"].as_str().unwrap().to_owned(),
            event["object"]["metadata"]["name"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(next().await, ("ADDED".into(), "a".into()));
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "b"}})).await;
    server.patch(&format!("{MAPS}/b"), "merge", json!({"metadata": {"labels": {"x": "1"}}})).await;
    assert_eq!(next().await, ("ADDED".into(), "b".into()));
    server.patch(&format!("{MAPS}/a"), "merge", json!({"data": {"k": "v"}})).await;
    assert_eq!(next().await, ("MODIFIED".into(), "a".into()));
    server.patch(&format!("{MAPS}/a"), "merge", json!({"metadata": {"labels": {"x": "2"}}})).await;
    assert_eq!(next().await, ("DELETED".into(), "a".into()));
    server.ok(Method::DELETE, &format!("{MAPS}/b"), Value::Null).await;
    assert_eq!(next().await, ("DELETED".into(), "b".into()));
}

#[tokio::test]
async fn a_definition_makes_a_kind_with_rules() {
    let server = server().await;
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1, "maximum": 3}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    let made = server.ok(Method::POST, DEFINITIONS, definition).await;
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    const THINGS: &str = "/apis/x.io/v1/namespaces/d/things";
    let thing = server
        .ok(Method::POST, THINGS, json!({"metadata": {"name": "t"}, "spec": {}, "status": {"a": 1}}))
        .await;
    assert_eq!((&thing["spec"]["size"], thing.get("status")), (&json!(1), None));
    assert_eq!(thing["metadata"]["generation"], 1);
    let (code, message) =
        server.refused(Method::POST, THINGS, json!({"metadata": {"name": "u"}, "spec": {"size": 9}})).await;
    assert!(
        code == 422 && message.starts_with("Thing.x.io \"u\" is invalid: spec.size: Invalid value: 9"),
        "{message}"
    );
    let strict = format!("{THINGS}?fieldValidation=Strict");
    let (code, message) =
        server.refused(Method::POST, &strict, json!({"metadata": {"name": "u"}, "spec": {"sice": 9}})).await;
    assert!(code == 400 && message.ends_with("unknown field \"spec.sice\""), "{message}");
    let uri = format!("{THINGS}/t");
    let (_, next) = server.patch(&uri, "merge", json!({"spec": {"size": 2}})).await;
    assert_eq!(next["metadata"]["generation"], 2);
    let (_, next) = server
        .patch(&format!("{uri}/status"), "merge", json!({"status": {"a": 2}, "spec": {"size": 3}}))
        .await;
    assert_eq!((&next["spec"]["size"], &next["status"]["a"]), (&json!(2), &json!(2)));
    assert_eq!(next["metadata"]["generation"], 2);
    assert_eq!(server.patch(&uri, "strategic-merge", json!({})).await.0, 415);
    let (_, drawn, _) =
        server.ask(Method::GET, THINGS, &[("accept", "application/json;as=Table")], Value::Null).await;
    assert_eq!(drawn["rows"][0]["cells"], json!(["t", 2]));
    let (code, message) =
        server.refused(Method::PUT, &uri, json!({"metadata": {"name": "t"}, "spec": {}})).await;
    assert!(
        code == 422
            && message
                .ends_with("metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"),
        "{message}"
    );
    server.ok(Method::DELETE, &format!("{DEFINITIONS}/things.x.io"), Value::Null).await;
    assert_eq!(server.refused(Method::GET, THINGS, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_list_is_of_a_version_that_there_is() {
    let server = server().await;
    const MAPS: &str = "/api/v1/namespaces/d/configmaps";
    let listed = server.ok(Method::GET, MAPS, Value::Null).await;
    let now = listed["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for (options, code, what) in [
        ("resourceVersion=-1".to_owned(), 400, "invalid resource version `-1`"),
        ("resourceVersion=99999999999999999999".to_owned(), 400, "invalid resource version"),
        ("resourceVersion=999999".to_owned(), 504, "Too large resource version: 999999, current: "),
        (format!("resourceVersion={now}&resourceVersionMatch=Bogus"), 422, "ListOptions.meta.k8s.io"),
        ("limit=abc".to_owned(), 400, r#"limit: strconv.ParseInt: parsing "abc": invalid syntax"#),
        ("limit=99999999999999999999".to_owned(), 400, "value out of range"),
        (
            "watch=true&timeoutSeconds=1.5".to_owned(),
            400,
            r#"timeoutSeconds: strconv.ParseInt: parsing "1.5""#,
        ),
    ] {
        let (found, message) = server.refused(Method::GET, &format!("{MAPS}?{options}"), Value::Null).await;
        assert!(found == code && message.contains(what), "{options}: {found} {message}");
    }
    for options in ["resourceVersion=0", "resourceVersion=1&resourceVersionMatch=NotOlderThan", "limit=-1"] {
        server.ok(Method::GET, &format!("{MAPS}?{options}"), Value::Null).await;
    }
    server
        .ok(Method::GET, &format!("{MAPS}?resourceVersion={now}&resourceVersionMatch=Exact"), Value::Null)
        .await;
}

#[tokio::test]
async fn scales_and_dry_runs() {
    let server = server().await;
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/d/deployments";
    let template =
        json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template}});
    let dry = server.ok(Method::POST, &format!("{DEPLOYMENTS}?dryRun=All"), deployment.clone()).await;
    assert_eq!(dry["spec"]["replicas"], 1);
    assert_eq!(server.refused(Method::GET, &format!("{DEPLOYMENTS}/w"), Value::Null).await.0, 404);
    for options in ["dryRun=Bogus", "dryRun=", "dryRun=All&dryRun=all"] {
        let uri = format!("{DEPLOYMENTS}?{options}");
        let (code, message) = server.refused(Method::POST, &uri, deployment.clone()).await;
        assert!(
            code == 422
                && message.starts_with("CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported"),
            "{message}"
        );
    }
    assert_eq!(server.refused(Method::GET, &format!("{DEPLOYMENTS}/w"), Value::Null).await.0, 404);
    server.ok(Method::POST, DEPLOYMENTS, deployment).await;
    let uri = format!("{DEPLOYMENTS}/w");
    assert_eq!(server.refused(Method::DELETE, &format!("{uri}?dryRun=Bogus"), Value::Null).await.0, 422);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["Nope"]});
    assert_eq!(server.refused(Method::DELETE, &uri, options).await.0, 422);
    for odd in [
        json!({"preconditions": {"uid": 5}}),
        json!({"preconditions": []}),
        json!({"preconditions": {"resourceVersion": 1}}),
        json!({"orphanDependents": "x"}),
        json!({"dryRun": "All"}),
        json!({"kind": "Pod", "apiVersion": "v1"}),
        json!([]),
        json!("x"),
    ] {
        let (code, message) = server.refused(Method::DELETE, &uri, odd.clone()).await;
        assert_eq!(code, 400, "{odd}: {message}");
    }
    server.ok(Method::GET, &uri, Value::Null).await;
    let (code, scale) =
        server.patch(&format!("{DEPLOYMENTS}/w/scale"), "merge", json!({"spec": {"replicas": 3}})).await;
    assert_eq!(
        (code, &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (200, &json!(3), &json!("app=w"))
    );
    let (code, message) = {
        let (code, answer) = server
            .patch(
                &format!("{DEPLOYMENTS}/w"),
                "merge",
                json!({"spec": {"selector": {"matchLabels": {"app": "v"}}}}),
            )
            .await;
        (code, answer["message"].as_str().unwrap().to_owned())
    };
    assert!(code == 422 && message.contains("spec.selector"), "{message}");
}

/// What only a policy answers is not there without one.
#[tokio::test]
async fn without_a_policy_there_are_no_resources_of_one() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    for uri in [
        format!("{PODS}/a/binding"),
        format!("{PODS}/a/eviction"),
        "/apis/authentication.k8s.io/v1/tokenreviews".to_owned(),
    ] {
        assert_eq!(server.refused(Method::POST, &uri, json!({})).await.0, 404, "{uri}");
    }
    assert_eq!(server.refused(Method::GET, "/apis/authorization.k8s.io/v1", Value::Null).await.0, 404);
}

/// The reading half alone: what a server that forwards its writes stands on.
#[tokio::test]
async fn the_reading_half_answers_reads_and_refuses_writes() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    let reader = ReadApi::new(Arc::clone(server.0.store()), crate::testing::options(), &[]);
    let ask = async |method: Method, uri: &str| {
        let (parts, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let response = reader.handle(&parts, &User::default()).await;
        let code = response.status().as_u16();
        match response.into_body() {
            Body::Whole(bytes) => (code, serde_json::from_slice::<Value>(&bytes).unwrap_or_default()),
            Body::Stream(mut lines) => (code, serde_json::from_slice(&lines.next().await.unwrap()).unwrap()),
        }
    };
    let uri = format!("{PODS}/a");
    assert_eq!(ask(Method::GET, &uri).await.1["metadata"]["name"], "a");
    assert_eq!(ask(Method::GET, &format!("{uri}/status")).await.0, 200);
    assert_eq!(ask(Method::GET, PODS).await.1["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(ask(Method::GET, &format!("{PODS}?watch=1")).await.1["type"], "ADDED");
    assert_eq!(ask(Method::GET, "/api/v1").await.1["kind"], "APIResourceList");
    for (method, uri) in [
        (Method::POST, PODS),
        (Method::PUT, &uri),
        (Method::PATCH, &uri),
        (Method::DELETE, &uri),
        (Method::DELETE, PODS),
    ] {
        assert_eq!(ask(method.clone(), uri).await.0, 405, "{method} {uri}");
    }
    assert_eq!(ask(Method::GET, &format!("{uri}/log")).await.0, 404);
    assert_eq!(ask(Method::GET, "/apis/x.io/v1/things").await.0, 404);
}
