//! The rules between a real store and probes for their neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::{PanicPoint, Probe, plan_panic};
use beehive::{Address, Capacity, Env, Flow, Hive, Policy, Reply};
use contract::devicerules::{DeviceFacts, DeviceRulesMsg, Presence, PropertyFact};
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::DeviceName;
use contract::metamanager::MetaMsg;
use contract::{NodeName, UpReport, rows};
use edge_devicerules::{DeviceRules, Settings};
use edge_store::{Options, Store, Table};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SOON: Duration = Duration::from_secs(20);
/// In which nothing is to come.
const QUIET: Duration = Duration::from_millis(500);
const COOL: &str = "[{name: cool, when: {property: heat, above: 80, clear: 75, for: 10s}, then: [{set: {device: fan, property: run, value: 1}}, {publish: {topic: hall/alarm}}], otherwise: [{set: {device: fan, property: run, value: 0}}]}]";

struct Node {
    hive: Hive,
    store: Store,
    rules: Address<DeviceRulesMsg>,
    twin: Probe<TwinMsg>,
    bus: Probe<EventBusMsg>,
    _meta: Probe<MetaMsg>,
    env: Env,
    version: u64,
}

/// Time stands still but for what is waited for.
fn run<F: Future>(test: impl FnOnce(PathBuf) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(folder.path().to_owned()).await });
}

fn start(folder: &Path, calls: bool) -> Node {
    let env = Env::seeded(1).without_threads();
    let mut options = Options::new([1; 16]);
    // A store that writes on its own thread would let the paused clock run meanwhile.
    options.threadless = true;
    let store = Store::open(folder.join("edgecore.db"), options).unwrap();
    let (twin, twin_address) = Probe::new(&env, 64);
    let (bus, bus_address) = Probe::new(&env, 64);
    let (meta, meta_address) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox::<DeviceRulesMsg>("edge-devicerules", Capacity::new(64, "a test's choice"));
    let rules = hive.grant("tester", &mailbox, Flow::Ask);
    let kept = store.clone();
    let closed_ports = calls.then(|| [10350].into());
    let settings = Settings { node: NodeName::parse("edge-1").unwrap(), closed_ports };
    hive.supervise(mailbox, Policy::default(), move || {
        let (twin, bus, meta) = (twin_address.clone(), bus_address.clone(), meta_address.clone());
        DeviceRules::new(settings.clone(), kept.clone(), twin, bus, meta)
    });
    hive.open().unwrap();
    Node { hive, store, rules, twin, bus, _meta: meta, env, version: 0 }
}

fn facts(rules: Option<&str>, heat: Option<&str>, presence: Presence) -> DeviceFacts {
    let fact = PropertyFact { value: heat.map(str::to_owned), is_stale: false };
    DeviceFacts {
        device: DeviceName::parse("hall", "gantry").unwrap(),
        uid: "u".into(),
        rules: rules.map(Arc::from),
        presence,
        properties: [("heat".to_owned(), fact)].into(),
        version: 0,
    }
}

fn reading(heat: &str) -> DeviceFacts {
    facts(Some(COOL), Some(heat), Presence::Online)
}

impl Node {
    /// Answers what DeviceTwin is asked first.
    async fn lists(&mut self, mut facts: DeviceFacts) {
        self.version += 1;
        facts.version = self.version;
        let asked = |message| if let TwinMsg::ListFacts { reply } = message { Some(reply) } else { None };
        self.twin.find(SOON, asked).await.expect("it asks").send(Some(vec![facts]));
    }

    async fn tell(&mut self, mut facts: DeviceFacts) {
        self.version += 1;
        facts.version = self.version;
        self.rules.tell(DeviceRulesMsg::Facts(Box::new(facts))).await.unwrap();
    }

    /// What is set next within a time: device, property and value.
    async fn set(&mut self, within: Duration) -> Option<(String, Reply<Result<(), String>>)> {
        let wanted = |message| {
            let TwinMsg::SetDesired { device, property, value, reply } = message else { return None };
            Some((format!("{device} {property}={value}"), reply))
        };
        self.twin.find(within, wanted).await
    }

    async fn is_set(&mut self, what: &str) {
        let (set, reply) = self.set(SOON).await.unwrap_or_else(|| panic!("{what} is not set"));
        assert_eq!(set, what);
        reply.send(Ok(()));
    }

    async fn published(&mut self) -> (String, Value) {
        let wanted = |message| {
            let EventBusMsg::Deliver { topic, payload, reply } = message else { return None };
            reply.send(Ok(()));
            Some((topic, serde_json::from_slice(&payload).unwrap()))
        };
        self.bus.find(SOON, wanted).await.expect("it publishes")
    }

