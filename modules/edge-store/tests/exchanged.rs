//! Files that are removed, renamed or replaced while the store is open: what waits for the cloud is not lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use edge_store::{Class, ObjectKey, Opened, Options, OutboxQueue, Store, StoreError, Table, Write};
use tempfile::TempDir;

const FILES: [&str; 3] = ["edgecore.db", "edgecore.db-wal", "edgecore.db-shm"];

fn open(dir: &Path, incarnation: u8) -> Store {
    Store::open(dir.join("edgecore.db"), Options::new([incarnation; 16])).unwrap()
}

/// A fact, a secret and a report.
fn put(n: usize) -> Vec<Write> {
    let value = format!("v{n}").into_bytes();
    vec![
        Write::PutRow {
            table: Table::Facts,
            key1: format!("k{n}"),
            key2: String::new(),
            value: value.clone(),
        },
        Write::PutRow { table: Table::Tokens, key1: format!("t{n}"), key2: String::new(), value },
        Write::PutObject {
            key: ObjectKey::new("secrets", "d", format!("s{n}")),
            uid: "u".to_owned(),
            content_hash: "h".to_owned(),
            resource_version: "7".to_owned(),
            json: b"{}".to_vec(),
        },
        Write::Enqueue { queue: OutboxQueue::Node, class: Class::Event, key: format!("{n}"), body: vec![1] },
    ]
}

/// All facts, tokens, secrets and reports from 0 on, in their order.
fn holds(store: &Store, count: usize) {
    let rows = |table| store.list_rows(table, None).unwrap().len();
    assert_eq!((rows(Table::Facts), rows(Table::Tokens)), (count, count));
    assert_eq!(store.list_objects("secrets", None).unwrap().len(), count);
    let reports: Vec<String> =
        store.outbox_head(1000, 1 << 20).unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(reports, (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((store.snapshot().damaged, store.lost_rows()), (0, Vec::new()));
}

fn aside(dir: &Path) -> PathBuf {
    dir.join("edgecore.db.broken-1")
}

/// A running store with three commits in its log and more in its file, of which `what` is done to the files.
fn running(what: impl FnOnce(&Path)) -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    drop({
        let store = open(dir.path(), 1);
        (0..5).for_each(|n| _ = store.commit_blocking(put(n)).unwrap());
        store
    });
    let store = open(dir.path(), 1);
    (5..8).for_each(|n| _ = store.commit_blocking(put(n)).unwrap());
    what(dir.path());
    (dir, store)
}

fn remove(dir: &Path, names: &[&str]) {
    names.iter().for_each(|name| fs::remove_file(dir.join(name)).unwrap());
}

/// Another store in the place of this one's files, as of a backup that is put back.
fn replace(dir: &Path) {
    let other = tempfile::tempdir().unwrap();
    let store = open(other.path(), 9);
    store.commit_blocking(put(77)).unwrap();
    for name in FILES {
        fs::copy(other.path().join(name), dir.join("new")).unwrap();
        fs::rename(dir.join("new"), dir.join(name)).unwrap();
    }
}

type Deed = fn(&Path);

const DEEDS: [(&str, Deed, &str); 6] = [
    ("the file is removed", |dir| remove(dir, &FILES[..1]), "edgecore.db is gone"),
    ("all of it is removed", |dir| remove(dir, &FILES), "edgecore.db is gone"),
    (
        "its key and its lock, too",
        |dir| {
            remove(dir, &FILES);
            remove(dir, &["edgecore.db.key", "edgecore.db.lock"]);
        },
        "edgecore.db is gone",
    ),
    (
        "the file is renamed",
        |dir| fs::rename(dir.join(FILES[0]), dir.join("old")).unwrap(),
        "edgecore.db is gone",
    ),
    ("the log is removed", |dir| remove(dir, &FILES[1..2]), "edgecore.db-wal is gone"),
    ("another store is put there", replace, "edgecore.db is another file"),
];

#[tokio::test]
async fn what_a_store_holds_is_put_back_when_its_files_are_taken_away() {
    for (what, deed, found) in DEEDS {
        let (dir, store) = running(deed);
        store.look_after_files();
        let why = store.broken().await;
        assert!(why.contains(found) && why.contains("Stop edgecore before"), "{what}: {why}");
        let refused = store.commit(put(8)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Exchanged { .. }), "{what}: {refused}");
        drop(store);
        let store = open(dir.path(), 2);
        assert_eq!((store.opened(), store.incarnation()), (&Opened::Clean, [1; 16].as_slice()), "{what}");
        holds(&store, 8);
        assert_eq!(store.put_back_before(), Some(why.as_str()), "{what}");
        store.commit_blocking(put(8)).unwrap();
        drop(store);
        let store = open(dir.path(), 2);
        holds(&store, 9);
        assert_eq!(store.put_back_before(), None, "{what}: it is told once");
    }
}

