//! The broker as an actor: a router that dies, and the actor itself.
#![allow(clippy::await_holding_refcell_ref)]

use super::*;
use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use beehive::testing::{PanicPoint, Probe, plan_panic};
use beehive::{Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use edge_store::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shared::Shared;

pub(crate) type Spy = Rc<RefCell<Option<Rc<Shared>>>>;

const SOON: Duration = Duration::from_secs(20);

async fn until(env: &Env, fact: impl Fn() -> bool) {
    let end = env.now() + SOON;
    while !fact() {
        assert!(env.now() < end, "not in time");
        env.sleep(Duration::from_millis(2)).await;
    }
}

/// The actor, as whoever publishes for the node sees it, and its broker.
struct Supervised {
    hive: Hive,
    bus: Address<EventBusMsg>,
    spy: Spy,
    _neighbours: (Probe<TwinMsg>, Probe<MetaMsg>),
}

/// Supervises the actor over a store in `folder`, and waits for its broker.
async fn supervise(env: &Env, folder: &Path, config: config::edge::EventBus) -> Supervised {
    let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
    let ((told, twin), (taken, meta)) = (Probe::new(env, 1), Probe::new(env, 1));
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox("edge-eventbus", Capacity::new(8, "a test's choice"));
    let bus = hive.grant("tester", &mailbox, Flow::Tell);
    let spy = Spy::default();
    let mut make = EventBus::factory(config, store, twin, meta);
    let for_actor = Rc::clone(&spy);
    hive.supervise(mailbox, Policy::default(), move || EventBus { spy: Rc::clone(&for_actor), ..make() });
    hive.open().unwrap();
    until(env, || spy.borrow().is_some()).await;
    Supervised { hive, bus, spy, _neighbours: (told, taken) }
}

#[test]
fn a_dead_router_is_replaced_and_its_clients_notice_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(1);
        let config = config::edge::EventBus {
            mqtt_server_internal: "127.0.0.1:0".to_owned(),
            ..config::edge::EventBus::default()
        };
        let Supervised { hive, bus, spy, .. } = &supervise(&env, folder.path(), config).await;
        let shared = spy.borrow().clone().unwrap();
        let report = hive.inspector().report(SOON).await;
        let view = serde_json::to_value(&report).unwrap()["actors"][0]["snapshot"].clone();
        let address = view["listening"].as_str().unwrap().to_owned();

        let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
        client.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a").await.unwrap();
        client.write_all(b"\x82\x06\x00\x01\x00\x01t\x00").await.unwrap();
        let mut connack = [0; 9];
        client.read_exact(&mut connack).await.unwrap();
        for round in 0..3 {
            shared.broker.borrow_mut().kill_router();
            for n in 0..100 {
                let payload = Bytes::from(format!("{n:03}"));
                let topic = "t".to_owned();
                bus.tell(EventBusMsg::Publish { topic, payload, retain: n == 99 }).await.unwrap();
            }
            for n in 0..100 {
                let mut got = [0; 8];
                env.timeout(SOON, client.read_exact(&mut got)).await.unwrap().unwrap();
                assert_eq!(got.to_vec(), format!("\x30\x06\0\x01t{n:03}").into_bytes());
            }
            let alive = || {
                let broker = shared.broker.borrow();
                broker.counts.of(events::ROUTER_DIED) == round + 1 && broker.has_router()
            };
            until(&env, alive).await;
        }
        assert_eq!(shared.broker.borrow().retained.len(), 1);
    });
}
/// What a client hears after a CONNECT and a SUBSCRIBE to `t`: CONNACK, SUBACK and the retained message; a second client of that id takes over the first.
async fn hears_what_is_retained<S: AsyncReadExt + AsyncWriteExt + Unpin>(env: &Env, mut client: S) -> S {
    client.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a").await.unwrap();
    client.write_all(b"\x82\x06\x00\x01\x00\x01t\x00").await.unwrap();
    let mut heard = [0; 9 + 6];
    env.timeout(SOON, client.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard[9..], b"\x31\x04\0\x01t!", "{heard:?}");
    client
}

