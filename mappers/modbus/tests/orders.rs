//! Whatever ends and comes back, in whatever order - edgecore, its broker, the mapper's process, the device - nobody has to do anything:
//! silence is seen within two periods, and then values flow again both ways. CloudCore, a link and edgecore are real, mapper and device
//! are the programs; the broker is edgecore's own, so that its restart is that of the EventBus.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use beehive::testing::{PanicPoint, plan_panic};
use harness::{Cluster, LONG, Node, run};
use kube::api::{Api, DynamicObject, Patch};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

const API: &str = "devices.kubeedge.io/v1beta1";
/// What the device is to be reported in, in ms.
const PERIOD: i64 = 1000;
/// A look of edgecore's that comes late on a loaded machine.
const LATE: i64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    EdgeCore,
    Broker,
    Mapper,
    Device,
}

/// All orders of the four.
fn orders() -> Vec<Vec<Part>> {
    fn of(parts: &[Part]) -> Vec<Vec<Part>> {
        if parts.is_empty() {
            return vec![Vec::new()];
        }
        let with_first = |at: usize| {
            let rest: Vec<Part> = parts.iter().copied().filter(|part| *part != parts[at]).collect();
            of(&rest).into_iter().map(move |order| [&[parts[at]], &order[..]].concat()).collect::<Vec<_>>()
        };
        (0..parts.len()).flat_map(with_first).collect()
    }
    of(&[Part::EdgeCore, Part::Broker, Part::Mapper, Part::Device])
}

/// A program that ends without warning.
struct Program(Child);

