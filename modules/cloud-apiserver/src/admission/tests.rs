//! The plugins of this server, over a store in memory.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::Method;
use jiff::Timestamp;
use kubeapi::testing::{TestServer, options, pod};
use kubeapi::{Attributes, User};
use serde_json::{Value, json};

use super::ClusterPolicy;
use crate::access::{AccessControl, TokenRequest};

const PODS: &str = "/api/v1/namespaces/d/pods";
const MAPS: &str = "/api/v1/namespaces/d/configmaps";
const SERVICES: &str = "/api/v1/namespaces/d/services";

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

struct Rights;

impl AccessControl for Rights {
    fn mint_token(&self, request: &TokenRequest) -> Result<(String, Vec<String>, Timestamp), String> {
        let ends = Timestamp::from_second(request.expiration_seconds).unwrap();
        Ok((format!("token-of-{}", request.service_account), vec!["api".into()], ends))
    }
    fn review_token<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Option<(User, Vec<String>)>> {
        let user = User { name: "me".into(), ..User::default() };
        Box::pin(async move { (token == "good").then_some((user, vec!["api".to_owned()])) })
    }
    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, bool> {
        let verb = attributes.verb.as_str();
        let may = match user.name.as_str() {
            "me" => verb == "get",
            "binder" => verb == "bind" && attributes.name == "reader",
            "root" => true,
            _ => false,
        };
        Box::pin(std::future::ready(may))
    }
    fn rules_for<'a>(&'a self, user: &'a User, namespace: &'a str) -> BoxFuture<'a, Vec<Value>> {
        let rules = match (user.name.as_str(), namespace) {
            // Only in its namespace.
            ("owner", "d") => {
                vec![json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]})]
            }
            _ => Vec::new(),
        };
        Box::pin(std::future::ready(rules))
    }
}

/// A server with the whole policy.
pub(crate) async fn server() -> TestServer {
    TestServer::new(|store| {
        let random = options().random;
        Arc::new(ClusterPolicy::new(Arc::clone(store), Arc::new(Rights), random))
    })
    .await
}

fn role(name: &str, verbs: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
}

fn binding(kind: &str, role: &str) -> Value {
    json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "friend"}]})
}

