//! One node that arrives as often as it can, and what another feels of it. Over the transport in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod controller;

use std::rc::Rc;
use std::time::Duration;

use beehive::link::memory::{Cable, MemoryPort, listen};
use beehive::link::{Acceptor, Connection, Dialer, Greeting, Link, LinkError, PeerName, Routes, Urgency};
use beehive::testing::Probe;
use beehive::{Capacity, Env, Hive, Policy};
use cloud_hub::plan::Living;
use cloud_hub::{CloudHub, Neighbours, Vault};
use contract::cloudhub::CloudHubMsg;
use harness::Objects;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

const LONG: Duration = Duration::from_secs(20);
/// A hello is due within 5 s: who waits for others' is later than that.
const SOON: Duration = Duration::from_secs(2);
const LOUD: &str = "system:node:loud";
const QUIET: &str = "system:node:quiet";

struct Bench {
    env: Env,
    port: MemoryPort,
    _hive: Hive,
}

fn run(test: impl AsyncFnOnce(Bench)) {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        let vault = Vault::new(Objects::default().client());
        vault.authority(&env).await.unwrap();
        for name in [LOUD, QUIET] {
            enrol(&vault, &env, name).await;
        }
        let (port, acceptor) = listen(PeerName::verified("cloud", "00"));
        let mut hive = Hive::new("test", env.clone());
        let (edge, edge_to) = controller::of(&mut hive, &env, &controller::Answers::default());
        let (sync, sync_to) = Probe::new(&env, 16);
        let ((device, device_to), (router, router_to)) = (Probe::new(&env, 16), Probe::new(&env, 16));
        let neighbours = Neighbours { sync: sync_to, edge: edge_to, device: device_to, router: router_to };
        let mailbox = hive.mailbox::<CloudHubMsg>("cloud-hub", Capacity::new(64, "a test's choice"));
        let acceptor: Rc<Mutex<Box<dyn Acceptor>>> = Rc::new(Mutex::new(Box::new(acceptor)));
        hive.supervise(mailbox, Policy::default(), move || {
            CloudHub::new(acceptor.clone(), vault.clone(), 10, neighbours.clone())
        });
        hive.open().unwrap();
        drain(&env, edge);
        drain(&env, sync);
        test(Bench { env, port, _hive: hive }).await;
        drop((device, router));
    });
}

/// A node's certificate with serial number "aa" is a living one.
async fn enrol(vault: &Vault, env: &Env, name: &str) {
    let node = name.trim_start_matches("system:node:").to_owned();
    let living = Living { serial: "aa".into(), not_after_unix: u64::MAX };
    let enter = vault.change_register(env.wall(), |register| {
        register.nodes.insert(node.clone(), living.clone());
        Ok::<(), std::convert::Infallible>(())
    });
    enter.await.unwrap().unwrap();
}

fn drain<M: beehive::Message>(env: &Env, mut probe: Probe<M>) {
    env.spawn(async move { while probe.next(Duration::from_secs(3600)).await.is_some() {} });
}

impl Bench {
    async fn dial(&self, name: &str) -> Box<dyn Connection> {
        self.port.dialer(PeerName::verified(name, "aa"), Cable::new()).dial().await.unwrap()
    }

    async fn link(&self, name: &str) -> Result<Link, LinkError> {
        Link::greet(&self.env, self.dial(name).await, &Greeting::of(name), Routes::new()).await
    }

    /// Whether the other end has ended it.
    async fn is_over(&self, connection: &dyn Connection, within: Duration) -> bool {
        self.env.timeout(within, connection.accept()).await.is_some()
    }
}

#[test]
fn silent_connections_of_one_node_keep_no_other_waiting_and_two_of_them_stay() {
    run(async |bench| {
        let mut silent = Vec::new();
        for _ in 0..140 {
            silent.push(bench.dial(LOUD).await);
        }
        let link = bench.env.timeout(SOON, bench.link(QUIET)).await;
        assert!(link.expect("kept waiting").is_ok());
        let mut left = 0;
        for connection in &silent {
            left += usize::from(!bench.is_over(&**connection, Duration::from_millis(20)).await);
        }
        assert!((1..=2).contains(&left), "{left}");
        // And those have to say who they are in time.
        for connection in &silent {
            assert!(bench.is_over(&**connection, Duration::from_secs(6)).await);
        }
    });
}

#[test]
fn who_holds_the_certificate_of_a_node_keeps_it_not_out_by_saying_nothing() {
    run(async |bench| {
        let (one, two) = (bench.dial(QUIET).await, bench.dial(QUIET).await);
        // They began to speak and do not go on.
        let (mut writer, mut reader) = one.open(Urgency::Vital).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut writer, &[0, 0]).await.unwrap();
        let link = bench.env.timeout(SOON, bench.link(QUIET)).await;
        assert!(link.expect("kept out").is_ok());
        assert!(bench.env.timeout(SOON, reader.read_u8()).await.unwrap().is_err(), "the oldest has to go");
        drop(two);
    });
}

#[test]
fn link_upon_link_of_one_node_takes_no_place_of_others() {
    run(async |bench| {
        let mut let_in = 0;
        for _ in 0..60 {
            let link = bench.env.timeout(LONG, bench.link(LOUD)).await.unwrap();
            let_in += usize::from(link.is_ok());
        }
        assert!((1..=20).contains(&let_in), "{let_in}");
        let link = bench.env.timeout(SOON, bench.link(QUIET)).await;
        assert!(link.expect("kept waiting").is_ok());
    });
}
