//! What a fresh cluster holds before anybody has asked for anything.

use bytes::Bytes;
use http::{Method, Request};
use kubeapi::{Api, Body, User};
use serde_json::{Value, json};

use crate::admission::CONTROLLERS;
use crate::store::SqliteStore;

/// The server itself.
pub(crate) fn loopback() -> User {
    User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned()],
        uid: String::new(),
    }
}

/// The controllers beside the server. Their requests ask no authorizer, but what they make for others counts as theirs.
pub(crate) fn controllers() -> User {
    User { name: CONTROLLERS.to_owned(), groups: Vec::new(), uid: String::new() }
}

fn objects() -> Vec<(String, Value)> {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    let namespace = |name: &str| ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": name}}));
    let role = |name: &str, rules: Value| {
        (format!("{RBAC}/clusterroles"), json!({"metadata": {"name": name}, "rules": rules}))
    };
    let binding = |name: &str, group: &str| {
        let body = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
        });
        (format!("{RBAC}/clusterrolebindings"), body)
    };
    let mut objects: Vec<(String, Value)> =
        ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().map(namespace).collect();
    objects.extend([
        role(
            "cluster-admin",
            json!([
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]),
        ),
        binding("cluster-admin", "system:masters"),
        role(
            "system:discovery",
            json!([{
                "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi",
                    "/openapi/*", "/readyz", "/version", "/version/"],
                "verbs": ["get"],
            }]),
        ),
        binding("system:discovery", "system:authenticated"),
        role(
            "system:basic-user",
            json!([
                {"apiGroups": ["authorization.k8s.io"],
                    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"]},
                {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
            ]),
        ),
        binding("system:basic-user", "system:authenticated"),
        // Client certificates are not taken here, so that no CA of them is named.
        (
            "/api/v1/namespaces/kube-system/configmaps".to_owned(),
            json!({"metadata": {"name": "extension-apiserver-authentication"}}),
        ),
        (
            format!("{RBAC}/namespaces/kube-system/roles"),
            json!({
                "metadata": {"name": "extension-apiserver-authentication-reader"},
                "rules": [{"apiGroups": [""], "resources": ["configmaps"],
                    "resourceNames": ["extension-apiserver-authentication"], "verbs": ["get", "list", "watch"]}],
            }),
        ),
        (
            "/api/v1/namespaces/default/services".to_owned(),
            json!({
                "metadata": {"name": "kubernetes",
                    "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]},
            }),
        ),
    ]);
    objects
}

/// Makes what is not there yet.
pub(crate) async fn run(api: &Api<SqliteStore>) -> Result<(), String> {
    for (path, object) in objects() {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&path)
            .header("content-type", "application/json")
            .body(Bytes::from(object.to_string()))
            .map_err(|error| error.to_string())?;
        let response = api.handle(request, &loopback()).await;
        // 409: it is there.
        if !response.status().is_success() && response.status() != http::StatusCode::CONFLICT {
            let told = match response.into_body() {
                Body::Whole(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Body::Stream(_) => String::new(),
            };
            return Err(format!("{path}: {told}"));
        }
    }
    Ok(())
}