    /// What is said next of the device: reasons of conditions.
    async fn said(&mut self) -> Vec<(&'static str, String)> {
        let said = |message| {
            let TwinMsg::RulesSay { conditions, .. } = message else { return None };
            Some(conditions.into_iter().map(|one| (one.reason, one.message)).collect())
        };
        self.twin.find(SOON, said).await.expect("it says something")
    }

    /// The reasons of the Events in the outbox.
    fn events(&self) -> Vec<String> {
        let rows = self.store.outbox_head(100, 1 << 20).unwrap();
        let events = rows.iter().filter_map(|row| match rows::decode_report(&row.body).unwrap() {
            UpReport::Event { event_json, .. } => Some(serde_json::from_str::<Value>(&event_json).unwrap()),
            _ => None,
        });
        events.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    async fn stop(self) {
        assert_eq!(self.hive.shutdown(SOON).await, beehive::Ended::InOrder);
    }
}

#[test]
fn a_rule_triggers_after_its_time_acts_is_told_and_ends() {
    run(|folder| async move {
        let mut node = start(&folder, false);
        node.lists(reading("81")).await;
        assert_eq!(node.said().await, []);
        let begun = node.env.now();
        node.is_set("hall/fan run=1").await;
        assert!(node.env.now().since(begun) >= Duration::from_secs(9), "it has held for its time");
        let (topic, payload) = node.published().await;
        assert_eq!(
            (topic.as_str(), &payload["state"], &payload["value"]),
            ("hall/alarm", &"triggered".into(), &"81".into())
        );
        node.tell(reading("76")).await;
        assert!(node.set(QUIET).await.is_none(), "between its limits");
        node.tell(reading("75")).await;
        node.is_set("hall/fan run=0").await;
        assert_eq!(node.events(), ["RuleTriggered", "RuleCleared"]);
        node.stop().await;
    });
}

#[test]
fn what_comes_together_is_one_commit() {
    run(|folder| async move {
        let mut node = start(&folder, false);
        node.lists(reading("20")).await;
        assert_eq!(node.said().await, []);
        let before = node.store.snapshot().batches;
        let at_once = COOL.replace(", for: 10s", "");
        for n in 0..40 {
            let device = DeviceName::parse("hall", &format!("gantry-{n}")).unwrap();
            node.tell(DeviceFacts { device, ..facts(Some(&at_once), Some("81"), Presence::Online) }).await;
        }
        node.is_set("hall/fan run=1").await;
        let batches = node.store.snapshot().batches - before;
        assert!(batches < 5, "{batches} batches for 40 devices");
        assert_eq!(node.events().len(), 40);
        node.stop().await;
    });
}

#[test]
fn a_spike_and_an_older_word_trigger_nothing() {
    run(|folder| async move {
        let mut node = start(&folder, false);
        node.lists(reading("20")).await;
        node.tell(reading("95")).await;
        node.env.sleep(Duration::from_secs(9)).await;
        node.tell(reading("20")).await;
        let old = DeviceFacts { version: 1, ..reading("99") };
        node.rules.tell(DeviceRulesMsg::Facts(Box::new(old))).await.unwrap();
        assert!(node.set(Duration::from_secs(60)).await.is_none());
        assert!(node.events().is_empty());
        node.stop().await;
    });
}

#[test]
fn a_restart_triggers_nothing_again_and_does_what_was_cut_short() {
    run(|folder| async move {
        let mut node = start(&folder, false);
        node.lists(reading("81")).await;
        // It ends before the fan is told.
        let (_, reply) = node.set(SOON).await.unwrap();
        node.stop().await;
        drop(reply);
        let mut node = start(&folder, false);
        node.lists(reading("81")).await;
        node.is_set("hall/fan run=1").await;
        node.published().await;
        node.tell(reading("82")).await;
        assert!(node.set(Duration::from_secs(60)).await.is_none());
        node.stop().await;
        let mut node = start(&folder, false);
        node.lists(reading("82")).await;
        assert!(node.set(Duration::from_secs(60)).await.is_none(), "all of it was done");
        assert_eq!(node.events(), ["RuleTriggered"], "once");
        // And what has triggered before still ends.
        node.tell(reading("70")).await;
        node.is_set("hall/fan run=0").await;
        node.tell(facts(None, None, Presence::Unsaid)).await;
        let rows = || node.store.list_rows(Table::Facts, Some("device-rule")).unwrap().len();
        while rows() > 0 {
            node.env.sleep(Duration::from_millis(10)).await;
        }
        node.stop().await;
    });
}

#[test]
fn a_panic_at_any_of_its_messages_costs_nothing() {
    for message in ["TwinsBegan", "Facts", "Wake", "Acted"] {
        for awaits in [0, 1] {
            run(|folder| async move {
                let mut node = start(&folder, false);
                let point = PanicPoint { message: Some(message), nth: 1, awaits };
                plan_panic(&node.hive.inspector(), "edge-devicerules", point);
                let mut set = Vec::new();
                node.version = 1;
                node.tell(DeviceFacts { version: 1, ..reading("81") }).await;
                let until = node.env.now() + Duration::from_secs(120);
                while node.env.now() < until {
                    match node.twin.next(Duration::from_secs(1)).await {
                        Some(TwinMsg::ListFacts { reply }) => {
                            reply.send(Some(vec![DeviceFacts { version: 2, ..reading("81") }]));
                        }
                        Some(TwinMsg::SetDesired { value, reply, .. }) => {
                            set.push(value);
                            reply.send(Ok(()));
                        }
                        Some(_) | None => {}
                    }
                    while let Some(EventBusMsg::Deliver { reply, .. }) = node.bus.next(Duration::ZERO).await {
                        reply.send(Ok(()));
                    }
                }
                assert!(
                    !set.is_empty() && set.iter().all(|value| value == "1"),
                    "{message} {awaits}: {set:?}"
                );
                assert_eq!(node.events().len(), 1, "{message} {awaits}");
                node.stop().await;
            });
        }
    }
}

#[test]
fn what_is_refused_is_said_tried_again_and_given_up() {
    run(|folder| async move {
        let mut node = start(&folder, false);
        let call = "[{name: lost, when: {offline: true}, then: [{set: {device: fan, property: run, value: 1}}, {call: {url: 'http://127.0.0.1:1/'}}]}]";
        node.lists(facts(Some(call), None, Presence::Offline)).await;
        let (mut refused, mut failed) = (0, String::new());
        while let Some(message) = node.twin.next(Duration::from_secs(120)).await {
            match message {
                TwinMsg::SetDesired { reply, .. } => {
                    refused += 1;
                    reply.send(Err("device `hall/fan` is not on this node".to_owned()));
                }
                TwinMsg::RulesSay { conditions, .. } => {
                    let said = conditions.into_iter().find(|one| one.reason == "ActionFailed");
                    failed = said.map_or(failed, |one| one.message);
                }
                _ => {}
            }
        }
        assert_eq!(refused, 4, "at once, and after 1, 5 and 30 s");
        assert!(failed.contains("set `run` of `fan`: device `hall/fan` is not on this node"), "{failed}");
        assert!(failed.contains("`modules.deviceTwin.ruleCalls` is false"), "{failed}");
        assert_eq!(node.events(), ["RuleTriggered", "RuleActionFailed"]);
        node.stop().await;
    });
}

#[test]
fn a_circle_is_held_back_and_told() {
    run(|folder| async move {
        let mut node = start(&folder, false);
        let circle = COOL.replace(", for: 10s", "");
        let of = |heat: &str| facts(Some(&circle), Some(heat), Presence::Online);
        node.lists(of("20")).await;
        let mut changes = Vec::new();
        // What it does undoes what it saw, and the other way round.
        node.tell(of("81")).await;
        let begun = node.env.now();
        while node.env.now().since(begun) < Duration::from_secs(95) {
            while let Some(EventBusMsg::Deliver { reply, .. }) = node.bus.next(Duration::ZERO).await {
                reply.send(Ok(()));
            }
            let Some((set, reply)) = node.set(Duration::from_millis(100)).await else { continue };
            reply.send(Ok(()));
            let heat = if set.ends_with("=1") { "20" } else { "81" };
            changes.push(set);
            node.tell(of(heat)).await;
        }
        assert_eq!(changes.len(), 6 + 9, "six at once, one in 10 s");
        assert_eq!(node.events().iter().filter(|reason| *reason == "RuleHeldBack").count(), 1);
        node.stop().await;
    });
}

#[test]
fn a_service_on_the_spot_is_called_where_the_node_allows_it() {
    // With a real socket: in real time.
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/horn", listener.local_addr().unwrap());
        let mut node = start(folder.path(), true);
        let call = format!(
            "[{{name: lost, when: {{offline: true}}, then: [{{call: {{url: 'http://127.0.0.1:10350/pods'}}}}, {{call: {{url: '{url}'}}}}]}}]"
        );
        node.lists(facts(Some(&call), None, Presence::Offline)).await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).ends_with('}') {
            assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
        }
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("POST /horn HTTP/1.1\r\n") && seen.contains(r#""state":"triggered""#), "{seen}");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let failed = loop {
            let said = node.said().await;
            if let Some((_, message)) = said.iter().find(|(reason, _)| *reason == "ActionFailed") {
                break message.clone();
            }
        };
        assert!(failed.contains("port 10350 is edgecore's own") && !failed.contains("/horn"), "{failed}");
        node.stop().await;
    });
}