#[test]
fn a_broker_that_panics_in_a_connection_or_at_a_message_serves_its_ports_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(1);
        let [port] = testhost::free_ports().unwrap();
        let port = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut config = config::edge::EventBus {
            mqtt_server_internal: port.to_string(),
            ..config::edge::EventBus::default()
        };
        let socket = folder.path().join("mqtt.sock");
        config.unix_socket = config::edge::MqttUnixSocket { path: socket.clone(), group: String::new() };
        let Supervised { hive, bus, spy, .. } = &supervise(&env, folder.path(), config).await;
        let publish = |retain| EventBusMsg::Publish {
            topic: "t".to_owned(),
            payload: Bytes::from_static(b"!"),
            retain,
        };
        bus.tell(publish(true)).await.unwrap();
        for round in 0..3 {
            let shared = spy.borrow().clone().unwrap();
            until(&env, || shared.broker.borrow().retained.len() == 1).await;
            let unix = tokio::net::UnixStream::connect(&socket).await.unwrap();
            drop(hears_what_is_retained(&env, unix).await);
            let tcp = tokio::net::TcpStream::connect(port).await.unwrap();
            let mut tcp = hears_what_is_retained(&env, tcp).await;
            if round == 1 {
                let point = PanicPoint { message: Some("Publish"), nth: 1, awaits: 0 };
                plan_panic(&hive.inspector(), "edge-eventbus", point);
                bus.tell(publish(false)).await.unwrap();
            } else {
                // What the connection does next panics, because the broker is in other hands.
                let _hold = shared.broker.borrow_mut();
                tcp.write_all(b"\xc0\x00").await.unwrap();
                let ended = env.timeout(SOON, tcp.read(&mut [0; 16])).await.unwrap();
                assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            }
            let is_new = || spy.borrow().as_ref().is_some_and(|now| !Rc::ptr_eq(now, &shared));
            until(&env, is_new).await;
            let report = hive.inspector().report(SOON).await;
            assert_eq!(report.actor("edge-eventbus").unwrap().restarts, round + 1);
        }
    });
}

#[test]
fn a_message_of_qos_2_for_a_session_that_is_kept_leaves_when_the_store_has_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(1);
        let config = config::edge::EventBus {
            mqtt_server_internal: "127.0.0.1:0".to_owned(),
            ..config::edge::EventBus::default()
        };
        let Supervised { hive, spy, .. } = &supervise(&env, folder.path(), config).await;
        let shared = spy.borrow().clone().unwrap();
        let report = hive.inspector().report(SOON).await;
        let view = serde_json::to_value(&report).unwrap()["actors"][0]["snapshot"].clone();
        let address = view["listening"].as_str().unwrap().to_owned();
        let mut subscriber = tokio::net::TcpStream::connect(&address).await.unwrap();
        subscriber.write_all(b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01s").await.unwrap();
        subscriber.write_all(b"\x82\x06\x00\x01\x00\x01t\x02").await.unwrap();
        hears(&env, &mut subscriber, b"\x20\x02\x00\x00\x90\x03\x00\x01\x02").await;
        let mut publisher = tokio::net::TcpStream::connect(&address).await.unwrap();
        publisher.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01p").await.unwrap();
        hears(&env, &mut publisher, b"\x20\x02\x00\x00").await;

        // Killed now, edgecore would know nothing of the message: its publisher brings it again, and it gets an identifier anew.
        let commits = shared.storing.lock().await;
        publisher.write_all(b"\x34\x06\x00\x01t\x00\x07x").await.unwrap();
        until(&env, || shared.broker.borrow().held() == 1).await;
        for _ in 0..2 {
            subscriber.write_all(b"\xc0\x00").await.unwrap();
            hears(&env, &mut subscriber, b"\xd0\x00").await;
        }
        drop(commits);
        hears(&env, &mut subscriber, b"\x34\x06\x00\x01t\x00\x01x").await;
        hears(&env, &mut publisher, b"\x50\x02\x00\x07").await;
    });
}

async fn hears(env: &Env, client: &mut tokio::net::TcpStream, wanted: &[u8]) {
    let mut heard = vec![0; wanted.len()];
    env.timeout(SOON, client.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, wanted);
}
