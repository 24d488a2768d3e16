//! A node that was away past its certificate's end, and what it may do then: have it renewed, and nothing else.

use std::time::Duration;

use beehive::AskError;
use beehive::link::quic::Credentials;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::{Dialer, Hello, Link, LinkError, PeerName, Routes};
use beehive::testing::Probe;
use contract::NodeName;
use contract::capability;
use contract::certificate::{RenewalRefused, RenewedCertificate};
use contract::downlink::HubDown;
use contract::uplink::{EdgeUp, HubUp};
use harness::{Cluster, LONG, Node, run};
use noderegistry::Registry;
use pki::NodeRequest;

use super::{NODE, certificate, cluster, living, on_disk, session};

/// What the node shows, from its disk.
pub(super) fn credentials(node: &Node) -> Credentials {
    let hub = &node.settings().modules.edge_hub;
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    Credentials {
        certificate: read(&hub.tls_cert_file),
        key: read(&hub.tls_private_key_file).into(),
        authority: read(&hub.tls_ca_file),
    }
}

/// A link as the node, with nothing of ours at its end but that it understands what it would be told.
pub(super) async fn link(cluster: &Cluster, shown: &Credentials, name: &str) -> Result<Link, LinkError> {
    let port = cluster.settings().modules.cloud_hub.quic.port;
    let dialer = QuicDialer::new("127.0.0.1", port, shown).unwrap();
    let connection = dialer.dial().await.map_err(|error| LinkError::Broke(error.to_string()))?;
    let (_told, to) = Probe::<HubDown>::new(cluster.env(), 16);
    let routes = Routes::new().accept(to, |message: HubDown, _: &PeerName| message);
    let hello = Hello::of(format!("system:node:{name}"));
    Link::connect(cluster.env(), connection, &hello, routes).await
}

/// Why there is no link.
pub(super) fn refusal(link: Result<Link, LinkError>) -> String {
    match link {
        Err(LinkError::Refused(refused)) => refused.reason,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn ask(link: &Link, csr_der: Vec<u8>) -> Result<RenewedCertificate, RenewalRefused> {
    let asked = link.remote::<HubUp>().ask(LONG, |reply| HubUp::RenewCertificate { csr_der, reply }).await;
    asked.unwrap()
}

/// A node whose certificate has ended while it was away.
async fn away(life: u64, grace: u64) -> (Cluster, Node) {
    let mut cluster = cluster(life, grace).await;
    let mut node = cluster.node(NODE).await;
    cluster.until_ready(&node).await;
    node.stop().await;
    cluster.until_async("the link is over", async || session(&cluster).await.is_null()).await;
    let ends = pki::validity_of(&certificate(&node)).unwrap().not_after;
    let left = ends.duration_since(cluster.env().wall()).unwrap_or_default();
    cluster.env().sleep(left + Duration::from_secs(2)).await;
    (cluster, node)
}

#[test]
fn a_node_that_was_away_past_the_end_comes_back_by_itself() {
    run(async || {
        let (cluster, mut node) = away(6, 60).await;
        let ended = living(&cluster).await;
        node.start().await;
        cluster.until_async("the node is linked", async || !session(&cluster).await.is_null()).await;
        assert_ne!(living(&cluster).await, ended);
        assert_eq!(living(&cluster).await, on_disk(&node));
        cluster.until_ready(&node).await;
        node.stop().await;
    });
}

#[test]
fn an_ended_certificate_is_good_for_a_renewal_of_its_own_name_and_for_nothing_else() {
    run(async || {
        let (cluster, node) = away(4, 120).await;
        let shown = credentials(&node);
        let link = link(&cluster, &shown, NODE).await.unwrap();
        let said: Vec<&str> = link.capabilities().names().collect();
        assert_eq!(said, [capability::RENEW_CERTIFICATE, capability::RENEWAL_ONLY]);
        let alive = link.remote::<EdgeUp>().tell(EdgeUp::Alive).await;
        let edge = link.remote::<EdgeUp>();
        let reports = edge.ask(LONG, |reply| EdgeUp::Reports { reports: Vec::new().into(), reply });
        let refused = reports.await.unwrap_err();
        assert!(matches!(refused, AskError::Rejected(_) | AskError::LinkDown), "{refused:?} {alive:?}");
        assert!(session(&cluster).await.is_null(), "it has no session");

        let link = self::link(&cluster, &shown, NODE).await.unwrap();
        let other = NodeRequest::new("edge-2").unwrap();
        let refused = ask(&link, other.csr_der).await.unwrap_err();
        assert!(refused.reason.contains("edge-2") && refused.reason.contains(NODE), "{}", refused.reason);
        assert!(ask(&link, vec![0x30; 100]).await.is_err());
        let own = NodeRequest::new(NODE).unwrap();
        let renewed = ask(&link, own.csr_der).await.unwrap();
        assert_eq!(pki::node_of_certificate(&renewed.certificate).unwrap(), NODE);
        assert!(pki::is_pair(&renewed.certificate, &own.key_pem).unwrap());
        // It lives by the register, and the ended one is still what renews until that is used.
        let next = noderegistry::plan::next(&super::register(&cluster).await.metadata);
        assert_eq!(next, [pki::serial_of(&renewed.certificate).unwrap()]);
        assert!(session(&cluster).await.is_null());
    });
}

#[test]
fn a_revoked_or_freed_name_is_not_renewed_and_after_the_grace_nobody_is() {
    run(async || {
        let (cluster, node) = away(3, 20).await;
        let (shown, name) = (credentials(&node), NodeName::parse(NODE).unwrap());
        let registry = Registry::new(cluster.client());
        // Neither a link that is there already is good for anything then, nor is there another.
        let held = link(&cluster, &shown, NODE).await.unwrap();
        let request = || NodeRequest::new(NODE).unwrap().csr_der;
        let is_refused = async |words: &str| {
            let refused = ask(&held, request()).await.unwrap_err();
            assert!(refused.reason.contains(words), "{}", refused.reason);
            let reason = refusal(link(&cluster, &shown, NODE).await);
            assert!(reason.contains(words), "{reason}");
        };
        registry.revoke(&name).await.unwrap();
        is_refused("revoked by an administrator").await;
        registry.free(&name).await.unwrap();
        is_refused("not in the cluster's register").await;
        drop(held);
        cluster.env().sleep(Duration::from_secs(22)).await;
        let late = self::link(&cluster, &shown, NODE).await;
        assert!(matches!(late, Err(LinkError::Broke(_) | LinkError::Silent)), "{late:?}");
    });
}

#[test]
fn an_edgecore_that_knows_of_no_renewal_is_told_to_join_again() {
    run(async || {
        let (cluster, node) = away(3, 60).await;
        let port = cluster.settings().modules.cloud_hub.quic.port;
        let dialer = QuicDialer::new("127.0.0.1", port, &credentials(&node)).unwrap();
        let connection = dialer.dial().await.unwrap();
        let hello = Hello::of(format!("system:node:{NODE}"));
        let refused = Link::connect(cluster.env(), connection, &hello, Routes::new()).await.unwrap_err();
        let LinkError::Refused(refused) = refused else { panic!("{refused:?}") };
        assert!(
            refused.reason.contains("has ended") && refused.reason.contains("join again"),
            "{}",
            refused.reason
        );
    });
}
