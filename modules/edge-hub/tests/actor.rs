//! EdgeHub against a cloud end in memory, on a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::time::Duration;

use beehive::link::memory::{MemoryAcceptor, NetworkPath, listen};
use beehive::link::{Acceptor, CloseReason, Dialer, IncomingLink, Link, PeerName, Refused, Routes};
use beehive::testing::Probe;
use beehive::{Capacity, Env, Hive, Moment, Policy};
use contract::edgehub::EdgeHubMsg;
use contract::edgepage::{LinkView, ViewBounds};
use contract::edgestream::EdgeStreamMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use edge_hub::{EdgeHub, Endpoints, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LONG: Duration = Duration::from_secs(100);

struct Fixture {
    env: Env,
    cloud: MemoryAcceptor,
    network_path: NetworkPath,
    meta: Probe<MetaMsg>,
    streams: Probe<EdgeStreamMsg>,
    hub: beehive::Address<EdgeHubMsg>,
    _hive: Hive,
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(3);
        let (port, cloud) = listen(PeerName::verified("cloud", "01"));
        let network_path = NetworkPath::new();
        let dialer = Rc::new(port.dialer(PeerName::verified("system:node:a", "02"), network_path.clone()));
        let (meta, meta_address) = Probe::new(&env, 16);
        let (streams, streams_address) = Probe::new(&env, 16);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EdgeHubMsg>("edge-hub", Capacity::new(8, "a test's choice"));
        let hub = hive.grant("tester", &mailbox, beehive::Flow::Ask);
        hive.supervise(mailbox, Policy::default(), move || {
            EdgeHub::new(dialer.clone(), "system:node:a", meta_address.clone())
                .streaming_to(streams_address.clone())
        });
        hive.open().unwrap();
        test(Fixture { env, cloud, network_path, meta, streams, hub, _hive: hive }).await;
    });
}

impl Fixture {
    async fn admit(&mut self) -> Link {
        let connection = self.cloud.accept().await.unwrap();
        IncomingLink::read_hello(&self.env, connection).await.unwrap().admit(Routes::new()).await.unwrap()
    }

    async fn until_up(&mut self) -> Moment {
        self.meta
            .find(LONG, |message| matches!(message, MetaMsg::LinkUp { .. }).then_some(()))
            .await
            .unwrap();
        self.env.now()
    }

    async fn described(&self) -> LinkView {
        let bounds = ViewBounds { rows: 4, parts: 4, text: 64 };
        self.hub.ask(LONG, |reply| EdgeHubMsg::Describe { bounds, reply }).await.unwrap()
    }

    async fn until_down(&mut self) {
        self.meta.find(LONG, |message| matches!(message, MetaMsg::LinkDown).then_some(())).await.unwrap();
    }
}

#[test]
fn the_cloud_reaches_metamanager_over_the_link() {
    run(async |mut fixture| {
        let link = fixture.admit().await;
        fixture.until_up().await;
        let meta = link.remote::<MetaDown>();
        let ask = meta.ask(LONG, |reply| MetaDown::ObjectVersions { inventory: 1, buckets: vec![0], reply });
        let answer = async {
            let holdings = |message| match message {
                MetaMsg::Down(MetaDown::ObjectVersions { reply, .. }) => Some(reply),
                _ => None,
            };
            fixture.meta.find(LONG, holdings).await.unwrap().send(Vec::new());
        };
        let (held, ()) = tokio::join!(ask, answer);
        assert_eq!(held.unwrap(), []);
    });
}

#[test]
fn whoever_looks_is_told_since_when_there_is_a_link_or_none_and_why() {
    run(async |mut fixture| {
        let nothing = fixture.described().await;
        assert_eq!((nothing.up, nothing.last_failure, nothing.servers.len()), (false, None, 1));
        let link = fixture.admit().await;
        fixture.until_up().await;
        fixture.env.sleep(Duration::from_secs(70)).await;
        let up = fixture.described().await;
        assert_eq!(
            (up.up, up.since_seconds, up.carrier, up.server.as_deref()),
            (true, 70, Some("quic"), Some("the cloud"))
        );
        link.close();
        fixture.until_down().await;
        let down = fixture.described().await;
        let failure = down.last_failure.unwrap();
        assert_eq!((down.up, down.server, failure.seconds_ago), (false, None, 0));
        assert!(!failure.reason.is_empty());
        let events: Vec<_> =
            down.events.iter().map(|event| (event.reason.as_str(), event.is_warning)).collect();
        assert_eq!(events, [("LinkEnded", true), ("Linked", false)]);
    });
}

#[test]
fn a_byte_stream_that_the_cloud_opens_reaches_edgestream() {
    run(async |mut fixture| {
        let link = fixture.admit().await;
        fixture.until_up().await;
        let streams = link.byte_streams();
        let take = fixture.streams.find(LONG, |message| match message {
            EdgeStreamMsg::Opened { header, stream } => Some((header, stream)),
            _ => None,
        });
        let (opened, taken) = tokio::join!(streams.open(b"a call".to_vec()), take);
        let (header, mut stream) = taken.unwrap();
        assert_eq!(header, b"a call");
        stream.write_all(b"an answer").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        opened.unwrap().read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "an answer");
    });
}

#[test]
fn a_link_that_ends_is_made_anew_at_once() {
    run(async |mut fixture| {
        let link = fixture.admit().await;
        let first = fixture.until_up().await;
        drop(link);
        fixture.until_down().await;
        let _again = fixture.admit().await;
        assert_eq!(fixture.until_up().await, first);
    });
}

