//! What is wrong with a device is read in its DeviceStatus, also while its node is away, and goes when it is mended.

use std::time::Duration;

use contract::{DeviceCondition, NodeName, Report, UpReport};
use harness::{LONG, run};
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{Cloud, NODE, OTHER, Server, of_node, of_pump};

const API: &str = "devices.kubeedge.io/v1beta1";

/// Type and message of what is wrong.
fn wrong(status: &DynamicObject) -> Vec<(String, String)> {
    let conditions = status.data.pointer("/status/extensions/conditions").and_then(Value::as_array);
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap().to_owned();
    conditions.into_iter().flatten().map(|c| (text(c, "type"), text(c, "message"))).collect()
}

/// Waits until what is wrong with a device is as `is_so` wants it.
async fn until(server: &Server, name: &str, is_so: impl Fn(&[(String, String)]) -> bool) {
    let statuses = server.objects(API, "DeviceStatus", Some("default"));
    let until = server.env.now() + LONG;
    loop {
        let status = statuses.get_opt(name).await.unwrap();
        if status.as_ref().is_some_and(|status| is_so(&wrong(status))) {
            return;
        }
        assert!(server.env.now() < until, "{name}: {status:?}");
        server.env.sleep(Duration::from_millis(20)).await;
    }
}

async fn create(server: &Server, kind: &str, name: &str, spec: Value) {
    let object = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
    server.create(API, kind, Some("default"), object).await;
}

