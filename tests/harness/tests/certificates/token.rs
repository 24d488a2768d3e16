//! A node whose key is in a token (SoftHSM's) and never on its disk.

use harness::{Cluster, LinkTransport, run};
use serde_json::json;
use testhost::SoftToken;

use super::{NODE, cluster, living, on_disk, session};

#[test]
fn a_key_in_a_token_links_and_is_followed_by_another_one_there() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let Some(token) = SoftToken::under(folder.path()).unwrap() else { return };
        let mut cluster = cluster(8, 60).await;
        cluster.joining_with_key_in(&token.uri());
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let first = living(&cluster).await;
        cluster.until_async("the certificate is renewed", async || living(&cluster).await != first).await;
        node.stop().await;
        let kept = std::fs::read_to_string(&node.settings().modules.edge_hub.tls_private_key_file).unwrap();
        assert!(kept.contains("PKCS#11 PROVIDER URI") && !kept.contains("PRIVATE KEY"), "{kept}");
        // Whatever it was stopped in, at most one other waits to be forgotten.
        let keys = token.keys().unwrap();
        assert!((1..=2).contains(&keys), "{keys}");

        // A wrong PIN costs the link alone, and is no reason for another join.
        token.write_pin("4321").unwrap();
        node.start().await;
        cluster
            .until_async("the dials fail", async || {
                node.snapshot("edge-hub").await["attempts"].as_u64() >= Some(2)
            })
            .await;
        assert!(session(&cluster).await.is_null());
        token.right_pin().unwrap();
        cluster.until_async("the node is linked", async || !session(&cluster).await.is_null()).await;
        let before = living(&cluster).await;
        cluster.until_async("it is renewed again", async || living(&cluster).await != before).await;
        // While one is destroyed SoftHSM may not find the token.
        cluster.until("one key is left", || token.keys().is_ok_and(|keys| keys == 1)).await;
        node.stop().await;
    });
}

#[test]
fn a_key_in_a_token_links_over_websocket() {
    run(async || {
        let folder = tempfile::tempdir().unwrap();
        let Some(token) = SoftToken::under(folder.path()).unwrap() else { return };
        let mut cluster = Cluster::over(LinkTransport::WebSocket).await;
        cluster.joining_with_key_in(&token.uri());
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        assert_eq!(session(&cluster).await["certificate"], json!(on_disk(&node)));
        node.stop().await;
    });
}
