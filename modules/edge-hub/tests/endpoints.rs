//! EdgeHub with several endpoints of the cloud, on a paused clock: each server is a place in memory for each carrier, and
//! what is blocked does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use beehive::link::memory::{MemoryAcceptor, MemoryDialer, MemoryPort, NetworkPath, listen};
use beehive::link::{
    Acceptor, CloseReason, Connection, DialError, Dialer, IncomingLink, Link, PeerName, Refused, Routes,
};
use beehive::testing::Probe;
use beehive::{Capacity, Clock, Env, Flow, Hive, Moment, Policy};
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use edge_hub::network::{Network, Route};
use edge_hub::{EdgeHub, Endpoints, Server, events};
use futures::future::BoxFuture;

const LONG: Duration = Duration::from_secs(2000);

/// Dials a place in memory, or gets no answer while it is blocked.
struct Line {
    to: MemoryDialer,
    clock: Arc<dyn Clock>,
    blocked: AtomicBool,
    /// How long an answer takes, in milliseconds.
    slow: AtomicU32,
    dials: AtomicU32,
}

impl Dialer for Line {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Connection>, DialError>> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            if self.blocked.load(Ordering::Relaxed) {
                self.clock.sleep(Duration::from_secs(3)).await;
                return Err(DialError::Unanswered { target: "the cloud".to_owned() });
            }
            self.clock.sleep(Duration::from_millis(u64::from(self.slow.load(Ordering::Relaxed)))).await;
            self.to.dial().await
        })
    }
}

impl Line {
    fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    fn dials(&self) -> u32 {
        self.dials.load(Ordering::Relaxed)
    }
}

/// What a test says the network looks like.
#[derive(Default)]
struct FakeNetwork(RefCell<Option<Route>>);

impl FakeNetwork {
    fn becomes(&self, source: Option<&str>) {
        *self.0.borrow_mut() =
            source.map(|source| Route { sources: vec![source.parse::<IpAddr>().unwrap()], gateway: None });
    }
}

impl Network for FakeNetwork {
    fn route(&self) -> Option<Route> {
        self.0.borrow().clone()
    }
}

/// One server of the cloud: where QUIC arrives, and where WebSocket does.
struct Cloud {
    quic: Rc<Line>,
    websocket: Rc<Line>,
    over_quic: MemoryAcceptor,
    over_websocket: MemoryAcceptor,
}

struct Bench {
    env: Env,
    clouds: Vec<Cloud>,
    network: Rc<FakeNetwork>,
    meta: Probe<MetaMsg>,
    hive: Hive,
}

fn line(env: &Env, port: &MemoryPort) -> Rc<Line> {
    let to = port.dialer(PeerName::verified("system:node:a", "02"), NetworkPath::new());
    Rc::new(Line {
        to,
        clock: env.clock(),
        blocked: AtomicBool::new(false),
        slow: AtomicU32::new(0),
        dials: AtomicU32::new(0),
    })
}

/// `before` arranges the servers before the hub starts.
fn run(servers: usize, before: impl FnOnce(&[Cloud]), test: impl AsyncFnOnce(Bench)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(3);
        let clouds: Vec<Cloud> = (0..servers)
            .map(|_| {
                let (quic, over_quic) = listen(PeerName::verified("cloud", "01"));
                let (websocket, over_websocket) = listen(PeerName::verified("cloud", "01"));
                let (quic, websocket) = (line(&env, &quic), line(&env, &websocket));
                Cloud { quic, websocket, over_quic, over_websocket }
            })
            .collect();
        before(&clouds);
        let endpoints = clouds.iter().enumerate().map(|(number, cloud)| Server {
            name: format!("cloud-{number}"),
            quic: Some(cloud.quic.clone() as Rc<dyn Dialer>),
            websocket: Some(cloud.websocket.clone() as Rc<dyn Dialer>),
        });
        let endpoints = Endpoints(endpoints.collect());
        let network = Rc::new(FakeNetwork::default());
        network.becomes(Some("10.0.0.1"));
        let (meta, meta_address) = Probe::new(&env, 64);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EdgeHubMsg>("edge-hub", Capacity::new(16, "a test's choice"));
        let _hub = hive.grant("tester", &mailbox, Flow::Tell);
        let watched = network.clone();
        hive.supervise(mailbox, Policy::default(), move || {
            EdgeHub::new(endpoints.clone(), "system:node:a", meta_address.clone()).watching(watched.clone())
        });
        hive.open().unwrap();
        test(Bench { env, clouds, network, meta, hive }).await;
    });
}

