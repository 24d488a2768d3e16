//! What a stolen token can do.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Fixture, Stream, code, run};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn pod(fixture: &Fixture, name: &str) -> Value {
    let pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    fixture.admin("POST", "/api/v1/namespaces/default/pods", pod).await
}

async fn account(fixture: &Fixture) {
    // The controllers make it in their time.
    loop {
        let (code, _) = fixture
            .ask(&fixture.admin, "GET", "/api/v1/namespaces/default/serviceaccounts/default", &Value::Null)
            .await;
        if code == 200 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_pods_token_does_what_its_account_may_and_dies_with_the_pod() {
    run(async |fixture| {
        account(fixture).await;
        let made = pod(fixture, "p").await;
        let bound = json!({"expirationSeconds": 3600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
        let token = fixture.token("default", bound).await;
        let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
        fixture.admin("POST", "/api/v1/namespaces/default/secrets", secret).await;
        let node = json!({"metadata": {"name": "n"}});
        fixture.admin("POST", "/api/v1/nodes", node).await;
        let admin = json!({"metadata": {"name": "mine"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "default"}]});
        let tries = [
            ("GET", "/api/v1/secrets", Value::Null),
            ("GET", "/api/v1/namespaces/default/secrets/s", Value::Null),
            ("GET", "/api/v1/secrets?watch=true&fieldSelector=metadata.name%3Ds", Value::Null),
            ("GET", "/api/v1/watch/secrets", Value::Null),
            ("PATCH", "/api/v1/nodes/n", json!({"metadata": {"labels": {"a": "b"}}})),
            ("PATCH", "/api/v1/nodes/n/status", json!({"status": {}})),
            ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", json!({"spec": {}})),
            ("POST", "/api/v1/namespaces/default/pods", json!({"metadata": {"name": "q"}})),
            ("POST", "/api/v1/namespaces/default/pods/p/binding", json!({"target": {"name": "n"}})),
            ("POST", "/api/v1/namespaces/default/pods/p/eviction", json!({})),
            ("POST", &format!("{RBAC}/clusterrolebindings"), admin.clone()),
            (
                "PUT",
                &format!("{RBAC}/clusterroles/cluster-admin"),
                json!({"metadata": {"name": "cluster-admin"}}),
            ),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "x"}})),
            ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", json!({"spec": {"user": "x"}})),
            ("DELETE", "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dp", Value::Null),
        ];
        for (method, path, body) in &tries {
            let (code, answer) = fixture.ask(&token, method, path, body).await;
            assert_eq!(code, 403, "{method} {path}: {answer}");
        }
        for headers in [
            "impersonate-user: kubernetes-admin\r\n",
            "impersonate-user: x\r\nimpersonate-group: system:masters\r\n",
            "impersonate-user: system:serviceaccount:kube-system:default\r\n",
        ] {
            let (code, answer) =
                fixture.ask_with(&token, "GET", "/api/v1/nodes", headers, &Value::Null).await;
            assert_eq!(code, 403, "{headers}: {answer}");
        }
        let (code, _) = fixture
            .ask_with(&fixture.admin, "GET", "/api/v1/nodes", "impersonate-user: \r\n", &Value::Null)
            .await;
        assert_eq!(code, 400);
        // What everybody may.
        assert_eq!(fixture.ask(&token, "GET", "/apis", &Value::Null).await.0, 200);
        // Another pod of the same name is not the one that the token was for.
        fixture.admin("DELETE", "/api/v1/namespaces/default/pods/p", Value::Null).await;
        assert_eq!(fixture.ask(&token, "GET", "/apis", &Value::Null).await.0, 401);
        assert_ne!(pod(fixture, "p").await["metadata"]["uid"], made["metadata"]["uid"]);
        assert_eq!(fixture.ask(&token, "GET", "/apis", &Value::Null).await.0, 401);
    });
}

