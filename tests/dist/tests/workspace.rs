//! What is shipped is what there is: every program of the workspace, and every image that a manifest names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use dist::parts::{PARTS, PROGRAMS};
use serde_json::Value;

/// The folders whose programs are shipped; those of the others are tests.
const SHIPPED: [&str; 3] = ["cloud", "edge", "mappers"];

#[test]
fn every_program_of_the_workspace_is_shipped() {
    let root = dist::root().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = Command::new(cargo)
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(&root)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&said.stdout).unwrap();
    let root = metadata["workspace_root"].as_str().unwrap();
    let mut found = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let folder = Path::new(manifest).strip_prefix(root).unwrap().components().next().unwrap();
        if !SHIPPED.iter().any(|shipped| folder.as_os_str() == *shipped) {
            continue;
        }
        for target in package["targets"].as_array().unwrap() {
            if target["kind"][0] == "bin" {
                found.insert((target["name"].as_str().unwrap(), package["name"].as_str().unwrap()));
            }
        }
    }
    let shipped: BTreeSet<(&str, &str)> =
        PROGRAMS.iter().map(|program| (program.name, program.package)).collect();
    assert_eq!(found, shipped, "tests/dist/src/parts.rs lists what is shipped");
}

#[test]
fn manifests_name_images_that_are_made() {
    let root = dist::root().unwrap();
    let mappers = std::fs::read_dir(root.join("mappers")).unwrap();
    let files =
        mappers.map(|entry| entry.unwrap().path().join("deploy/daemonset.yaml")).filter(|path| path.exists());
    let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
    let mut named = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let images = text.lines().filter_map(|line| line.trim_start().strip_prefix("image: "));
        for image in images {
            let short =
                image.strip_prefix("kubeedge/").and_then(|image| image.strip_suffix(&format!(":{tag}")));
            let part = PARTS.iter().find(|part| Some(part.image) == short);
            let part = part.unwrap_or_else(|| panic!("{}: `cargo dist` makes no {image}", file.display()));
            named.insert(part.image);
        }
    }
    // The chart names CloudCore's. The others are not run by a manifest here.
    let others = ["cloudcore", "csidriver", "installation-package"];
    let made: BTreeSet<&str> =
        PARTS.iter().map(|part| part.image).filter(|image| !others.contains(image)).collect();
    assert_eq!(named, made);
}
