//! What pods do to a machine in the field: a disk that is really full, a log without measure, memory without end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use config::{KubeletDuration, Threshold};
use edge_edged::{EvictionRules, ImageCollection};
use serde_json::{Value, json};
use testhost::{Entry, Image, TestHost};

use crate::node::{Machine, Node, WAITS, condition, container, deleted, eventually, first, pod, run, text};

const MIB: u64 = 1 << 20;

/// A disk of its own: a file of the machine with a file system in it.
struct SmallDisk {
    file: PathBuf,
    at: PathBuf,
}

impl SmallDisk {
    fn new(name: &str, mebibytes: u64) -> SmallDisk {
        let at = PathBuf::from(format!("/tmp/khd-{name}{}", std::process::id()));
        let file = at.with_extension("img");
        std::fs::File::create(&file).unwrap().set_len(mebibytes * MIB).unwrap();
        std::fs::create_dir_all(&at).unwrap();
        let disk = SmallDisk { file, at };
        run_command(Command::new("mkfs.ext4").args(["-q", "-F", "-m0"]).arg(&disk.file));
        run_command(Command::new("mount").args(["-o", "loop"]).arg(&disk.file).arg(&disk.at));
        disk
    }

    /// How much of it is used, in hundredths, and how many bytes are free.
    fn used(&self) -> (u64, u64) {
        let whole = rustix::fs::statvfs(&self.at).unwrap();
        (100 - 100 * whole.f_bavail / whole.f_blocks, whole.f_bavail * whole.f_frsize)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.at).status());
        drop(std::fs::remove_dir(&self.at));
        drop(std::fs::remove_file(&self.file));
    }
}

