//! DeviceTwin panics at any of its messages: what was accepted is kept and reported, and mappers hear of everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beehive::testing::{PanicPoint, plan_panic};
use contract::ChangedObjects;
use contract::devicetwin::{DmiCaller, TwinMsg, UpdateListeners};
use contract::ids::DEVICES;
use edge_devicetwin::{KernelPeerResolver, PeerResolver};
use edge_store::{ObjectKey, Table, Write};
use fixture::{
    Mapper, Node, SOON, options, registration, run, speed, start, start_with_peers, status_report,
};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

fn pump(desired: &str) -> Value {
    let visitors = json!({ "configData": { "register": "HoldingRegister" } });
    fixture::pump(
        json!({ "properties": [{ "name": "speed", "desired": { "value": desired }, "visitors": visitors }] }),
    )
}

/// As MetaManager does it: a commit, and the keys.
async fn set(node: &Node, desired: &str) {
    let write = Write::PutObject {
        key: ObjectKey::new(DEVICES, "default", "pump"),
        uid: "u1".to_owned(),
        content_hash: desired.to_owned(),
        resource_version: "1".to_owned(),
        json: pump(desired).to_string().into_bytes(),
    };
    node.store.commit(vec![write]).await.unwrap();
    let key = contract::ObjectKey::new(DEVICES, "default", "pump");
    node.twin.tell(TwinMsg::ObjectsChanged(ChangedObjects::of([key]))).await.unwrap();
}

/// A mapper registers and tries again until it is taken, as the SDKs do.
async fn register(node: &Node, folder: &Path) {
    loop {
        let mut manager = node.manager().await;
        if manager.mapper_register(registration(folder, true)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn report(node: &Node, observed: &str, reported: &str) {
    loop {
        let mut manager = node.manager().await;
        if manager.report_device_status(status_report(observed, reported)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client publishes until it is acknowledged.
async fn publish(node: &Node, value: &str) {
    let payload =
        json!({ "event_id": "e", "twin": { "note": { "actual": { "value": value } } } }).to_string();
    let topic = "$hw/events/device/default/pump/twin/update";
    loop {
        let (topic, payload, listeners) = (topic.to_owned(), payload.clone().into(), UpdateListeners::ALL);
        let message = |reply| TwinMsg::Mqtt { topic, payload, listeners, reply };
        if matches!(node.twin.ask(SOON, message).await, Ok(Ok(()))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn hears(seen: &mut mpsc::Receiver<String>, what: &str) {
    let wait = async {
        while let Some(call) = seen.recv().await {
            if call.ends_with(what) {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("the mapper does not hear {what}"));
}

fn value_of(node: &Node, property: &str) -> Option<String> {
    let row = node.store.get_row(Table::Twins, "default/pump", property).unwrap()?;
    let twin: Value = serde_json::from_slice(&row).unwrap();
    Some(twin["actual"]["value"].as_str()?.to_owned())
}

async fn goes_on(folder: &Path, message: &'static str, awaits: u32) {
    let node = start(folder, options());
    node.pump("7").await;
    register(&node, folder).await;
    // Nobody serves the mapper's socket yet, so that what it has to hear is tried again.
    let plan = plan_panic(
        &node.hive.inspector(),
        "edge-devicetwin",
        PanicPoint { message: Some(message), nth: 1, awaits },
    );
    set(&node, "9").await;
    // Faster than the cloud is to hear of it: the last one waits for its turn.
    for value in 1..=6 {
        report(&node, "7", &value.to_string()).await;
        publish(&node, &value.to_string()).await;
    }
    assert_eq!(
        (value_of(&node, "speed").as_deref(), value_of(&node, "note").as_deref()),
        (Some("6"), Some("6"))
    );
    let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
    hears(&mut seen, "default/pump speed=9").await;
    fixture::until(|| speed(&node.reports()).is_some_and(|(reported, _)| reported == Some("6"))).await;
    if !plan.has_happened() {
        // A handler that does not wait that often has no such point.
        assert!(awaits > 0, "{message} was not handled at all");
    }
    // Another one, after all of that.
    set(&node, "11").await;
    hears(&mut seen, "default/pump speed=11").await;
    report(&node, "11", "10").await;
    assert_eq!(value_of(&node, "speed").as_deref(), Some("10"));
    mapper.abort();
    node.stop().await;
}

fn at(message: &'static str) {
    for awaits in 0..3 {
        run(|folder| async move { goes_on(&folder, message, awaits).await });
    }
}

#[test]
fn it_goes_on_after_a_panic_at_objects_changed() {
    at("ObjectsChanged");
}

#[test]
fn it_goes_on_after_a_panic_at_a_clients_message() {
    at("Mqtt");
}

#[test]
fn it_goes_on_after_a_panic_at_a_mappers_call() {
    at("Dmi");
}

#[test]
fn it_goes_on_after_a_panic_at_the_turn_of_reports() {
    at("Report");
}

#[test]
fn it_goes_on_after_a_panic_before_a_push() {
    at("Push");
}

#[test]
fn it_goes_on_after_a_panic_after_a_push() {
    at("Pushed");
}

#[test]
fn its_children_are_restarted_alone() {
    run(|folder| async move {
        let node = start(&folder, options());
        node.pump("7").await;
        register(&node, &folder).await;
        let inspector = node.hive.inspector();
        let publisher = PanicPoint { message: Some("Publish"), nth: 1, awaits: 0 };
        let plan = plan_panic(&inspector, "edge-devicetwin/publisher", publisher);
        publish(&node, "1").await;
        fixture::until(|| plan.has_happened()).await;
        let mut node = node;
        publish(&node, "2").await;
        assert_eq!(node.published("twin/update/result").await["twin"]["note"]["actual"]["value"], "2");
        report(&node, "7", "5").await;
        let actors = inspector.report(SOON).await;
        let restarts = |name: &str| actors.actor(name).unwrap().restarts;
        assert_eq!((restarts("edge-devicetwin"), restarts("edge-devicetwin/publisher")), (0, 1));
        assert!(actors.actor("edge-devicetwin/dmi-server").is_some());
        node.stop().await;
    });
}

/// The kernel, but for the first question.
#[derive(Default)]
struct PanicsOnce(AtomicBool);

impl PeerResolver for PanicsOnce {
    fn identify(&self, stream: &UnixStream) -> Result<DmiCaller, String> {
        assert!(self.0.swap(true, Ordering::Relaxed), "a test's choice");
        KernelPeerResolver.identify(stream)
    }
    fn runs(&self, process: &str) -> bool {
        KernelPeerResolver.runs(process)
    }
}

#[test]
fn a_panic_over_a_connection_is_caught_and_counted_and_the_next_one_is_served() {
    run(|folder| async move {
        let settings = config::edge::DeviceTwin { dmi_sock_path: folder.clone(), ..Default::default() };
        let node = start_with_peers(&folder, options(), settings, Arc::new(PanicsOnce::default()));
        node.pump("7").await;
        register(&node, &folder).await;
        report(&node, "7", "5").await;
        let manager = node.manager().await;
        let mut held = manager.clone();
        held.report_device_status(status_report("7", "6")).await.unwrap();
        let actors = node.hive.inspector().report(SOON).await;
        let restarts = |name: &str| actors.actor(name).unwrap().restarts;
        assert_eq!((restarts("edge-devicetwin"), restarts("edge-devicetwin/dmi-server")), (0, 1));
        let connections = actors.actors.iter().filter(|actor| actor.kind == "connection");
        assert!(connections.clone().count() >= 1 && connections.clone().all(|actor| actor.restarts == 0));
        node.stop().await;
    });
}