impl Program {
    fn start(path: &str, arguments: &[&str]) -> Program {
        Program(
            Command::new(path).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap(),
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

struct Plant {
    cluster: Cluster,
    node: Node,
    config: PathBuf,
    at: String,
    mapper: Option<Program>,
    device: Option<Program>,
}

impl Plant {
    async fn start() -> Plant {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        let config = write_config(node.folder());
        let mut plant =
            Plant { cluster, node, config, at: format!("127.0.0.1:{port}"), mapper: None, device: None };
        plant.describe(port).await;
        plant.bring_up(Part::Device).await;
        plant.bring_up(Part::Mapper).await;
        plant
    }

    async fn describe(&self, port: u16) {
        let model = json!({ "metadata": { "name": "rooms", "namespace": "default" }, "spec": { "protocol": "modbus", "properties": [
            { "name": "target", "type": "FLOAT", "accessMode": "ReadWrite" },
            { "name": "seconds", "type": "INT", "accessMode": "ReadOnly" }] } });
        self.cluster.apply(API, "DeviceModel", model).await;
        let property = |name: &str, register: Value| {
            json!({ "name": name, "collectCycle": 250, "reportCycle": PERIOD, "reportToCloud": true,
                "visitors": { "protocolName": "modbus", "configData": register } })
        };
        let target = json!({ "register": "HoldingRegister", "offset": 0, "limit": 1, "scale": 0.1 });
        let seconds = json!({ "register": "InputRegister", "offset": 1, "limit": 1 });
        let device = json!({ "metadata": { "name": "room", "namespace": "default" }, "spec": {
            "deviceModelRef": { "name": "rooms" }, "nodeName": "edge-1",
            "protocol": { "protocolName": "modbus", "configData": { "ip": "127.0.0.1", "port": port, "slaveID": 1 } },
            "stateReport": { "reportToCloud": true, "reportCycle": PERIOD },
            "properties": [property("target", target), property("seconds", seconds)] } });
        self.cluster.apply(API, "Device", device).await;
    }

    async fn take_down(&mut self, part: Part) {
        match part {
            Part::EdgeCore => self.node.stop().await,
            Part::Broker => self.restart_broker().await,
            Part::Mapper => self.mapper = None,
            Part::Device => self.device = None,
        }
    }

    async fn bring_up(&mut self, part: Part) {
        match part {
            Part::EdgeCore => self.node.start().await,
            // It is back by itself.
            Part::Broker => {}
            Part::Mapper => {
                let file = self.config.to_str().unwrap();
                self.mapper =
                    Some(Program::start(env!("CARGO_BIN_EXE_modbus-mapper"), &["--config-file", file]));
            }
            Part::Device => {
                let listen = ["--listen", &self.at];
                self.device = Some(Program::start(env!("CARGO_BIN_EXE_modbus-simulator"), &listen));
            }
        }
    }

    /// Without edgecore there is none.
    async fn restart_broker(&self) {
        if !self.is_up() {
            return;
        }
        let any = PanicPoint { message: None, nth: 1, awaits: 0 };
        let panicked = plan_panic(&self.node.core().inspector(), "edge-eventbus", any);
        let until = self.cluster.env().now() + LONG;
        while !panicked.has_happened() {
            // Whoever knocks makes it say something.
            if let Some(port) = self.broker().await {
                drop(tokio::net::TcpStream::connect(("127.0.0.1", port)).await);
                drop(twin(port).await);
            }
            assert!(self.cluster.env().now() < until, "the broker does not end");
        }
    }

    fn is_up(&self) -> bool {
        self.node.is_up()
    }

    /// The broker's port.
    async fn broker(&self) -> Option<u16> {
        let snapshot = self.node.snapshot("edge-eventbus").await;
        snapshot["listening"].as_str()?.rsplit(':').next()?.parse().ok()
    }

    async fn status(&self) -> Value {
        let statuses: Api<DynamicObject> = self.cluster.objects(API, "DeviceStatus", Some("default"));
        statuses.get_opt("room").await.unwrap().map_or(Value::Null, |status| status.data["status"].clone())
    }

    /// What the cloud has of a property.
    async fn reported(&self, property: &str) -> Value {
        let status = self.status().await;
        let twins = status["twins"].as_array().cloned().unwrap_or_default();
        let found = twins.into_iter().find(|twin| twin["propertyName"] == property);
        found.map_or(Value::Null, |twin| twin["reported"].clone())
    }

    /// Waits until the cloud sees that nothing more is heard of the device, and answers after how many ms that was noticed.
    async fn noticed(&self) -> i64 {
        self.cluster
            .until_async("silence is seen", async || {
                self.reported("seconds").await["metadata"]["stale"].is_string()
            })
            .await;
        let metadata = self.reported("seconds").await["metadata"].clone();
        let at = |key: &str| metadata[key].as_str().unwrap().parse::<i64>().unwrap();
        at("stale") - at("timestamp")
    }

    /// What the cloud wants reaches the device, what the device says the cloud and the broker, and nothing is wrong any more.
    async fn flows(&self, target: &str) {
        let devices: Api<DynamicObject> = self.cluster.objects(API, "Device", Some("default"));
        let mut device = devices.get("room").await.unwrap().data;
        device["spec"]["properties"][0]["desired"] = json!({ "value": target });
        devices.patch("room", &Default::default(), &Patch::Merge(&device)).await.unwrap();
        let is_fresh = |reported: &Value| reported["metadata"]["stale"].is_null();
        self.cluster
            .until_async(&format!("the device is at {target}, and all is well"), async || {
                let (wanted, moving) = (self.reported("target").await, self.reported("seconds").await);
                let status = self.status().await;
                let wrong = status.pointer("/extensions/conditions").and_then(Value::as_array).cloned();
                wanted["value"] == target
                    && is_fresh(&wanted)
                    && is_fresh(&moving)
                    && status["state"] == "online"
                    && wrong.is_none_or(|wrong| wrong.is_empty())
            })
            .await;
        let seconds = self.reported("seconds").await["value"].clone();
        self.cluster
            .until_async("the device's clock goes on", async || {
                self.reported("seconds").await["value"] != seconds
            })
            .await;
        self.cluster
            .until_async("the broker knows it, too", async || {
                let Some(port) = self.broker().await else { return false };
                twin(port).await.is_some_and(|twin| twin["twin"]["target"]["actual"]["value"] == target)
            })
            .await;
    }
}

fn write_config(folder: &Path) -> PathBuf {
    let config = json!({
        "grpc_server": { "socket_path": folder.join("modbus.sock") },
        "common": { "name": "modbus-mapper", "protocol": "modbus", "edgecore_sock": folder.join(dmi::SOCKET_NAME) },
    });
    let file = folder.join("modbus.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// The device's twin, asked for over MQTT; `None`: the broker does not answer now.
async fn twin(port: u16) -> Option<Value> {
    let ask = async {
        let (client, mut events) = AsyncClient::new(MqttOptions::new("app", "127.0.0.1", port), 10);
        let topic = "$hw/events/device/default/room/twin/get";
        client.subscribe(format!("{topic}/result"), QoS::AtLeastOnce).await.ok()?;
        loop {
            match events.poll().await.ok()? {
                Event::Incoming(Packet::SubAck(_)) => {
                    client.publish(topic, QoS::AtLeastOnce, false, r#"{"event_id":"g"}"#).await.ok()?;
                }
                Event::Incoming(Packet::Publish(publish)) => {
                    return serde_json::from_slice(&publish.payload).ok();
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(2), ask).await.ok().flatten()
}

#[test]
fn there_are_24_orders() {
    let mut all = orders();
    all.sort_by_key(|order| format!("{order:?}"));
    all.dedup();
    assert!(all.len() == 24 && all.iter().all(|order| order.len() == 4), "{all:?}");
}

#[test]
fn restarts_in_all_24_orders_need_nobody_and_silence_is_seen_within_two_periods() {
    run(async || {
        let mut plant = Plant::start().await;
        plant.flows("20").await;
        for (n, order) in orders().into_iter().enumerate() {
            let mut silence = None;
            for part in &order {
                plant.take_down(*part).await;
                // Who falls silent while edgecore is there to notice it.
                if silence.is_none() && plant.is_up() && matches!(part, Part::Mapper | Part::Device) {
                    silence = Some(plant.noticed().await);
                }
            }
            if let Some(silence) = silence {
                assert!(silence <= 2 * PERIOD + LATE, "{order:?}: noticed after {silence} ms");
            }
            for part in &order {
                plant.bring_up(*part).await;
            }
            plant.flows(&(30 + n).to_string()).await;
        }
        plant.node.stop().await;
    });
}
