//! CloudCores that are gone, hang or fall silent, and what each costs a call.

use std::time::Instant;

use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;

use super::*;
use crate::peer_plan::CONNECT_WITHIN;

struct AnHourLater(Arc<dyn Clock>);

impl Clock for AnHourLater {
    fn now(&self) -> beehive::Moment {
        self.0.now() + Duration::from_secs(3600)
    }

    fn wall(&self) -> std::time::SystemTime {
        self.0.wall()
    }

    fn sleep(&self, pause: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.0.sleep(pause)
    }
}

#[actix_rt::test]
async fn a_cloudcore_that_is_gone_hangs_or_is_another_one_costs_a_known_time() {
    let cluster = Cluster::new();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It takes connections into its queue, and does nothing.
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = cluster.peer("cloudcore-c");
    let (_other, _, metrics) = cluster.peer_door(&other);
    for (at, least, words) in [
        (gone, Duration::ZERO, "was not reached"),
        (hangs.local_addr().unwrap(), CONNECT_WITHIN, "it has not answered within 1 s"),
        (other.address().unwrap(), Duration::ZERO, "was not reached"),
    ] {
        let named = move || {
            let address = Some(at.to_string());
            Some(Ok(Some(NodeHolder { cloudcore: "cloudcore-b".to_owned(), address, is_here: false })))
        };
        let door = cluster.door(cluster.peer("cloudcore-a"), named);
        let began = Instant::now();
        let answered = call(&door, MQTT, &[], "on").await;
        let took = began.elapsed();
        answered.says(503, words);
        answered.says(503, "the call was not made, try again");
        assert_eq!(answered.headers["retry-after"], "1");
        assert!(took >= least && took < WITHIN_20 / 2, "{words}: {took:?}");
        assert_eq!(counted(&door.status), (0, 1));
        assert_eq!(door.metrics.counters()["router_peer_unreached"], 1);
        call(&door, MQTT, &[], "on").await;
        assert_eq!(door.asked.get(), 2, "it may be elsewhere by now");
    }
    assert!(!metrics.counters().contains_key("router_calls_of_peers"), "the wrong one was told nothing");
}

#[actix_rt::test]
async fn a_cloudcore_that_falls_silent_with_a_call_in_hand_is_given_up_soon() {
    let cluster = Cluster::new();
    let authorities = cluster.authorities.get();
    let env = &cluster.env;
    let (shown, key) =
        authorities.signing().cloudcore("cloudcore-b", env.wall(), DAY, env.random_id()).unwrap();
    // It makes the handshake, and that is all.
    let chain = vec![rustls_pki_types::CertificateDer::from(shown.der)];
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![peer_settings::ALPN.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            kept.push(acceptor.accept(socket).await.unwrap());
        }
    });
    let named = move || {
        let address = Some(at.to_string());
        Some(Ok(Some(NodeHolder { cloudcore: "cloudcore-b".to_owned(), address, is_here: false })))
    };
    let door = cluster.door(cluster.peer("cloudcore-a"), named);
    let began = Instant::now();
    let answered = call(&door, MQTT, &[], "on").await;
    answered.says(502, "whether the call was made is not known");
    assert!(!answered.headers.contains_key("retry-after"), "it may have been made");
    assert!(began.elapsed() < WITHIN_20 / 2, "{:?}", began.elapsed());
    assert_eq!((counted(&door.status), door.metrics.counters()["router_passed_calls_lost"]), ((0, 1), 1));
}

#[actix_rt::test]
async fn where_nobody_can_say_who_has_the_node_what_was_heard_last_counts() {
    let cluster = Cluster::new();
    let b = cluster.peer("cloudcore-b");
    let (_server, seen) = cluster.stand_in(&b, || Response::new(https::body::whole("done")));
    let door = cluster.door(cluster.peer("cloudcore-a"), || Some(Err("the API server is away".to_owned())));
    let answered = call(&door, MQTT, &[], "on").await;
    answered.says(503, "cannot be found out now (the API server is away)");
    assert_eq!(answered.headers["retry-after"], "1");
    // A NodeLease that says nothing costs a second.
    let silent = cluster.door(cluster.peer("cloudcore-a"), || None);
    let began = Instant::now();
    call(&silent, MQTT, &[], "on").await.says(503, "cannot be found out now");
    assert!((LOOKUP_WITHIN..WITHIN_20 / 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    // Nobody has it; and a CloudCore to which nothing can be passed.
    let nowhere = cluster.door(cluster.peer("cloudcore-a"), || Some(Ok(None)));
    call(&nowhere, MQTT, &[], "on").await.says(503, "no other one has it");
    let closed = cluster.door(cluster.peer("cloudcore-a"), || {
        let (cloudcore, address) = ("cloudcore-b".to_owned(), None);
        Some(Ok(Some(NodeHolder { cloudcore, address, is_here: false })))
    });
    call(&closed, MQTT, &[], "on").await.says(503, "`cloudcore-b`, which takes no calls from others");
    assert!(seen.lock().unwrap().is_empty());

    // What was heard before is tried, however old it is.
    let known = SharedPeers::default();
    let (_lease, to_lease) = Probe::new(&cluster.env, 1);
    let peers = Peers {
        lease: to_lease,
        settings: cluster.peer("cloudcore-a"),
        known: known.clone(),
        clock: Arc::new(AnHourLater(cluster.env.clock())),
        metrics: Metrics::default(),
    };
    let node = NodeName::parse("edge-1").unwrap();
    let place = Place::Peer(Peer { identity: "cloudcore-b".to_owned(), at: b.address().unwrap() });
    known.lock().found(&node, place.clone(), cluster.env.now());
    assert_eq!(peers.place(&node).await, Ok(place));
    assert_eq!(peers.metrics.counters()["router_holder_not_found"], 1, "it was asked for anew");
}
