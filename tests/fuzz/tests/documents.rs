//! Devices, models and reports as bytes: from the API server, from the node's own file, from the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use contract::{UpReport, rows};
use crd::{Device, DeviceModel};
use fuzz::endure;
use serde_json::{Value, json};

fn valid() -> Vec<String> {
    let device = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": "pump", "namespace": "default", "labels": {"a": "b"}},
        "spec": {
            "deviceModelRef": {"name": "pumps"}, "nodeName": "edge-1",
            "properties": [{"name": "speed", "desired": {"value": "3", "metadata": {"timestamp": "1", "type": "int"}},
                "visitors": {"protocolName": "modbus", "configData": {"offset": 3, "deep": {"a": [1, 2.5, null, true]}}},
                "reportCycle": 1000, "collectCycle": 500, "reportToCloud": true,
                "pushMethod": {"http": {"hostName": "h", "port": 1}, "mqtt": {"address": "a", "qos": 1}}}],
            "methods": [{"name": "m", "propertyNames": ["speed"]}],
            "protocol": {"protocolName": "modbus", "configData": {"port": 502}}},
        "status": {"twins": [{"propertyName": "speed", "reported": {"value": "3"}}], "state": "online"}});
    let model = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "pumps"},
        "spec": {"protocol": "modbus", "properties": [
            {"name": "speed", "type": "INT", "accessMode": "ReadWrite", "minimum": "1", "maximum": "9", "unit": "rpm"}]}});
    vec![device.to_string(), model.to_string()]
}

#[test]
fn a_device_is_read_or_refused_and_leaves_nothing() {
    let valid = valid();
    let valid: Vec<&[u8]> = valid.iter().map(String::as_bytes).collect();
    let mut read = 0_u32;
    let left = endure(5, |random| {
        let bytes = match random.below(40) {
            0 => b"[".repeat(random.below(5000)),
            1 => br#"{"spec":"#.repeat(random.below(2000)),
            2..6 => random.bytes(500),
            _ => random.damaged(&valid),
        };
        if let Ok(device) = serde_json::from_slice::<Device>(&bytes) {
            read += 1;
            let _ = serde_json::to_string(&device);
        }
        read += u32::from(serde_json::from_slice::<DeviceModel>(&bytes).is_ok());
        let _ = serde_json::from_slice::<Value>(&bytes);
    });
    println!("{} KiB are left; {read} were read", left.unwrap());
}

#[test]
fn a_report_is_read_or_refused_and_leaves_nothing() {
    let reports = [
        UpReport::Node { node_json: r#"{"metadata":{"name":"a"}}"#.to_owned() },
        UpReport::PodStatus {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: "u-1".to_owned(),
            status_json: "{}".to_owned(),
        },
        UpReport::DeviceState {
            namespace: "default".to_owned(),
            name: "pump".to_owned(),
            state: "online".to_owned(),
            last_online_time: Some("2026-01-01T00:00:00Z".to_owned()),
        },
    ];
    let valid: Vec<Vec<u8>> = reports.iter().map(|report| rows::encode_report(report).unwrap()).collect();
    let valid: Vec<&[u8]> = valid.iter().map(Vec::as_slice).collect();
    let mut read = 0_u32;
    let left = endure(6, |random| {
        let bytes = if random.below(5) == 0 { random.bytes(400) } else { random.damaged(&valid) };
        if let Ok(report) = rows::decode_report(&bytes) {
            read += 1;
            let _ = (report.newest_key(), report.queue(), report.capability());
        }
    });
    println!("{} KiB are left; {read} were read", left.unwrap());
}
