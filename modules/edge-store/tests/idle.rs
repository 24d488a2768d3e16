//! What a node that idles writes to its disk, counted by the kernel in a process of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod rerun;

use std::path::Path;

use edge_store::{Class, Options, OutboxQueue, Store, Table, Write};

/// Bytes that this process has written to files, including what the page cache still holds.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn in_own_process(name: &str) -> bool {
    if rerun::given().is_some() {
        return true;
    }
    let out = rerun::this_test(name, "inside").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    eprint!("{}", String::from_utf8_lossy(&out.stderr));
    false
}

async fn filled(dir: &Path) -> Store {
    let store = Store::open(dir.join("edgecore.db"), Options::new([1; 16])).unwrap();
    for n in 0..200 {
        let row = Write::PutRow {
            table: Table::Twins,
            key1: "d".to_owned(),
            key2: format!("p{n}"),
            value: vec![b'x'; 300],
        };
        store.commit(vec![row]).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    store
}

#[tokio::test]
async fn a_day_without_changes_writes_nothing() {
    if !in_own_process("a_day_without_changes_writes_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let before = written();
    for _ in 0..24 {
        store.checkpoint().await.unwrap();
        store.commit(vec![]).await.unwrap();
        store.object_versions().unwrap();
        store.outbox_head(100, 1 << 20).unwrap();
    }
    // Waking a thread counts with eight bytes; the least that SQLite writes is a page.
    assert!(written() - before < 1000, "{}", written() - before);
}

/// An idle node reports itself once a minute, the cloud confirms it, and the log is moved once an hour.
#[tokio::test]
async fn a_day_of_heartbeats_writes_a_bounded_amount() {
    if !in_own_process("a_day_of_heartbeats_writes_a_bounded_amount") {
        return;
    }
    const HOURS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let before = written();
    let mut largest_log = 0;
    for minute in 0..HOURS * 60 {
        // The size of a Node with its images and conditions.
        let body = vec![minute as u8; 4000];
        store
            .commit(vec![Write::Enqueue {
                queue: OutboxQueue::Node,
                class: Class::Status,
                key: "node/e".to_owned(),
                body,
            }])
            .await
            .unwrap();
        let seqs = store.outbox_head(10, 1 << 20).unwrap().iter().map(|row| row.seq).collect();
        store.commit(vec![Write::Confirm { seqs }]).await.unwrap();
        largest_log = largest_log.max(std::fs::metadata(dir.path().join("edgecore.db-wal")).unwrap().len());
        if minute % 60 == 59 {
            store.checkpoint().await.unwrap();
        }
    }
    let day = (written() - before) * 24 / HOURS;
    eprintln!("{} MB a day, {} bytes a report, log at most {largest_log}", day / 1_000_000, day / 1440);
    assert!(day < 80_000_000, "{day}");
    assert!(largest_log < 2 << 20, "{largest_log}");
}

#[tokio::test]
async fn the_log_is_bounded_under_writes_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let mut largest = 0;
    for n in 0..1500_u32 {
        let row = Write::PutRow {
            table: Table::Twins,
            key1: "d".to_owned(),
            key2: format!("p{}", n % 200),
            value: vec![n as u8; 9000],
        };
        store.commit(vec![row]).await.unwrap();
        if n % 100 == 0 {
            store.list_rows(Table::Twins, Some("d")).unwrap();
        }
        largest = largest.max(std::fs::metadata(dir.path().join("edgecore.db-wal")).unwrap().len());
    }
    // 27 MB went through it.
    assert!(largest < 2 << 20, "{largest}");
    store.checkpoint().await.unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("edgecore.db-wal")).unwrap().len(), 0);
}
