//! What becomes of a node whose disk is full, and of one whose store is damaged: a working node, and nobody did a thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use contract::ids::CONFIG_MAPS;
use harness::{Cluster, Node, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const IMAGE: &str = "web:1";
/// Config maps that the pod needs.
const MAPS: usize = 40;
/// 5 kB, and 160 kB: neither the store's file nor its log has room for the longer one already.
const SHORT: usize = 1000;
const LONG: usize = 32_000;
/// 32 MiB: the disk of the node.
const DISK: &str = "size=32m";

fn name_of(n: usize) -> String {
    format!("map-{n:02}")
}

/// What the map says, about five bytes `times` over.
fn text(n: usize, turn: usize, times: usize) -> String {
    format!("{n}/{turn} ").repeat(times)
}

/// A node on `disk`, if one is named, whose pod needs all the maps.
async fn node_with_a_pod(cluster: &mut Cluster, disk: Option<&str>, times: usize) -> Node {
    if let Some(options) = disk {
        let folder = cluster.folder_of("edge-1");
        fs::create_dir_all(&folder).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder).status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "a small disk needs a mount, and that needs root"
        );
    }
    let node = cluster.node("edge-1").await;
    cluster.until_ready(&node).await;
    node.runtime().add_image(IMAGE);
    for n in 0..MAPS {
        let map = json!({"metadata": {"name": name_of(n), "namespace": "default"}, "data": {"text": text(n, 0, times)}});
        cluster.apply("v1", "ConfigMap", map).await;
    }
    let from: Vec<Value> = (0..MAPS)
        .map(|n| json!({"configMapRef": {"name": name_of(n)}, "prefix": format!("M{n}_")}))
        .collect();
    let web = json!({"name": "web", "image": IMAGE, "envFrom": from});
    let pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"nodeName": node.name(), "containers": [web]},
    });
    cluster.apply("v1", "Pod", pod).await;
    cluster.until("the pod runs", || container(&node).is_some()).await;
    node
}

fn container(node: &Node) -> Option<String> {
    node.runtime()
        .running()
        .into_iter()
        .find(|container| container.pod == "web")
        .map(|container| container.id)
}

async fn turn(cluster: &Cluster, turn: usize, times: usize) {
    let maps = cluster.objects("v1", "ConfigMap", Some("default"));
    for n in 0..MAPS {
        let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"text": text(n, turn, times)}});
        maps.patch(&name_of(n), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

/// What the node's store holds of the maps.
fn held(node: &Node) -> BTreeMap<String, String> {
    let objects = node.core().store().list_objects(CONFIG_MAPS, Some("default")).unwrap_or_default();
    let text = |json: &[u8]| {
        let value: Value = serde_json::from_slice(json).unwrap();
        value["data"]["text"].as_str().unwrap_or_default().to_owned()
    };
    objects.iter().map(|object| (object.key.name.clone(), text(&object.json))).collect()
}

fn holds_turn(node: &Node, turn: usize, times: usize) -> bool {
    let held = held(node);
    (0..MAPS).all(|n| held.get(&name_of(n)).is_some_and(|held| *held == text(n, turn, times)))
}

/// The condition `kubehive.io/Synced`: status, reason and message.
async fn synced(cluster: &Cluster, node: &Node) -> (String, String, String) {
    let found = cluster.objects("v1", "Node", None).get(node.name()).await.unwrap();
    let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.into_iter().find(|c| c["type"] == "kubehive.io/Synced").unwrap_or_default();
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

async fn until_synced(cluster: &Cluster, node: &Node) {
    cluster
        .until_async("the cluster shows that the node is in sync", async || {
            synced(cluster, node).await.0 == "True"
        })
        .await;
}

#[test]
fn a_full_disk_is_shown_and_heals_when_there_is_room() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = node_with_a_pod(&mut cluster, Some(DISK), SHORT).await;
        let before = container(&node).unwrap();
        until_synced(&cluster, &node).await;

        let ballast = node.folder().join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        turn(&cluster, 1, LONG).await;
        cluster
            .until_async("the cluster shows what the disk refused", async || {
                let (status, reason, message) = synced(&cluster, &node).await;
                status == "False" && reason == "EdgeRefused" && message.contains("configmaps/default/map-")
            })
            .await;
        assert!(!holds_turn(&node, 1, LONG), "there was room after all");

        drop(file);
        fs::remove_file(&ballast).unwrap();
        cluster.until("the node holds what it should", || holds_turn(&node, 1, LONG)).await;
        until_synced(&cluster, &node).await;
        assert_eq!(container(&node), Some(before), "the pod was not left alone");
    });
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_damaged_store_is_refilled_and_the_pod_goes_on() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("a page overwritten", |db| overwrite(db, 8192, &[0xa5; 4096])),
        ("cut to half", |db| {
            let len = fs::metadata(db).unwrap().len();
            fs::OpenOptions::new().write(true).open(db).unwrap().set_len(len / 2).unwrap();
        }),
        ("no SQLite file any more", |db| overwrite(db, 0, b"this was a database")),
        ("empty", |db| fs::write(db, b"").unwrap()),
        ("gone", |db| fs::remove_file(db).unwrap()),
        ("without its key", |db| fs::remove_file(db.with_file_name("edgecore.db.key")).unwrap()),
    ];
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = node_with_a_pod(&mut cluster, None, SHORT).await;
        let before = container(&node).unwrap();
        for (at, (what, damage)) in damages.into_iter().enumerate() {
            node.stop().await;
            damage(&node.folder().join("edgecore.db"));
            node.start().await;
            cluster
                .until(&format!("{what}: what was held comes again"), || holds_turn(&node, at, SHORT))
                .await;
            turn(&cluster, at + 1, SHORT).await;
            cluster.until(&format!("{what}: what changes comes"), || holds_turn(&node, at + 1, SHORT)).await;
            until_synced(&cluster, &node).await;
            cluster.until_ready(&node).await;
            assert_eq!(container(&node).as_ref(), Some(&before), "{what}: the pod was not left alone");
        }
    });
}
