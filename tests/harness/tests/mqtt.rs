//! KubeEdge's MQTT topics from end to end: EventBus and DeviceTwin over a real store, a client that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use contract::NodeName;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::metamanager::MetaMsg;
use edge_devicetwin::DeviceTwin;
use edge_eventbus::EventBus;
use edge_store::{ObjectKey, Options, Store, Table, Write};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const DEVICE: &str = "$hw/events/device/default/sensor-1";
/// 2027-01-15, where the tests' clock starts, in ms.
const EPOCH: i64 = 1_800_000_000_000;

struct Node {
    hive: Hive,
    store: Store,
    twin: Address<TwinMsg>,
    _meta: Probe<MetaMsg>,
    port: u16,
}

async fn start(folder: PathBuf) -> Node {
    let env = Env::seeded(1);
    let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
    let (meta, meta_address) = Probe::new(&env, 256);
    let mut hive = Hive::new("test", env.clone());
    let twins = hive.mailbox::<TwinMsg>("edge-devicetwin", Capacity::new(256, "as in EdgeCore"));
    let buses = hive.mailbox::<EventBusMsg>("edge-eventbus", Capacity::new(1024, "as in EdgeCore"));
    let (to_bus, to_twin) = (
        hive.grant("edge-devicetwin", &buses, Flow::TryTell),
        hive.grant("edge-eventbus", &twins, Flow::Ask),
    );
    let twin = hive.grant("tester", &twins, Flow::Ask);
    let meta_of_bus = meta_address.clone();
    let settings = config::edge::DeviceTwin { dmi_sock_path: folder, ..Default::default() };
    let kept = store.clone();
    hive.supervise(twins, Policy::default(), move || {
        let node = NodeName::parse("edge-1").unwrap();
        DeviceTwin::new(node, &settings, kept.clone(), to_bus.clone(), meta_address.clone())
    });
    let broker =
        config::edge::EventBus { mqtt_server_internal: "127.0.0.1:0".to_owned(), ..Default::default() };
    hive.supervise(buses, Policy::default(), EventBus::factory(broker, store.clone(), to_twin, meta_of_bus));
    hive.open().unwrap();
    let inspector = hive.inspector();
    let until = env.now() + SOON;
    let port = loop {
        let report = serde_json::to_value(inspector.report(SOON).await).unwrap();
        let actors = report["actors"].as_array().unwrap().clone();
        let listening =
            actors.iter().find_map(|actor| actor["snapshot"]["listening"].as_str().map(str::to_owned));
        if let Some(listening) = listening {
            break listening.rsplit(':').next().unwrap().parse().unwrap();
        }
        assert!(env.now() < until, "no listener");
        env.sleep(Duration::from_millis(5)).await;
    };
    Node { hive, store, twin, _meta: meta, port }
}

impl Node {
    async fn put(&self, resource: &str, name: &str, uid: &str, json: Value) {
        let write = Write::PutObject {
            key: ObjectKey::new(resource, "default", name),
            uid: uid.to_owned(),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: json.to_string().into_bytes(),
        };
        self.store.commit(vec![write]).await.unwrap();
        self.twin.tell(TwinMsg::ObjectsChanged(contract::ChangedObjects::Any)).await.unwrap();
    }

    async fn sensor(&self) {
        let model = json!({ "metadata": { "name": "sensors" }, "spec": { "properties": [] } });
        let device = json!({ "metadata": { "name": "sensor-1", "labels": { "description": "a-sensor" } },
            "spec": { "deviceModelRef": { "name": "sensors" }, "nodeName": "edge-1", "properties": [],
                "protocol": { "protocolName": "mqtt" } } });
        self.put(DEVICE_MODELS, "sensors", "m1", model).await;
        self.put(DEVICES, "sensor-1", "d1", device).await;
    }
}

/// An application on the node, subscribed to all that the node says about devices and itself.
struct App {
    client: AsyncClient,
    events: EventLoop,
    acknowledged: usize,
}

