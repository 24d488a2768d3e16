//! Certificates in the wrong hands.

use std::cell::RefCell;
use std::time::Duration;

use contract::NodeName;
use contract::uplink::HubUp;
use harness::{LONG, run};
use noderegistry::Registry;
use pki::NodeRequest;

use super::ended::{ask, credentials, link, refusal};
use super::{NODE, certificate, cluster, living, on_disk, session};

/// A session ends so soon after its name was revoked.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn an_old_copy_of_a_certificate_opens_nothing_once_the_node_has_its_next_one() {
    run(async || {
        let mut cluster = cluster(8, 600).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let copied = credentials(&node);
        let first = living(&cluster).await;
        cluster
            .until_async("the node has its next one", async || {
                let living = living(&cluster).await;
                living != first && on_disk(&node) == living
            })
            .await;
        let before = session(&cluster).await["session"].clone();
        let reason = refusal(link(&cluster, &copied, NODE).await);
        assert!(reason.contains("replaced"), "{reason}");
        assert_eq!(session(&cluster).await["session"], before, "the node's own link is not touched");
        node.stop().await;
    });
}

/// So soon the node is linked again after its start, whatever others do: it dials once more after a second or two.
const LINKED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn who_holds_an_ended_and_replaced_certificate_takes_no_place_that_the_nodes_next_link_needs() {
    run(async || {
        let mut cluster = cluster(8, 600).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let (copied, first) = (credentials(&node), living(&cluster).await);
        let ends = pki::validity_of(&certificate(&node)).unwrap().not_after;
        cluster
            .until_async("the node has its next one", async || {
                let living = living(&cluster).await;
                living != first && on_disk(&node) == living
            })
            .await;
        let left = ends.duration_since(cluster.env().wall()).unwrap_or_default();
        cluster.env().sleep(left + Duration::from_secs(2)).await;
        // He comes again and again, and holds whatever he is let have.
        let held = RefCell::new(Vec::new());
        let thief = async {
            loop {
                let come = link(&cluster, &copied, NODE).await.ok();
                held.borrow_mut().extend(come);
                cluster.env().sleep(Duration::from_millis(50)).await;
            }
        };
        let story = async {
            let before = session(&cluster).await["session"].as_u64();
            cluster.env().sleep(Duration::from_secs(2)).await;
            node.stop().await;
            cluster.until_async("its link is over", async || session(&cluster).await.is_null()).await;
            node.start().await;
            let began = cluster.env().now();
            cluster
                .until_async("the node is linked again", async || {
                    session(&cluster).await["session"].as_u64() > before
                })
                .await;
            let took = cluster.env().now().since(began);
            assert!(took <= LINKED_WITHIN, "{took:?}");
            node.stop().await;
        };
        tokio::select! {
            () = thief => {}
            () = story => {}
        }
        assert!(held.borrow().is_empty(), "of {first} nothing comes");
    });
}

#[test]
fn a_revoked_node_is_out_whatever_was_renewed_and_stays_out() {
    run(async || {
        let mut cluster = cluster(8, 600).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let first = living(&cluster).await;
        cluster.until_async("it is renewed", async || living(&cluster).await != first).await;
        // Of a certificate that it was given and has not used yet nothing comes either.
        let (name, registry) = (NodeName::parse(NODE).unwrap(), Registry::new(cluster.client()));
        let began = cluster.env().now();
        registry.revoke(&name).await.unwrap();
        cluster.until_async("its link ends", async || session(&cluster).await.is_null()).await;
        let took = cluster.env().now().since(began);
        assert!(took <= REVOKED_WITHIN, "{took:?}");
        let barred = living(&cluster).await;
        node.stop().await;
        node.start().await;
        // Past the end of what it has, where it may only ask for a renewal.
        let ends = pki::validity_of(&certificate(&node)).unwrap().not_after;
        let left = ends.duration_since(cluster.env().wall()).unwrap_or_default();
        cluster.env().sleep(left + Duration::from_secs(3)).await;
        assert!(session(&cluster).await.is_null());
        node.stop().await;
        let reason = refusal(link(&cluster, &credentials(&node), NODE).await);
        assert!(reason.contains("revoked by an administrator"), "{reason}");
        assert_eq!(living(&cluster).await, barred, "nothing was signed for it");
    });
}

#[test]
fn a_node_that_asks_all_the_time_is_told_to_wait_and_its_link_stays() {
    run(async || {
        let mut cluster = cluster(3600, 60).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        let shown = credentials(&node);
        node.stop().await;
        let link = link(&cluster, &shown, NODE).await.unwrap();
        let mut waits = Vec::new();
        for _ in 0..20 {
            if let Err(refused) = ask(&link, NodeRequest::new(NODE).unwrap().csr_der).await {
                assert!(refused.reason.contains("too often"), "{}", refused.reason);
                waits.push(refused.wait.unwrap());
            }
        }
        assert!((8..=10).contains(&waits.len()), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)), "{waits:?}");
        let (hub, mut kept) = (link.remote::<HubUp>(), 0);
        for _ in 0..20 {
            let said = hub.ask(LONG, |reply| HubUp::CertificateKept { serial: "0abc".to_owned(), reply });
            kept += usize::from(said.await.unwrap().unwrap_err().contains("too often"));
        }
        assert!((8..=10).contains(&kept), "{kept}");
        assert!(!session(&cluster).await.is_null());
    });
}
