//! Devices that report over MQTT, and what is desired of them: the deliveries of both directions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rumqttc::Publish;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::kubectl::Kubectl;
use crate::mqtt::Client;
use crate::testbed::NODE;
use crate::{DeliveryCheck, DeliveryRule};

const MODEL: &str = "counter";
/// What the device reports.
const REPORTED: &str = "count";
/// What the cloud wants of it. The device never gets there, so that every report brings the difference.
const WANTED: &str = "goal";
/// Before another try to connect.
const AGAIN: Duration = Duration::from_millis(100);

/// What was accepted and what arrived.
pub(crate) struct DeviceDeliveries {
    /// Reports: accepted with a PUBACK on the node, arrived in a watch of the cloud.
    pub(crate) reported: DeliveryCheck,
    /// Desired values: accepted by the API server, arrived at a client on the node.
    pub(crate) desired: DeliveryCheck,
    /// Acknowledged, and answered with an error.
    pub(crate) refused: Vec<String>,
    /// Acknowledged, and not there after a restart.
    pub(crate) lost: Vec<String>,
    pub(crate) reconnects: u64,
}

/// The deliveries, shared.
#[derive(Clone)]
pub(crate) struct SharedDeliveries(Arc<Mutex<DeviceDeliveries>>);

impl SharedDeliveries {
    pub(crate) fn new() -> SharedDeliveries {
        let (reported, desired) =
            (DeliveryCheck::new(DeliveryRule::Newest), DeliveryCheck::new(DeliveryRule::Newest));
        SharedDeliveries(Arc::new(Mutex::new(DeviceDeliveries {
            reported,
            desired,
            refused: Vec::new(),
            lost: Vec::new(),
            reconnects: 0,
        })))
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, DeviceDeliveries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn name(number: u32) -> String {
    format!("counter-{number}")
}

pub(crate) fn model() -> Value {
    let property = |name: &str, mode: &str| json!({"name": name, "type": "INT", "accessMode": mode});
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": MODEL},
        "spec": {"protocol": "mqtt", "properties": [
            property(REPORTED, "ReadOnly"), property(WANTED, "ReadWrite")]},
    })
}

pub(crate) fn device(name: &str) -> Value {
    json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": name},
        "spec": {
            "deviceModelRef": {"name": MODEL}, "nodeName": NODE, "protocol": {"protocolName": "mqtt"},
            "properties": properties(0),
        },
    })
}

fn properties(wanted: u64) -> Value {
    json!([
        {"name": REPORTED, "reportToCloud": true},
        {"name": WANTED, "reportToCloud": true, "desired": {"value": wanted.to_string()}},
    ])
}

fn topic(device: &str, end: &str) -> String {
    format!("$hw/events/device/default/{device}/twin/{end}")
}

/// The twin as a client on the node reads it; an error when the node does not know the device.
pub(crate) async fn twin(broker: &(String, u16), device: &str) -> Result<Value> {
    let filters = [topic(device, "get/result")];
    read(&mut Client::connect(broker, &format!("reader-{device}"), &filters).await?, device).await
}

/// A client that is subscribed to the answer.
async fn read(client: &mut Client, device: &str) -> Result<Value> {
    let answer = topic(device, "get/result");
    let heard = client.ask(&topic(device, "get"), r#"{"event_id":"get"}"#.to_owned(), &answer).await?;
    let body: Value = serde_json::from_slice(&heard.payload).context("twin/get/result is no JSON")?;
    body.get("twin").cloned().with_context(|| format!("twin/get/result: {body}"))
}

/// The desired value in a twin.
pub(crate) fn goal(twin: &Value) -> Option<u64> {
    number(twin.get(WANTED)?.pointer("/expected/value")?)
}

fn count(twin: &Value) -> Option<u64> {
    number(twin.get(REPORTED)?.pointer("/actual/value")?)
}

fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

/// Reports values `above` one, ever higher, until it is told to stop. After a lost connection the node must still hold
/// the last one that it accepted; then the next is tried, so that a value without a PUBACK stays without one.
pub(crate) async fn report(
    broker: (String, u16),
    device: String,
    above: u64,
    every: Duration,
    deliveries: SharedDeliveries,
    mut stop: watch::Receiver<bool>,
) {
    let filters =
        [topic(&device, "update/result"), topic(&device, "update/delta"), topic(&device, "get/result")];
    let mut value = above;
    let mut accepted = None;
    while !*stop.borrow() {
        let id = format!("reporter-{device}");
        let Ok(mut client) = Client::connect(&broker, &id, &filters).await else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        deliveries.open().reconnects += 1;
        if let Some(last) = accepted {
            let Ok(held) = read(&mut client, &device).await.map(|twin| count(&twin)) else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            if held < Some(last) {
                deliveries
                    .open()
                    .lost
                    .push(format!("{device}: the node holds {held:?} and had accepted {last}"));
            }
        }
        while !*stop.borrow() {
            value += 1;
            let body = json!({"event_id": value.to_string(), "timestamp": 0,
                "twin": {REPORTED: {"actual": {"value": value.to_string()}, "metadata": {"type": "int"}}}});
            let Ok(heard) = client.publish(&topic(&device, "update"), body.to_string()).await else { break };
            accepted = Some(value);
            deliveries.open().reported.accepted(&device, value);
            for publish in heard {
                take(&deliveries, &device, &publish);
            }
            // Either way the condition of the loop decides.
            let _ = tokio::time::timeout(every, stop.wait_for(|stop| *stop)).await;
        }
    }
}

fn take(deliveries: &SharedDeliveries, device: &str, publish: &Publish) {
    let Ok(body) = serde_json::from_slice::<Value>(&publish.payload) else { return };
    if publish.topic.ends_with("/result") {
        if !body["code"].is_null() {
            deliveries.open().refused.push(format!("{device}: {body}"));
        }
    } else if let Some(goal) = body.get("twin").and_then(goal) {
        deliveries.open().desired.arrived(device, goal, publish.dup);
    }
}

/// Wants values `above` one, ever higher, of random devices until it is told to stop. What the API server did not answer counts as
/// not accepted.
pub(crate) async fn want(
    kubectl: Kubectl,
    devices: Vec<String>,
    above: u64,
    every: Duration,
    seed: u64,
    deliveries: SharedDeliveries,
    mut stop: watch::Receiver<bool>,
) {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut value = above;
    while !*stop.borrow() {
        value += 1;
        let Some(device) = devices.get(dice.random_range(0..devices.len().max(1))) else { return };
        let patch = json!({"spec": {"properties": properties(value)}});
        if kubectl.merge("device", device, &patch).await.is_ok() {
            deliveries.open().desired.accepted(device, value);
        }
        let _ = tokio::time::timeout(every, stop.wait_for(|stop| *stop)).await;
    }
}

/// Watches what the cloud shows of reports, for as long as it is polled. A watch that ends is begun again.
pub(crate) async fn watch_reports(kubectl: Kubectl, deliveries: SharedDeliveries) {
    let path =
        format!(r#"{{.metadata.name}} {{.status.twins[?(@.propertyName=="{REPORTED}")].reported.value}}"#);
    loop {
        if let Ok(mut watch) = kubectl.watch("devicestatus", &path) {
            while let Some(line) = watch.next().await {
                if let Some((device, value)) = line.split_once(' ')
                    && let Ok(value) = value.trim().parse()
                {
                    deliveries.open().reported.arrived(device, value, false);
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