#[test]
fn a_cut_is_noticed_within_ten_seconds_and_a_mended_network_path_used_within_two() {
    run(async |mut fixture| {
        let _link = fixture.admit().await;
        let up = fixture.until_up().await;
        fixture.network_path.cut();
        fixture.until_down().await;
        assert!(fixture.env.now().since(up) <= Duration::from_secs(10));
        fixture.env.sleep(Duration::from_secs(3600)).await;
        fixture.network_path.mend();
        let mended = fixture.env.now();
        let _again = fixture.admit().await;
        let up = fixture.until_up().await;
        assert!(up.since(mended) <= Duration::from_secs(2), "{:?}", up.since(mended));
    });
}

/// Several CloudCores, each with its own way there.
struct Several {
    env: Env,
    clouds: Vec<MemoryAcceptor>,
    paths: Vec<NetworkPath>,
    meta: Probe<MetaMsg>,
    _hive: Hive,
}

fn with_several(count: usize, test: impl AsyncFnOnce(Several)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(3);
        let paths: Vec<NetworkPath> = (0..count).map(|_| NetworkPath::new()).collect();
        let names = (0..count).map(|at| PeerName::verified("cloud", format!("c{at}")));
        let (ports, clouds): (Vec<_>, Vec<_>) = names.map(listen).unzip();
        let servers = ports.iter().zip(&paths).enumerate().map(|(at, (port, path))| {
            let me = PeerName::verified("system:node:a", "02");
            let dialer: Rc<dyn Dialer> = Rc::new(port.dialer(me, path.clone()));
            Server { name: format!("cloud-{at}"), quic: Some(dialer), websocket: None }
        });
        let servers: Vec<Server> = servers.collect();
        let (meta, meta_address) = Probe::new(&env, 16);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EdgeHubMsg>("edge-hub", Capacity::new(8, "a test's choice"));
        hive.supervise(mailbox, Policy::default(), move || {
            EdgeHub::new(Endpoints(servers.clone()), "system:node:a", meta_address.clone())
        });
        hive.open().unwrap();
        test(Several { env, clouds, paths, meta, _hive: hive }).await;
    });
}

impl Several {
    async fn admit(&mut self, cloud: usize) -> Link {
        let connection = self.clouds[cloud].accept().await.unwrap();
        IncomingLink::read_hello(&self.env, connection).await.unwrap().admit(Routes::new()).await.unwrap()
    }

    async fn until_up(&mut self) {
        let up = |message| matches!(message, MetaMsg::LinkUp { .. }).then_some(());
        self.meta.find(LONG, up).await.unwrap();
    }
}

#[test]
fn another_cloudcore_takes_the_place_of_a_silent_one_before_its_link_is_dead() {
    with_several(2, async |mut several| {
        let _silent = several.admit(0).await;
        several.until_up().await;
        several.paths[0].cut();
        let cut = several.env.now();
        let _next = several.admit(1).await;
        several.until_up().await;
        let took = several.env.now().since(cut);
        assert!(took <= Duration::from_millis(7000), "{took:?}");
    });
}

#[test]
fn beside_a_silent_cloudcore_one_that_is_gone_as_well_holds_up_the_third_for_a_second() {
    with_several(3, async |mut several| {
        let _silent = several.admit(0).await;
        several.until_up().await;
        several.paths[..2].iter().for_each(NetworkPath::cut);
        let cut = several.env.now();
        let _next = several.admit(2).await;
        several.until_up().await;
        let took = several.env.now().since(cut);
        assert!(took <= Duration::from_millis(8200), "{took:?}");
    });
}

/// As one that is ended while a node's hello is with it, without a word.
#[test]
fn a_cloudcore_that_goes_before_it_has_answered_the_hello_costs_a_moment() {
    with_several(2, async |mut several| {
        let connection = several.clouds[0].accept().await.unwrap();
        let arrival = IncomingLink::read_hello(&several.env, connection).await.unwrap();
        let gone = several.env.now();
        drop(arrival);
        // What is on its way arrives, and after that nothing does.
        several.env.sleep(Duration::from_millis(10)).await;
        several.paths[0].cut();
        let _next = several.admit(1).await;
        several.until_up().await;
        let took = several.env.now().since(gone);
        assert!(took <= Duration::from_millis(1500), "{took:?}");
    });
}

#[test]
fn a_link_that_is_heard_again_stays_and_the_dial_beside_it_is_given_up() {
    with_several(2, async |mut several| {
        let kept = several.admit(0).await;
        several.until_up().await;
        several.paths.iter().for_each(NetworkPath::cut);
        several.env.sleep(Duration::from_secs(7)).await;
        several.paths[0].mend();
        several.env.sleep(Duration::from_secs(2)).await;
        several.paths[1].mend();
        assert!(several.env.timeout(LONG, several.clouds[1].accept()).await.is_none(), "it dials on");
        assert!(several.env.timeout(Duration::ZERO, kept.ended()).await.is_none());
    });
}

#[test]
fn a_cloud_that_asks_to_wait_is_given_time() {
    run(async |mut fixture| {
        let connection = fixture.cloud.accept().await.unwrap();
        let refused = Refused { reason: "full".to_owned(), wait: Some(Duration::from_secs(30)) };
        IncomingLink::read_hello(&fixture.env, connection).await.unwrap().refuse(refused).await;
        let asked = fixture.env.now();
        let _link = fixture.admit().await;
        let waited = fixture.env.now().since(asked);
        assert!(Duration::from_secs(13) <= waited && waited <= Duration::from_secs(30), "{waited:?}");
    });
}

#[test]
fn a_metamanager_that_began_anew_gets_a_new_link() {
    run(async |mut fixture| {
        let link = fixture.admit().await;
        fixture.until_up().await;
        fixture.hub.tell(EdgeHubMsg::MetaBegan).await.unwrap();
        assert_eq!(link.ended().await, CloseReason::Remote);
        let _again = fixture.admit().await;
        fixture.until_up().await;
    });
}
