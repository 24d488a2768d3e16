//! DeviceTwin and the rules of devices: what these hear, what they may set, and where it is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use beehive::testing::Probe;
use beehive::{Capacity, Env, Flow, Hive, Policy};
use contract::devicerules::{DeviceFacts, DeviceRulesMsg, Presence, RuleCondition};
use contract::devicetwin::TwinMsg;
use contract::ids::{DEVICE_MODELS, DEVICES, DeviceName};
use contract::{NodeName, UpReport};
use edge_devicetwin::DeviceTwin;
use edge_store::Store;
use fixture::{Node, SOON, options, pump, run, until};
use serde_json::{Value, json};

const RULES: &str = "[{name: fast, when: {property: speed, above: 80}, then: [{publish: {topic: t}}]}]";

/// A node whose DeviceTwin tells a probe with room for so many messages.
fn start(folder: &std::path::Path, room: usize) -> (Node, Probe<DeviceRulesMsg>) {
    let env = Env::seeded(1);
    let store = Store::open(folder.join("edgecore.db"), options()).unwrap();
    let (bus, bus_address) = Probe::new(&env, 1024);
    let (meta, meta_address) = Probe::new(&env, 64);
    let (rules, rules_address) = Probe::new(&env, room);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<TwinMsg>("edge-devicetwin", Capacity::new(64, "a test's choice"));
    let twin = hive.grant("tester", &mailbox, Flow::Ask);
    let (kept, path) = (store.clone(), folder.to_owned());
    hive.supervise(mailbox, Policy::default(), move || {
        let node = NodeName::parse("edge-1").unwrap();
        let settings = config::edge::DeviceTwin { dmi_sock_path: path.clone(), ..Default::default() };
        DeviceTwin::new(node, &settings, kept.clone(), bus_address.clone(), meta_address.clone())
            .telling_rules(rules_address.clone())
    });
    hive.open().unwrap();
    (Node { hive, store, twin, bus, meta, folder: folder.to_owned() }, rules)
}

fn pump_with_rules(rules: Option<&str>) -> Value {
    let mut device = pump(json!({}));
    device["metadata"]["annotations"] = json!({});
    if let Some(rules) = rules {
        device["metadata"]["annotations"]["kubehive.io/rules"] = rules.into();
    }
    device
}

async fn model(node: &Node) {
    let model = json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [
        { "name": "speed", "type": "INT", "accessMode": "ReadWrite", "maximum": "100" }, { "name": "heat", "accessMode": "ReadOnly" }] } });
    node.put(DEVICE_MODELS, "pumps", "m1", model).await;
}

async fn facts(rules: &mut Probe<DeviceRulesMsg>, wanted: impl Fn(&DeviceFacts) -> bool) -> DeviceFacts {
    let told = |message| {
        let DeviceRulesMsg::Facts(facts) = message else { return None };
        wanted(&facts).then_some(*facts)
    };
    rules.find(SOON, told).await.expect("they hear of it")
}

fn speed(facts: &DeviceFacts) -> Option<&str> {
    facts.properties.get("speed")?.value.as_deref()
}

async fn set(node: &Node, device: &str, property: &str, value: &str) -> Result<(), String> {
    let device = DeviceName::parse("default", device).unwrap();
    let (property, value) = (property.to_owned(), value.to_owned());
    node.twin.ask(SOON, |reply| TwinMsg::SetDesired { device, property, value, reply }).await.unwrap()
}