async fn code_as(server: &TestServer, who: &str, method: Method, uri: &str, body: Value) -> (u16, String) {
    let user = User { name: who.to_owned(), ..User::default() };
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let (code, answer, _) = server.ask_as(&user, method, uri, &[("content-type", media)], body).await;
    (code, answer["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn nobody_gives_rights_that_he_has_not() {
    let server = server().await;
    let roles = format!("{RBAC}/namespaces/d/roles");
    let code = async |who: &str, method: Method, uri: &str, body: Value| {
        code_as(&server, who, method, uri, body).await
    };
    let (refused, message) = code("owner", Method::POST, &roles, role("more", &["get", "delete"])).await;
    assert_eq!(refused, 403);
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
    assert!(
        message.contains(r#""verbs":["delete"]"#) && !message.contains(r#""verbs":["get"]"#),
        "{message}"
    );
    assert_eq!(code("owner", Method::POST, &roles, role("own", &["get", "list"])).await.0, 201);
    // Nor a step at a time, by either way to change.
    let uri = format!("{roles}/own");
    for (method, body) in [(Method::PUT, role("own", &["*"])), (Method::PATCH, role("own", &["*"]))] {
        assert_eq!(code("owner", method, &uri, body).await.0, 403);
    }
    // What leaves the rules alone is no gift.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(code("stranger", Method::PATCH, &uri, label).await.0, 200);
    // His rights are in this namespace only.
    assert_eq!(
        code("owner", Method::POST, &format!("{RBAC}/clusterroles"), role("own", &["get"])).await.0,
        403
    );
    assert_eq!(
        code("root", Method::POST, &format!("{RBAC}/clusterroles"), role("reader", &["*"])).await.0,
        201
    );
    let aggregated = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    assert_eq!(code("owner", Method::POST, &format!("{RBAC}/clusterroles"), aggregated).await.0, 403);
}

#[tokio::test]
async fn a_binding_gives_all_of_its_role() {
    let server = server().await;
    let (roles, bindings) =
        (format!("{RBAC}/namespaces/d/roles"), format!("{RBAC}/namespaces/d/rolebindings"));
    for (name, verbs) in [("reader", &["get"][..]), ("admin", &["*"])] {
        assert_eq!(code_as(&server, "root", Method::POST, &roles, role(name, verbs)).await.0, 201);
    }
    let bind = async |who: &str, role: &str| {
        let dry = format!("{bindings}?dryRun=All");
        code_as(&server, who, Method::POST, &dry, binding("Role", role)).await.0
    };
    assert_eq!(bind("owner", "reader").await, 201);
    assert_eq!(bind("owner", "admin").await, 403);
    assert_eq!(bind("stranger", "reader").await, 403);
    assert_eq!(bind("binder", "reader").await, 201);
    assert_eq!(bind("binder", "admin").await, 403);
    // What does not exist yet could become anything.
    assert_eq!(bind("owner", "later").await, 404);
    assert_eq!(bind("root", "later").await, 201);
    // Another subject is a gift, too.
    let uri = format!("{bindings}/b");
    assert_eq!(code_as(&server, "root", Method::POST, &bindings, binding("Role", "admin")).await.0, 201);
    let me =
        json!({"subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "owner"}]});
    assert_eq!(code_as(&server, "owner", Method::PATCH, &uri, me).await.0, 403);
}

async fn label(server: &TestServer, labels: Value) -> (u16, Value, Vec<String>) {
    let media = [("content-type", "application/merge-patch+json")];
    let body = json!({"metadata": {"labels": labels}});
    server.ask(Method::PATCH, "/api/v1/namespaces/d", &media, body).await
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

#[tokio::test]
async fn a_namespace_refuses_what_its_level_forbids() {
    let server = server().await;
    server.ok(Method::POST, PODS, privileged("before")).await;
    let (code, answer, told) =
        label(&server, json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    assert_eq!(code, 200, "{answer}");
    assert!(told[0].contains("violate the new PodSecurity enforce level"), "{told:?}");
    assert!(told[1].contains("before: host namespaces, privileged"), "{told:?}");
    let (code, message) = server.refused(Method::POST, PODS, privileged("p")).await;
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), \
         privileged (container \"c\" must not set securityContext.privileged=true)"
    );
    // Also as a trial, and by the server itself.
    let (code, _) = server.refused(Method::POST, &format!("{PODS}?dryRun=All"), privileged("p")).await;
    assert_eq!(code, 403);
    let root = User { name: "root".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() };
    assert_eq!(server.ask_as(&root, Method::POST, PODS, &[], privileged("p")).await.0, 403);
    server.ok(Method::POST, PODS, pod("good")).await;
    // A pod from before keeps running and being reported, and gets no other image.
    let status = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running"}});
    assert_eq!(server.patch(&format!("{PODS}/before/status"), "merge", status.clone()).await.0, 200);
    assert_eq!(server.patch(&format!("{PODS}/before"), "merge", status).await.0, 200);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "y"}]}});
    assert_eq!(server.patch(&format!("{PODS}/before"), "strategic-merge", image).await.0, 403);
}

#[tokio::test]
async fn who_makes_pods_later_is_warned() {
    let server = server().await;
    label(&server, json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "v1.30"})).await;
    let template =
        json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template}});
    let (code, _, told) =
        server.ask(Method::POST, "/apis/apps/v1/namespaces/d/deployments", &[], deployment).await;
    assert_eq!((code, told.len()), (201, 1), "{told:?}");
    for part in ["would violate PodSecurity", "restricted:v1.30", "runAsNonRoot != true", "seccompProfile"] {
        assert!(told[0].contains(part), "{told:?}");
    }
    let uri = "/apis/apps/v1/namespaces/d/deployments/w";
    let media = [("content-type", "application/merge-patch+json")];
    let (_, _, told) =
        server.ask(Method::PATCH, uri, &media, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(told.len(), 1, "{told:?}");
    // A word about warnings of its own goes before the one to enforce.
    label(&server, json!({"pod-security.kubernetes.io/warn": "privileged"})).await;
    let (_, _, told) =
        server.ask(Method::PATCH, uri, &media, json!({"metadata": {"labels": {"a": "c"}}})).await;
    assert_eq!(told, [""; 0]);
}

