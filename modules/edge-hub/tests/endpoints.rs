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
    Acceptor, ByteStream, ByteStreamError, CloseReason, Connection, DialError, Dialer, IncomingLink, Link,
    PeerName, Refused, Routes,
};
use beehive::testing::Probe;
use beehive::{Capacity, Clock, Env, Flow, Hive, Moment, Policy};
use contract::edgehub::EdgeHubMsg;
use contract::edgestream::EdgeStreamMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use edge_hub::network::{Network, Route};
use edge_hub::{EdgeHub, Endpoints, Server, events};
use futures::future::BoxFuture;

const LONG: Duration = Duration::from_secs(2000);

/// Dials a place in memory, or gets no answer while it is blocked.
struct BlockableDialer {
    to: MemoryDialer,
    clock: Arc<dyn Clock>,
    blocked: AtomicBool,
    /// How long an answer takes, in milliseconds.
    slow: AtomicU32,
    dials: AtomicU32,
}

impl Dialer for BlockableDialer {
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

impl BlockableDialer {
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
    quic: Rc<BlockableDialer>,
    websocket: Rc<BlockableDialer>,
    over_quic: MemoryAcceptor,
    over_websocket: MemoryAcceptor,
}

struct Fixture {
    env: Env,
    clouds: Vec<Cloud>,
    network: Rc<FakeNetwork>,
    meta: Probe<MetaMsg>,
    streams: Probe<EdgeStreamMsg>,
    hive: Hive,
}

fn blockable_dialer(env: &Env, port: &MemoryPort) -> Rc<BlockableDialer> {
    let to = port.dialer(PeerName::verified("system:node:a", "02"), NetworkPath::new());
    Rc::new(BlockableDialer {
        to,
        clock: env.clock(),
        blocked: AtomicBool::new(false),
        slow: AtomicU32::new(0),
        dials: AtomicU32::new(0),
    })
}

/// `before` arranges the servers before the hub starts.
fn run(servers: usize, before: impl FnOnce(&[Cloud]), test: impl AsyncFnOnce(Fixture)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(3);
        let clouds: Vec<Cloud> = (0..servers)
            .map(|_| {
                let (quic, over_quic) = listen(PeerName::verified("cloud", "01"));
                let (websocket, over_websocket) = listen(PeerName::verified("cloud", "01"));
                let (quic, websocket) = (blockable_dialer(&env, &quic), blockable_dialer(&env, &websocket));
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
        let (streams, streams_address) = Probe::new(&env, 64);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EdgeHubMsg>("edge-hub", Capacity::new(16, "a test's choice"));
        let _hub = hive.grant("tester", &mailbox, Flow::Tell);
        let watched = network.clone();
        hive.supervise(mailbox, Policy::default(), move || {
            EdgeHub::new(endpoints.clone(), "system:node:a", meta_address.clone())
                .watching(watched.clone())
                .streaming_to(streams_address.clone())
        });
        hive.open().unwrap();
        test(Fixture { env, clouds, network, meta, streams, hive }).await;
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

impl Fixture {
    async fn until_up(&mut self) -> Moment {
        let up = |message| matches!(message, MetaMsg::LinkUp { .. }).then_some(());
        self.meta.find(LONG, up).await.unwrap();
        self.env.now()
    }

    /// A call that the cloud makes over `link`, and the node's end of it.
    async fn call(&mut self, link: &Link) -> (ByteStream, ByteStream) {
        let opened = |message| match message {
            EdgeStreamMsg::Opened { stream, .. } => Some(stream),
            _ => None,
        };
        let streams = link.byte_streams();
        let (here, there) = futures::join!(streams.open(b"exec".to_vec()), self.streams.find(LONG, opened));
        (here.unwrap(), there.unwrap())
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
        async |mut fixture| {
            let begun = fixture.env.now();
            let fallback = admit(&fixture.env, &mut fixture.clouds[0].over_websocket).await;
            let up = fixture.until_up().await;
            assert!(up.since(begun) <= Duration::from_secs(4), "{:?}", up.since(begun));
            let snapshot = fixture.snapshot().await;
            assert_eq!((&snapshot["carrier"], &snapshot["fellBack"]), (&"websocket".into(), &true.into()));
            assert_eq!(snapshot["wireVersion"], 1);
            let counted = |event| fixture.env.metrics().count_of(event);
            assert_eq!((counted(events::LINKED), counted(events::FELL_BACK)), (1, 1));
            // An hour in which UDP stays blocked: looked for every few minutes, and the link is left alone.
            let before = fixture.clouds[0].quic.dials();
            fixture.env.sleep(Duration::from_secs(3600)).await;
            let looks = fixture.clouds[0].quic.dials() - before;
            assert!((12..=40).contains(&looks), "{looks}");
            assert!(fixture.env.timeout(Duration::ZERO, fallback.ended()).await.is_none());
            // UDP passes again.
            fixture.clouds[0].quic.block(false);
            let passes = fixture.env.now();
            let (env, meta) = (fixture.env.clone(), fallback.remote::<MetaDown>());
            let better = admit(&env, &mut fixture.clouds[0].over_quic).await;
            assert!(meta.is_up(), "the old link went before the new one was there");
            assert!(fixture.until_up().await.since(passes) <= Duration::from_secs(301));
            assert_eq!(fallback.ended().await, CloseReason::Remote);
            let snapshot = fixture.snapshot().await;
            assert_eq!((&snapshot["carrier"], &snapshot["fellBack"]), (&"quic".into(), &false.into()));
            let counted = |event| fixture.env.metrics().count_of(event);
            assert_eq!((counted(events::LINKED), counted(events::FELL_BACK)), (2, 1));
            // Of the two one is in use: `keadm upgrade edge` sees by these counts whether there is a link.
            assert_eq!(counted(events::LINK_ENDED), 1);
            // And that is all: no further link, no further look.
            let dials = (fixture.clouds[0].quic.dials(), fixture.clouds[0].websocket.dials());
            fixture.env.sleep(Duration::from_secs(3600)).await;
            assert_eq!(dials, (fixture.clouds[0].quic.dials(), fixture.clouds[0].websocket.dials()));
            assert!(better.remote::<MetaDown>().is_up());
            let Fixture { env, hive, .. } = fixture;
            hive.shutdown(LONG).await;
            let counted = |event| env.metrics().count_of(event);
            assert_eq!(counted(events::LINK_ENDED), counted(events::LINKED), "no link without a hub");
        },
    );
}

#[test]
fn the_cloud_may_end_the_old_link_as_soon_as_it_has_the_new_one() {
    run(
        1,
        |clouds| clouds[0].quic.block(true),
        async |mut fixture| {
            let fallback = admit(&fixture.env, &mut fixture.clouds[0].over_websocket).await;
            fixture.until_up().await;
            fixture.clouds[0].quic.block(false);
            let connection = fixture.clouds[0].over_quic.accept().await.unwrap();
            let arrival = IncomingLink::read_hello(&fixture.env, connection).await.unwrap();
            let before = fixture.snapshot().await["lastEnd"].clone();
            // The end of the old link overtakes the answer to the new hello.
            drop(fallback);
            fixture.env.sleep(Duration::from_secs(1)).await;
            let _better = arrival.admit(Routes::new()).await.unwrap();
            fixture.until_up().await;
            fixture.env.sleep(Duration::from_secs(60)).await;
            assert_eq!(fixture.clouds[0].websocket.dials(), 1);
            let snapshot = fixture.snapshot().await;
            assert_eq!(snapshot["carrier"], "quic");
            assert_eq!(snapshot["lastEnd"], before, "its own going over is no end that is told");
            assert_eq!(fixture.env.metrics().count_of(events::MOVED), 1);
        },
    );
}

/// Over WebSocket, since UDP was blocked a moment ago.
fn over_websocket(test: impl AsyncFnOnce(&mut Fixture, Link)) {
    run(
        1,
        |clouds| clouds[0].quic.block(true),
        async |mut fixture| {
            let link = admit(&fixture.env, &mut fixture.clouds[0].over_websocket).await;
            fixture.until_up().await;
            fixture.clouds[0].quic.block(false);
            test(&mut fixture, link).await;
        },
    );
}

#[test]
fn no_call_ends_because_the_link_goes_over_to_quic() {
    over_websocket(async |fixture, websocket| {
        let (exec, of_exec) = fixture.call(&websocket).await;
        let (logs, of_logs) = fixture.call(&websocket).await;
        // Hours: QUIC was found to pass, and is not dialled again while a call is open.
        fixture.env.sleep(Duration::from_secs(3600)).await;
        assert_eq!(fixture.snapshot().await["waitsForCalls"], true);
        assert_eq!(fixture.env.metrics().count_of(events::MOVE_WAITS), 1);
        let dials = fixture.clouds[0].quic.dials();
        drop((exec, of_exec));
        fixture.env.sleep(Duration::from_secs(3600)).await;
        assert_eq!(fixture.clouds[0].quic.dials(), dials);
        assert!(fixture.env.timeout(Duration::ZERO, websocket.ended()).await.is_none());
        // The last one ends.
        drop((logs, of_logs));
        let ended = fixture.env.now();
        let _quic = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
        let took = fixture.until_up().await.since(ended);
        assert!(took <= Duration::from_secs(2), "{took:?}");
        assert_eq!(websocket.ended().await, CloseReason::Remote);
        assert_eq!(fixture.env.metrics().count_of(events::MOVED), 1);
        assert_eq!(fixture.snapshot().await["waitsForCalls"], false);
    });
}

#[test]
fn calls_without_a_gap_hold_the_link_for_a_day() {
    over_websocket(async |fixture, websocket| {
        let begun = fixture.env.now();
        let _call = fixture.call(&websocket).await;
        let _quic = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
        let took = fixture.until_up().await.since(begun);
        let day = edge_hub::plan::WAITS_FOR_CALLS;
        assert!(day <= took && took <= day + Duration::from_secs(30), "{took:?}");
    });
}

#[test]
fn a_call_that_comes_while_the_link_goes_over_is_refused_there_untouched() {
    over_websocket(async |fixture, websocket| {
        let connection = fixture.clouds[0].over_quic.accept().await.unwrap();
        let arrival = IncomingLink::read_hello(&fixture.env, connection).await.unwrap();
        let refused = async |link: &Link| match link.byte_streams().open(b"exec".to_vec()).await {
            Err(ByteStreamError::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&websocket).await, contract::stream::MOVING);
        // The hello comes to nothing: the link stays, and takes calls.
        let full = Refused { reason: "full".to_owned(), wait: None };
        arrival.refuse(full).await;
        fixture.env.sleep(Duration::from_secs(1)).await;
        let call = fixture.call(&websocket).await;
        drop(call);
        // Over the next one as well.
        let quic = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
        fixture.until_up().await;
        let _call = fixture.call(&quic).await;
    });
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
        async |mut fixture| {
            let begun = fixture.env.now();
            let link = admit(&fixture.env, &mut fixture.clouds[2].over_quic).await;
            let up = fixture.until_up().await;
            // Two servers that do not answer cost at most the limits of their carriers.
            assert!(up.since(begun) <= Duration::from_secs(12), "{:?}", up.since(begun));
            assert_eq!(fixture.snapshot().await["server"], "cloud-2");
            let ended = fixture.env.now();
            drop(link);
            let _again = admit(&fixture.env, &mut fixture.clouds[2].over_quic).await;
            assert_eq!(fixture.until_up().await, ended);
        },
    );
}

#[test]
fn a_server_that_asks_to_wait_is_left_for_another() {
    run(
        2,
        |_| (),
        async |mut fixture| {
            let begun = fixture.env.now();
            let connection = fixture.clouds[0].over_quic.accept().await.unwrap();
            let full = Refused { reason: "full".to_owned(), wait: Some(Duration::from_secs(30)) };
            IncomingLink::read_hello(&fixture.env, connection).await.unwrap().refuse(full).await;
            let _link = admit(&fixture.env, &mut fixture.clouds[1].over_quic).await;
            assert!(fixture.until_up().await.since(begun) <= Duration::from_secs(3));
            // The cloud's own answer is not asked for again over another carrier.
            assert_eq!(fixture.clouds[0].websocket.dials(), 0);
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
        async |fixture| {
            fixture.env.sleep(Duration::from_secs(3600)).await;
            let quic = fixture.clouds[0].quic.dials();
            assert!((1800..=3600).contains(&quic), "{quic}");
        },
    );
}

#[test]
fn a_network_that_comes_back_is_used_within_a_second_and_a_new_address_makes_a_link_beside_the_old_one() {
    run(
        1,
        |_| (),
        async |mut fixture| {
            let old = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
            fixture.until_up().await;
            fixture.env.sleep(Duration::from_secs(100)).await;
            fixture.network.becomes(Some("10.0.0.2"));
            let changed = fixture.env.now();
            let new = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
            assert!(old.remote::<MetaDown>().is_up());
            assert!(fixture.until_up().await.since(changed) <= Duration::from_secs(1));
            assert_eq!(old.ended().await, CloseReason::Remote);
            // No way at all: that alone changes nothing.
            fixture.network.becomes(None);
            fixture.env.sleep(Duration::from_secs(100)).await;
            assert!(new.remote::<MetaDown>().is_up());
            // The cloud asks nobody to wait; it is just not there. Then a network comes, in the middle of an attempt.
            fixture.clouds[0].quic.block(true);
            fixture.clouds[0].websocket.block(true);
            drop(new);
            fixture.env.sleep(Duration::from_secs(100)).await;
            fixture.clouds[0].quic.block(false);
            fixture.network.becomes(Some("10.0.0.3"));
            let back = fixture.env.now();
            let _newest = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
            assert!(fixture.until_up().await.since(back) <= Duration::from_secs(1));
        },
    );
}

#[test]
fn over_a_slow_way_the_first_dial_wins_and_only_it_says_hello() {
    run(
        1,
        |clouds| clouds[0].quic.slow.store(2500, Ordering::Relaxed),
        async |mut fixture| {
            let begun = fixture.env.now();
            let link = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
            assert_eq!(fixture.until_up().await.since(begun), Duration::from_millis(2500));
            assert!((2..=3).contains(&fixture.clouds[0].quic.dials()), "{}", fixture.clouds[0].quic.dials());
            // The others were given up before anybody could take them for the node's newest link.
            let another = fixture.clouds[0].over_quic.accept();
            assert!(fixture.env.timeout(Duration::from_secs(60), another).await.is_none());
            assert!(link.remote::<MetaDown>().is_up());
            assert_eq!(fixture.clouds[0].websocket.dials(), 0);
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
            async move |mut fixture| {
                fixture.env.sleep(Duration::from_millis(60_000 + 73 * phase)).await;
                fixture.clouds[0].quic.block(false);
                let back = fixture.env.now();
                let _link = admit(&fixture.env, &mut fixture.clouds[0].over_quic).await;
                let took = fixture.until_up().await.since(back);
                assert!(took <= Duration::from_millis(1500), "{phase}: {took:?}");
            },
        );
    }
}
