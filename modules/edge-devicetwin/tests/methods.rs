//! Methods of devices: called over MQTT, from the node's socket and from the cloud; done by a mapper's REST interface once, or
//! refused by name, and seen in the cloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::device_call::WITHIN;
use contract::devicetwin::{DeviceDown, TwinMsg};
use contract::ids::{DEVICE_MODELS, DEVICES, DeviceName};
use contract::{CallOutcome, CallRecord, CallState, MethodCall, UpReport};
use edge_devicetwin::KernelPeerResolver;
use fixture::callers::{self, ChosenPeer};
use fixture::rest::Rest;
use fixture::{Node, SOON, options, registration, run, start_with_peers};
use serde_json::{Value, json};

/// A pump with two methods, its mapper's interface being at this port.
async fn start(folder: &Path, port: u16, peers: Arc<dyn edge_devicetwin::PeerResolver>) -> Node {
    let settings = config::edge::DeviceTwin {
        dmi_sock_path: folder.to_owned(),
        mapper_ports: BTreeMap::from([("modbus-mapper".to_owned(), port)]),
        ..Default::default()
    };
    let node = start_with_peers(folder, options(), settings, peers);
    let model = json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [
        { "name": "level", "type": "INT", "accessMode": "ReadWrite", "maximum": "100" },
        { "name": "valve", "type": "STRING", "accessMode": "ReadWrite" },
        { "name": "heat", "type": "FLOAT", "accessMode": "ReadOnly" }] } });
    node.put(DEVICE_MODELS, "pumps", "m1", model).await;
    let device = fixture::pump(json!({
        "properties": [{ "name": "level" }, { "name": "valve" }, { "name": "heat" }],
        "methods": [{ "name": "SetLevel", "propertyNames": ["valve", "level", "heat"] }, { "name": "Beep" }] }));
    node.put(DEVICES, "pump", "u1", device).await;
    node
}

/// With a mapper that has registered, and whose process is this one.
async fn served(folder: &Path, rest: &Rest) -> Node {
    let node = start(folder, rest.port, Arc::new(KernelPeerResolver)).await;
    let mut manager = node.manager().await;
    manager.mapper_register(registration(folder, false)).await.unwrap();
    node
}

const TOPIC: &str = "$hw/events/device/default/pump/method/call";

async fn by_mqtt(node: &mut Node, id: &str, method: &str, values: Value) -> Value {
    let call = json!({ "event_id": id, "method": method, "values": values }).to_string();
    let _ = node.mqtt(TOPIC, call).await;
    loop {
        let result = node.published("default/pump/method/call/result").await;
        if result["event_id"] == id {
            return result;
        }
    }
}

fn call(id: &str, values: &[(&str, &str)], within: Duration) -> MethodCall {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    MethodCall::new(id, "SetLevel", values, within).unwrap()
}

/// From the node's socket.
async fn by_node(node: &Node, call: MethodCall) -> CallOutcome {
    let device = DeviceName::parse("default", "pump").unwrap();
    node.twin.ask(SOON, |reply| TwinMsg::CallMethod { device, call, reply }).await.unwrap()
}

async fn by_cloud(node: &Node, uid: &str, call: MethodCall) -> Result<(), String> {
    let (namespace, name, uid) = ("default".to_owned(), "pump".to_owned(), uid.to_owned());
    let down = |reply| TwinMsg::Down(DeviceDown::CallMethod { namespace, name, uid, call, reply });
    node.twin.ask(SOON, down).await.unwrap()
}

/// What the cloud is told of the call with this id.
fn told(node: &Node, id: &str) -> Option<CallRecord> {
    let calls = node.reports().into_iter().find_map(|report| match report {
        UpReport::MethodCalls { calls, .. } => Some(calls),
        _ => None,
    });
    calls?.into_iter().find(|call| call.id == id)
}

/// Waits until the cloud is told that this became of it, and answers the sentence.
async fn becomes(node: &Node, id: &str, state: &str) -> String {
    fixture::until(|| told(node, id).is_some_and(|call| call.state == state)).await;
    told(node, id).unwrap().message
}