async fn admit(env: &Env, acceptor: &mut MemoryAcceptor) -> Link {
    loop {
        let connection = acceptor.accept().await.unwrap();
        // A dialler that has given up in between is not there any more.
        if let Ok(arrival) = IncomingLink::read_hello(env, connection).await
            && let Ok(link) = arrival.admit(Routes::new()).await
        {
            return link;
        }
    }
}

impl Bench {
    async fn until_up(&mut self) -> Moment {
        let up = |message| matches!(message, MetaMsg::LinkUp { .. }).then_some(());
        self.meta.find(LONG, up).await.unwrap();
        self.env.now()
    }

    async fn snapshot(&self) -> serde_json::Value {
        let report = self.hive.inspector().report(LONG).await;
        report.actors.into_iter().find(|actor| actor.name == "edge-hub").unwrap().snapshot
    }
}

#[test]
fn where_udp_is_blocked_the_link_is_up_over_websocket_in_four_seconds_and_returns_to_quic_without_a_gap() {
    run(
        1,
        |clouds| clouds[0].quic.block(true),
        async |mut bench| {
            let begun = bench.env.now();
            let fallback = admit(&bench.env, &mut bench.clouds[0].over_websocket).await;
            let up = bench.until_up().await;
            assert!(up.since(begun) <= Duration::from_secs(4), "{:?}", up.since(begun));
            let snapshot = bench.snapshot().await;
            assert_eq!((&snapshot["carrier"], &snapshot["fellBack"]), (&"websocket".into(), &true.into()));
            assert_eq!(snapshot["wireVersion"], 1);
            let counted = |event| bench.env.metrics().count_of(event);
            assert_eq!((counted(events::LINKED), counted(events::FELL_BACK)), (1, 1));
            // An hour in which UDP stays blocked: looked for every few minutes, and the link is left alone.
            let before = bench.clouds[0].quic.dials();
            bench.env.sleep(Duration::from_secs(3600)).await;
            let looks = bench.clouds[0].quic.dials() - before;
            assert!((12..=40).contains(&looks), "{looks}");
            assert!(bench.env.timeout(Duration::ZERO, fallback.ended()).await.is_none());
            // UDP passes again.
            bench.clouds[0].quic.block(false);
            let passes = bench.env.now();
            let (env, meta) = (bench.env.clone(), fallback.remote::<MetaDown>());
            let better = admit(&env, &mut bench.clouds[0].over_quic).await;
            assert!(meta.is_up(), "the old link went before the new one was there");
            assert!(bench.until_up().await.since(passes) <= Duration::from_secs(301));
            assert_eq!(fallback.ended().await, CloseReason::Remote);
            let snapshot = bench.snapshot().await;
            assert_eq!((&snapshot["carrier"], &snapshot["fellBack"]), (&"quic".into(), &false.into()));
            let counted = |event| bench.env.metrics().count_of(event);
            assert_eq!((counted(events::LINKED), counted(events::FELL_BACK)), (2, 1));
            // And that is all: no further link, no further look.
            let dials = (bench.clouds[0].quic.dials(), bench.clouds[0].websocket.dials());
            bench.env.sleep(Duration::from_secs(3600)).await;
            assert_eq!(dials, (bench.clouds[0].quic.dials(), bench.clouds[0].websocket.dials()));
            assert!(better.remote::<MetaDown>().is_up());
        },
    );
}

#[test]
fn the_cloud_may_end_the_old_link_as_soon_as_it_has_the_new_one() {
    run(
        1,
        |clouds| clouds[0].quic.block(true),
        async |mut bench| {
            let fallback = admit(&bench.env, &mut bench.clouds[0].over_websocket).await;
            bench.until_up().await;
            bench.clouds[0].quic.block(false);
            let connection = bench.clouds[0].over_quic.accept().await.unwrap();
            let arrival = IncomingLink::read_hello(&bench.env, connection).await.unwrap();
            // The end of the old link overtakes the answer to the new hello.
            drop(fallback);
            bench.env.sleep(Duration::from_secs(1)).await;
            let _better = arrival.admit(Routes::new()).await.unwrap();
            bench.until_up().await;
            bench.env.sleep(Duration::from_secs(60)).await;
            assert_eq!(bench.clouds[0].websocket.dials(), 1);
            assert_eq!(bench.snapshot().await["carrier"], "quic");
        },
    );
}

#[test]
fn servers_are_tried_in_turn_and_the_one_that_served_is_preferred() {
    run(
        3,
        |clouds| {
            for cloud in &clouds[..2] {
                cloud.quic.block(true);
                cloud.websocket.block(true);
            }
        },
        async |mut bench| {
            let begun = bench.env.now();
            let link = admit(&bench.env, &mut bench.clouds[2].over_quic).await;
            let up = bench.until_up().await;
            // Two servers that do not answer cost at most the limits of their carriers.
            assert!(up.since(begun) <= Duration::from_secs(12), "{:?}", up.since(begun));
            assert_eq!(bench.snapshot().await["server"], "cloud-2");
            let ended = bench.env.now();
            drop(link);
            let _again = admit(&bench.env, &mut bench.clouds[2].over_quic).await;
            assert_eq!(bench.until_up().await, ended);
        },
    );
}