fn run_command(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image with so much in it that nothing else has.
fn large_image(host: &TestHost, name: &str, mebibytes: usize) -> Image {
    let file = host.dir().join("large");
    let mut seed = u64::try_from(name.len()).unwrap() | 1;
    let mut bytes = Vec::with_capacity(mebibytes << 20);
    while bytes.len() < mebibytes << 20 {
        // Any bytes that do not compress.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    std::fs::write(&file, bytes).unwrap();
    let mut image = Image::busybox(name).unwrap();
    image.entries.push(Entry::Copy("large".to_owned(), file, 0o644));
    image
}

async fn has_image(node: &Node, name: &str) -> bool {
    let images = node.runtime.list_images().await.unwrap();
    images.iter().any(|image| image.repo_tags.iter().any(|tag| tag == name))
}

/// Waits for something of the node, which is Ready at each look.
async fn while_ready<T>(node: &Node, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = eventually(async || {
        if let Some(told) = node.node() {
            assert_eq!(condition(&told["status"], "Ready")["status"], "True", "{what}: {told:#}");
        }
        look().await
    })
    .await;
    found.unwrap_or_else(|| panic!("waited in vain for {what}: {:#?}", node.events("edge-1")))
}

fn pressure(node: &Node, kind: &str, wanted: &str) -> Option<()> {
    let told = node.node()?;
    (condition(&told["status"], kind)["status"] == wanted).then_some(())
}

fn evicted(node: &Node, pod: &str) -> Option<Value> {
    node.status(pod).filter(|status| status["reason"] == "Evicted")
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_costs_images_and_the_pod_that_filled_it_and_serves_again() {
    run(async {
        let disk = SmallDisk::new("full", 256);
        let host = Machine::made_by(TestHost::builder("full").under(&disk.at));
        let names = ["kubehive.test/large:one", "kubehive.test/large:second"];
        for name in names {
            let image = large_image(&host, name, 24);
            host.import(&image).unwrap();
            std::fs::remove_file(host.dir().join("large")).unwrap();
        }
        let (full, _) = disk.used();
        assert!(full > 40, "{full} % are used");
        let mut kubelet = config::edge::TailoredKubeletConfig::default();
        kubelet.eviction_hard.memory_available = Threshold::Part(0);
        // The node's store lies on the same disk: the pressure is still there when there is room to say so.
        kubelet.eviction_pressure_transition_period = KubeletDuration::from_secs(15);
        // Its image is in use from here on.
        let node = Node::start(&host);
        node.apply(&[pod("a-modest", WAITS, json!({}))]).await;
        node.until_ready("a-modest").await;
        let stopped = node.stop(&host).await;
        let node = stopped
            .set(|settings| {
                settings.image_collection = ImageCollection {
                    high_percent: 40,
                    low_percent: 20,
                    min_age: Duration::from_secs(1),
                    max_age: None,
                    every: Duration::from_millis(500),
                };
                settings.eviction_rules = EvictionRules::new(&kubelet);
                settings.eviction_rules.every = Duration::from_millis(300);
            })
            .start();
        // What nothing uses goes until there is room, and with it what it took.
        while_ready(&node, "room", async || {
            let gone = !has_image(&node, names[0]).await && !has_image(&node, names[1]).await;
            (gone && disk.used().0 < 40).then_some(())
        })
        .await;

        let mut fills = container("c", &format!("cat /dev/zero > /data/f; {WAITS}"));
        fills["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let volumes = json!([{"name": "data", "emptyDir": {}}]);
        let fills = pod("b-fills", "", json!({"containers": [fills], "volumes": volumes}));
        node.apply(std::slice::from_ref(&fills)).await;
        while_ready(&node, "the pressure", async || pressure(&node, "DiskPressure", "True")).await;
        let status = while_ready(&node, "the eviction", async || evicted(&node, "b-fills")).await;
        let message = text(&status["message"]);
        let words = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
        assert!(message.starts_with(words), "{message}");
        // It recovers by itself, and takes pods again.
        while_ready(&node, "room after it", async || {
            (!node.pod_folder("b-fills").exists() && disk.used().0 < 60).then_some(())
        })
        .await;
        while_ready(&node, "the end of the pressure", async || pressure(&node, "DiskPressure", "False"))
            .await;
        let modest = node.status("a-modest").unwrap();
        assert_eq!(modest["phase"], "Running", "{modest:#} {:#?}", node.events("a-modest"));
        node.apply(&[pod("c-late", WAITS, json!({}))]).await;
        let late = node.until_ready("c-late").await;
        assert_eq!(node.shell(&late, "echo up").await, "up");
        node.apply(&[deleted(&fills, 1)]).await;
        node.until_gone("b-fills").await;
    });
}

/// The bytes of a log's files, and how many there are.
fn log_size(folder: &Path) -> (u64, usize) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes: Vec<u64> = entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect();
    (sizes.iter().sum(), sizes.len())
}

#[test]
fn a_container_that_logs_as_fast_as_it_can_is_kept_small_and_takes_nothing_from_the_others() {
    run(async {
        let host = Machine::new("flood");
        let node = Node::start_set(&host, |settings| {
            // A kubelet's sizes, and a tenth of the time between its looks.
            settings.log_max_size = Some(10 * MIB);
            settings.log_max_files = 5;
            settings.log_look_every = Duration::from_secs(1);
        });
        let floods = pod("a-floods", &format!("exec yes {}", "x".repeat(1000)), json!({}));
        let folder = node.settings.logs.join("default_a-floods_uid-of-a-floods/c");
        let begun = Instant::now();
        node.apply(std::slice::from_ref(&floods)).await;
        let mut seen = std::collections::BTreeSet::new();
        let mut most = (0, 0);
        // So many that the first ones have gone again.
        while_ready(&node, "rotations", async || {
            let (bytes, files) = log_size(&folder);
            most = (most.0.max(bytes), most.1.max(files));
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                seen.insert(entry.file_name().to_string_lossy().trim_end_matches(".gz").to_owned());
            }
            (seen.len() > 6).then_some(())
        })
        .await;
        eprintln!(
            "{} rotations in {:?}; at most {} MiB in {} files",
            seen.len(),
            begun.elapsed(),
            most.0 >> 20,
            most.1
        );
        // The newest, four before it, and one that is being compressed.
        assert!(most.1 <= 7, "{} files", most.1);
        // Others start and are asked meanwhile.
        node.apply(&[pod("b-other", WAITS, json!({}))]).await;
        let other = node.until_ready("b-other").await;
        assert_eq!(node.shell(&other, "echo up").await, "up");
        node.until_node_is("True").await;
        node.apply(&[deleted(&floods, 1)]).await;
        node.until_gone("a-floods").await;
        eventually(async || (!folder.exists()).then_some(())).await.expect("its logs go with it");
    });
}

#[test]
fn a_memory_hog_is_ended_within_its_own_limit_and_its_neighbour_feels_nothing() {
    run(async {
        let host = Machine::new("hog");
        let node = Node::start(&host);
        let mut hog = container("c", &format!("x=$(dd if=/dev/zero bs=1M count=256 | tr '\\0' x); {WAITS}"));
        hog["resources"] = json!({"limits": {"memory": "32Mi"}});
        let neighbour = pod("b-neighbour", WAITS, json!({}));
        node.apply(&[neighbour, pod("a-hog", "", json!({"containers": [hog]}))]).await;
        let killed = |status: &Value| {
            let one = first(status);
            let ends = [&one["state"]["terminated"], &one["lastState"]["terminated"]];
            ends.iter().any(|end| end["reason"] == "OOMKilled" && end["exitCode"] == 137)
        };
        node.until("a-hog", "its end for its memory", killed).await;
        let again = |status: &Value| first(status)["restartCount"].as_u64() >= Some(1);
        node.until("a-hog", "another try", again).await;
        let neighbour = node.until_ready("b-neighbour").await;
        assert_eq!(first(&neighbour)["restartCount"], 0);
        node.until_node_is("True").await;
    });
}
