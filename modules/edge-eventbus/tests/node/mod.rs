//! A broker on a real socket with a probe for DeviceTwin, and clients of four kinds.
#![allow(dead_code, reason = "each binary of tests uses some of it")]

pub(crate) mod blocking_client;
pub(crate) mod certificates;
pub(crate) mod child;
pub(crate) mod mosquitto;
pub(crate) mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Inspector, Policy};
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::eventbus::{BrokerReport, EventBusMsg};
use contract::metamanager::MetaMsg;
use edge_eventbus::EventBus;
use edge_store::{Options, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::Mutex;

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    hive: Option<Hive>,
    inspector: Inspector,
    pub(crate) env: Env,
    pub(crate) bus: Address<EventBusMsg>,
    twin: Rc<Mutex<Probe<TwinMsg>>>,
    meta: Rc<Mutex<Probe<MetaMsg>>>,
    edged: Rc<Mutex<Probe<EdgedMsg>>>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Store) -> F) {
    run_over(Options::new([1; 16]), |store, _| test(store));
}

/// With bounds of its own; the test is handed the path of the file, too.
pub(crate) fn run_over<F: Future<Output = ()>>(options: Options, test: impl FnOnce(Store, PathBuf) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgecore.db");
    let store = Store::open(&path, options).unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test(store, path));
}

impl Node {
    pub(crate) async fn start(store: Store) -> Rc<Node> {
        Node::start_as(store, config::edge::EventBus::default()).await
    }

    /// With other settings; its port is any that is free.
    pub(crate) async fn start_as(store: Store, mut config: config::edge::EventBus) -> Rc<Node> {
        config.mqtt_server_internal = "127.0.0.1:0".to_owned();
        Node::start_exactly(store, config).await
    }

