//! Whoever applies what a guide shows has nothing to mend: each of its Devices is honoured as it is written, with its rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The guides of mappers and modules.
fn guides() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders =
        ["mappers", "modules"].into_iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let mut guides: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path().join("README.md")).collect();
    guides.retain(|guide| guide.exists());
    guides
}

/// The objects of a kind in the YAML blocks of a guide.
fn objects(text: &str, kind: &str) -> Vec<Value> {
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let documents = blocks.flat_map(|block| block.split("\n---\n"));
    let objects = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    objects.filter(|object| object["kind"] == kind).collect()
}

#[test]
fn each_device_of_a_guide_is_valid_with_the_model_that_stands_beside_it() {
    let mut with_rules = 0;
    let mut looked_at = 0;
    for guide in guides() {
        let text = std::fs::read_to_string(&guide).unwrap();
        let models = objects(&text, "DeviceModel");
        for device in objects(&text, "Device") {
            let named = &device["spec"]["deviceModelRef"]["name"];
            let is_its = |model: &&Value| {
                model["metadata"]["name"] == *named
                    && model["metadata"]["namespace"] == device["metadata"]["namespace"]
            };
            let model = models.iter().find(is_its);
            let faults = cloud_devicecontroller::faults::faults(&device, model);
            assert_eq!(faults, [""; 0], "{}: {}", guide.display(), device["metadata"]["name"]);
            looked_at += 1;
            with_rules += usize::from(device["metadata"]["annotations"]["kubehive.io/rules"].is_string());
        }
    }
    assert!(looked_at >= 4 && with_rules >= 1, "{looked_at} devices, {with_rules} with rules");
}