#[test]
fn an_application_calls_a_method_and_its_id_makes_one_call() {
    run(|folder| async move {
        let mut rest = Rest::start().await;
        let mut node = served(&folder, &rest).await;
        let values = json!({ "level": "5", "valve": "half open/1" });
        let result = by_mqtt(&mut node, "a", "SetLevel", values.clone()).await;
        assert_eq!(
            (&result["state"], &result["method"], &result["code"]),
            (&json!("Done"), &json!("SetLevel"), &Value::Null)
        );
        // In the order that the method says, a property at a time, as KubeEdge's mappers have it.
        let path = "GET /api/v1/devicemethod/default/pump/SetLevel";
        assert_eq!(rest.asked().await, (format!("{path}/valve/half%20open%2F1"), "a".to_owned()));
        assert_eq!(rest.asked().await, (format!("{path}/level/5"), "a".to_owned()));
        assert_eq!(becomes(&node, "a", "Done").await, "");
        let record = told(&node, "a").unwrap();
        assert_eq!((record.by.as_str(), record.values["level"].as_str()), ("mqtt", "5"));

        // Again, as QoS 1 may have it: the same answer, and nothing is done.
        assert_eq!(by_mqtt(&mut node, "a", "SetLevel", values).await["state"], "Done");
        let other = by_mqtt(&mut node, "a", "SetLevel", json!({ "level": "6" })).await;
        assert_eq!((&other["state"], &other["code"]), (&json!("Refused"), &json!(409)));
        assert!(other["reason"].as_str().unwrap().contains("another call's"), "{other}");
        // Without an id it is a call of its own each time.
        node.mqtt(TOPIC, r#"{"method":"SetLevel","values":{"level":"7"}}"#).await.unwrap();
        assert!(rest.asked().await.0.ends_with("/level/7"));
        assert_eq!(node.published("method/call/result").await["state"], "Done");
        assert!(rest.nothing_more());
        node.stop().await;
    });
}

#[test]
fn what_is_not_called_is_refused_by_name_and_nothing_reaches_the_mapper() {
    run(|folder| async move {
        let rest = Rest::start().await;
        let mut node = served(&folder, &rest).await;
        for (n, (method, values, code, words)) in [
            ("Explode", json!({ "level": "1" }), 404, "no method `Explode`"),
            ("Beep", json!({ "level": "1" }), 400, "names no properties"),
            ("SetLevel", json!({ "speed": "1" }), 404, "does not write `speed`"),
            ("SetLevel", json!({ "level": "101" }), 400, "above the maximum, 100"),
            ("SetLevel", json!({ "heat": "20" }), 400, "`heat` is ReadOnly"),
        ]
        .into_iter()
        .enumerate()
        {
            let result = by_mqtt(&mut node, &n.to_string(), method, values).await;
            let reason = result["reason"].as_str().unwrap();
            assert!(
                result["code"] == code && result["state"] == "Refused" && reason.contains(words),
                "{result}"
            );
            assert_eq!(becomes(&node, &n.to_string(), "Refused").await, reason);
        }
        for (payload, words) in [
            ("x", "not a call of a method"),
            (r#"{"event_id":"e","method":"SetLevel","values":{}}"#, "writes 0 properties"),
        ] {
            assert!(node.mqtt(TOPIC, payload).await.unwrap_err().contains(words));
            assert_eq!(node.published("method/call/result").await["code"], 400);
        }
        let elsewhere = TOPIC.replace("pump", "stranger");
        let one = r#"{"event_id":"e","method":"SetLevel","values":{"level":"1"}}"#;
        assert!(node.mqtt(&elsewhere, one).await.unwrap_err().contains("default/stranger"));
        assert_eq!(node.published("default/stranger/method/call/result").await["code"], 404);
        node.mqtt("$hw/events/device/default/pump/state/update", r#"{"state":"offline"}"#).await.unwrap();
        let offline = by_node(&node, call("off", &[("level", "1")], WITHIN)).await;
        assert_eq!((offline.code, offline.message.as_str()), (503, "the device is offline"));
        assert!(rest.nothing_more());
        node.stop().await;
    });
}

#[test]
fn a_call_reaches_nobody_but_the_mappers_own_user() {
    run(|folder| async move {
        let rest = Rest::start().await;
        let peer = Arc::new(ChosenPeer::default());
        let node = start(&folder, rest.port, Arc::<ChosenPeer>::clone(&peer)).await;
        let one = |id: &str| call(id, &[("level", "1")], WITHIN);
        let none = by_node(&node, one("none")).await;
        assert!(none.code == 503 && none.message.contains("no mapper has registered"), "{none:?}");
        let mut manager = node.manager().await;
        // Who listens at the port is this test, and the mapper is somebody else.
        let me = rustix::process::geteuid().as_raw();
        peer.becomes(None, me + 1, "alive");
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        let foreign = by_node(&node, one("foreign")).await;
        assert!(foreign.code == 503 && foreign.message.contains("another user"), "{foreign:?}");
        assert_eq!(becomes(&node, "foreign", "Refused").await, foreign.message);
        assert!(rest.nothing_more());
        node.stop().await;

        // And where nobody listens it is said what to do.
        let gone = Rest::start().await.port;
        let node = start(&folder, gone, Arc::new(KernelPeerResolver)).await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, false)).await.unwrap();
        let absent = by_node(&node, one("absent")).await;
        let cure = "common.http_port";
        assert!(absent.code == 503 && absent.message.contains(cure), "{absent:?}");
        assert_eq!(absent.state, CallState::Refused, "nothing was sent");
        node.stop().await;
        assert!(rest.nothing_more());
    });
}

#[test]
fn a_mapper_that_has_ended_is_not_called() {
    run(|folder| async move {
        let rest = Rest::start().await;
        let peer = Arc::new(ChosenPeer::default());
        let node = start(&folder, rest.port, Arc::<ChosenPeer>::clone(&peer)).await;
        let mut manager = node.manager().await;
        peer.becomes(None, 7, "ended");
        callers::register(&mut manager, &folder, "modbus").await.unwrap();
        let sentence = fixture::told::told(&node, "Served", "MapperGone").await;
        let gone = by_node(&node, call("a", &[("level", "1")], WITHIN)).await;
        assert_eq!((gone.code, gone.message.as_str()), (503, "mapper `modbus-mapper` has ended"));
        assert!(sentence.starts_with("mapper `modbus-mapper`"), "{sentence}");
        node.stop().await;
    });
}

#[test]
fn what_a_mapper_refuses_and_what_it_never_answers_is_told_apart() {
    run(|folder| async move {
        let mut rest = Rest::start().await;
        let node = served(&folder, &rest).await;
        rest.refuses("level");
        let failed = by_node(&node, call("a", &[("level", "5"), ("valve", "x")], WITHIN)).await;
        assert_eq!((failed.state, failed.code), (CallState::Failed, 502));
        assert!(
            failed
                .message
                .starts_with("`level` was not written: mapper `modbus-mapper` says 500: no such register")
                && failed.message.ends_with("`valve` was written before"),
            "{failed:?}"
        );
        rest.holds();
        let within = Duration::from_millis(300);
        let unknown = by_node(&node, call("b", &[("valve", "x")], within)).await;
        assert_eq!((unknown.state, unknown.code), (CallState::Unknown, 504));
        assert!(unknown.message.contains("no answer within 300 ms"), "{unknown:?}");
        assert_eq!(becomes(&node, "b", "Unknown").await, unknown.message);
        // The device is free again.
        rest.answers();
        assert_eq!(by_node(&node, call("c", &[("valve", "x")], WITHIN)).await.state, CallState::Done);
        rest.drain();
        node.stop().await;
    });
}

#[test]
fn a_call_from_the_cloud_is_remembered_before_it_is_made_and_not_repeated_after_a_restart() {
    run(|folder| async move {
        let mut rest = Rest::start().await;
        let node = served(&folder, &rest).await;
        let one = || call("a", &[("level", "5")], WITHIN);
        assert!(by_cloud(&node, "another", one()).await.unwrap_err().contains("another one of that name"));
        rest.holds();
        by_cloud(&node, "u1", one()).await.unwrap();
        rest.asked().await;
        assert_eq!(becomes(&node, "a", "Running").await, "");
        // Once more, as nobody should: it is under way. Another one has to wait for its end.
        by_cloud(&node, "u1", one()).await.unwrap();
        let other = by_node(&node, call("b", &[("level", "6")], WITHIN)).await;
        assert!(other.code == 409 && other.message.contains("one at a time"), "{other:?}");
        assert!(
            by_cloud(&node, "u1", call("a", &[("level", "9")], WITHIN))
                .await
                .unwrap_err()
                .contains("another call's")
        );
        node.stop().await;

        rest.answers();
        let node = served(&folder, &rest).await;
        assert!(becomes(&node, "a", "Unknown").await.contains("edgecore was restarted"));
        by_cloud(&node, "u1", one()).await.unwrap();
        assert_eq!(by_node(&node, one()).await.state, CallState::Unknown);
        assert!(rest.nothing_more());
        // What is asked for anew is done.
        by_cloud(&node, "u1", call("c", &[("level", "5")], WITHIN)).await.unwrap();
        becomes(&node, "c", "Done").await;
        assert!(rest.asked().await.0.ends_with("/level/5"));
        // With the device its calls go.
        node.delete(DEVICES, "pump").await;
        fixture::until(|| {
            let rows = node.store.list_rows(edge_store::Table::DeviceStates, Some("default/pump")).unwrap();
            rows.is_empty()
        })
        .await;
        node.stop().await;
    });
}
