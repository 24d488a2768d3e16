//! Logs of containers on the disk.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::node::{Machine, Node, container_id, deleted, eventually, pod, run};

/// Writes numbered lines without end, a hundred at a time.
const CHATTY: &str = "n=0; while true; do i=0; while [ $i -lt 100 ]; do echo line $n; n=$((n+1)); i=$((i+1)); done; sleep 0.02; done";

/// The files of a log, the oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    // `0.log` is the newest.
    all.sort_by_key(|path| (path.ends_with("0.log"), path.clone()));
    all
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "gz")
}

/// The numbers in all files, the oldest first.
fn numbers(files: &[PathBuf]) -> Vec<u64> {
    let mut text = String::new();
    for path in files {
        let mut file = std::fs::File::open(path).unwrap();
        if is_compressed(path) {
            flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            file.read_to_string(&mut text).unwrap();
        }
    }
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

fn small(settings: &mut edge_edged::Settings) {
    settings.log_max_size = Some(64 << 10);
    settings.log_max_files = 4;
    settings.log_look_every = Duration::from_millis(200);
}

#[test]
fn a_log_without_end_is_rotated_without_a_lost_line() {
    run(async {
        let host = Machine::new("rotation");
        let node = Node::start_set(&host, small);
        let chatty = pod("chatty", CHATTY, json!({}));
        node.apply(std::slice::from_ref(&chatty)).await;
        let status = node.until_ready("chatty").await;
        let folder = node.settings.logs.join("default_chatty_uid-of-chatty/c");
        let link = node.settings.links.join(format!("chatty_default_c-{}.log", container_id(&status)));
        let target = std::fs::read_link(&link).unwrap();
        assert_eq!(target, folder.join("0.log"));

        let full = async || {
            let all = files(&folder);
            (all.iter().filter(|path| is_compressed(path)).count() >= 2).then_some(all)
        };
        let before = eventually(full).await.expect("two compressed files");
        // Edged is started anew; somebody has renamed the log meanwhile, as a rotation that the power cut short.
        let stopped = node.stop(&host).await;
        std::fs::rename(folder.join("0.log"), folder.join("0.log.99990101-000000")).unwrap();
        let node = stopped.start();
        let anew = async || folder.join("0.log").exists().then_some(());
        eventually(anew).await.expect("the log is written anew");
        let passed = async || {
            files(&folder).iter().all(|path| !before.contains(path) || path.ends_with("0.log")).then_some(())
        };
        eventually(passed).await.expect("the older files have gone");

        // Whatever is there at one moment follows on without a gap.
        let whole = async || {
            let all = files(&folder);
            assert!(all.len() <= 5, "{all:?}");
            if !all.iter().any(|path| is_compressed(path))
                || all.iter().any(|path| path.extension().is_some_and(|end| end == "tmp"))
            {
                return None;
            }
            let numbers = std::panic::catch_unwind(|| numbers(&all)).ok()?;
            // A rotation while they were read: again.
            (files(&folder) == all).then_some(numbers)
        };
        let numbers = eventually(whole).await.expect("a quiet moment");
        assert!(numbers.len() > 1000);
        let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!(gap, None);

        node.apply(&[deleted(&chatty, 1)]).await;
        node.until_gone("chatty").await;
        assert!(!folder.exists());
        assert_eq!(std::fs::read_dir(&node.settings.links).unwrap().count(), 0, "no link is left");
    });
}

#[test]
fn what_is_left_of_an_instance_goes_with_all_its_files() {
    run(async {
        let host = Machine::new("logfiles");
        let node = Node::start_set(&host, small);
        // Each instance fills its log, which is rotated, and ends.
        let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 0.6";
        node.apply(&[pod("ends", script, json!({"restartPolicy": "Always"}))]).await;
        let folder = node.settings.logs.join("default_ends_uid-of-ends/c");
        let rotated = async || (files(&folder).len() > 1).then_some(());
        eventually(rotated).await.expect("the log is rotated");
        // The newest and the one before are kept, so the first goes with the third.
        let third = async || folder.join("2.log").exists().then_some(());
        eventually(third).await.expect("a third instance");
        let gone = async || {
            let first = files(&folder)
                .iter()
                .any(|path| path.file_name().unwrap().to_str().unwrap().starts_with("0.log"));
            (!first).then_some(())
        };
        eventually(gone).await.expect("the first instance's files have gone");
        let links = std::fs::read_dir(&node.settings.links).unwrap();
        for link in links.flatten() {
            assert!(!std::fs::read_link(link.path()).unwrap().ends_with("0.log"));
        }
    });
}
