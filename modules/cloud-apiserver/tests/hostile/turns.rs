//! Large writes of one account beside others' requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Fixture, run};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The token of an account that may write config maps in `default` and read nodes, and nothing else.
async fn writer(fixture: &Fixture, account: &str) -> String {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    fixture.admin("POST", accounts, json!({"metadata": {"name": account}})).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": account}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps", "nodes"], "verbs": ["create", "list"]}]});
    fixture.admin("POST", &format!("{rbac}/clusterroles"), role).await;
    let binding = json!({"metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": account}]});
    fixture.admin("POST", &format!("{rbac}/clusterrolebindings"), binding).await;
    fixture.token(account, json!({})).await
}

async fn timed(fixture: &Fixture, token: &str, method: &str, path: &str, body: &Value) -> Duration {
    let start = Instant::now();
    let (code, answer) = fixture.ask(token, method, path, body).await;
    assert!(matches!(code, 200 | 201), "{code} {answer}");
    start.elapsed()
}

#[test]
fn large_writes_of_one_hold_nobody_up() {
    run(async |fixture| {
        let (heavy, light) = (writer(fixture, "heavy").await, writer(fixture, "light").await);
        let keys: serde_json::Map<String, Value> =
            (0..20_000).map(|n| (format!("{n:x}"), json!(""))).collect();
        let large = json!({"metadata": {"name": "large"}, "data": keys});
        let dry = format!("{MAPS}?dryRun=All");
        let alone = timed(fixture, &heavy, "POST", &dry, &large).await;
        let began = Instant::now();
        let floods = futures::future::join_all((0..8).map(|_| timed(fixture, &heavy, "POST", &dry, &large)));
        let others = async {
            let mut small = Vec::new();
            while began.elapsed() < alone * 3 {
                small.push(timed(fixture, &light, "GET", "/api/v1/nodes", &Value::Null).await);
            }
            small.sort();
            // And a large one of another account comes after the one that runs, not after all of them.
            (small, timed(fixture, &light, "POST", &dry, &large).await)
        };
        let (floods, (small, second)) = futures::future::join(floods, others).await;
        let (median, all) = (small[small.len() / 2], floods.iter().max().copied().unwrap_or_default());
        println!(
            "alone {alone:?}; {} small ones median {median:?}, longest {:?}; a large one of another {second:?}; all {all:?}",
            small.len(),
            small.last()
        );
        // Where they had the API's thread each small one waited for several large ones.
        assert!(median < alone / 4, "{median:?} beside writes of {alone:?}");
        assert!(second < all / 2, "{second:?} of {all:?}");
    });
}