    /// With these settings and no others.
    pub(crate) async fn start_exactly(store: Store, config: config::edge::EventBus) -> Rc<Node> {
        let env = Env::seeded(7);
        let (twin, twin_address) = Probe::new(&env, 64);
        let (meta, meta_address) = Probe::new(&env, 1);
        let (edged, edged_address) = Probe::new(&env, 64);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<EventBusMsg>("edge-eventbus", Capacity::new(16, "a test's choice"));
        let bus = hive.grant("tester", &mailbox, Flow::Tell);
        hive.supervise(mailbox, Policy::default(), move || {
            EventBus::new(&config, store.clone(), twin_address.clone(), meta_address.clone())
                .on_node("edge-1", edged_address.clone())
        });
        hive.open().unwrap();
        let inspector = hive.inspector();
        let mut node = Node {
            hive: Some(hive),
            inspector,
            env,
            bus,
            twin: Rc::new(Mutex::new(twin)),
            meta: Rc::new(Mutex::new(meta)),
            edged: Rc::new(Mutex::new(edged)),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        node.wait("a listener", |view| view.is_object()).await;
        if let Some(listening) = node.view().await["listening"].as_str() {
            node.address = listening.parse().unwrap();
        }
        Rc::new(node)
    }

    pub(crate) async fn stop(self: Rc<Self>) {
        let Ok(mut node) = Rc::try_unwrap(self) else { panic!("node is still used") };
        node.hive.take().unwrap().shutdown(SOON).await;
    }

    pub(crate) async fn view(&self) -> serde_json::Value {
        let report = self.inspector.report(SOON).await;
        serde_json::to_value(&report).unwrap()["actors"][0]["snapshot"].clone()
    }

    pub(crate) async fn wait(&self, what: &str, fact: impl Fn(&serde_json::Value) -> bool) {
        let until = self.env.now() + SOON;
        loop {
            let view = self.view().await;
            if fact(&view) {
                return;
            }
            assert!(self.env.now() < until, "no {what}: {view}");
            self.env.sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn subscriptions(&self, count: u64) {
        self.wait(&format!("{count} subscriptions"), |view| view["subscriptions"] == count).await;
    }

    pub(crate) async fn publish(&self, topic: &str, payload: &str, retain: bool) {
        let (topic, payload) = (topic.to_owned(), payload.to_owned().into());
        self.bus.tell(EventBusMsg::Publish { topic, payload, retain }).await.unwrap();
    }

    /// What DeviceTwin is asked next.
    pub(crate) async fn asked(&self, limit: Duration) -> Option<TwinMsg> {
        self.twin.lock().await.next(limit).await
    }

    /// What MetaManager is told next.
    pub(crate) async fn told(&self, limit: Duration) -> Option<MetaMsg> {
        self.meta.lock().await.next(limit).await
    }

    /// Waits until Edged is told that of the brokers.
    pub(crate) async fn reported(&self, what: &str, fact: impl Fn(&BrokerReport) -> bool) -> BrokerReport {
        let until = self.env.now() + SOON;
        let mut edged = self.edged.lock().await;
        let mut last = None;
        loop {
            let left = until.since(self.env.now());
            match edged.next(left).await {
                Some(EdgedMsg::MqttBroker(report)) if fact(&report) => return report,
                Some(EdgedMsg::MqttBroker(report)) => last = Some(report),
                other => panic!("no {what}: {other:?} after {last:?}"),
            }
        }
    }

    /// Answers for DeviceTwin from now on.
    pub(crate) fn answer(&self, word: Result<(), String>) {
        let twin = Rc::clone(&self.twin);
        self.env.spawn(async move {
            loop {
                let next = twin.lock().await.next(SOON).await;
                if let Some(TwinMsg::Mqtt { reply, .. }) = next {
                    reply.send(word.clone());
                }
            }
        });
    }

    pub(crate) fn mosquitto(&self, tool: &str, arguments: &[&str]) -> Child {
        child::mosquitto_at(self.address.port(), tool, arguments)
    }

    pub(crate) async fn raw(&self) -> RawClient {
        RawClient { socket: TcpStream::connect(self.address).await.unwrap(), env: self.env.clone() }
    }

    /// A client that is connected: clean session, no keep-alive, no will.
    pub(crate) async fn client(&self, id: &str) -> RawClient {
        let mut raw = self.raw().await;
        raw.send(&connect(id, true, 0, None)).await;
        raw.expect(b"\x20\x02\x00\x00").await;
        raw
    }
}

pub(crate) struct RawClient {
    pub(crate) socket: TcpStream,
    pub(crate) env: Env,
}

impl RawClient {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &[u8]) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        let wanted = wanted.to_vec();
        async move {
            let mut got = vec![0; wanted.len()];
            let read = self.env.timeout(SOON, self.socket.read_exact(&mut got)).await;
            assert!(matches!(read, Some(Ok(_))), "{place}: {read:?} instead of {wanted:x?}");
            assert_eq!(got, wanted, "{place}");
        }
    }

    /// What still comes until the broker closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = async {
            let mut some = [0; 4096];
            // A reset is a close, too.
            while let Ok(count @ 1..) = self.socket.read(&mut some).await {
                rest.extend_from_slice(some.get(..count).unwrap());
            }
        };
        assert!(self.env.timeout(SOON, read).await.is_some(), "connection stays open");
        rest
    }
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut out = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 0x7f;
        out.push(u8::try_from(length & 0x7f).unwrap() | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    out.extend(body);
    out
}

pub(crate) fn connect(id: &str, clean: bool, keep_alive: u16, will: Option<(&str, &str)>) -> Vec<u8> {
    let flags = u8::from(clean) << 1 | if will.is_some() { 0x0c } else { 0 };
    let mut body = [b"\x00\x04MQTT\x04".as_slice(), &[flags], &keep_alive.to_be_bytes(), &text(id)].concat();
    if let Some((topic, payload)) = will {
        body.extend([text(topic), text(payload)].concat());
    }
    packet(0x10, &[&body])
}

/// The same with a user name and a password.
pub(crate) fn connect_as(id: &str, user: &str, password: Option<&[u8]>) -> Vec<u8> {
    let flags = 0x82 | if password.is_some() { 0x40 } else { 0 };
    let mut body = [b"\x00\x04MQTT\x04".as_slice(), &[flags, 0, 0], &text(id), &text(user)].concat();
    if let Some(password) = password {
        body.extend(u16::try_from(password.len()).unwrap().to_be_bytes());
        body.extend(password);
    }
    packet(0x10, &[&body])
}

pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[b"\x00\x09", &text(filter), &[qos]])
}

/// A PUBLISH; with QoS 0 the packet identifier is left out.
pub(crate) fn publish(topic: &str, payload: &str, qos: u8, pkid: u16) -> Vec<u8> {
    let pkid = pkid.to_be_bytes();
    let pkid = if qos > 0 { pkid.as_slice() } else { &[] };
    packet(0x30 | qos << 1, &[&text(topic), pkid, payload.as_bytes()])
}
