//! `keadm ctl call device` with the program itself, on the node and from the cloud: CloudCore, a link, edgecore and a mapper are real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use harness::{Cluster, Node, run};
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use virtualdevice::{NAME, VirtualDevice};

const API: &str = "devices.kubeedge.io/v1beta1";

/// The virtual mapper with its REST interface, until it is dropped.
struct Mapper {
    device: VirtualDevice,
    _end: oneshot::Sender<()>,
}

impl Mapper {
    fn start(folder: &Path, port: u16) -> Mapper {
        let text = json!({
            "grpc_server": { "socket_path": folder.join("virtual.sock") },
            "common": { "name": "virtual-mapper", "edgecore_sock": folder.join("dmi.sock"), "http_port": port.to_string() },
        });
        let file = folder.join("virtual.yaml");
        std::fs::write(&file, text.to_string()).unwrap();
        let config = framework::Config::read(&file, NAME).unwrap();
        let (device, (end, ended)) = (VirtualDevice::named(NAME), oneshot::channel::<()>());
        let protocol = device.clone();
        actix_rt::spawn(async move {
            framework::run(&config, protocol, async move { drop(ended.await) }).await.unwrap();
        });
        Mapper { device, _end: end }
    }

    /// What the device was given.
    fn level(&self) -> Option<String> {
        let devices = self.device.devices();
        Some(devices.values().next()?.get("level")?.to_string())
    }
}

async fn status(cluster: &Cluster) -> Value {
    let statuses: Api<DynamicObject> = cluster.objects(API, "DeviceStatus", Some("default"));
    statuses.get_opt("tank").await.unwrap().map_or(Value::Null, |status| status.data["status"].clone())
}

/// What the DeviceStatus says of the call with this id.
async fn said(cluster: &Cluster, id: &str) -> Value {
    let status = status(cluster).await;
    let calls = status.pointer("/extensions/methodCalls").and_then(Value::as_array).cloned();
    calls.into_iter().flatten().find(|call| call["id"] == id).unwrap_or_default()
}

async fn until_said(cluster: &Cluster, id: &str, state: &str) -> Value {
    cluster
        .until_async(&format!("call {id} is {state}"), async || said(cluster, id).await["state"] == state)
        .await;
    said(cluster, id).await
}

