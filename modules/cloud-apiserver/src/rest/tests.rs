//! Bindings, evictions, tokens and reviews, over a store in memory.

use futures::StreamExt;
use http::Method;
use kubeapi::testing::{is_read_as_protobuf, pod};
use serde_json::{Value, json};

use crate::admission::tests::server;

const PODS: &str = "/api/v1/namespaces/d/pods";

#[tokio::test]
async fn a_token_is_bound_to_a_pod_of_its_account_only() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/d/serviceaccounts";
    server.ok(Method::POST, accounts, json!({"metadata": {"name": "other"}})).await;
    server.ok(Method::POST, PODS, pod("a")).await;
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "a"}}});
    server.ok(Method::POST, &format!("{accounts}/default/token"), bound.clone()).await;
    let (code, message) = server.refused(Method::POST, &format!("{accounts}/other/token"), bound).await;
    assert!(code == 400 && message.contains("running with different serviceaccount name"), "{message}");
}

#[tokio::test]
async fn a_binding_is_to_a_node_and_may_be_a_trial() {
    let server = server().await;
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
async fn pods_of_a_node_are_watched_by_their_field() {
    let server = server().await;
    let bound = |name: &str, node: &str| {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    let mut watch =
        std::pin::pin!(server.watch("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1").await);
    server.ok(Method::POST, PODS, bound("x", "n2")).await;
    server.ok(Method::POST, PODS, pod("free")).await;
    server.ok(Method::POST, PODS, bound("y", "n1")).await;
    let binding = json!({"metadata": {"name": "free"}, "target": {"kind": "Node", "name": "n1"}});
    server.ok(Method::POST, &format!("{PODS}/free/binding"), binding).await;
    for name in ["y", "free"] {
        let line = watch.next().await.unwrap();
        assert_eq!((&line["type"], &line["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
    }
}

#[tokio::test]
async fn a_bound_pod_goes_gracefully_and_an_unbound_one_at_once() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    server.ok(Method::DELETE, &format!("{PODS}/a"), Value::Null).await;
    assert_eq!(server.refused(Method::GET, &format!("{PODS}/a"), Value::Null).await.0, 404);
    server.ok(Method::POST, PODS, pod("b")).await;
    let uri = format!("{PODS}/b");
    server
        .ok(Method::POST, &format!("{uri}/binding"), json!({"target": {"kind": "Node", "name": "n"}}))
        .await;
    let (code, message) =
        server.refused(Method::POST, &format!("{uri}/binding"), json!({"target": {"name": "m"}})).await;
    assert!(code == 409 && message.contains("already assigned to node \"n\""), "{message}");
    let going = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let (code, message) = server.refused(Method::DELETE, &uri, json!({"preconditions": {"uid": "x"}})).await;
    assert!(code == 409 && message.contains("UID in precondition: x"), "{message}");
    server.ok(Method::DELETE, &uri, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(server.refused(Method::GET, &uri, Value::Null).await.0, 404);
}

#[tokio::test]
async fn tokens_reviews_and_addresses_are_given() {
    let server = server().await;
    let token = server
        .ok(
            Method::POST,
            "/api/v1/namespaces/d/serviceaccounts/default/token",
            json!({"spec": {"expirationSeconds": 600}}),
        )
        .await;
    assert_eq!(token["status"]["token"], "token-of-default");
    let short = json!({"spec": {"expirationSeconds": 5}});
    assert_eq!(
        server.refused(Method::POST, "/api/v1/namespaces/d/serviceaccounts/default/token", short).await.0,
        422
    );
    for (odd, part) in [
        (json!(-1), "less than 10 minutes"),
        (json!(599), "less than 10 minutes"),
        (json!((1_u64 << 32) + 1), "larger than 2^32 seconds"),
        (json!(i64::MAX), "larger than 2^32 seconds"),
        (json!(u64::MAX), "whole number"),
        (json!(1e12), "whole number"),
        (json!("600"), "whole number"),
    ] {
        let asked = json!({"spec": {"expirationSeconds": odd}});
        let uri = "/api/v1/namespaces/d/serviceaccounts/default/token";
        let (code, message) = server.refused(Method::POST, uri, asked).await;
        assert!(code == 422 && message.contains(part), "{odd}: {code} {message}");
    }
    let review = server
        .ok(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "good"}}))
        .await;
    assert_eq!(review["status"]["user"]["username"], "me");
    let access = json!({"spec": {"user": "me", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let review = server.ok(Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", access).await;
    assert_eq!(review["status"]["allowed"], true);
    let services = "/api/v1/namespaces/d/services";
    let service = server
        .ok(Method::POST, services, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}))
        .await;
    assert!(service["spec"]["clusterIP"].as_str().unwrap().starts_with("10."), "{service}");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
}

/// As `kubectl auth can-i --list` asks.
#[tokio::test]
async fn a_user_is_told_his_rules() {
    let server = server().await;
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let told = server.ok(Method::POST, rules, json!({"spec": {"namespace": "d"}})).await;
    assert_eq!(told["status"]["incomplete"], false, "{told}");
    assert!(
        told["status"]["resourceRules"].is_array() && told["status"]["nonResourceRules"].is_array(),
        "{told}"
    );
    let (code, message) = server.refused(Method::POST, rules, json!({"spec": {}})).await;
    assert!(code == 400 && message.contains("no namespace on request"), "{message}");
}

/// As `kubectl auth whoami` asks.
#[tokio::test]
async fn a_user_is_told_who_he_is() {
    let server = server().await;
    let user = kubeapi::User { name: "me".into(), groups: vec!["operators".into()], uid: "u-1".into() };
    let uri = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, told, _) = server.ask_as(&user, Method::POST, uri, &[], json!({})).await;
    assert_eq!((code, &told["kind"]), (201, &json!("SelfSubjectReview")), "{told}");
    let expected = json!({"username": "me", "groups": ["operators"], "uid": "u-1"});
    assert_eq!(told["status"]["userInfo"], expected);
}

/// Clients of Go send what they have types for as protobuf, and do not try again in JSON.
#[tokio::test]
async fn the_body_of_everything_that_is_discovered_is_read_as_protobuf() {
    let server = server().await;
    let mut versions = vec![("/api/v1".to_owned(), "v1".to_owned())];
    let groups = server.ok(Method::GET, "/apis", Value::Null).await;
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let version = version["groupVersion"].as_str().unwrap();
            versions.push((format!("/apis/{version}"), version.to_owned()));
        }
    }
    let mut seen = 0;
    for (path, version) in versions {
        let listed = server.ok(Method::GET, &path, Value::Null).await;
        for resource in listed["resources"].as_array().unwrap() {
            let kind = resource["kind"].as_str().unwrap();
            let verbs = resource["verbs"].as_array().unwrap();
            let has_body = ["create", "update"].iter().any(|verb| verbs.contains(&json!(verb)));
            // Options of a connection stand in its query. Clients send definitions in JSON.
            if !has_body || kind.ends_with("Options") || kind == "CustomResourceDefinition" {
                continue;
            }
            let of = match (resource["group"].as_str(), resource["version"].as_str()) {
                (Some(group), Some(version)) => format!("{group}/{version}"),
                _ => version.clone(),
            };
            assert!(is_read_as_protobuf(&of, kind), "{kind} of {of}, at {path}/{}", resource["name"]);
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} resources were discovered");
}

#[tokio::test]
async fn a_pod_is_evicted() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    let eviction =
        |uid: &str| json!({"metadata": {"name": "a"}, "deleteOptions": {"preconditions": {"uid": uid}}});
    let (code, message) = server.refused(Method::POST, &format!("{PODS}/a/eviction"), eviction("x")).await;
    assert!(code == 409 && message.contains("UID in precondition: x"), "{message}");
    let uid = server.ok(Method::GET, &format!("{PODS}/a"), Value::Null).await["metadata"]["uid"].clone();
    server.ok(Method::POST, &format!("{PODS}/a/eviction"), eviction(uid.as_str().unwrap())).await;
    assert_eq!(server.refused(Method::GET, &format!("{PODS}/a"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn what_is_answered_and_not_stored_is_discovered() {
    let server = server().await;
    let core = server.ok(Method::GET, "/api/v1", Value::Null).await;
    let names: Vec<&str> =
        core["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
    for name in ["pods/binding", "pods/eviction", "serviceaccounts/token", "namespaces/finalize"] {
        assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name}");
    }
    let groups = server.ok(Method::GET, "/apis", Value::Null).await.to_string();
    assert!(
        groups.contains("authentication.k8s.io/v1") && groups.contains("authorization.k8s.io/v1"),
        "{groups}"
    );
}
