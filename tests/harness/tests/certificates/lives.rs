//! A certificate that is renewed life after life.

use contract::downlink::HubDown;
use contract::edgehub::EdgeHubMsg;
use harness::run;
use serde_json::json;

use super::{NODE, cluster, living, on_disk, register, session};

/// So many renewals are waited for.
const LIVES: usize = 4;

#[test]
fn a_certificate_is_renewed_over_many_lives_and_its_link_stays() {
    run(async || {
        let mut cluster = cluster(8, 60).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let first = session(&cluster).await;
        let joined_with = living(&cluster).await;
        let mut seen = vec![joined_with.clone()];
        while seen.len() <= LIVES {
            let before = seen.last().unwrap().clone();
            cluster
                .until_async("the certificate is renewed", async || living(&cluster).await != before)
                .await;
            seen.push(living(&cluster).await);
        }
        cluster
            .until_async("the disk, the session and the register say the same", async || {
                let living = living(&cluster).await;
                on_disk(&node) == living && session(&cluster).await["certificate"] == json!(living)
            })
            .await;
        let now = session(&cluster).await;
        assert_eq!(now["session"], first["session"], "the same session as before the first renewal");
        assert!(now["certificateEndsUnix"].as_u64() > first["certificateEndsUnix"].as_u64());
        let hub = node.snapshot("edge-hub").await;
        assert_eq!(hub["attempts"], json!(1), "no link was made anew: {hub}");
        let entry = noderegistry::Entry::of(&register(&cluster).await);
        assert_eq!(entry.enrolment.as_deref(), Some(joined_with.as_str()), "the first join is not forgotten");
        assert!(!node.settings().modules.edge_hub.tls_cert_file.with_extension("crt.renewed").exists());

        // The next dial shows the new one.
        node.stop().await;
        let kept = on_disk(&node);
        node.start().await;
        cluster.until_async("the node is linked again", async || !session(&cluster).await.is_null()).await;
        assert!(session(&cluster).await["session"].as_u64() > first["session"].as_u64());
        let shown = session(&cluster).await["certificate"].clone();
        assert!(shown == json!(kept) || shown == json!(on_disk(&node)), "{shown}");
        node.stop().await;
    });
}

#[test]
fn a_certificate_whose_keeping_is_not_heard_of_is_good_and_the_elder_one_as_well_until_it_is_used() {
    run(async || {
        let mut cluster = cluster(3600, 60).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let elder = living(&cluster).await;
        let name = contract::NodeName::parse(NODE).unwrap();
        let registry = noderegistry::Registry::new(cluster.client());
        let coming = noderegistry::Certificate { serial: "0abc".to_owned(), not_after_unix: u64::MAX >> 1 };
        registry.renew(&name, std::slice::from_ref(&elder), &coming).await.unwrap();
        // Another node's link, or a certificate that is not the living one, gets none.
        assert!(registry.renew(&name, &["77".to_owned()], &coming).await.is_err());
        node.stop().await;
        node.start().await;
        cluster.until_async("the elder one is let in", async || !session(&cluster).await.is_null()).await;
        assert_eq!(living(&cluster).await, elder);
        registry.certificate_kept(&name, "0abc").await.unwrap();
        registry.certificate_kept(&name, "0abc").await.unwrap();
        assert_eq!(living(&cluster).await, "0abc");
        cluster.until_async("the elder one's link ends", async || session(&cluster).await.is_null()).await;
        assert!(registry.certificate_kept(&name, &elder).await.is_err(), "it does not come back");
        node.stop().await;
    });
}

#[test]
fn a_node_is_told_whom_to_trust_over_each_new_link() {
    run(async || {
        let mut cluster = cluster(3600, 60).await;
        cluster
            .reconfigure_cloud(|settings| settings.modules.cloud_hub.dns_names = vec!["localhost".to_owned()])
            .await;
        let mut node = cluster.node(NODE).await;
        let told = node.probe("edge-hub", |message: &EdgeHubMsg| match message {
            EdgeHubMsg::Down(HubDown::Trust { trust, .. }) => Some(trust.clone()),
            _ => None,
        });
        cluster.until_ready(&node).await;
        // The first link may have been before the probe.
        cluster.reconfigure_cloud(|_| {}).await;
        cluster
            .until_async("CloudHub knows that the node has taken it", async || {
                session(&cluster).await["trustTaken"] == json!(true)
            })
            .await;
        let trust = told.take().pop().unwrap();
        assert_eq!(trust.servers, ["localhost"], "no address that each machine has for itself");
        assert_eq!(trust.authorities.len(), 1);
        let hub = node.snapshot("edge-hub").await;
        assert_eq!(hub["certificate"]["namedServers"], json!(["localhost"]), "{hub}");
        assert_eq!(edge_hub::kept_servers(node.core().store()).unwrap(), ["localhost"]);
        node.stop().await;
    });
}
