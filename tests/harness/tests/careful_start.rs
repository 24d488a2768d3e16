//! A pod that ends EdgeCore is in the node's store, and would be begun at each start before the cloud can take it away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{Cluster, run};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

const IMAGE: &str = "web:1";

async fn pod(cluster: &Cluster, name: &str) {
    let spec = json!({"nodeName": "edge-1", "containers": [{"name": "web", "image": IMAGE}]});
    let metadata = json!({"name": name, "namespace": "default"});
    cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": spec})).await;
}

/// The first of four runs is the honest one: three ends in a row are the fourth's to know of.
#[test]
fn after_three_ends_the_cloud_takes_a_pod_away_before_it_begins_again() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image(IMAGE);
        pod(&cluster, "good").await;
        pod(&cluster, "poison").await;
        cluster.until("both run", || node.runtime().running().len() == 2).await;
        node.stop().await;
        node.runtime().wipe();
        let before = node.runtime().started().len();
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        cluster.objects("v1", "Pod", Some("default")).delete("poison", &now).await.unwrap();

        node.begin_runs(4).await;
        node.start().await;
        cluster.until("the other one runs again", || !node.runtime().running().is_empty()).await;
        let begun: Vec<String> =
            node.runtime().started().split_off(before).into_iter().map(|container| container.pod).collect();
        assert!(begun.iter().all(|pod| pod.contains("good")), "{begun:?}");
        let counted = node.core().inspector().report(harness::LONG).await.counters;
        assert_eq!(counted.get("edged_careful_starts"), Some(&1), "{counted:?}");
        let events = cluster.objects("v1", "Event", Some("default"));
        cluster
            .until_async("the pod says why it waited", async || {
                let events = events.list(&ListParams::default()).await.unwrap();
                let of_good = |data: &serde_json::Value| data["involvedObject"]["name"] == "good";
                events.iter().any(|event| event.data["reason"] == "HeldBack" && of_good(&event.data))
            })
            .await;
        node.stop().await;

        // Told to end, it begins as ever: without waiting for anybody.
        node.runtime().wipe();
        cluster.stop_cloud().await;
        node.begin_runs(1).await;
        node.start().await;
        let began = std::time::Instant::now();
        cluster.until("it runs without a cloud", || !node.runtime().running().is_empty()).await;
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    });
}
