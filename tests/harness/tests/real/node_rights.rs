//! The rights to nodes, by which the policies know whose a pod, a Lease and a CSINode are.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{Attack, Attempts, Fixture, RIGHTS, call, node_owner, right};

/// A name that no Node has.
const FREE: &str = "kubehive-free";

pub(crate) async fn attacks(fixture: &Fixture) -> Vec<Attack> {
    let mut all = bound(fixture).await;
    all.extend(lost(fixture).await);
    all
}

async fn uid_of(fixture: &Fixture, node: &str) -> Value {
    let found = call(&fixture.admin, "GET", &format!("/api/v1/nodes/{node}"), None, Value::Null).await;
    found.unwrap()["metadata"]["uid"].clone()
}

/// What CloudCore's account cannot bind.
async fn bound(fixture: &Fixture) -> Vec<Attack> {
    let (ns, edge, mut t) = (&fixture.namespace, &fixture.edge, Attempts(fixture, Vec::new()));
    for node in [&fixture.plane, &fixture.master, &fixture.foreign, &fixture.kubeedge] {
        let uid = uid_of(fixture, node).await;
        for uid in [None, Some(&uid)] {
            t.tries(&format!("bind the right to {node}"), "POST", RIGHTS, right(node, uid)).await;
        }
        let mut of_other = right(FREE, None);
        of_other["subjects"][0]["name"] = node.as_str().into();
        t.tries(&format!("bind the right to {node} by another name"), "POST", RIGHTS, of_other).await;
        let mut more = right(FREE, None);
        more["subjects"] = json!([more["subjects"][0], right(node, None)["subjects"][0]]);
        t.tries(&format!("bind the right to {node} beside another"), "POST", RIGHTS, more).await;
    }
    let other = json!("00000000-0000-0000-0000-000000000000");
    let own = uid_of(fixture, edge).await;
    let path = format!("{RIGHTS}/{edge}");
    for (what, changed) in [
        ("takes it off its Node", right(edge, None)),
        ("binds it to a Node that is not there", right(edge, Some(&other))),
    ] {
        let mut held = call(&fixture.admin, "GET", &path, None, Value::Null).await.unwrap();
        held["subjects"] = changed["subjects"].clone();
        held["metadata"]["ownerReferences"] = changed["metadata"]["ownerReferences"].clone();
        t.tries(what, "PUT", &path, held).await;
    }
    for (what, at, value) in [
        (
            "everybody",
            "/subjects/0",
            json!({"kind": "Group", "name": FREE, "apiGroup": "rbac.authorization.k8s.io"}),
        ),
        ("an account that is there", "/subjects/0/namespace", json!(ns)),
        ("a label", "/metadata/labels", json!({"app": "x"})),
        ("an annotation", "/metadata/annotations", json!({"app": "x"})),
        ("a finalizer", "/metadata/finalizers", json!(["a.b/c"])),
        ("an owner without its uid", "/metadata/ownerReferences", json!([node_owner(FREE, &own)])),
        ("another role", "/roleRef/name", json!("view")),
    ] {
        let mut made = right(FREE, None);
        let (parent, field) = at.rsplit_once('/').unwrap();
        match made.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[0] = value,
            parent => parent[field] = value,
        }
        t.tries(&format!("bind a right with {what}"), "POST", &format!("{RIGHTS}?dryRun=All"), made).await;
    }
    let elsewhere = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/rolebindings");
    t.tries("bind a right elsewhere", "POST", &elsewhere, right(FREE, None)).await;
    t.tries("take a right away", "DELETE", &path, Value::Null).await;
    t.tries("take all rights away", "DELETE", RIGHTS, Value::Null).await;
    t.1
}

/// While CloudCore has the right to a name, nobody makes that of another Node.
async fn lost(fixture: &Fixture) -> Vec<Attack> {
    let mut all = Vec::new();
    let labels = json!({"kubehive.io/own": null, "node-role.kubernetes.io/edge": null});
    let taken = json!({"metadata": {"labels": labels}});
    let path = format!("/api/v1/nodes/{}", fixture.edge);
    let by_others = call(&fixture.admin, "MERGE", &path, None, taken).await;
    all.push(("take a Node from CloudCore, and not its right".to_owned(), by_others));
    let bound = fixture.does("POST", RIGHTS, right(FREE, None)).await;
    bound.expect("CloudCore binds the right to a name that no Node has");
    crate::until("the right to the free name counts", async || {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": FREE}});
        let made = call(&fixture.admin, "POST", "/api/v1/nodes?dryRun=All", None, node).await;
        made.is_err_and(|refused| refused.is_by_policy())
    })
    .await;
    // Of the node that has the right and of no other.
    let plain = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kubehive-other"}});
    let made = call(&fixture.admin, "POST", "/api/v1/nodes?dryRun=All", None, plain).await;
    made.expect("a Node of another name is made");
    all
}

pub(crate) async fn clear(fixture: &Fixture) {
    let rights = fixture.objects("rbac.authorization.k8s.io/v1", "RoleBinding", Some("kubehive-nodes"));
    let _ = rights.delete(FREE, &DeleteParams::default()).await;
}