#[tokio::test]
async fn labels_that_say_no_level_are_refused() {
    let server = server().await;
    for (name, value) in [
        ("enforce", "strict"),
        ("warn", "Baseline"),
        ("audit", "none"),
        ("enforce-version", "1.25"),
        ("warn-version", "v1.025"),
        ("audit-version", "newest"),
    ] {
        let mut labels = json!({});
        labels[format!("pod-security.kubernetes.io/{name}")] = json!(value);
        let (code, answer, _) = label(&server, labels.clone()).await;
        let message = answer["message"].as_str().unwrap();
        assert!(code == 422 && message.contains(name) && message.contains("must be"), "{name}: {message}");
        let made = json!({"metadata": {"name": "other", "labels": labels}});
        assert_eq!(server.refused(Method::POST, "/api/v1/namespaces", made).await.0, 422);
    }
}

fn annotated(name: &str) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    pod
}

fn of_group(group: &str) -> User {
    User { name: "somebody".to_owned(), groups: vec![group.to_owned()], ..User::default() }
}

#[tokio::test]
async fn the_mark_of_a_report_is_changed_only_by_who_may_write_the_status() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("p")).await;
    let marked = |mark: Value| json!({"metadata": {"annotations": {"kubehive.io/reported": mark}}});
    let uri = format!("{PODS}/p");
    let ways = [uri.clone(), format!("{uri}/status")];
    let patch = async |who: &str, uri: &str, mark: Value| {
        code_as(&server, who, Method::PATCH, uri, marked(mark)).await
    };
    for way in &ways {
        let (got, told) = patch("me", way, json!("9.9/u")).await;
        assert!(got == 403 && told.contains("kubehive.io/reported"), "{way}: {got} {told}");
    }
    assert_eq!(patch("root", &ways[1], json!("1.1/u")).await.0, 200);
    assert_eq!(patch("me", &uri, json!("1.2/u")).await.0, 403);
    // What stays as it is asks for nothing, and without a mark every report is news.
    let labels = json!({"metadata": {"labels": {"mine": "1"}}});
    assert_eq!(code_as(&server, "me", Method::PATCH, &uri, labels).await.0, 200);
    assert_eq!(patch("me", &uri, Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_tenants_pod_is_no_part_of_the_system() {
    let server = server().await;
    let with = |field: &str, value: Value| {
        let mut pod = pod("p");
        pod["spec"][field] = value;
        pod
    };
    for (body, told) in [
        (with("priorityClassName", json!("system-node-critical")), "is not permitted in d namespace"),
        (with("priorityClassName", json!("system-cluster-critical")), "is not permitted in d namespace"),
        (with("priorityClassName", json!("mine")), "no PriorityClass with name mine was found"),
        (with("priority", json!(2_000_001_000)), "must not be provided in pod spec"),
        (with("priority", json!(-1)), "must not be provided in pod spec"),
        (annotated("p"), "kubernetes.io/config.mirror"),
    ] {
        let (code, message) = server.refused(Method::POST, PODS, body).await;
        assert_eq!(code, 403, "{message}");
        assert!(message.starts_with("pods \"p\" is forbidden") && message.contains(told), "{message}");
    }
    let made = server.ok(Method::POST, PODS, with("priority", json!(0))).await;
    assert_eq!(made["spec"]["priority"], 0);
    // Nor later, by any way to change.
    let mark = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    for uri in [format!("{PODS}/p"), format!("{PODS}/p/status")] {
        assert_eq!(server.patch(&uri, "merge", mark.clone()).await.0, 403, "{uri}");
    }
    // Who keeps the cluster running may, and a node may mirror; then nobody takes the mark away.
    let root = of_group("system:masters");
    let mut critical = with("priorityClassName", json!("system-node-critical"));
    critical["metadata"]["name"] = json!("c");
    let (code, made, _) = server.ask_as(&root, Method::POST, PODS, &[], critical).await;
    assert_eq!((code, &made["spec"]["priority"]), (201, &json!(2_000_001_000)));
    let node = of_group("system:nodes");
    assert_eq!(server.ask_as(&node, Method::POST, PODS, &[], annotated("m")).await.0, 201);
    let unmark = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": null}}});
    assert_eq!(server.patch(&format!("{PODS}/m"), "merge", unmark).await.0, 403);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(server.patch(&format!("{PODS}/m"), "merge", label).await.0, 200);
}

#[tokio::test]
async fn a_name_of_another_object_is_a_name() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("p")).await;
    for name in ["../x", "a/b", "..", "A", "a b", "n%2f", &"n".repeat(254)] {
        let binding = json!({"target": {"kind": "Node", "name": name}});
        let (code, message) = server.refused(Method::POST, &format!("{PODS}/p/binding"), binding).await;
        assert!(code == 422 && message.contains("target.name"), "{name}: {code} {message}");
    }
    assert_eq!(server.ok(Method::GET, &format!("{PODS}/p"), Value::Null).await["spec"].get("nodeName"), None);
    let with = |pointer: &str, value: Value| {
        let mut pod = pod("q");
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]);
        pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
        pod["spec"]["imagePullSecrets"] = json!([{"name": "s"}]);
        pod["spec"]["nodeName"] = json!("n");
        pod["spec"]["serviceAccountName"] = json!("default");
        *pod.pointer_mut(pointer).unwrap() = value;
        pod
    };
    for (pointer, field) in [
        ("/metadata/ownerReferences/0/name", "metadata.ownerReferences[0].name"),
        ("/spec/volumes/0/secret/secretName", "spec.volumes[0].secret.secretName"),
        ("/spec/imagePullSecrets/0/name", "spec.imagePullSecrets[0].name"),
        ("/spec/nodeName", "spec.nodeName"),
        ("/spec/serviceAccountName", "spec.serviceAccountName"),
    ] {
        let (code, message) = server.refused(Method::POST, PODS, with(pointer, json!("../x"))).await;
        // An account that cannot be is not found before it is looked at.
        assert!(code == 422 && message.contains(field) || code == 403, "{pointer}: {code} {message}");
    }
    server.ok(Method::POST, PODS, with("/spec/nodeName", json!("n.x"))).await;
    server.ok(Method::POST, &format!("{PODS}/p/binding"), json!({"target": {"name": "node-1.x"}})).await;
}

fn service(name: &str, address: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "clusterIP": address}})
}

#[tokio::test]
async fn a_service_keeps_its_address_and_asks_for_free_ones_only() {
    let server = server().await;
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
    let server = server().await;
    let store = Arc::clone(server.0.store());
    // Both would read the list before either is written.
    let held = store.lists.lock().await;
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
async fn objects_are_made_in_namespaces_that_are_there_and_stay() {
    let server = server().await;
    let map = json!({"metadata": {"name": "a"}});
    let (code, message) = server.refused(Method::POST, "/api/v1/namespaces/e/configmaps", map.clone()).await;
    assert_eq!((code, message.as_str()), (404, "namespaces \"e\" not found"));
    server.ok(Method::DELETE, "/api/v1/namespaces/d", Value::Null).await;
    let (code, message) = server.refused(Method::POST, MAPS, map).await;
    assert!(code == 403 && message.contains("it is being terminated"), "{message}");
    server.ok(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await;
    let (code, message) = server.refused(Method::DELETE, "/api/v1/namespaces/default", Value::Null).await;
    assert!(code == 403 && message.contains("may not be deleted"), "{message}");
}
