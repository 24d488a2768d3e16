//! What somebody else writes into a Node's status while its node is alive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{Cluster, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// What is compared: the conditions that the node reports, without times, what it says of its system, and where it is reached.
fn said(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let conditions: Vec<Value> = conditions
        .into_iter()
        .filter(|condition| !condition["type"].as_str().unwrap().starts_with("kubehive.io/"))
        .map(|condition| json!([condition["type"], condition["status"]]))
        .collect();
    json!({ "conditions": conditions, "addresses": status["addresses"], "capacity": status["capacity"],
        "nodeInfo": status["nodeInfo"],
        "port": status["daemonEndpoints"]["kubeletEndpoint"]["Port"] })
}

#[test]
fn a_node_whose_status_somebody_wrote_says_again_what_its_node_reported() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let nodes = cluster.objects("v1", "Node", None);
        let status = async || nodes.get("edge-1").await.unwrap().data["status"].clone();
        let has_port = async || said(&status().await)["port"].as_u64().is_some_and(|port| port != 10_350);
        cluster.until_async("the Node says where its kubelet endpoint is", has_port).await;
        let before = said(&status().await);
        let capacity = json!({ "cpu": "640", "example.com/of-others": "1" });
        for written in [
            json!({ "conditions": null, "addresses": null }),
            json!({ "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } } }),
            json!({ "capacity": capacity }),
            json!({ "nodeInfo": { "kubeletVersion": "v0", "kernelVersion": null } }),
        ] {
            let patch = Patch::Merge(json!({ "apiVersion": "v1", "kind": "Node", "status": written }));
            nodes.patch_status("edge-1", &PatchParams::default(), &patch).await.unwrap();
            let is_whole = async || {
                let mut now = said(&status().await);
                // What others add stays.
                now["capacity"].as_object_mut().unwrap().remove("example.com/of-others");
                let (mut now_has, mut had) = (now, before.clone());
                for side in [&mut now_has, &mut had] {
                    let conditions = side["conditions"].as_array_mut().unwrap();
                    conditions.sort_by_key(|condition| condition[0].as_str().unwrap().to_owned());
                }
                now_has == had
            };
            cluster.until_async(&format!("all is as the node reported, after {written}"), is_whole).await;
        }
        let stays = status().await["capacity"]["example.com/of-others"].clone();
        assert_eq!(stays, "1");
    });
}

#[test]
fn conditions_that_cloudcore_writes_come_back_when_somebody_changes_or_removes_them() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let nodes = cluster.objects("v1", "Node", None);
        let said = async || {
            let status = nodes.get("edge-1").await.unwrap().data["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let of = |kind: &str| {
                let found = conditions.iter().find(|condition| condition["type"] == kind);
                found.map(|condition| (condition["status"].clone(), condition["reason"].clone()))
            };
            [of("kubehive.io/Synced"), of("kubehive.io/Link")]
        };
        let whole = [("True", "InSync"), ("True", "QUIC")].map(|(a, b)| Some((json!(a), json!(b))));
        let is_whole = async || said().await == whole;
        cluster.until_async("both are there", is_whole).await;
        let forged = ["kubehive.io/Synced", "kubehive.io/Link"]
            .map(|kind| json!({ "type": kind, "status": "False", "reason": "Forged" }));
        for conditions in [json!(null), json!(forged)] {
            let patch = Patch::Merge(
                json!({ "apiVersion": "v1", "kind": "Node", "status": { "conditions": conditions } }),
            );
            let written = nodes.patch_status("edge-1", &PatchParams::default(), &patch).await.unwrap();
            assert!(!written.data["status"].to_string().contains("InSync"), "{}", written.data["status"]);
            cluster.until_async(&format!("both are there again after {conditions}"), is_whole).await;
        }
    });
}

/// `keadm upgrade edge` waits for these words of an edgecore that it has started.
#[test]
fn a_node_counts_that_it_became_ready_and_that_it_has_a_link() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let counted = async |node: &harness::Node| {
            let counters = node.core().inspector().report(harness::LONG).await.counters;
            let of = |event: &str| counters.get(event).copied().unwrap_or_default();
            [
                of("edged_node_became_ready") - of("edged_node_became_unready"),
                of("edgehub_linked") - of("edgehub_link_ended"),
            ]
        };
        cluster.until_async("both hold", async || counted(&node).await == [1, 1]).await;
        node.stop().await;
    });
}
