//! What somebody else writes into a Node's status while its node is alive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{Cluster, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// What is compared: the conditions that the node reports, without times, and where it is reached.
fn said(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let conditions: Vec<Value> = conditions
        .into_iter()
        .filter(|condition| !condition["type"].as_str().unwrap().starts_with("kubehive.io/"))
        .map(|condition| json!([condition["type"], condition["status"]]))
        .collect();
    json!({ "conditions": conditions, "addresses": status["addresses"], "capacity": status["capacity"],
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
