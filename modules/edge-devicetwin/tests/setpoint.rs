//! A setpoint costs by what changed, however many devices and other objects the node has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod fixture;

use std::time::{Duration, Instant};

use contract::ChangedObjects;
use contract::devicetwin::TwinMsg;
use contract::ids::{DEVICE_MODELS, DEVICES, PODS, SECRETS};
use edge_store::{ObjectKey, Table, Write};
use fixture::{Mapper, Node, called, options, registration, run, start};
use serde_json::{Value, json};

const DEVICES_OF_NODE: usize = 1000;

fn device(at: usize, desired: &str) -> Value {
    json!({ "metadata": { "name": format!("pump-{at}") }, "spec": {
        "deviceModelRef": { "name": "pumps" }, "nodeName": "edge-1",
        "properties": [{ "name": "speed", "desired": { "value": desired }, "visitors": { "configData": { "register": "HoldingRegister" } } }],
        "protocol": { "protocolName": "modbus", "configData": { "port": 502 } } } })
}

fn put(resource: &str, name: &str, json: &Value) -> Write {
    Write::PutObject {
        key: ObjectKey::new(resource, "default", name),
        uid: format!("u-{name}"),
        content_hash: "1".to_owned(),
        resource_version: "1".to_owned(),
        json: json.to_string().into_bytes(),
    }
}

fn put_device(at: usize, desired: &str) -> Write {
    put(DEVICES, &format!("pump-{at}"), &device(at, desired))
}

/// A node full of devices, with Secrets and pods beside them.
async fn full(node: &Node) {
    let model = json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [{ "name": "speed", "type": "INT" }] } });
    let mut writes = vec![put(DEVICE_MODELS, "pumps", &model)];
    writes.extend((0..DEVICES_OF_NODE).map(|at| put_device(at, "1")));
    writes.extend(
        (0..200).map(|at| put(SECRETS, &format!("s{at}"), &json!({ "data": { "k": "v".repeat(500) } }))),
    );
    let pod =
        |at: usize| json!({ "metadata": { "namespace": "default", "name": format!("p{at}") }, "spec": {} });
    writes.extend((0..100).map(|at| put(PODS, &format!("p{at}"), &pod(at))));
    node.store.commit(writes).await.unwrap();
    node.twin.tell(TwinMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
    handled(node).await;
}

/// What was told before has been handled.
async fn handled(node: &Node) {
    node.mqtt("$hw/events/device/default/pump-0/twin/get", "{}").await.unwrap();
}

fn key(at: usize) -> contract::ObjectKey {
    contract::ObjectKey::new(DEVICES, "default", format!("pump-{at}"))
}

/// Sets one device, and how long the actor had its mailbox to itself for it.
async fn set(node: &Node, at: usize, desired: &str, changed: ChangedObjects) -> Duration {
    node.store.commit(vec![put_device(at, desired)]).await.unwrap();
    let begun = Instant::now();
    node.twin.tell(TwinMsg::ObjectsChanged(changed)).await.unwrap();
    handled(node).await;
    begun.elapsed()
}

#[test]
fn one_setpoint_of_a_thousand_devices_reads_and_tells_that_device_alone() {
    run(|folder| async move {
        let node = start(&folder, options());
        full(&node).await;
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
        let mut manager = node.manager().await;
        let answer = manager.mapper_register(registration(&folder, true)).await.unwrap().into_inner();
        assert_eq!(answer.device_list.len(), DEVICES_OF_NODE);
        let digests = |node: &Node| -> Vec<(String, Vec<u8>, u64)> {
            let rows = node.store.list_rows(Table::Mappers, Some("modbus")).unwrap();
            rows.into_iter().map(|row| (row.key2, row.value, row.revision)).collect()
        };
        let before = (node.store.snapshot().objects_read, digests(&node));
        let by_key = set(&node, 7, "42", ChangedObjects::of([key(7)])).await;
        assert_eq!(called(&mut seen).await, "update default/pump-7 speed=42");
        assert_eq!(
            node.store.snapshot().objects_read - before.0,
            1,
            "one device was read, and no pod or Secret"
        );
        // And written: of what the mapper has, one digest.
        fixture::until(|| digests(&node) != before.1).await;
        let changed: Vec<_> = digests(&node).into_iter().filter(|row| !before.1.contains(row)).collect();
        assert!(matches!(&changed[..], [(key, ..)] if key == "device/default/pump-7"), "{changed:?}");
        handled(&node).await;
        assert!(seen.try_recv().is_err(), "nothing else was told");

        // Beside a look at everything, which each setpoint cost before.
        let read = node.store.snapshot().objects_read;
        let by_all = set(&node, 8, "43", ChangedObjects::Any).await;
        assert_eq!(node.store.snapshot().objects_read - read, (DEVICES_OF_NODE + 1 + 100) as u64);
        assert_eq!(called(&mut seen).await, "update default/pump-8 speed=43");
        println!("a setpoint of 1,000 devices: {by_key:?}, and {by_all:?} if all are looked at");
        mapper.abort();
        node.stop().await;
    });
}

#[test]
fn a_model_that_changes_concerns_its_devices_alone() {
    run(|folder| async move {
        let node = start(&folder, options());
        full(&node).await;
        let other = json!({ "metadata": { "name": "valve" }, "spec": {
            "deviceModelRef": { "name": "valves" }, "nodeName": "edge-1",
            "properties": [{ "name": "open", "desired": { "value": "1" }, "visitors": { "configData": { "register": "CoilRegister" } } }] } });
        let model = |protocol: &str| {
            json!({ "metadata": { "name": "valves" }, "spec": {
                "protocol": protocol, "properties": [{ "name": "open", "type": "INT", "accessMode": "ReadWrite" }] } })
        };
        let valves = contract::ObjectKey::new(DEVICE_MODELS, "default", "valves");
        let valve = contract::ObjectKey::new(DEVICES, "default", "valve");
        node.store.commit(vec![put(DEVICES, "valve", &other)]).await.unwrap();
        node.twin.tell(TwinMsg::ObjectsChanged(ChangedObjects::of([valve]))).await.unwrap();
        let mut manager = node.manager().await;
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
        manager.mapper_register(registration(&folder, true)).await.unwrap();
        let read = node.store.snapshot().objects_read;
        node.store.commit(vec![put(DEVICE_MODELS, "valves", &model("modbus"))]).await.unwrap();
        node.twin.tell(TwinMsg::ObjectsChanged(ChangedObjects::of([valves.clone()]))).await.unwrap();
        assert_eq!(called(&mut seen).await, "create model valves");
        assert_eq!(called(&mut seen).await, "register default/valve open=1");
        node.store.commit(vec![put(DEVICE_MODELS, "valves", &model("opcua"))]).await.unwrap();
        node.twin.tell(TwinMsg::ObjectsChanged(ChangedObjects::of([valves]))).await.unwrap();
        assert_eq!(called(&mut seen).await, "remove default/valve");
        assert_eq!(called(&mut seen).await, "remove model valves");
        assert_eq!(node.store.snapshot().objects_read - read, 2);
        mapper.abort();
        node.stop().await;
    });
}
