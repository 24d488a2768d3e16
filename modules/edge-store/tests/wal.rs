//! The files beside the database, damaged: the log and its index.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use edge_store::{Class, Opened, Options, OutboxQueue, Store, Table, Write};
use rusqlite::Connection;
use tempfile::TempDir;

const FILES: [&str; 3] = ["edgecore.db", "edgecore.db-wal", "edgecore.db-shm"];

fn open(dir: &TempDir, incarnation: u8) -> Store {
    Store::open(dir.path().join("edgecore.db"), Options::new([incarnation; 16])).unwrap()
}

fn put(n: usize) -> Vec<Write> {
    vec![
        Write::PutRow {
            table: Table::Facts,
            key1: format!("k{n}"),
            key2: String::new(),
            value: vec![b'v'; 200],
        },
        Write::Enqueue { queue: OutboxQueue::Node, class: Class::Event, key: format!("{n}"), body: vec![] },
    ]
}

/// A file as a kill leaves it, with its log and its index: ten commits are in the file and ten in the log.
fn killed() -> TempDir {
    let (live, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(&live, 1);
    for n in 0..10 {
        store.commit_blocking(put(n)).unwrap();
    }
    drop(store);
    let store = open(&live, 1);
    for n in 10..20 {
        store.commit_blocking(put(n)).unwrap();
    }
    for name in FILES.iter().chain(&["edgecore.db.key"]) {
        fs::copy(live.path().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn facts(store: &Store) -> usize {
    store.list_rows(Table::Facts, None).unwrap().len()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_logs_index_may_hold_anything() {
    for garbage in [vec![], vec![0; 32768], vec![0xa5; 32768], vec![7; 100]] {
        let dir = killed();
        fs::write(dir.path().join("edgecore.db-shm"), garbage).unwrap();
        let store = open(&dir, 2);
        assert_eq!((store.opened(), facts(&store)), (&Opened::Clean, 20));
        store.commit_blocking(put(20)).unwrap();
    }
}

#[test]
fn commits_that_the_log_lost_are_not_passed_over() {
    type Damage = fn(&Path);
    let lost: [(&str, Damage); 5] = [
        ("gone", |log| fs::remove_file(log).unwrap()),
        // Then nothing beside the file says that there was one: the file itself does.
        ("gone with its index", |log| {
            fs::remove_file(log).unwrap();
            fs::remove_file(log.with_extension("db-shm")).unwrap();
        }),
        ("garbage", |log| change(log, |bytes| bytes.fill(0x5a))),
        ("without a header", |log| change(log, |bytes| bytes[..32].fill(0))),
        ("a bit flipped in the middle", |log| change(log, |bytes| bytes[32 + 24 + 4120 * 9 + 77] ^= 4)),
    ];
    for (what, damage) in lost {
        let dir = killed();
        damage(&dir.path().join("edgecore.db-wal"));
        let store = open(&dir, 2);
        let Opened::Quarantined { path, salvaged, .. } = store.opened() else {
            panic!("{what}: {:?}", store.opened())
        };
        assert!(path.exists(), "{what}");
        // Nobody may take the file for the one that answered the lost commits.
        assert_eq!(store.incarnation(), [2; 16], "{what}");
        assert!((10..20).contains(&facts(&store)), "{what}");
        assert_eq!(*salvaged, 2 * facts(&store) as u64, "{what}");
        assert_eq!(store.lost_rows()[0].table, "log", "{what}: {:?}", store.lost_rows());
        store.commit_blocking(put(20)).unwrap();
        drop(store);
        assert_eq!(open(&dir, 3).opened(), &Opened::Clean, "{what}");
    }
}

#[test]
fn a_log_is_missed_after_a_kill_alone() {
    let without_log = |dir: &TempDir| {
        for name in &FILES[1..] {
            let _ = fs::remove_file(dir.path().join(name));
        }
    };
    // Killed before its first commit, and after one that was moved into the file.
    let (fresh, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let stores = [&fresh, &moved].map(|live| open(live, 1));
    stores[1].commit_blocking(put(0)).unwrap();
    Connection::open(moved.path().join(FILES[0]))
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .unwrap();
    for (live, store, rows) in [(&fresh, &stores[0], 0), (&moved, &stores[1], 1)] {
        let dir = tempfile::tempdir().unwrap();
        for name in FILES.iter().chain(&["edgecore.db.key"]) {
            fs::copy(live.path().join(name), dir.path().join(name)).unwrap();
        }
        assert_eq!(store.opened(), &Opened::Fresh);
        let whole = tempfile::tempdir().unwrap();
        for name in &FILES {
            fs::copy(dir.path().join(name), whole.path().join(name)).unwrap();
        }
        let reopened = open(&whole, 2);
        assert_eq!((reopened.opened(), facts(&reopened)), (&Opened::Clean, rows));
        // Whether there was another commit in it nobody can know.
        without_log(&dir);
        assert_eq!(open(&dir, 2).lost_rows()[0].table, "log", "{rows}");
    }
    drop(stores);
    // Closed, there is none to be missed.
    for live in [&fresh, &moved] {
        assert!(FILES[1..].iter().all(|name| !live.path().join(name).exists()));
        assert_eq!(open(live, 2).opened(), &Opened::Clean);
    }
    // Nor where a start fails: it leaves the log where it is.
    let dir = killed();
    let key = dir.path().join("edgecore.db.key");
    fs::rename(&key, dir.path().join("kept")).unwrap();
    fs::create_dir(dir.path().join("edgecore.db.key.new")).unwrap();
    for _ in 0..2 {
        let error = Store::open(dir.path().join(FILES[0]), Options::new([2; 16])).unwrap_err();
        assert!(error.to_string().contains("cannot make"), "{error}");
    }
    fs::rename(dir.path().join("kept"), &key).unwrap();
    let store = open(&dir, 2);
    assert_eq!((store.opened(), facts(&store)), (&Opened::Clean, 20));
    // A release that does not know the note takes the log with it, goes on from there and leaves the note as it was.
    let dir = killed();
    let older = Connection::open(dir.path().join(FILES[0])).unwrap();
    let revision = 21_u64.to_le_bytes();
    let mut hash = Context::new(&SHA256);
    for column in [b"meta".as_slice(), b"revision", &revision] {
        hash.update(&(column.len() as u64).to_le_bytes());
        hash.update(column);
    }
    hash.update(&0_i64.to_le_bytes());
    let sum = i64::from_le_bytes(hash.finish().as_ref()[..8].try_into().unwrap());
    let noted = "UPDATE meta SET value = ?1, sum = ?2 WHERE key = 'revision'";
    assert_eq!(older.execute(noted, (revision, sum)).unwrap(), 1);
    drop(older);
    assert!(!dir.path().join(FILES[1]).exists());
    let store = open(&dir, 2);
    assert_eq!((store.opened(), facts(&store), store.revision()), (&Opened::Clean, 20, 21));
}

#[test]
fn what_was_cut_out_of_the_log_is_said_with_what_is_known_of_it() {
    const FRAME: usize = 24 + 4096;
    type Damage = fn(&mut Vec<u8>);
    let cuts: [(&str, Damage, u64); 3] = [
        ("bytes of the middle", |bytes| drop(bytes.drain(32 + FRAME * 9 + 100..32 + FRAME * 9 + 300)), 2),
        ("frames of the middle", |bytes| drop(bytes.drain(32 + FRAME * 9..32 + FRAME * 12)), 2),
        // All that is known of these is that the log was longer.
        ("the end", |bytes| bytes.truncate(32 + FRAME * 9), 1),
    ];
    for (what, cut, least) in cuts {
        let dir = killed();
        change(&dir.path().join("edgecore.db-wal"), cut);
        let store = open(&dir, 2);
        let Opened::Quarantined { salvaged, uncounted, .. } = store.opened() else {
            panic!("{what}: {:?}", store.opened())
        };
        let kept = facts(&store);
        assert!((10..20).contains(&kept), "{what}: {kept}");
        assert_eq!((*salvaged, uncounted.as_slice()), (2 * kept as u64, ["log"].as_slice()), "{what}");
        let [lost] = store.lost_rows().try_into().unwrap();
        assert_eq!((lost.table, lost.key.as_str()), ("log", "the last commits"), "{what}");
        // Each commit is one of what is missing.
        assert!((least..=20 - kept as u64).contains(&lost.rows), "{what}: {} of {}", lost.rows, 20 - kept);
        assert_eq!(store.snapshot().damaged, lost.rows, "{what}");
        drop(store);
        assert_eq!(open(&dir, 3).opened(), &Opened::Clean, "{what}");
    }
}

#[test]
fn a_log_that_ends_early_is_no_damage_where_nobody_knows_how_long_it_was() {
    for cut in [1, 3000, 4120, 9000] {
        let dir = killed();
        change(&dir.path().join("edgecore.db-wal"), |bytes| bytes.truncate(bytes.len() - cut));
        // As after a power cut: the index is only ever in memory.
        fs::remove_file(dir.path().join("edgecore.db-shm")).unwrap();
        let store = open(&dir, 2);
        assert_eq!((store.opened(), store.snapshot().damaged), (&Opened::Clean, 0), "{cut}");
        assert!((17..20).contains(&facts(&store)), "{cut}: {}", facts(&store));
    }
}

#[tokio::test]
async fn a_file_that_breaks_while_it_is_open_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, 1);
    for n in 0..200 {
        store.commit(put(n)).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    let broken = store.broken();
    change(&dir.path().join("edgecore.db"), |bytes| bytes[4096 * 2..].fill(0xa5));
    // The caches hold good pages for a while.
    let error = (0..200).find_map(|n| store.get_row(Table::Facts, &format!("k{n}"), "").err());
    if error.is_none() {
        store.commit((0..200).flat_map(put).collect()).await.unwrap_err();
    }
    broken.await;
    drop(store);
    let store = open(&dir, 2);
    assert!(matches!(store.opened(), Opened::Quarantined { .. }), "{:?}", store.opened());
}