#[test]
fn a_server_that_asks_to_wait_is_left_for_another() {
    run(
        2,
        |_| (),
        async |mut bench| {
            let begun = bench.env.now();
            let connection = bench.clouds[0].over_quic.accept().await.unwrap();
            let full = Refused { reason: "full".to_owned(), wait: Some(Duration::from_secs(30)) };
            IncomingLink::read_hello(&bench.env, connection).await.unwrap().refuse(full).await;
            let _link = admit(&bench.env, &mut bench.clouds[1].over_quic).await;
            assert!(bench.until_up().await.since(begun) <= Duration::from_secs(3));
            // The cloud's own answer is not asked for again over another carrier.
            assert_eq!(bench.clouds[0].websocket.dials(), 0);
        },
    );
}

#[test]
fn while_nothing_answers_a_dial_begins_every_one_to_two_seconds() {
    run(
        1,
        |clouds| {
            clouds[0].quic.block(true);
            clouds[0].websocket.block(true);
        },
        async |bench| {
            bench.env.sleep(Duration::from_secs(3600)).await;
            let quic = bench.clouds[0].quic.dials();
            assert!((1800..=3600).contains(&quic), "{quic}");
        },
    );
}

#[test]
fn a_network_that_comes_back_is_used_within_a_second_and_a_new_address_makes_a_link_beside_the_old_one() {
    run(
        1,
        |_| (),
        async |mut bench| {
            let old = admit(&bench.env, &mut bench.clouds[0].over_quic).await;
            bench.until_up().await;
            bench.env.sleep(Duration::from_secs(100)).await;
            bench.network.becomes(Some("10.0.0.2"));
            let changed = bench.env.now();
            let new = admit(&bench.env, &mut bench.clouds[0].over_quic).await;
            assert!(old.remote::<MetaDown>().is_up());
            assert!(bench.until_up().await.since(changed) <= Duration::from_secs(1));
            assert_eq!(old.ended().await, CloseReason::Remote);
            // No way at all: that alone changes nothing.
            bench.network.becomes(None);
            bench.env.sleep(Duration::from_secs(100)).await;
            assert!(new.remote::<MetaDown>().is_up());
            // The cloud asks nobody to wait; it is just not there. Then a network comes, in the middle of an attempt.
            bench.clouds[0].quic.block(true);
            bench.clouds[0].websocket.block(true);
            drop(new);
            bench.env.sleep(Duration::from_secs(100)).await;
            bench.clouds[0].quic.block(false);
            bench.network.becomes(Some("10.0.0.3"));
            let back = bench.env.now();
            let _newest = admit(&bench.env, &mut bench.clouds[0].over_quic).await;
            assert!(bench.until_up().await.since(back) <= Duration::from_secs(1));
        },
    );
}

#[test]
fn over_a_slow_way_the_first_dial_wins_and_only_it_says_hello() {
    run(
        1,
        |clouds| clouds[0].quic.slow.store(2500, Ordering::Relaxed),
        async |mut bench| {
            let begun = bench.env.now();
            let link = admit(&bench.env, &mut bench.clouds[0].over_quic).await;
            assert_eq!(bench.until_up().await.since(begun), Duration::from_millis(2500));
            assert!((2..=3).contains(&bench.clouds[0].quic.dials()), "{}", bench.clouds[0].quic.dials());
            // The others were given up before anybody could take them for the node's newest link.
            let another = bench.clouds[0].over_quic.accept();
            assert!(bench.env.timeout(Duration::from_secs(60), another).await.is_none());
            assert!(link.remote::<MetaDown>().is_up());
            assert_eq!(bench.clouds[0].websocket.dials(), 0);
        },
    );
}

#[test]
fn whenever_the_way_is_whole_again_the_link_is_up_within_two_seconds() {
    for phase in 0..40 {
        run(
            1,
            |clouds| {
                clouds[0].quic.block(true);
                clouds[0].websocket.block(true);
            },
            async move |mut bench| {
                bench.env.sleep(Duration::from_millis(60_000 + 73 * phase)).await;
                bench.clouds[0].quic.block(false);
                let back = bench.env.now();
                let _link = admit(&bench.env, &mut bench.clouds[0].over_quic).await;
                let took = bench.until_up().await.since(back);
                assert!(took <= Duration::from_millis(1500), "{phase}: {took:?}");
            },
        );
    }
}
