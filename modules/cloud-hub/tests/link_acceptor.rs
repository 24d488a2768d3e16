//! One node that arrives as often as it can, and what another feels of it. Over the transport in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::link::memory::NetworkPath;
use beehive::link::{Connection, Dialer as _, Hello, Link, LinkError, PeerName, Routes, Urgency};
use beehive::testing::Probe;
use beehive::{Clock, Ended, Env, Moment, TokioClock};
use cloud_hub::{ClockDoubt, RenewalSettings, SecretStore};
use contract::cloudhub::CloudHubMsg;
use contract::downlink::HubDown;
use fixture::LONG;
use futures::future::BoxFuture;
use harness::MemoryApi;
use noderegistry::Registry;
use pki::{Authorities, Authority, CurrentAuthorities};
use tokio::io::AsyncReadExt;

/// A hello is due within 5 s: who waits for others' is later than that.
const SOON: Duration = Duration::from_secs(2);
const LOUD: &str = "system:node:loud";
const QUIET: &str = "system:node:quiet";

struct Fixture {
    env: Env,
    it: fixture::Fixture,
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        // Nobody is in the register, and nothing changes there: whoever is claimed is let in.
        let registry = Registry::new(MemoryApi::start().await.client());
        let mut it = fixture::Fixture::start(&env, registry, 10, Vec::new());
        drain(&env, std::mem::replace(&mut it.edge, Probe::new(&env, 1).0));
        drain(&env, std::mem::replace(&mut it.sync, Probe::new(&env, 1).0));
        drain(&env, std::mem::replace(&mut it.device, Probe::new(&env, 1).0));
        drain(&env, std::mem::replace(&mut it.lease, Probe::new(&env, 1).0));
        test(Fixture { env, it }).await;
    });
}

fn drain<M: beehive::Message>(env: &Env, mut probe: Probe<M>) {
    env.spawn(async move { while probe.next(Duration::from_secs(3600)).await.is_some() {} });
}

impl Fixture {
    async fn dial(&self, name: &str) -> Box<dyn Connection> {
        self.it.dial(name, "aa").await
    }

    async fn link(&self, name: &str) -> Result<Link, LinkError> {
        self.it.link(name, "aa").await
    }

    /// Whether the other end has ended it.
    async fn is_over(&self, connection: &dyn Connection, within: Duration) -> bool {
        self.env.timeout(within, connection.accept()).await.is_some()
    }
}

#[test]
fn silent_connections_of_one_node_keep_no_other_waiting_and_two_of_them_stay() {
    run(async |fixture| {
        let mut silent = Vec::new();
        for _ in 0..140 {
            silent.push(fixture.dial(LOUD).await);
        }
        let link = fixture.env.timeout(SOON, fixture.link(QUIET)).await;
        assert!(link.expect("kept waiting").is_ok());
        let mut left = 0;
        for connection in &silent {
            left += usize::from(!fixture.is_over(&**connection, Duration::from_millis(20)).await);
        }
        assert!((1..=2).contains(&left), "{left}");
        // And those have to say who they are in time.
        for connection in &silent {
            assert!(fixture.is_over(&**connection, Duration::from_secs(6)).await);
        }
    });
}

#[test]
fn who_holds_the_certificate_of_a_node_keeps_it_not_out_by_saying_nothing() {
    run(async |fixture| {
        let (one, two) = (fixture.dial(QUIET).await, fixture.dial(QUIET).await);
        // They began to speak and do not go on.
        let (mut writer, mut reader) = one.open(Urgency::Link).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut writer, &[0, 0]).await.unwrap();
        let link = fixture.env.timeout(SOON, fixture.link(QUIET)).await;
        assert!(link.expect("kept out").is_ok());
        assert!(fixture.env.timeout(SOON, reader.read_u8()).await.unwrap().is_err(), "the oldest has to go");
        drop(two);
    });
}

#[test]
fn link_upon_link_of_one_node_takes_no_place_of_others() {
    run(async |fixture| {
        let mut let_in = 0;
        for _ in 0..60 {
            let link = fixture.env.timeout(LONG, fixture.link(LOUD)).await.unwrap();
            let_in += usize::from(link.is_ok());
        }
        assert!((1..=20).contains(&let_in), "{let_in}");
        let link = fixture.env.timeout(SOON, fixture.link(QUIET)).await;
        assert!(link.expect("kept waiting").is_ok());
    });
}

