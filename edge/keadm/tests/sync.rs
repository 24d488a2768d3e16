//! `keadm sync` against a whole cluster, and beside a running EdgeCore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::SystemTime;

use harness::{Cluster, run};
use keadm::{Sync, show_sync};
use serde_json::json;

async fn shown(order: &Sync) -> Result<String, String> {
    let mut lines = Vec::new();
    let say = &mut |line| lines.push(line);
    show_sync(order, SystemTime::now(), say).await.map_err(|error| format!("{error:#}"))?;
    Ok(lines.join("\n"))
}

#[test]
fn a_node_is_shown_from_the_cluster_and_from_itself() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let config = node.folder().join("edgecore.yaml");
        let mut settings = config::edge::EdgeCore::default();
        settings.database.data_source = node.folder().join("edgecore.db");
        settings.modules.edged.hostname_override = "edge-1".to_owned();
        settings.modules.edge_hub.http_server = "https://cloud:10002".to_owned();
        settings.modules.edge_hub.quic.server = "cloud:10001".to_owned();
        std::fs::write(&config, serde_saphyr::to_string(&settings).unwrap()).unwrap();
        let of = |node: Option<&str>| Sync {
            node: node.map(str::to_owned),
            kube_config: Some(cluster.kubeconfig()),
            config: config.clone(),
        };
        cluster
            .until_async("the cluster says that it is in sync", async || {
                shown(&of(Some("edge-1"))).await.is_ok_and(|text| text.contains("True    InSync"))
            })
            .await;
        let text = shown(&of(Some("edge-1"))).await.unwrap();
        assert!(text.contains("\nthe node has confirmed all that it should hold\nlast confirmed "), "{text}");
        assert!(text.ends_with(" bytes out"), "{text}");
        // A machine that is no edge node.
        let elsewhere = Sync { config: node.folder().join("none.yaml"), ..of(None) };
        let text = shown(&elsewhere).await.unwrap();
        assert!(text.lines().any(|line| line.starts_with("edge-1  True    InSync")), "{text}");
        let error = shown(&of(Some("edge-2"))).await.unwrap_err();
        assert!(error.contains("the cluster has no node `edge-2`"), "{error}");

        let spec = json!({"nodeName": "edge-1", "containers": [{"name": "web", "image": "nowhere:1"}]});
        let pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
        cluster.apply("v1", "Pod", pod).await;
        cluster
            .until_async("the node itself says that it holds the pod", async || {
                shown(&of(None)).await.unwrap().lines().any(|line| line.starts_with("pods "))
            })
            .await;
        let text = shown(&of(None)).await.unwrap();
        assert!(text.contains("edgecore.db at revision ") && text.contains("OUTBOX  OLDEST"), "{text}");
    });
}