#[test]
fn a_commit_that_is_answered_is_in_the_file_of_that_name() {
    for (what, deed, _) in DEEDS {
        let (dir, store) = running(deed);
        store.commit_blocking(put(8)).unwrap();
        // As after a kill: nothing that the store does when it ends.
        let after = tempfile::tempdir().unwrap();
        for name in FILES.iter().chain(&["edgecore.db.key"]) {
            let _ = fs::copy(dir.path().join(name), after.path().join(name));
        }
        let found = open(after.path(), 2);
        assert_eq!(found.opened(), &Opened::Clean, "{what}");
        holds(&found, 9);
    }
}

#[test]
fn a_store_that_is_closed_in_order_leaves_what_it_held() {
    for (what, deed, _) in DEEDS {
        let (dir, store) = running(deed);
        drop(store);
        let store = open(dir.path(), 2);
        assert_eq!(store.opened(), &Opened::Clean, "{what}");
        holds(&store, 8);
        assert!(store.put_back_before().is_some(), "{what}");
    }
}

#[test]
fn what_lay_in_its_place_is_kept() {
    let (dir, store) = running(replace);
    drop(store);
    let other = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let from = PathBuf::from(format!("{}{suffix}", aside(dir.path()).display()));
        fs::copy(from, other.path().join(format!("edgecore.db{suffix}"))).unwrap();
    }
    let store = open(other.path(), 3);
    assert_eq!(store.incarnation(), [9; 16]);
    assert_eq!(store.list_rows(Table::Facts, None).unwrap()[0].key1, "k77");
}

/// Whoever reads beside the writer must not read another file.
#[test]
fn nobody_reads_the_file_that_lies_there_now() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    store.commit_blocking(put(0)).unwrap();
    // No connection that reads is open yet.
    replace(dir.path());
    let refused = store.list_rows(Table::Facts, None).unwrap_err();
    assert!(matches!(refused, StoreError::Exchanged { .. }), "{refused}");
}

#[tokio::test]
async fn where_it_cannot_be_put_back_the_store_goes_on_and_tries_again() {
    let (dir, store) = running(|dir| {
        remove(dir, &FILES);
        remove(dir, &["edgecore.db.lock"]);
    });
    // Somebody has begun on the name meanwhile.
    let held = edge_store::hold(&dir.path().join("edgecore.db")).unwrap();
    for n in 8..10 {
        store.commit(put(n)).await.unwrap();
    }
    let trouble = store.snapshot().trouble.unwrap();
    let pid = format!("(pid {})", std::process::id());
    assert!(trouble.contains("cannot be put back yet") && trouble.contains(&pid), "{trouble}");
    drop(held);
    store.look_after_files();
    store.broken().await;
    assert_eq!(store.snapshot().trouble, None);
    drop(store);
    let store = open(dir.path(), 2);
    assert_eq!(store.opened(), &Opened::Clean);
    holds(&store, 10);
}

/// Without it the next start could not open what is sealed.
#[tokio::test]
async fn a_key_that_is_removed_or_changed_is_put_back() {
    let deeds: [Deed; 2] = [
        |dir| remove(dir, &["edgecore.db.key"]),
        |dir| fs::write(dir.join("edgecore.db.key"), "another").unwrap(),
    ];
    for deed in deeds {
        let (dir, store) = running(deed);
        store.look_after_files();
        store.commit(put(8)).await.unwrap();
        drop(store);
        holds(&open(dir.path(), 2), 9);
    }
}

#[tokio::test]
async fn files_that_are_as_they_were_are_left_alone() {
    let (dir, store) = running(|_| {});
    store.look_after_files();
    store.commit(put(8)).await.unwrap();
    store.checkpoint().await.unwrap();
    store.look_after_files();
    store.commit(put(9)).await.unwrap();
    drop(store);
    let names = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 3, "the file, its key and its lock");
    let store = open(dir.path(), 2);
    holds(&store, 10);
    assert_eq!(store.put_back_before(), None);
}
