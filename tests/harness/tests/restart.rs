//! A CloudCore that comes back finds the nodes as they are: it has seen nothing of what its predecessor saw, and nothing
//! travels that the nodes hold. One that takes nodes over from another is in the same place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The figures are what these tests are for.
#![allow(clippy::print_stdout)]

use contract::metamanager::{MetaDown, MetaMsg};
use contract::wire::META_MAILBOX;
use harness::{Cluster, LinkTransport, Node, run};
use serde_json::{Value, json};

const IMAGE: &str = "web:1";
const PODS: usize = 10;

fn pod_name(n: usize) -> String {
    format!("web-{n}")
}

async fn pod(cluster: &Cluster, n: usize, node: &Node) {
    let spec = json!({
        "nodeName": node.name(),
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "page", "configMap": {"name": "page"}}],
        "containers": [{"name": "web", "image": IMAGE, "volumeMounts": [{"name": "page", "mountPath": "/www"}]}],
    });
    let metadata = json!({"name": pod_name(n), "namespace": "default"});
    cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": spec})).await;
}

async fn statuses(cluster: &Cluster) -> Vec<Value> {
    let pods = cluster.objects("v1", "Pod", Some("default"));
    let listed = pods.list(&kube::api::ListParams::default()).await.unwrap();
    listed.items.into_iter().map(|pod| pod.data["status"].clone()).collect()
}

async fn snapshot(cluster: &Cluster, actor: &str) -> Value {
    let report = cluster.state().await;
    report.actors.into_iter().find(|a| a.name == actor).map(|a| a.snapshot).unwrap_or_default()
}

async fn until_in_sync(cluster: &Cluster, desired: usize) {
    cluster
        .until_async("the node is in sync", async || {
            let view = snapshot(cluster, "cloud-synccontroller").await["edge-1"].clone();
            view["in_sync"] == true && view["desired"] == desired
        })
        .await;
}

fn containers(node: &Node) -> Vec<(String, String)> {
    let mut all: Vec<_> = node.runtime().running().into_iter().map(|c| (c.pod, c.id)).collect();
    all.sort();
    all
}

#[test]
fn nothing_but_a_digest_travels_when_only_statuses_have_changed() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::Quic).await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image(IMAGE);
        let metadata = json!({"name": "page", "namespace": "default"});
        cluster.apply("v1", "ConfigMap", json!({"metadata": metadata, "data": {"index.html": "one"}})).await;
        for n in 0..PODS {
            pod(&cluster, n, &node).await;
        }
        cluster
            .until_async("all are Running in the API", async || {
                let statuses = statuses(&cluster).await;
                statuses.len() == PODS && statuses.iter().all(|status| status["phase"] == "Running")
            })
            .await;
        // The pods, their config map, and what their tokens' volumes need.
        let desired = snapshot(&cluster, "cloud-synccontroller").await["edge-1"]["desired"].as_u64().unwrap();
        let desired = usize::try_from(desired).unwrap();
        assert!(desired > PODS);
        until_in_sync(&cluster, desired).await;
        let before = containers(&node);

        let travelled = node.probe(META_MAILBOX, |message: &MetaMsg| match message {
            MetaMsg::Down(MetaDown::Apply { changes, .. }) => Some(format!("{} changes", changes.len())),
            MetaMsg::Down(MetaDown::ObjectVersions { buckets, .. }) => Some(format!("lists of {buckets:?}")),
            MetaMsg::Down(MetaDown::Inventory { .. }) => Some("inventory".to_owned()),
            _ => None,
        });
        cluster.stop_cloud().await;
        // Its status changes once more while nobody looks.
        let (killed, id) = before.first().unwrap().clone();
        node.runtime().kill(&id, 137);
        cluster.start_cloud().await;
        until_in_sync(&cluster, desired).await;
        cluster
            .until_async("the restart is counted in the API", async || {
                let counted = |status: &Value| status["containerStatuses"][0]["restartCount"] == 1;
                statuses(&cluster).await.iter().any(counted)
            })
            .await;
        until_in_sync(&cluster, desired).await;
        assert_eq!(travelled.take(), ["inventory"]);
        let after = containers(&node);
        let others = |all: &[(String, String)]| -> Vec<_> {
            all.iter().filter(|(pod, _)| *pod != killed).cloned().collect()
        };
        assert_eq!(others(&before), others(&after));
        let session = snapshot(&cluster, "cloud-hub").await["nodes"]["edge-1"].clone();
        println!("a CloudCore that came back, {desired} held: {} B down in frames", session["bytesOut"]);
    });
}