async fn move_to(server: &Server, node: &str) {
    let devices = server.objects(API, "Device", Some("default"));
    let patch = json!({ "spec": { "nodeName": node } });
    devices.patch("pump", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

fn of_conditions(row: i64, kinds: &[&str]) -> Report {
    let condition = |kind: &&str| DeviceCondition {
        kind: (*kind).to_owned(),
        reason: "Stale".into(),
        message: "nothing has been heard".into(),
        since: "2026-01-01T00:00:00Z".into(),
    };
    let conditions = kinds.iter().map(condition).collect();
    let report = UpReport::DeviceConditions { namespace: "default".into(), name: "pump".into(), conditions };
    Report { row, repeat: false, report: report.into() }
}

/// A Node as that of a node that has joined.
async fn edge_node(server: &Server, name: &str) {
    let labels = json!({ "node-role.kubernetes.io/edge": "" });
    let node = json!({ "metadata": { "name": name, "labels": labels } });
    let node = server.create("v1", "Node", None, node).await;
    let adopted = json!({ "metadata": { "annotations": { "kubehive.io/adopted": node.metadata.uid } } });
    let nodes = server.objects("v1", "Node", None);
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(&adopted)).await.unwrap();
}

#[test]
fn a_device_of_a_node_that_is_not_there_says_so_until_it_is() {
    run(async || {
        let server = Server::start().await;
        server.create("v1", "Node", None, json!({ "metadata": { "name": "plain" } })).await;
        edge_node(&server, NODE).await;
        let cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        create(&server, "DeviceModel", "pumps", json!({ "protocol": "modbus" })).await;
        for (device, node) in [("mistyped", "edgee-1"), ("elsewhere", "plain"), ("right", NODE)] {
            let spec = json!({ "nodeName": node, "deviceModelRef": { "name": "pumps" } });
            create(&server, "Device", device, spec).await;
        }
        let words = |words: &'static str| move |wrong: &[(String, String)]| matches!(wrong, [(kind, message)] if kind == "Valid" && message.contains(words));
        until(&server, "mistyped", words("`edgee-1`: the cluster has no Node of that name")).await;
        until(&server, "elsewhere", words("`plain` is a Node that is no edge node")).await;
        until(&server, "right", <[_]>::is_empty).await;
        let _link = cloud.link("edgee-1", 7).await;
        until(&server, "mistyped", <[_]>::is_empty).await;
    });
}

#[test]
fn a_device_and_a_model_of_too_many_values_say_so_and_take_nothing_from_the_others_until_they_are_mended() {
    run(async || {
        let server = Server::start().await;
        edge_node(&server, NODE).await;
        // Before CloudCore lists, and while it watches.
        let large = || json!({ "x": vec!["a"; 120_000] });
        let device = |model: &str, settings: Value| json!({ "nodeName": NODE, "deviceModelRef": { "name": model }, "protocol": { "protocolName": "modbus", "configData": settings } });
        create(&server, "Device", "listed", device("pumps", large())).await;
        let _cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        create(&server, "DeviceModel", "pumps", json!({ "protocol": "modbus" })).await;
        create(
            &server,
            "DeviceModel",
            "huge",
            json!({ "protocol": "modbus", "protocolConfigData": large() }),
        )
        .await;
        create(&server, "Device", "watched", device("pumps", large())).await;
        create(&server, "Device", "of-huge", device("huge", json!({}))).await;
        create(&server, "Device", "right", device("pumps", json!({}))).await;
        let words = |words: &'static str| move |wrong: &[(String, String)]| matches!(wrong, [(kind, message)] if kind == "Valid" && message.contains(words));
        let too_large = "CloudCore does not send it: it is too large: it has more than 100000 values";
        until(&server, "listed", words(too_large)).await;
        until(&server, "watched", words(too_large)).await;
        until(&server, "of-huge", words("CloudCore does not send its DeviceModel: it is too large")).await;
        until(&server, "right", <[_]>::is_empty).await;
        let devices = server.objects(API, "Device", Some("default"));
        let patch = json!({ "spec": { "protocol": { "configData": { "x": ["a"] } } } });
        devices.patch("listed", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until(&server, "listed", <[_]>::is_empty).await;
        // One that was right goes on as it was, and says that it is not what is written.
        let patch = json!({ "spec": { "protocol": { "configData": large() } } });
        devices.patch("right", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until(&server, "right", words(too_large)).await;
    });
}

#[test]
fn a_pod_of_too_many_values_says_so_in_an_event() {
    run(async || {
        let server = Server::start().await;
        edge_node(&server, NODE).await;
        let _cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        let containers = json!([{ "name": "c", "image": "i", "args": vec!["a"; 120_000] }]);
        let pod = json!({ "metadata": { "name": "p", "namespace": "default" }, "spec": { "nodeName": NODE, "containers": containers } });
        server.create("v1", "Pod", Some("default"), pod).await;
        let events = server.objects("v1", "Event", Some("default"));
        let until = server.env.now() + LONG;
        loop {
            let found = events.list(&Default::default()).await.unwrap().items;
            let said = |event: &DynamicObject| {
                let message = event.data["message"].as_str().unwrap_or_default();
                event.data["involvedObject"]["name"] == "p" && message.contains("more than 100000 values")
            };
            if found.iter().any(said) {
                break;
            }
            assert!(server.env.now() < until, "{found:?}");
            server.env.sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn what_is_not_honoured_of_a_device_is_said_without_its_node_and_a_late_model_heals_it() {
    run(async || {
        let server = Server::start().await;
        edge_node(&server, NODE).await;
        let _cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        let modbus = json!({ "protocolName": "modbus" });
        create(
            &server,
            "Device",
            "no-model",
            json!({ "nodeName": NODE, "deviceModelRef": { "name": "late" }, "protocol": modbus,
            "properties": [{ "name": "valve", "desired": { "value": "500" } }] }),
        )
        .await;
        create(
            &server,
            "Device",
            "no-protocol",
            json!({ "nodeName": NODE, "deviceModelRef": { "name": "bare" } }),
        )
        .await;
        create(&server, "DeviceModel", "bare", json!({})).await;
        until(&server, "no-model", |wrong| {
            matches!(wrong, [(kind, message)] if kind == "Valid" && message.contains("`late` is not there"))
        })
        .await;
        until(
            &server,
            "no-protocol",
            |wrong| matches!(wrong, [(_, message)] if message.contains("protocolName is empty")),
        )
        .await;
        let valve = json!({ "name": "valve", "type": "INT", "accessMode": "ReadWrite", "minimum": "1", "maximum": "100" });
        create(&server, "DeviceModel", "late", json!({ "protocol": "modbus", "properties": [valve] })).await;
        until(&server, "no-model", |wrong| {
            matches!(wrong, [(_, message)] if message.contains("`valve` cannot be `500`: that is above the maximum, 100"))
        })
        .await;
        let devices = server.objects(API, "Device", Some("default"));
        let patch = json!({ "spec": { "properties": [{ "name": "valve", "desired": { "value": "50" } }] } });
        devices.patch("no-model", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until(&server, "no-model", <[_]>::is_empty).await;
    });
}

#[test]
fn what_a_node_says_is_wrong_stays_beside_the_clouds_word_and_goes_when_the_device_moves() {
    run(async || {
        let server = Server::start().await;
        let cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        let other = NodeName::parse(OTHER).unwrap();
        let (first, second) = (cloud.claim().await, cloud.claim_of(other.clone()).await);
        assert_eq!(cloud.say(first, vec![of_node(1, "v1")]).await, [1]);
        assert_eq!(cloud.say_of(other, second, vec![of_node(1, "v1")]).await, [1]);
        let _links = (cloud.link(NODE, first).await, cloud.link(OTHER, second).await);
        create(
            &server,
            "DeviceModel",
            "pumps",
            json!({ "protocol": "modbus", "properties": [{ "name": "speed" }] }),
        )
        .await;
        create(&server, "Device", "pump", json!({ "nodeName": NODE, "deviceModelRef": { "name": "pumps" } }))
            .await;
        until(&server, "pump", <[_]>::is_empty).await;
        let reports = vec![of_pump(1, "speed", "5"), of_conditions(2, &["Reporting", "Valid"])];
        let mut confirmed = cloud.say_of_a_device(NODE, first, reports).await;
        confirmed.sort_unstable();
        assert_eq!(confirmed, [1, 2]);
        until(&server, "pump", |wrong| matches!(wrong, [(kind, _)] if kind == "Reporting")).await;
        move_to(&server, OTHER).await;
        let moved = |wrong: &[(String, String)]| matches!(wrong, [(kind, message)] if kind == "Served" && message.contains("moved from node `edge-1` to `edge-2`"));
        until(&server, "pump", moved).await;
        // The node that had it has no word any more.
        assert_eq!(cloud.say_of_a_device(NODE, first, vec![of_conditions(3, &["Reporting"])]).await, [3]);
        assert!(moved(&wrong(&server.device_status().await)));
        assert_eq!(cloud.say_of_a_device(OTHER, second, vec![of_pump(1, "speed", "6")]).await, [1]);
        let status = server.device_status().await;
        assert_eq!(
            (wrong(&status), &status.data["status"]["twins"][0]["reported"]["value"]),
            (vec![], &json!("6"))
        );
        // And one that is there no more, back to the first, before it has said anything.
        move_to(&server, NODE).await;
        until(
            &server,
            "pump",
            |wrong| matches!(wrong, [(_, message)] if message.contains("from node `edge-2` to `edge-1`")),
        )
        .await;
        assert_eq!(cloud.say_of_a_device(NODE, first, vec![of_conditions(4, &["Reporting"])]).await, [4]);
        until(&server, "pump", |wrong| matches!(wrong, [(kind, _)] if kind == "Reporting")).await;
        assert_eq!(cloud.say_of_a_device(NODE, first, vec![of_conditions(5, &[])]).await, [5]);
        assert_eq!(wrong(&server.device_status().await), []);
    });
}

fn of_state(row: i64, state: &str) -> Report {
    let report = UpReport::DeviceState {
        namespace: "default".into(),
        name: "pump".into(),
        state: state.into(),
        last_online_time: Some("2026-01-01T00:00:00Z".into()),
    };
    Report { row, repeat: false, report: report.into() }
}

/// What the mapper said, and what `kubectl get devicestatus` shows.
async fn states(server: &Server) -> (Value, Value) {
    let status = server.device_status().await.data["status"].clone();
    (status["state"].clone(), status["extensions"]["summary"]["state"].clone())
}

/// As the node lifecycle controller writes it.
async fn ready(server: &Server, status: &str) {
    let nodes = server.objects("v1", "Node", None);
    let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
}

#[test]
fn a_device_of_a_node_that_is_cut_off_is_shown_as_unknown_until_the_node_is_back() {
    run(async || {
        let server = Server::start().await;
        let cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        let session = cloud.claim().await;
        assert_eq!(cloud.say(session, vec![of_node(1, "v1")]).await, [1]);
        let link = cloud.link(NODE, session).await;
        create(&server, "DeviceModel", "pumps", json!({ "protocol": "modbus" })).await;
        create(&server, "Device", "pump", json!({ "nodeName": NODE, "deviceModelRef": { "name": "pumps" } }))
            .await;
        until(&server, "pump", <[_]>::is_empty).await;
        assert_eq!(cloud.say_of_a_device(NODE, session, vec![of_state(1, "online")]).await, [1]);
        assert_eq!(states(&server).await, (json!("online"), json!("online")));

        ready(&server, "Unknown").await;
        cloud.unlink(NODE, session).await;
        drop(link);
        let silent = |wrong: &[(String, String)]| matches!(wrong, [(kind, message)] if kind == "Reachable" && message.contains("nothing is heard of node `edge-1`"));
        until(&server, "pump", silent).await;
        assert_eq!(states(&server).await, (json!("online"), json!("unknown")), "the mapper's word stays");

        // Another CloudCore, which has not got the node either, has nothing to add, before it has looked or after.
        let other = Cloud::start("other", server.api.client(), &server.env);
        let devices = server.objects(API, "Device", Some("default"));
        let patch = json!({ "spec": { "deviceModelRef": { "name": "none" } } });
        devices.patch("pump", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until(&server, "pump", |wrong| wrong.len() == 2 && wrong.iter().any(|(kind, _)| kind == "Reachable"))
            .await;
        let patch = json!({ "spec": { "deviceModelRef": { "name": "pumps" } } });
        devices.patch("pump", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        until(&server, "pump", silent).await;
        drop(other);

        let link = cloud.link(NODE, session).await;
        until(&server, "pump", <[_]>::is_empty).await;
        assert_eq!(states(&server).await, (json!("online"), json!("online")));
        drop(link);
    });
}

#[test]
fn a_status_that_has_lost_its_owner_gets_the_device_that_is_made_anew() {
    run(async || {
        let server = Server::start().await;
        edge_node(&server, NODE).await;
        let _cloud = Cloud::start("cloudcore", server.api.client(), &server.env);
        create(&server, "DeviceModel", "pumps", json!({ "protocol": "modbus" })).await;
        let spec = json!({ "nodeName": NODE, "deviceModelRef": { "name": "pumps" } });
        create(&server, "Device", "pump", spec.clone()).await;
        until(&server, "pump", <[_]>::is_empty).await;
        let statuses = server.objects(API, "DeviceStatus", Some("default"));
        let devices = server.objects(API, "Device", Some("default"));
        let owners = async || {
            let owners = statuses.get("pump").await.unwrap().metadata.owner_references.unwrap_or_default();
            owners.into_iter().map(|owner| owner.uid).collect::<Vec<_>>()
        };
        let first = devices.get("pump").await.unwrap().metadata.uid.unwrap();
        assert_eq!(owners().await, std::slice::from_ref(&first));
        // As `kubectl delete device --cascade=orphan` leaves it.
        let orphan = json!({ "metadata": { "ownerReferences": [] } });
        statuses.patch("pump", &PatchParams::default(), &Patch::Merge(&orphan)).await.unwrap();
        devices.delete("pump", &Default::default()).await.unwrap();
        create(&server, "Device", "pump", spec).await;
        let second = devices.get("pump").await.unwrap().metadata.uid.unwrap();
        assert_ne!(first, second);
        let until = server.env.now() + LONG;
        while owners().await != std::slice::from_ref(&second) {
            assert!(server.env.now() < until, "{:?}", statuses.get("pump").await);
            server.env.sleep(Duration::from_millis(20)).await;
        }
    });
}
