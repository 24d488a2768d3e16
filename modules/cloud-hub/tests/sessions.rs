//! Sessions over the transport in memory, the register in the stand-alone API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod controller;

use std::rc::Rc;
use std::time::Duration;

use beehive::link::memory::{Cable, MemoryPort, listen};
use beehive::link::{Acceptor, Dialer, Ending, Greeting, Link, LinkError, PeerName, Routes};
use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use cloud_hub::{CloudHub, Neighbours};
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use contract::edgecontroller::{ClaimRefused, EdgeControllerMsg, EdgeUp};
use contract::synccontroller::SyncMsg;
use harness::{StandAlone, enter};
use noderegistry::Registry;
use tokio::sync::Mutex;

const LONG: Duration = Duration::from_secs(5);

struct Bench {
    env: Env,
    port: MemoryPort,
    registry: Registry,
    api: StandAlone,
    edge: Probe<EdgeControllerMsg>,
    sync: Probe<SyncMsg>,
    claims: controller::Answers,
    hub: Address<CloudHubMsg>,
    _hive: Hive,
}

fn run(test: impl AsyncFnOnce(Bench)) {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        let registry = Registry::new(api.client());
        let (port, acceptor) = listen(PeerName::verified("cloud", "00"));
        let mut hive = Hive::new("test", env.clone());
        let claims = controller::Answers::default();
        let (edge, edge_address) = controller::of(&mut hive, &env, &claims);
        let (sync, sync_address) = Probe::new(&env, 16);
        let ((_device, device_address), (_router, router)) = (Probe::new(&env, 16), Probe::new(&env, 16));
        let neighbours =
            Neighbours { sync: sync_address, edge: edge_address, device: device_address, router };
        let mailbox = hive.mailbox::<CloudHubMsg>("cloud-hub", Capacity::new(64, "a test's choice"));
        let to_hub = hive.grant("a test", &mailbox, Flow::Tell);
        let acceptor: Rc<Mutex<Box<dyn Acceptor>>> = Rc::new(Mutex::new(Box::new(acceptor)));
        let (kept, limit) = (registry.clone(), 2);
        hive.supervise(mailbox, Policy::default(), move || {
            CloudHub::new(acceptor.clone(), kept.clone(), limit, neighbours.clone())
        });
        hive.open().unwrap();
        test(Bench { env, port, registry, api, edge, sync, claims, hub: to_hub, _hive: hive }).await;
    });
}

impl Bench {
    async fn link(&self, name: &str, serial: &str) -> Result<Link, LinkError> {
        let connection =
            self.port.dialer(PeerName::verified(name, serial), Cable::new()).dial().await.unwrap();
        Link::greet(&self.env, connection, &Greeting::of(name), Routes::new()).await
    }
}