/// Runs keadm. Answers what it says, and whether it is content.
async fn keadm(arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_keadm"));
    let output = command.args(["ctl", "call", "device"]).args(arguments).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn apply(cluster: &Cluster) {
    let level = json!({ "name": "level", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100" });
    let model = json!({ "metadata": { "name": "tanks", "namespace": "default" },
        "spec": { "protocol": NAME, "properties": [level] } });
    cluster.apply(API, "DeviceModel", model).await;
    let device = json!({ "metadata": { "name": "tank", "namespace": "default" }, "spec": {
        "deviceModelRef": { "name": "tanks" }, "nodeName": "edge-1",
        "protocol": { "protocolName": NAME, "configData": { "deviceID": 1 } }, "stateReport": { "reportToCloud": true },
        "properties": [{ "name": "level", "reportToCloud": true, "collectCycle": 200, "reportCycle": 200,
            "visitors": { "configData": { "generate": "none" } } }],
        "methods": [{ "name": "SetLevel", "description": "fills or empties", "propertyNames": ["level"] }] } });
    cluster.apply(API, "Device", device).await;
}

/// A node with a socket, for a mapper whose interface is at this port.
async fn node(cluster: &mut Cluster, port: u16) -> (Node, PathBuf) {
    let mut node = cluster.node("edge-1").await;
    node.stop().await;
    let folder = node.folder().to_owned();
    node.configure(|settings| {
        settings.modules.edge_stream.socket = folder.join("kubelet.sock");
        settings.modules.device_twin.mapper_ports = [("virtual-mapper".to_owned(), port)].into();
    });
    node.start().await;
    let file = folder.join("edgecore.yaml");
    let mut settings = node.settings().clone();
    // As `keadm join` writes it. keadm reads where the socket is, and no more.
    settings.modules.edge_hub.http_server = "https://cloud:10002".to_owned();
    settings.modules.edge_hub.quic.server = "cloud:10001".to_owned();
    settings.modules.device_twin.dmi_sock_path = folder.join("mappers");
    std::fs::write(&file, serde_saphyr::to_string(&settings).unwrap()).unwrap();
    (node, file)
}

#[test]
fn a_method_is_called_on_the_node_and_from_the_cloud_and_its_end_is_seen_in_both() {
    run(async || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut cluster = Cluster::spawn().await;
        let (mut node, config) = node(&mut cluster, port).await;
        let mapper = Mapper::start(node.folder(), port);
        apply(&cluster).await;
        cluster
            .until_async("the device is online", async || status(&cluster).await["state"] == "online")
            .await;

        // On the node.
        let at_node = ["--config", config.to_str().unwrap()];
        let on_node = async |more: &[&str]| keadm(&[&at_node[..], more].concat()).await;
        let (is_done, text) = on_node(&["--id", "a", "tank", "SetLevel", "level=42"]).await;
        assert!(is_done && text.contains("`SetLevel` of default/tank (call a): Done"), "{text}");
        assert_eq!(mapper.level().as_deref(), Some("42"));
        let call = until_said(&cluster, "a", "Done").await;
        assert_eq!((&call["by"], &call["values"]), (&json!("node"), &json!({ "level": "42" })));
        cluster
            .until_async("the value is reported", async || {
                status(&cluster).await["twins"][0]["reported"]["value"] == "42"
            })
            .await;
        // The same call again is not made again.
        mapper.device.devices().clear();
        let (is_done, text) = on_node(&["--id", "a", "tank", "SetLevel", "level=42"]).await;
        assert!(is_done && mapper.level().is_none(), "{text}");
        let (is_done, text) = on_node(&["tank", "SetLevel", "level=101"]).await;
        assert!(
            !is_done
                && text.contains("Refused: property `level` cannot be `101`: that is above the maximum, 100"),
            "{text}"
        );
        let (is_done, text) = on_node(&["tank", "Drain", "level=1"]).await;
        assert!(!is_done && text.contains("no method `Drain`; it has `SetLevel`"), "{text}");
        let (is_done, text) = on_node(&["tank", "SetLevel", "level"]).await;
        assert!(!is_done && text.contains("`level` is not PROPERTY=VALUE"), "{text}");

        // From the cloud.
        let kubeconfig = cluster.kubeconfig();
        let from_cloud = ["--kube-config", kubeconfig.to_str().unwrap()];
        let cloud = async |more: &[&str]| keadm(&[&from_cloud[..], more].concat()).await;
        let (is_done, text) = cloud(&["--id", "b", "tank", "SetLevel", "level=7"]).await;
        assert!(is_done, "{text}");
        assert_eq!(mapper.level().as_deref(), Some("7"));
        assert_eq!(said(&cluster, "b").await["by"], "cloud");
        let (is_done, text) = cloud(&["--id", "c", "tank", "SetLevel", "level=-1"]).await;
        assert!(!is_done && text.contains("below the minimum, 0"), "{text}");

        // Without its node nobody waits, and nothing is done when it comes back.
        node.stop().await;
        let (is_done, text) = cloud(&["--id", "d", "tank", "SetLevel", "level=9"]).await;
        assert!(
            !is_done && text.contains("Refused: node `edge-1` is not linked, and a call waits for nobody"),
            "{text}"
        );
        assert_eq!(said(&cluster, "d").await["saidBy"], "CloudCore");
        node.start().await;
        cluster
            .until_async("the node reports again", async || status(&cluster).await["state"] == "online")
            .await;
        // What the DeviceStatus says may be of before.
        let mut tries = 0;
        let last = loop {
            let id = format!("e{tries}");
            let (is_done, text) = cloud(&["--id", &id, "tank", "SetLevel", "level=8"]).await;
            if is_done {
                break id;
            }
            assert!(tries < 50 && text.contains("is not linked"), "{text}");
            tries += 1;
            cluster.env().sleep(std::time::Duration::from_millis(100)).await;
        };
        assert_eq!(mapper.level().as_deref(), Some("8"), "what was refused is not done later");
        for id in ["a", "b", "c", "d", &last] {
            assert!(said(&cluster, id).await.is_object(), "{id} stays in the DeviceStatus");
        }
        node.stop().await;
    });
}

#[test]
fn what_stands_on_a_device_and_is_no_call_is_said_and_an_old_one_is_not_made() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let device = |call: &str| {
            json!({ "metadata": { "name": "tank", "namespace": "default", "annotations": { "kubehive.io/method-call": call } },
                "spec": { "deviceModelRef": { "name": "tanks" }, "nodeName": "edge-1", "protocol": { "protocolName": NAME } } })
        };
        let old = r#"{"id":"old","method":"SetLevel","values":{"level":"1"}}"#;
        cluster.apply(API, "Device", device(old)).await;
        let call = until_said(&cluster, "old", "Unknown").await;
        assert!(call["message"].as_str().unwrap().contains("it is not sent now"), "{call}");
        let devices: Api<DynamicObject> = cluster.objects(API, "Device", Some("default"));
        let patch = json!({ "metadata": { "annotations": { "kubehive.io/method-call": "{\"id\":\"x\"}" } } });
        devices.patch("tank", &Default::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
        let call = until_said(&cluster, "x", "Refused").await;
        assert!(call["message"].as_str().unwrap().contains("not a call of a method"), "{call}");
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
    });
}
