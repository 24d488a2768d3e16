//! The YAML in the guides is what the definitions say: no key of it is one that nobody reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn guides() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders =
        ["mappers", "modules"].into_iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let mut guides: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path().join("README.md")).collect();
    guides.extend(["README.md", "mappers/README.md"].map(|guide| root.join(guide)));
    guides.retain(|guide| guide.exists());
    guides
}

/// The documents in the YAML blocks of a guide.
fn documents(guide: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(guide).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let documents = blocks.flat_map(|block| block.split("\n---\n"));
    documents
        .map(|document| {
            serde_saphyr::from_str(document)
                .unwrap_or_else(|error| panic!("{}: {error}\n{document}", guide.display()))
        })
        .collect()
}

/// Takes `given` for a `T`, and asserts that all of it is in there.
fn is_all_read<T: DeserializeOwned + Serialize>(given: &Value, guide: &Path) {
    let read: T = serde_json::from_value(given.clone())
        .unwrap_or_else(|error| panic!("{}: {error}: {given}", guide.display()));
    assert_within(given, &serde_json::to_value(read).unwrap(), &guide.display().to_string());
}

fn assert_within(given: &Value, read: &Value, at: &str) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            // What is empty may be left out.
            for (key, value) in given.iter().filter(|(_, value)| **value != Value::Object(Default::default()))
            {
                let found = read.get(key).unwrap_or_else(|| panic!("{at}: nobody reads `{key}`"));
                assert_within(value, found, &format!("{at}: {key}"));
            }
        }
        (Value::Array(given), Value::Array(read)) if given.len() == read.len() => {
            given.iter().zip(read).for_each(|(given, read)| assert_within(given, read, at));
        }
        _ => assert_eq!(given, read, "{at}"),
    }
}

/// What a property is pushed by, all ways together.
fn ways(method: &Value, found: &mut Vec<String>) {
    for (way, inner) in method.as_object().unwrap() {
        if way == "dbMethod" {
            ways(inner, found);
        } else {
            found.push(way.clone());
        }
    }
}

#[test]
fn devices_models_and_ways_of_pushing_are_read_as_they_are_written() {
    let (mut objects, mut pushed) = (Vec::new(), Vec::new());
    for guide in guides() {
        for document in documents(&guide) {
            match document["kind"].as_str() {
                Some("Device") => {
                    is_all_read::<crd::DeviceSpec>(&document["spec"], &guide);
                    objects.push(guide.clone());
                }
                Some("DeviceModel") => is_all_read::<crd::DeviceModelSpec>(&document["spec"], &guide),
                _ => {}
            }
            if let Some(properties) = document.get("properties") {
                is_all_read::<Vec<crd::DeviceProperty>>(properties, &guide);
                let methods = properties.as_array().unwrap().iter().filter_map(|one| one.get("pushMethod"));
                methods.for_each(|method| ways(method, &mut pushed));
            }
            if let Some(protocol) = document.get("protocol") {
                is_all_read::<crd::ProtocolConfig>(protocol, &guide);
            }
            if let Some(method) = document.get("pushMethod") {
                is_all_read::<crd::PushMethod>(method, &guide);
                ways(method, &mut pushed);
            }
        }
    }
    assert!(objects.len() >= 2, "Modbus' and the virtual device's: {objects:?}");
    pushed.sort();
    assert_eq!(
        pushed,
        ["TDEngine", "anomalyDetection", "http", "influxdb2", "mqtt", "mysql", "otel", "redis"]
    );
}