fn refused(link: Result<Link, LinkError>) -> beehive::link::Refused {
    match link {
        Err(LinkError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_is_who_its_certificate_says_and_its_end_is_told() {
    run(async |mut bench| {
        let link = bench.link("system:node:a", "aa").await.unwrap();
        let up = |message| match message {
            SyncMsg::NodeUp { node, session, .. } => Some((node, session)),
            _ => None,
        };
        let (node, session) = bench.sync.find(LONG, up).await.unwrap();
        assert_eq!(node.as_str(), "a");
        link.remote::<EdgeUp>().tell(EdgeUp::Alive).await.unwrap();
        let alive = |message| match message {
            EdgeControllerMsg::Up { node, epoch: 1, message: EdgeUp::Alive } => Some(node),
            _ => None,
        };
        assert_eq!(bench.edge.find(LONG, alive).await.unwrap().as_str(), "a");
        drop(link);
        let down = |message| match message {
            SyncMsg::NodeDown { node, session } => Some((node, session)),
            _ => None,
        };
        assert_eq!(bench.sync.find(LONG, down).await.unwrap(), (node, session));
    });
}

#[test]
fn the_newer_link_of_a_node_wins() {
    run(async |mut bench| {
        let older = bench.link("system:node:a", "aa").await.unwrap();
        let newer = bench.link("system:node:a", "aa").await.unwrap();
        assert_eq!(older.ended().await, Ending::Left);
        let mut sessions = Vec::new();
        while sessions.len() < 3 {
            match bench.sync.next(LONG).await.unwrap() {
                SyncMsg::NodeUp { session, .. } => sessions.push((session, true)),
                SyncMsg::NodeDown { session, .. } => sessions.push((session, false)),
                other => panic!("{other:?}"),
            }
        }
        sessions.sort_unstable();
        assert_eq!(sessions, [(1, false), (1, true), (2, true)]);
        assert!(newer.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn who_is_no_node_is_refused() {
    run(async |bench| {
        let no_node = refused(bench.link("system:masters", "aa").await);
        assert!(no_node.reason.contains("keadm join"), "{}", no_node.reason);
    });
}

#[test]
fn a_link_ends_when_its_certificate_is_not_the_living_one_any_more() {
    run(async |bench| {
        let node = |name: &str| NodeName::parse(name).unwrap();
        let enter =
            async |name: &str, serial: &str| enter(bench.api.client(), name, serial, bench.env.wall()).await;
        let ended = async |link: &Link| bench.env.timeout(LONG, link.ended()).await.is_some();
        // It gives its certificate back, joins anew, is revoked by an administrator, and is forgotten.
        enter("a", "aa").await;
        enter("b", "bb").await;
        let stays = bench.link("system:node:b", "bb").await.unwrap();
        let link = bench.link("system:node:a", "aa").await.unwrap();
        bench.registry.release(&node("a"), "aa").await.unwrap();
        assert!(ended(&link).await);
        enter("a", "ab").await;
        let link = bench.link("system:node:a", "ab").await.unwrap();
        bench.registry.revoke(&node("a")).await.unwrap();
        assert!(ended(&link).await);
        bench.registry.free(&node("a")).await.unwrap();
        enter("a", "ac").await;
        let link = bench.link("system:node:a", "ac").await.unwrap();
        bench.registry.free(&node("a")).await.unwrap();
        assert!(ended(&link).await);
        assert!(stays.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn above_the_limit_a_node_is_asked_to_wait() {
    run(async |bench| {
        let _one = bench.link("system:node:a", "aa").await.unwrap();
        let _two = bench.link("system:node:b", "bb").await.unwrap();
        let full = refused(bench.link("system:node:c", "cc").await);
        assert_eq!(full.wait, Some(Duration::from_secs(30)));
        // A node that is counted already may come again.
        assert!(bench.link("system:node:a", "aa").await.is_ok());
    });
}

#[test]
fn nobody_is_let_in_who_cannot_be_taken() {
    run(async |bench| {
        let (reason, wait) = ("the Node `a` was deleted".to_owned(), Some(Duration::from_secs(60)));
        bench.claims.0.borrow_mut().push(Err(ClaimRefused { reason, wait }));
        let refused = refused(bench.link("system:node:a", "aa").await);
        assert_eq!(
            (&*refused.reason, refused.wait),
            ("the Node `a` was deleted", Some(Duration::from_secs(60)))
        );
        assert!(bench.link("system:node:a", "aa").await.is_ok());
    });
}

#[test]
fn a_session_that_another_cloudcore_has_taken_is_ended() {
    run(async |mut bench| {
        let link = bench.link("system:node:a", "aa").await.unwrap();
        let node = NodeName::parse("a").unwrap();
        // Of an earlier session: this one goes on.
        bench.hub.tell(CloudHubMsg::Lost { node: node.clone(), epoch: 7 }).await.unwrap();
        bench.hub.tell(CloudHubMsg::Lost { node: node.clone(), epoch: 1 }).await.unwrap();
        assert_eq!(bench.env.timeout(LONG, link.ended()).await, Some(Ending::Left));
        let down = |message| match message {
            EdgeControllerMsg::NodeDown { node, epoch } => Some((node, epoch)),
            _ => None,
        };
        assert_eq!(bench.edge.find(LONG, down).await.unwrap(), (node, 1));
    });
}

#[test]
fn of_two_links_that_arrive_together_the_one_stays_that_took_the_node_last() {
    run(async |mut bench| {
        // The answers come from the end: the second link is told an epoch before the first one's.
        bench.claims.0.borrow_mut().extend([Ok(4), Ok(5)]);
        let first = bench.link("system:node:a", "aa").await.unwrap();
        let up = |message| match message {
            EdgeControllerMsg::NodeUp { epoch, .. } => Some(epoch),
            _ => None,
        };
        assert_eq!(bench.edge.find(LONG, up).await, Some(5));
        let late = bench.link("system:node:a", "aa").await.unwrap();
        assert_eq!(bench.env.timeout(LONG, late.ended()).await, Some(Ending::Left));
        assert!(first.remote::<EdgeUp>().is_up());
    });
}
