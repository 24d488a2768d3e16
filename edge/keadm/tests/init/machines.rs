//! Machines and a kubelet that are none: Nodes that are said to be Ready, and pods on them that are said to run.

use std::time::Duration;

use beehive::Env;
use harness::{LONG, objects};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

pub(crate) async fn create(client: &kube::Client, api_version: &str, kind: &str, object: Value) {
    let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
    let mut object = object;
    (object["apiVersion"], object["kind"]) = (api_version.into(), kind.into());
    let made: DynamicObject = serde_json::from_value(object).unwrap();
    objects(client.clone(), api_version, kind, namespace.as_deref())
        .create(&PostParams::default(), &made)
        .await
        .unwrap();
}

pub(crate) async fn status(
    client: &kube::Client,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    status: Value,
) {
    let api = objects(client.clone(), "v1", kind, namespace);
    let patch = json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

const MACHINES: [&str; 2] = ["keadm-test-machine-1", "keadm-test-machine-2"];

/// Two machines that are Ready, and a pod of CoreDNS.
pub(crate) async fn machines(client: &kube::Client) {
    for name in MACHINES {
        let metadata = json!({ "name": name, "labels": { "kubernetes.io/os": "linux" } });
        create(client, "v1", "Node", json!({ "metadata": metadata })).await;
        let amounts = json!({ "cpu": "8", "memory": "8Gi", "pods": "100" });
        let of_node = json!({ "conditions": heard_of(), "allocatable": amounts, "capacity": amounts });
        status(client, "Node", None, name, of_node).await;
    }
    let metadata = json!({ "name": "keadm-test-coredns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } });
    let spec = json!({ "nodeName": "keadm-test-machine-1", "containers": [{ "name": "coredns", "image": "coredns:1" }] });
    // Pods of a namespace are refused until its controller has made the account.
    let accounts = objects(client.clone(), "v1", "ServiceAccount", Some("kube-system"));
    let env = Env::real();
    let made = async {
        while accounts.get_opt("default").await.unwrap().is_none() {
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(LONG, made).await.expect("the namespace has no account");
    create(client, "v1", "Pod", json!({ "metadata": metadata, "spec": spec })).await;
    status(
        client,
        "Pod",
        Some("kube-system"),
        "keadm-test-coredns",
        json!({ "conditions": ready(), "phase": "Running" }),
    )
    .await;
}

/// A Node is believed to be Ready as long as it says so anew.
fn heard_of() -> Value {
    let now = jiff::Timestamp::try_from(Env::real().wall()).unwrap().to_string();
    json!([{ "type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now }])
}

fn ready() -> Value {
    json!([{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }])
}

/// Says that the machines are alive, and of CloudCore's pods in this namespace what a kubelet says of those that run, and ends those that are to go.
pub(crate) async fn kubelet(client: kube::Client, namespace: &'static str) {
    let env = Env::real();
    let pods: Api<DynamicObject> = objects(client.clone(), "v1", "Pod", Some(namespace));
    let nodes: Api<DynamicObject> = objects(client.clone(), "v1", "Node", None);
    loop {
        for name in MACHINES {
            let patch = json!({ "status": { "conditions": heard_of() } });
            let _ = nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        }
        for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
            let name = pod.metadata.name.clone().unwrap();
            if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                let _ = pods.delete(&name, &now).await;
            } else if pod.data["spec"]["nodeName"].is_string() && pod.data["status"]["phase"] != "Running" {
                let patch = json!({ "status": { "phase": "Running", "conditions": ready() } });
                let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            }
        }
        env.sleep(Duration::from_millis(300)).await;
    }
}
