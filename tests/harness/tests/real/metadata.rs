//! What stands in the metadata of everything that the account writes: an owner that is not there has the garbage collector
//! remove an object for whoever wrote it, a finalizer keeps one for ever.

use serde_json::{Value, json};

use crate::{Attack, Attempts, Fixture, call, device_status, event, joined, lease};

fn bent() -> [(&'static str, Value); 4] {
    let nobody = json!([{"apiVersion": "v1", "kind": "Node", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}]);
    [
        ("ownerReferences", nobody),
        ("finalizers", json!(["kubehive.io/for-ever"])),
        ("labels", json!({"app": "x"})),
        ("annotations", json!({"app": "x"})),
    ]
}

pub(crate) async fn attacks(fixture: &Fixture) -> Vec<Attack> {
    let mut all = changed(fixture).await;
    all.extend(made(fixture).await);
    all
}

/// On what is there.
async fn changed(fixture: &Fixture) -> Vec<Attack> {
    let (ns, edge, mut t) = (&fixture.namespace, &fixture.edge, Attempts(fixture, Vec::new()));
    let kubehive = "/apis/kubehive.io/v1alpha1";
    for (method, path, written) in [
        ("PUT", format!("{kubehive}/edgenodes/{edge}"), None),
        ("PUT", format!("{kubehive}/jointokens/{ns}"), None),
        ("MERGE", format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{edge}"), None),
        ("MERGE", format!("/apis/devices.kubeedge.io/v1beta1/namespaces/{ns}/devicestatuses/pump"), None),
        ("MERGE", format!("/api/v1/nodes/{edge}"), Some("status")),
        ("MERGE", format!("/api/v1/namespaces/{ns}/pods/edge"), Some("status")),
        ("MERGE", format!("/api/v1/namespaces/{ns}/pods/edge"), None),
    ] {
        let held = call(&fixture.admin, "GET", &path, None, Value::Null).await.unwrap();
        let to = written.map_or(path.clone(), |written| format!("{path}/{written}"));
        for (field, value) in bent() {
            // With a pod's status the API server takes no owners: it says yes, and changes nothing.
            if written.is_some() && field == "ownerReferences" && path.contains("/pods/") {
                continue;
            }
            let mut body = if method == "PUT" { held.clone() } else { json!({"metadata": {}}) };
            let mut whole = held["metadata"][field].clone();
            match (&mut whole, value) {
                (Value::Object(held), Value::Object(more)) => held.extend(more),
                (whole, value) => *whole = value,
            }
            body["metadata"][field] = whole;
            t.tries(&format!("write {field} of {to}"), method, &to, body).await;
        }
    }
    // One that has lost its owner gets its Device, and nothing else.
    let statuses = format!("/apis/devices.kubeedge.io/v1beta1/namespaces/{ns}/devicestatuses");
    let mut orphan = device_status("orphan", "00000000-0000-0000-0000-000000000000");
    let its_own = orphan["metadata"]["ownerReferences"].take();
    fixture.make("devices.kubeedge.io/v1beta1", "DeviceStatus", Some(ns), orphan).await;
    let (mut another, mut held, [(_, nobody), ..]) = (its_own.clone(), its_own.clone(), bent());
    another[0]["name"] = "pump".into();
    held[0]["blockOwnerDeletion"] = true.into();
    let two = json!([its_own[0], nobody[0]]);
    for (what, owners) in
        [("a Node", nobody), ("another Device", another), ("one that it holds", held), ("two", two)]
    {
        let body = json!({"metadata": {"ownerReferences": owners}});
        t.tries(&format!("give a DeviceStatus to {what}"), "MERGE", &format!("{statuses}/orphan"), body)
            .await;
    }
    let long = json!({"metadata": {"annotations": {"kubehive.io/reported": "x".repeat(10_000)}}});
    t.tries("write a long annotation", "MERGE", &format!("/api/v1/nodes/{edge}/status"), long).await;
    t.1
}

/// On what is new.
async fn made(fixture: &Fixture) -> Vec<Attack> {
    let (ns, mut t) = (&fixture.namespace, Attempts(fixture, Vec::new()));
    let entry = json!({"apiVersion": "kubehive.io/v1alpha1", "kind": "EdgeNode", "metadata": {"name": "kubehive-x"}, "spec": {}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "casecret"}});
    let mut of_nobody = device_status("valve", "00000000-0000-0000-0000-000000000000");
    let statuses = format!("/apis/devices.kubeedge.io/v1beta1/namespaces/{ns}/devicestatuses");
    for (path, object) in [
        ("/apis/kubehive.io/v1alpha1/edgenodes".to_owned(), entry),
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned(), lease("kubehive-x")),
        (statuses.clone(), of_nobody.clone()),
        ("/api/v1/nodes".to_owned(), joined("kubehive-x", json!({}))),
        (format!("/api/v1/namespaces/{ns}/events"), event("bent.1", ns, "x")),
        ("/api/v1/namespaces/kubeedge/secrets".to_owned(), secret),
    ] {
        for (field, value) in bent() {
            // A kubelet's Node may have labels of its own domains, too.
            if field == "labels" && object["kind"] == "Node" {
                continue;
            }
            let mut object = object.clone();
            object["metadata"][field] = value;
            t.tries(
                &format!("make one with {field} at {path}"),
                "POST",
                &format!("{path}?dryRun=All"),
                object,
            )
            .await;
        }
    }
    of_nobody["metadata"]["ownerReferences"] = json!([]);
    t.tries("make a DeviceStatus of nobody", "POST", &format!("{statuses}?dryRun=All"), of_nobody).await;
    t.1
}
