//! A node that is cut off, beside the stand-alone API: its pods stay as they are, and those that ask for it are evicted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{Cluster, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

fn pod(name: &str, labels: Value) -> Value {
    let tolerates =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    json!({"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": {
        "nodeName": "edge-1", "terminationGracePeriodSeconds": 1,
        "tolerations": [tolerates("node.kubernetes.io/unreachable"), tolerates("node.kubernetes.io/not-ready")],
        "containers": [{"name": "c", "image": "web:1"}]}})
}

#[test]
fn a_node_that_is_cut_off_keeps_its_pods_and_those_that_ask_for_it_are_evicted() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image("web:1");
        cluster.apply("v1", "Pod", pod("stays", json!({}))).await;
        cluster.apply("v1", "Pod", pod("leaves", json!({"kubehive.io/keep-eviction": "true"}))).await;
        let pods = cluster.objects("v1", "Pod", Some("default"));
        for name in ["stays", "leaves"] {
            cluster
                .until_async(&format!("{name} runs"), async || {
                    pods.get(name).await.unwrap().data["status"]["phase"] == "Running"
                })
                .await;
        }
        node.stop().await;
        // As the node lifecycle controller writes it after 40 s.
        let nodes = cluster.objects("v1", "Node", None);
        let silent =
            Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
        nodes.patch_status("edge-1", &PatchParams::default(), &silent).await.unwrap();
        let taints = async || {
            let taints = nodes.get("edge-1").await.unwrap().data["spec"]["taints"].clone();
            let taints = taints.as_array().cloned().unwrap_or_default();
            let shown = taints.iter().map(|taint| {
                format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())
            });
            shown.collect::<Vec<_>>()
        };
        cluster
            .until_async("no new pod goes there", async || {
                taints().await == ["node.kubernetes.io/unreachable:NoSchedule"]
            })
            .await;
        cluster
            .until_async("the pod that asks for it is evicted", async || {
                let pod = pods.get("leaves").await.unwrap();
                let conditions = pod.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
                pod.metadata.deletion_timestamp.is_some()
                    && conditions.iter().any(|one| one["reason"] == "DeletionByTaintManager")
            })
            .await;
        // Somebody who would have the others go, too, is not heard.
        let driven = Patch::Merge(json!({"spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}));
        nodes.patch("edge-1", &PatchParams::default(), &driven).await.unwrap();
        assert_eq!(taints().await, ["node.kubernetes.io/unreachable:NoSchedule"]);
        let stays = pods.get("stays").await.unwrap();
        assert_eq!(stays.metadata.deletion_timestamp, None);
        assert_eq!(stays.data["spec"]["tolerations"][0]["tolerationSeconds"], 1, "nothing of it was changed");
    });
}