#[test]
fn who_may_write_roles_gives_no_more_than_he_has() {
    run(async |fixture| {
        account(fixture).await;
        let rules = json!([
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["*"], "resourceNames": [""]},
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings", "clusterroles", "clusterrolebindings"],
                "verbs": ["get", "create", "update", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        let role = json!({"metadata": {"name": "manager"}, "rules": rules});
        fixture.admin("POST", &format!("{RBAC}/clusterroles"), role).await;
        let binding = |name: &str, role: &str| {
            json!({"metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "default"}]})
        };
        fixture.admin("POST", &format!("{RBAC}/clusterrolebindings"), binding("managers", "manager")).await;
        let token = fixture.token("default", json!({})).await;
        let secrets = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        let post = async |path: &str, body: Value| {
            fixture.ask(&token, "POST", &format!("{RBAC}{path}"), &body).await
        };
        let (code, answer) =
            post("/clusterroles", json!({"metadata": {"name": "a"}, "rules": secrets})).await;
        assert_eq!(code, 403, "{answer}");
        let told = answer["message"].as_str().unwrap();
        assert!(told.contains("system:serviceaccount:default:default") && told.contains("secrets"), "{told}");
        assert_eq!(post("/clusterrolebindings", binding("b", "cluster-admin")).await.0, 403);
        assert_eq!(post("/namespaces/default/rolebindings", binding("b", "cluster-admin")).await.0, 403);
        // Nor by making its own role more than it was.
        let more = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
        let path = format!("{RBAC}/clusterroles/manager");
        assert_eq!(fixture.ask(&token, "PATCH", &path, &more).await.0, 403);
        // What it has it may give.
        let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
        assert_eq!(post("/clusterroles", json!({"metadata": {"name": "c"}, "rules": pods})).await.0, 201);
        assert_eq!(post("/clusterrolebindings", binding("d", "c")).await.0, 201);
    });
}

#[test]
fn a_token_is_for_its_audiences_and_an_account_is_one_uid() {
    run(async |fixture| {
        account(fixture).await;
        let token = fixture.token("default", json!({"audiences": ["vault"]})).await;
        // Not for the API server itself.
        assert_eq!(fixture.ask(&token, "GET", "/apis", &Value::Null).await.0, 401);
        let review = async |audiences: Value| {
            let body = json!({"spec": {"token": token, "audiences": audiences}});
            fixture.admin("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
        };
        let status = review(json!(["other", "vault"])).await;
        assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
        assert_eq!(review(json!(["other"])).await["authenticated"], false);
        assert_eq!(review(json!([])).await["authenticated"], false);
        let path = "/api/v1/namespaces/default/serviceaccounts";
        fixture.admin("POST", path, json!({"metadata": {"name": "robot"}})).await;
        let token = fixture.token("robot", json!({})).await;
        assert_eq!(fixture.ask(&token, "GET", "/apis", &Value::Null).await.0, 200);
        fixture.admin("DELETE", &format!("{path}/robot"), Value::Null).await;
        fixture.admin("POST", path, json!({"metadata": {"name": "robot"}})).await;
        assert_eq!(fixture.ask(&token, "GET", "/apis", &Value::Null).await.0, 401);
    });
}

#[test]
fn a_watch_ends_with_its_token_and_with_its_right() {
    run(async |fixture| {
        account(fixture).await;
        let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["watch"]}]);
        fixture
            .admin(
                "POST",
                &format!("{RBAC}/clusterroles"),
                json!({"metadata": {"name": "w"}, "rules": rules}),
            )
            .await;
        let binding = json!({"metadata": {"name": "w"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "w"},
            "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts"}]});
        fixture.admin("POST", &format!("{RBAC}/clusterrolebindings"), binding).await;
        pod(fixture, "p").await;
        let bound = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
        let tokens = [fixture.token("default", bound).await, fixture.token("default", json!({})).await];
        let watch = async |token: &String| {
            let head = format!(
                "GET /api/v1/configmaps?watch=true&resourceVersion=1 HTTP/1.1\r\nhost: x\r\n\
                 authorization: Bearer {token}\r\nconnection: close\r\n\r\n"
            );
            let mut stream = fixture.dial().await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert_eq!(code(&head), 200);
            stream
        };
        let (mut first, mut second) = (watch(&tokens[0]).await, watch(&tokens[1]).await);
        let within = std::time::Duration::from_secs(30);
        let ends_in_order = async |stream: &mut Stream| {
            let mut rest = Vec::new();
            tokio::time::timeout(within, stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
            assert!(rest.ends_with(b"0\r\n\r\n"), "as a watch does at its end: {rest:?}");
        };
        // Both are open: neither ends by itself.
        let quiet = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(quiet, first.read_to_end(&mut Vec::new())).await.is_err());
        fixture.admin("DELETE", "/api/v1/namespaces/default/pods/p", Value::Null).await;
        ends_in_order(&mut first).await;
        assert!(tokio::time::timeout(quiet, second.read_to_end(&mut Vec::new())).await.is_err());
        fixture.admin("DELETE", &format!("{RBAC}/clusterrolebindings/w"), Value::Null).await;
        ends_in_order(&mut second).await;
    });
}
