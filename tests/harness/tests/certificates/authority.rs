//! The CA gives way to its successor, and no node joins again for it.

use std::path::PathBuf;
use std::time::Duration;

use harness::{Cluster, Node, run};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::server::seen;
use super::{NODE, certificate, cluster, der, seconds, session, trusted};

fn secrets(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client(), "kubeedge")
}

/// The CA that signs, PEM.
async fn signing(cluster: &Cluster) -> String {
    let secret = secrets(cluster).get("casecret").await.unwrap();
    String::from_utf8(secret.data.unwrap()["cadata"].0.clone()).unwrap()
}

/// A file with the CA that signs now.
async fn kept_ca(cluster: &Cluster, node: &Node) -> PathBuf {
    let path = node.folder().join("elder.pem");
    std::fs::write(&path, signing(cluster).await).unwrap();
    path
}

#[test]
fn the_ca_is_replaced_and_neither_a_link_is_lost_nor_a_join_needed() {
    run(async || {
        let mut cluster = cluster(15, 5).await;
        cluster.reconfigure_cloud(|settings| settings.modules.cloud_hub.ca_lead_duration = seconds(5)).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let before = session(&cluster).await["session"].clone();
        let elder = kept_ca(&cluster, &node).await;
        let elder_pem = std::fs::read_to_string(&elder).unwrap();
        let wish = Patch::Merge(json!({ "stringData": { "rotate": "now" } }));
        secrets(&cluster).patch("casecret", &PatchParams::default(), &wish).await.unwrap();

        cluster.until("the node trusts both", || trusted(&node) == 2).await;
        assert_eq!(signing(&cluster).await, elder_pem, "the elder signs until everybody knows the successor");
        cluster.until_async("the successor signs", async || signing(&cluster).await != elder_pem).await;
        assert_eq!(trusted(&node), 2);
        let enrolment = cluster.enrolment_port();
        let successor = kept_ca(&cluster, &node).await;
        std::fs::write(node.folder().join("first.pem"), &elder_pem).unwrap();
        cluster
            .until_async(
                "CloudCore shows the successor's, to those who know it or its predecessor alone",
                async || {
                    let by_successor = seen(enrolment, &successor).await;
                    let by_elder = seen(enrolment, &node.folder().join("first.pem")).await;
                    by_successor.1.ends_with("0 (ok)") && by_elder.1.ends_with("0 (ok)")
                },
            )
            .await;
        let successor_pem = std::fs::read(node.folder().join("elder.pem")).unwrap();
        let is_new = || pki::is_signed_by(&certificate(&node), &der(&successor_pem));
        cluster.until("the node's certificate is the successor's", is_new).await;

        cluster.until("the elder is trusted no longer", || trusted(&node) == 1).await;
        let by_elder = seen(enrolment, &node.folder().join("first.pem")).await.1;
        assert!(!by_elder.ends_with("0 (ok)"), "{by_elder}");
        assert_eq!(session(&cluster).await["session"], before, "the same link all the while");
        node.stop().await;
        node.start().await;
        cluster
            .until_async("the node is linked again, by the successor alone", async || {
                session(&cluster).await["session"].as_u64() > before.as_u64()
            })
            .await;
        node.stop().await;
    });
}

#[test]
fn a_node_that_was_away_while_the_ca_was_replaced_comes_back() {
    run(async || {
        let mut cluster = cluster(30, 120).await;
        cluster.reconfigure_cloud(|settings| settings.modules.cloud_hub.ca_lead_duration = seconds(3)).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        node.stop().await;
        let elder = signing(&cluster).await;
        let wish = Patch::Merge(json!({ "stringData": { "rotate": "now" } }));
        secrets(&cluster).patch("casecret", &PatchParams::default(), &wish).await.unwrap();
        cluster.until_async("the successor signs", async || signing(&cluster).await != elder).await;
        // CloudCore shows what the successor has signed at its next look.
        cluster.env().sleep(Duration::from_secs(4)).await;
        assert_eq!(trusted(&node), 1, "it knows the elder alone");
        node.start().await;
        cluster.until_async("it is linked", async || !session(&cluster).await.is_null()).await;
        cluster.until("it learns the successor", || trusted(&node) == 2).await;
        node.stop().await;
    });
}

#[test]
fn a_certificate_that_would_outlive_the_trust_in_its_ca_is_renewed_when_the_successor_signs() {
    run(async || {
        // By its own life it would be renewed three minutes from now at the earliest.
        let mut cluster = cluster(300, 5).await;
        cluster.reconfigure_cloud(|settings| settings.modules.cloud_hub.ca_lead_duration = seconds(3)).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let before = session(&cluster).await["session"].clone();
        let elder = signing(&cluster).await;
        assert!(pki::is_signed_by(&certificate(&node), &der(elder.as_bytes())));
        let wish = Patch::Merge(json!({ "stringData": { "rotate": "now" } }));
        secrets(&cluster).patch("casecret", &PatchParams::default(), &wish).await.unwrap();
        cluster.until_async("the successor signs", async || signing(&cluster).await != elder).await;
        let successor = der(signing(&cluster).await.as_bytes());
        cluster
            .until("the certificate is the successor's", || {
                pki::is_signed_by(&certificate(&node), &successor)
            })
            .await;
        assert_eq!(session(&cluster).await["session"], before, "the same link all the while");
        node.stop().await;
    });
}
