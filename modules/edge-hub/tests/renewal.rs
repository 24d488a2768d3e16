//! EdgeHub has its certificate renewed by a cloud end in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::time::Duration;

use beehive::link::memory::{NetworkPath, listen};
use beehive::link::{Acceptor, IncomingLink, PeerName, Routes};
use beehive::testing::Probe;
use beehive::{Capacity, Env, Hive, Policy};
use contract::NodeName;
use contract::certificate::{CloudTrust, RenewedCertificate};
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::MetaMsg;
use contract::uplink::HubUp;
use edge_hub::{EdgeHub, IdentityFiles, NamedServers, NodeCertificates};
use edge_store::{Options, Store};
use pki::{Authority, NodeRequest};
use serde_json::json;

const NODE: &str = "edge-1";
const LONG: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn addresses_that_come_with_a_renewal_are_dialled_from_then_on_behind_those_of_the_settings() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::real().spawned_by(|task| drop(tokio::task::spawn_local(task)));
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(env.wall(), env.random_id()).unwrap();
        let files = IdentityFiles {
            certificate: folder.path().join("server.crt"),
            key: folder.path().join("server.key"),
            authorities: folder.path().join("rootCA.crt"),
        };
        // It is due at once.
        let request = NodeRequest::new(NODE).unwrap();
        let life = Duration::from_secs(1);
        let issued = authority.sign_node(&request.csr_der, NODE, env.wall(), life, env.random_id()).unwrap();
        files.keep_authorities(authority.cert_pem()).unwrap();
        files.keep(&issued.pem, &request.key_pem).unwrap();
        env.sleep(2 * life).await;
        let stored = files.read().unwrap();
        let store = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
        let node = NodeName::parse(NODE).unwrap();
        let certificates =
            Rc::new(NodeCertificates::new(node, (files, stored), (store, Vec::new()), true).unwrap());
        let named = NamedServers::by("192.0.2.1:10001", "", certificates.live(), &env.clock()).unwrap();

        let (port, mut cloud) = listen(PeerName::verified("cloud", "01"));
        let name = format!("system:node:{NODE}");
        let dialer = Rc::new(port.dialer(PeerName::verified(name.as_str(), "02"), NetworkPath::new()));
        let (_meta, meta_to) = Probe::<MetaMsg>::new(&env, 16);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EdgeHubMsg>("edge-hub", Capacity::new(8, "a test's choice"));
        hive.supervise(mailbox, Policy::default(), move || {
            EdgeHub::new(Rc::clone(&dialer), &name, meta_to.clone())
                .keeping(Rc::clone(&certificates), named.clone())
        });
        hive.open().unwrap();

        let (mut said, hub) = Probe::<HubUp>::new(&env, 16);
        let arrival = IncomingLink::read_hello(&env, cloud.accept().await.unwrap()).await.unwrap();
        let routes = Routes::new().accept(hub, |message: HubUp, _: &PeerName| message);
        let _link = arrival.admit(routes).await.unwrap();
        let Some(HubUp::RenewCertificate { csr_der, reply }) = said.next(LONG).await else { panic!() };
        let renewed = authority.sign_node(&csr_der, NODE, env.wall(), DAY, env.random_id()).unwrap();
        let authorities = vec![authority.cert_der().to_vec()];
        let trust = CloudTrust { authorities, servers: vec!["192.0.2.7".to_owned()] };
        reply.send(Ok(RenewedCertificate { certificate: renewed.der, trust }));
        let Some(HubUp::CertificateKept { reply, .. }) = said.next(LONG).await else { panic!() };
        reply.send(Ok(()));
        let servers = async || {
            let report = hive.inspector().report(LONG).await;
            report.actor("edge-hub").unwrap().snapshot["servers"].clone()
        };
        let dialled = async {
            while servers().await != json!(["the cloud", "192.0.2.7"]) {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(env.timeout(LONG, dialled).await.is_some(), "{}", servers().await);
    });
}