impl App {
    async fn connect(node: &Node) -> App {
        let (client, events) = AsyncClient::new(MqttOptions::new("app", "127.0.0.1", node.port), 10);
        let mut app = App { client, events, acknowledged: 0 };
        for filter in [
            "$hw/events/device/+/+/twin/update/+",
            "$hw/events/device/+/+/twin/get/result",
            "$hw/events/device/+/+/state/update/result",
            "$hw/events/node/edge-1/membership/updated",
            "$hw/events/node/edge-1/membership/get/result",
        ] {
            app.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
            while !matches!(app.event().await, Packet::SubAck(_)) {}
        }
        app
    }

    async fn event(&mut self) -> Packet {
        loop {
            let event =
                tokio::time::timeout(SOON, self.events.poll()).await.expect("an event in time").unwrap();
            if let Event::Incoming(packet) = event {
                return packet;
            }
        }
    }

    /// Publishes at QoS 1 and takes the next `count` messages and the acknowledgement, in whatever order.
    async fn ask(&mut self, topic: &str, payload: impl Into<Vec<u8>>, count: usize) -> Vec<(String, Value)> {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
        let (mut got, before) = (Vec::new(), self.acknowledged);
        while got.len() < count || self.acknowledged == before {
            match self.event().await {
                Packet::Publish(publish) => {
                    assert_eq!((publish.qos, publish.retain), (QoS::AtLeastOnce, false));
                    got.push((publish.topic, serde_json::from_slice(&publish.payload).unwrap()));
                }
                Packet::PubAck(_) => self.acknowledged += 1,
                _ => {}
            }
        }
        got
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Packet::Publish(publish) = self.event().await {
                return (publish.topic, serde_json::from_slice(&publish.payload).unwrap());
            }
        }
    }
}

fn is_uuid(value: &Value) -> bool {
    value.as_str().is_some_and(|id| id.len() == 36 && id.split('-').count() == 5)
}

fn is_now(value: &Value) -> bool {
    value.as_i64().is_some_and(|ms| (EPOCH..EPOCH + 600_000).contains(&ms))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// One of what was got.
fn on<'a>(got: &'a [(String, Value)], end: &str) -> &'a Value {
    let found = got.iter().find(|(topic, _)| *topic == format!("{DEVICE}/{end}"));
    &found.unwrap_or_else(|| panic!("nothing on {end} in {got:?}")).1
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        test(start(folder.path().to_owned()).await).await;
    });
}