#[test]
fn rules_hear_of_each_value_of_the_state_and_of_their_end() {
    run(|folder| async move {
        let (node, mut rules) = start(&folder, 64);
        assert!(matches!(rules.next(SOON).await, Some(DeviceRulesMsg::TwinsBegan)));
        model(&node).await;
        node.put(DEVICES, "pump", "u1", pump_with_rules(Some(RULES))).await;
        let first = facts(&mut rules, |_| true).await;
        assert_eq!(
            (first.rules.as_deref(), &*first.uid, first.presence),
            (Some(RULES), "u1", Presence::Unsaid)
        );
        node.update(json!({ "speed": { "actual": { "value": "81" } } })).await.unwrap();
        let second = facts(&mut rules, |facts| speed(facts) == Some("81")).await;
        assert!(second.version > first.version);
        node.mqtt("$hw/events/device/default/pump/state/update", r#"{"state":"offline"}"#).await.unwrap();
        facts(&mut rules, |facts| facts.presence == Presence::Offline).await;
        let all = node.twin.ask(SOON, |reply| TwinMsg::ListFacts { reply }).await.unwrap().unwrap();
        assert_eq!((all.len(), speed(&all[0])), (1, Some("81")));
        // Rules of which something is wrong are none.
        node.put(DEVICES, "pump", "u1", pump_with_rules(Some("[{name: fast}]"))).await;
        facts(&mut rules, |facts| facts.rules.is_none()).await;
        node.put(DEVICES, "pump", "u1", pump_with_rules(Some(RULES))).await;
        facts(&mut rules, |facts| facts.rules.is_some()).await;
        node.delete(DEVICES, "pump").await;
        facts(&mut rules, |facts| facts.rules.is_none()).await;
        node.stop().await;
    });
}

#[test]
fn what_does_not_fit_into_their_mailbox_comes_later_and_is_the_newest() {
    run(|folder| async move {
        let (node, mut rules) = start(&folder, 2);
        model(&node).await;
        node.put(DEVICES, "pump", "u1", pump_with_rules(Some(RULES))).await;
        for value in 1..=40 {
            node.update(json!({ "speed": { "actual": { "value": value.to_string() } } })).await.unwrap();
        }
        let mut heard = Vec::new();
        while heard.last().is_none_or(|value| value != "40") {
            let facts = facts(&mut rules, |facts| speed(facts).is_some()).await;
            heard.push(speed(&facts).unwrap().to_owned());
        }
        assert!(heard.len() < 10, "those between are nobody's news: {heard:?}");
        node.stop().await;
    });
}

#[test]
fn what_a_rule_wants_is_an_applications_word_within_what_the_model_allows() {
    run(|folder| async move {
        let (mut node, _rules) = start(&folder, 64);
        model(&node).await;
        let both =
            json!({ "properties": [{ "name": "speed", "desired": { "value": "5" } }, { "name": "heat" }] });
        node.put(DEVICES, "pump", "u1", pump(both)).await;
        set(&node, "pump", "speed", "42").await.unwrap();
        assert_eq!(node.published("twin/update/delta").await["delta"]["speed"], "5");
        assert_eq!(node.published("twin/update/delta").await["delta"]["speed"], "42");
        let is_edge = |report: &UpReport| {
            let UpReport::Twin { observed_desired: Some(desired), .. } = report else { return false };
            desired.value == "42" && desired.metadata.get("setBy").is_some_and(|by| by == "edge")
        };
        assert!(node.reports().iter().any(is_edge), "{:?}", node.reports());
        // The same again is nothing new.
        set(&node, "pump", "speed", "42").await.unwrap();
        for (device, property, value, words) in [
            ("pump", "speed", "101", "above the maximum"),
            ("pump", "speed", "fast", "no whole number"),
            ("pump", "heat", "1", "ReadOnly"),
            ("pump", "level", "1", "has no property `level`"),
            ("fan", "run", "1", "is not on this node"),
        ] {
            let refused = set(&node, device, property, value).await.unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
        set(&node, "pump", "speed", "").await.unwrap();
        let base = "$hw/events/device/default/pump/twin/get";
        node.mqtt(base, "{}").await.unwrap();
        let result = node.published("twin/get/result").await;
        assert_ne!(result["twin"]["speed"]["expected"]["value"], "42", "{result}");
        node.stop().await;
    });
}

#[test]
fn what_rules_say_is_a_condition_of_the_device_and_outlives_a_restart() {
    let condition =
        || RuleCondition { kind: "RulesQuiet", reason: "Triggered", message: "rule `fast`".to_owned() };
    let told = |node: &Node| -> Option<Vec<String>> {
        let reports = node.reports();
        let said = reports.iter().rev().find_map(|report| match report {
            UpReport::DeviceConditions { conditions, .. } => Some(conditions),
            _ => None,
        });
        said.map(|conditions| conditions.iter().map(|one| one.reason.clone()).collect())
    };
    run(|folder| async move {
        let (node, mut rules) = start(&folder, 64);
        model(&node).await;
        node.put(DEVICES, "pump", "u1", pump_with_rules(Some(RULES))).await;
        facts(&mut rules, |_| true).await;
        let device = DeviceName::parse("default", "pump").unwrap();
        let say = |conditions| TwinMsg::RulesSay { device: device.clone(), conditions };
        node.twin.tell(say(vec![condition()])).await.unwrap();
        let has = |node: &Node| told(node).is_some_and(|reasons| reasons.contains(&"Triggered".to_owned()));
        until(|| has(&node)).await;
        node.stop().await;
        // Before the rules have said anything, it stays.
        let (node, _rules) = start(&folder, 64);
        let is_looked_at = || told(&node).is_some_and(|reasons| reasons.contains(&"NoMapper".to_owned()));
        until(is_looked_at).await;
        assert!(has(&node), "{:?}", told(&node));
        node.twin.tell(say(Vec::new())).await.unwrap();
        until(|| !has(&node)).await;
        node.stop().await;
    });
}

/// The objects in the YAML of a guide.
fn objects(guide: &str) -> Vec<Value> {
    let blocks = guide.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .flat_map(|block| block.split("\n---\n"))
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

/// The topic and the payload of each `mosquitto_pub` in a guide.
fn publishes(guide: &str) -> Vec<(String, String)> {
    let lines = guide.lines().filter(|line| line.trim_start().starts_with("mosquitto_pub"));
    lines
        .map(|line| {
            let quoted: Vec<&str> = line.split('\'').skip(1).step_by(2).collect();
            (quoted[0].to_owned(), quoted[1].to_owned())
        })
        .collect()
}

/// What the guides say to type makes the values and the state of which their rules hear.
#[test]
fn what_the_guides_publish_is_taken_of_the_devices_that_they_apply() {
    let read = |guide: &str| {
        std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(guide)).unwrap()
    };
    let (of_rules, of_twins) = (read("../edge-devicerules/README.md"), read("README.md"));
    run(|folder| async move {
        let (node, mut rules) = start(&folder, 64);
        for (n, object) in objects(&of_rules).into_iter().enumerate() {
            let resource = if object["kind"] == "Device" { DEVICES } else { DEVICE_MODELS };
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            node.put_in("hall", resource, &name, &format!("u{n}"), object).await;
        }
        for (guide, lines, value) in [(&of_rules, 3, "81.5"), (&of_twins, 2, "21.5")] {
            let said = publishes(guide);
            assert_eq!(said.len(), lines, "{said:?}");
            for (topic, payload) in said {
                node.mqtt(&topic, payload).await.unwrap_or_else(|error| panic!("{topic}: {error}"));
            }
            let is_said = |facts: &DeviceFacts| {
                facts.properties.get("temperature").is_some_and(|fact| fact.value.as_deref() == Some(value))
            };
            let heard = facts(&mut rules, is_said).await;
            assert_eq!(
                (heard.device.to_string().as_str(), heard.presence),
                ("hall/gantry", Presence::Online)
            );
        }
        node.stop().await;
    });
}