/// One node's claim is not answered, and another has not said hello: both go on to another CloudCore at once.
#[test]
fn a_hub_that_stops_tells_those_who_are_not_linked_yet() {
    run(async |fixture| {
        fixture.it.held.replace(Some(Vec::new()));
        let Fixture { env, it } = fixture;
        let (claimed, silent) = (it.dial(QUIET, "aa").await, it.dial(LOUD, "aa").await);
        let fixture::Fixture { held, hub, hive, .. } = it;
        let greeting = fixture::greet(&env, claimed, QUIET);
        let stop = async {
            while held.borrow().as_ref().is_some_and(Vec::is_empty) {
                env.sleep(Duration::from_millis(5)).await;
            }
            let late = async {
                // What it says once the hub stops is answered, too.
                while hub.tell(CloudHubMsg::TrustChanged).await.is_ok() {
                    env.sleep(Duration::from_millis(5)).await;
                }
                fixture::greet(&env, silent, LOUD).await
            };
            let begun = env.now();
            let (ended, late) = tokio::join!(hive.shutdown(LONG), late);
            assert_eq!(ended, Ended::InOrder);
            (late, env.now().since(begun))
        };
        let (told, (late, took)) = tokio::join!(greeting, stop);
        for told in [told, late] {
            let Err(LinkError::Refused(refused)) = told else { panic!("{told:?}") };
            assert!(refused.reason.contains("this CloudCore stops"), "{}", refused.reason);
            assert_eq!(refused.wait, None);
        }
        assert!(took < SOON, "whoever is told is not waited for: {took:?}");
    });
}

/// 400 days after this program was made.
struct Ahead(TokioClock);

const DAY: u64 = 86_400;

impl Clock for Ahead {
    fn now(&self) -> Moment {
        self.0.now()
    }
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX + 400 * DAY)
    }
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(pause)
    }
}

#[test]
fn a_clock_in_doubt_that_is_ahead_keeps_no_node_from_its_session() {
    actix_rt::System::new().block_on(async {
        let env = Env::real().with_clock(Arc::new(Ahead(TokioClock::real())));
        let client = MemoryApi::start().await.client();
        let doubt = ClockDoubt::default();
        let authority = Authority::create(env.wall(), [1; 16]).unwrap();
        let settings = RenewalSettings {
            authorities: CurrentAuthorities::new(Authorities::of(authority)),
            certificate_life: Duration::from_secs(30 * DAY),
            servers: Vec::new(),
            doubt: doubt.clone(),
        };
        let registry = Registry::new(client.clone());
        let mut it = fixture::Fixture::renewing(&env, registry, 10, Vec::new(), Some(settings));
        drain(&env, std::mem::replace(&mut it.edge, Probe::new(&env, 1).0));
        drain(&env, std::mem::replace(&mut it.sync, Probe::new(&env, 1).0));
        drain(&env, std::mem::replace(&mut it.device, Probe::new(&env, 1).0));
        drain(&env, std::mem::replace(&mut it.lease, Probe::new(&env, 1).0));
        let link = async |name: &str| {
            let made = pki::MADE_AT_UNIX;
            let shown = PeerName::verified(name, "aa").valid(made - DAY, made + DAY);
            let connection = it.port.dialer(shown, NetworkPath::new()).dial().await.unwrap();
            let (_told, to) = Probe::<HubDown>::new(&env, 16);
            let routes = Routes::new().accept(to, |message: HubDown, _: &PeerName| message);
            Link::connect(&env, connection, &Hello::of(name), routes).await
        };
        assert!(link(QUIET).await.is_ok(), "it has not ended by what is known");
        // An API server that says no time leaves this machine's clock alone.
        SecretStore::new(client).compare_clocks(&doubt, &env).await.unwrap();
        let Err(LinkError::Refused(refused)) = link(QUIET).await else { panic!("it has ended") };
        assert!(refused.reason.contains("register"), "{}", refused.reason);
    });
}