#[test]
fn a_device_reports_and_is_told_what_is_desired() {
    run(|node| async move {
        let mut app = App::connect(&node).await;
        node.sensor().await;
        let (topic, news) = app.next().await;
        assert_eq!(topic, "$hw/events/node/edge-1/membership/updated");
        assert!(is_uuid(&news["event_id"]) && is_now(&news["timestamp"]), "{news}");
        let added = json!([{ "id": "default/sensor-1", "name": "sensor-1", "description": "a-sensor" }]);
        assert_eq!(news["added_devices"], added);
        assert_eq!(news["removed_devices"], Value::Null);

        let got = app
            .ask(
                &format!("{DEVICE}/twin/update"),
                json!({ "event_id": "7c1f", "timestamp": 5,
            "twin": { "temperature": { "actual": { "value": "21.5" }, "metadata": { "type": "float" } } } })
                .to_string(),
                2,
            )
            .await;
        assert_eq!(
            node.store.list_rows(Table::Twins, Some("default/sensor-1")).unwrap().len(),
            1,
            "PUBACK before the commit"
        );
        let result = on(&got, "twin/update/result");
        assert_eq!(keys(result), ["event_id", "timestamp", "twin"]);
        assert_eq!(result["event_id"], "7c1f");
        let temperature = &result["twin"]["temperature"];
        assert!(
            is_now(&result["timestamp"]) && is_now(&temperature["actual"]["metadata"]["timestamp"]),
            "{result}"
        );
        assert_eq!(
            (&temperature["actual"]["value"], &temperature["optional"], &temperature["metadata"]),
            (&json!("21.5"), &json!(true), &json!({ "type": "float" }))
        );
        assert_eq!(keys(temperature), ["actual", "metadata", "optional"], "versions are stripped");
        let document = on(&got, "twin/update/document");
        assert_eq!(
            (&document["event_id"], &document["twin"]["temperature"]["last"]),
            (&json!("7c1f"), &Value::Null)
        );
        assert_eq!(document["twin"]["temperature"]["current"]["actual"]["value"], "21.5");

        // A desired value: result, document and delta, and the delta has those alone of which something is wanted, and an id of its own.
        let got = app
            .ask(
                &format!("{DEVICE}/twin/update"),
                json!({ "event_id": "a2",
            "twin": { "led": { "expected": { "value": "on" }, "actual": { "value": "off" } } } })
                .to_string(),
                3,
            )
            .await;
        assert_eq!(on(&got, "twin/update/result")["event_id"], "a2");
        assert_eq!(on(&got, "twin/update/document")["event_id"], "a2");
        let delta = on(&got, "twin/update/delta");
        assert!(is_uuid(&delta["event_id"]) && is_now(&delta["timestamp"]), "{delta}");
        assert_eq!(delta["delta"], json!({ "led": "on" }));
        assert_eq!(keys(&delta["twin"]), ["led"]);
        assert_eq!(delta["twin"]["led"]["metadata"]["type"], "string");

        // What was asked for is reported: no delta any more.
        let got = app
            .ask(
                &format!("{DEVICE}/twin/update"),
                json!({ "event_id": "a3", "twin": { "led": { "actual": { "value": "on" } } } }).to_string(),
                2,
            )
            .await;
        assert!(got.iter().all(|(topic, _)| !topic.ends_with("delta")), "{got:?}");
        assert_eq!(on(&got, "twin/update/document")["twin"]["led"]["last"]["actual"]["value"], "off");

        // Deletion of an optional property.
        let got =
            app.ask(&format!("{DEVICE}/twin/update"), r#"{"event_id":"a4","twin":{"led":null}}"#, 2).await;
        assert_eq!(on(&got, "twin/update/result")["twin"], json!({ "led": null }));
        assert_eq!(on(&got, "twin/update/document")["twin"]["led"]["current"], Value::Null);

        // Of what is not there nothing is to be deleted: no refusal, and no document.
        let got =
            app.ask(&format!("{DEVICE}/twin/update"), r#"{"event_id":"a5","twin":{"led":null}}"#, 1).await;
        assert_eq!(on(&got, "twin/update/result")["twin"], json!({}));

        let got = app.ask(&format!("{DEVICE}/twin/get"), r#"{"event_id":"g1","timestamp":1}"#, 1).await;
        let twin = on(&got, "twin/get/result");
        assert_eq!((&twin["event_id"], keys(&twin["twin"])), (&json!("g1"), vec!["temperature"]));
        assert!(is_now(&twin["timestamp"]));
        node.hive.shutdown(SOON).await;
    });
}

#[test]
fn what_is_refused_says_so_with_kubeedges_codes_and_is_acknowledged() {
    run(|node| async move {
        let mut app = App::connect(&node).await;
        node.sensor().await;
        app.next().await;
        let update = format!("{DEVICE}/twin/update");
        let cases = [
            ("{\"event_id\":", 400, ""),
            (r#"{"event_id":"e1","twin":{"bad name":{"actual":{"value":"1"}}}}"#, 400, "e1"),
            (r#"{"event_id":"e2","twin":{"t":{"actual":{"value":"a b"}}}}"#, 400, "e2"),
            (
                r#"{"event_id":"e3","twin":{"t":{"actual":{"value":"x"},"metadata":{"type":"int"}}}}"#,
                400,
                "e3",
            ),
            (
                r#"{"event_id":"e4","twin":{"t":{"actual":{"value":"x"},"metadata":{"type":"struct"}}}}"#,
                400,
                "e4",
            ),
            (r#"{"event_id":"e5","twin":{"t":{"actual":{"value":7}}}}"#, 400, "e5"),
        ];
        for (payload, code, id) in cases {
            let got = app.ask(&update, payload, 1).await;
            let refusal = on(&got, "twin/update/result");
            assert_eq!(
                (&refusal["code"], &refusal["event_id"]),
                (&json!(code), &json!(id)),
                "{payload}: {refusal}"
            );
            assert!(
                refusal["reason"].as_str().is_some_and(|reason| !reason.is_empty())
                    && is_now(&refusal["timestamp"])
            );
            assert_eq!(keys(refusal), ["code", "event_id", "reason", "timestamp"]);
        }
        for what in ["twin/update", "twin/get"] {
            let got = app
                .ask(
                    &format!("$hw/events/device/default/stranger/{what}"),
                    r#"{"event_id":"e6","twin":{}}"#,
                    1,
                )
                .await;
            assert_eq!(
                (got[0].0.as_str(), &got[0].1["code"], &got[0].1["event_id"]),
                (
                    format!("$hw/events/device/default/stranger/{what}/result").as_str(),
                    &json!(404),
                    &json!("e6")
                )
            );
        }
        // Nobody but the cloud says what the cloud says; a state that is none has no answer. Both are acknowledged.
        assert!(
            app.ask(
                &format!("{DEVICE}/twin/cloud_updated"),
                r#"{"event_id":"e7","twin":{"t":{"expected":{"value":"1"}}}}"#,
                0
            )
            .await
            .is_empty()
        );
        assert!(
            app.ask(&format!("{DEVICE}/state/update"), r#"{"event_id":"e8","state":"disconnected"}"#, 0)
                .await
                .is_empty()
        );
        assert!(
            app.ask("$hw/events/device/default/stranger/state/update", r#"{"state":"online"}"#, 0)
                .await
                .is_empty()
        );
        let got = app.ask(&format!("{DEVICE}/twin/get"), r#"{"event_id":"g"}"#, 1).await;
        assert_eq!(on(&got, "twin/get/result")["twin"], json!({}), "one bad part spoils the whole update");
        node.hive.shutdown(SOON).await;
    });
}

#[test]
fn states_and_members() {
    run(|node| async move {
        let mut app = App::connect(&node).await;
        node.sensor().await;
        app.next().await;
        for (said, online) in [("online", true), ("OK", true), ("unhealthy", false), ("Offline", false)] {
            let body = json!({ "event_id": "s1", "timestamp": 1, "state": said }).to_string();
            let got = app.ask(&format!("{DEVICE}/state/update"), body, 1).await;
            let state = on(&got, "state/update/result");
            assert!(is_uuid(&state["event_id"]) && is_now(&state["timestamp"]), "{state}");
            assert_eq!(
                (&state["device"]["name"], &state["device"]["state"]),
                (&json!("sensor-1"), &json!(said))
            );
            let last = state["device"].get("lastOnlineTime");
            assert_eq!(
                last.is_some_and(|time| time.as_str().unwrap().starts_with("2027-01-15T")
                    && time.as_str().unwrap().len() == 20),
                online,
                "{state}"
            );
            let got = app.ask("$hw/events/node/edge-1/membership/get", r#"{"event_id":"m1"}"#, 1).await;
            let (topic, members) = &got[0];
            assert_eq!(
                (topic.as_str(), &members["event_id"]),
                ("$hw/events/node/edge-1/membership/get/result", &json!("m1"))
            );
            assert!(is_now(&members["timestamp"]));
            let member = &members["devices"][0];
            assert_eq!(
                (&member["id"], &member["name"], &member["state"], &member["description"]),
                (&json!("default/sensor-1"), &json!("sensor-1"), &json!(said), &json!("a-sensor"))
            );
            assert_eq!(member.get("last_online").is_some(), online);
        }
        assert!(app.ask("$hw/events/node/other/membership/get", r#"{"event_id":"m2"}"#, 0).await.is_empty());
        let key = ObjectKey::new(DEVICES, "default", "sensor-1");
        node.store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
        node.twin.tell(TwinMsg::ObjectsChanged(contract::ChangedObjects::Any)).await.unwrap();
        let (topic, news) = app.next().await;
        assert_eq!(topic, "$hw/events/node/edge-1/membership/updated");
        assert_eq!(
            (&news["added_devices"], &news["removed_devices"]),
            (&Value::Null, &json!([{ "id": "default/sensor-1", "name": "sensor-1" }]))
        );
        node.hive.shutdown(SOON).await;
    });
}
