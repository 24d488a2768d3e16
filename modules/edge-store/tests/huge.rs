//! Rows that are larger than any that a store writes: somebody has put them into the file, and they are not taken into memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rerun;

use std::path::{Path, PathBuf};

use edge_store::{
    Class, Damage, Lookup, ObjectKey, Opened, Options, OutboxQueue, Store, StoreError, Table, Write,
};
use rusqlite::Connection;

fn db(dir: &Path) -> PathBuf {
    dir.join("edgecore.db")
}

fn open(dir: &Path) -> Store {
    Store::open(db(dir), Options::new([1; 16])).unwrap()
}

fn object(name: &str, json: Vec<u8>) -> Write {
    Write::PutObject {
        key: ObjectKey::new("pods", "d", name),
        uid: "u".to_owned(),
        content_hash: "h".to_owned(),
        resource_version: "1".to_owned(),
        json,
    }
}

fn row(key2: &str) -> Write {
    Write::PutRow { table: Table::Twins, key1: "d".to_owned(), key2: key2.to_owned(), value: b"v".to_vec() }
}

fn reading(key: &str) -> Write {
    let (queue, class) = (OutboxQueue::Telemetry, Class::Telemetry);
    Write::Enqueue { queue, class, key: key.to_owned(), body: b"b".to_vec() }
}

/// A closed store with two rows in each table, after `planted` was done to it.
fn planted(dir: &Path, planted: &str) {
    let writes =
        ["a", "b"].into_iter().flat_map(|name| [object(name, b"{}".to_vec()), row(name), reading(name)]);
    open(dir).commit_blocking(writes.collect()).unwrap();
    Connection::open(db(dir)).unwrap().execute_batch(planted).unwrap();
}

/// So many bytes more than any store writes, and few enough for a test.
const IN_VALUES: &str = "UPDATE objects SET json = zeroblob(120000000) WHERE name = 'a';
    UPDATE module_rows SET value = zeroblob(120000000) WHERE key2 = 'a';
    UPDATE outbox SET body = zeroblob(120000000) WHERE key = 'a'";

fn named(store: &Store) -> Vec<(&'static str, String, Damage)> {
    let lost = store.damaged_rows().into_iter().chain(store.lost_rows());
    lost.map(|row| (row.table, row.key, row.damage)).collect()
}

#[test]
fn huge_rows_are_skipped_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    planted(dir.path(), &IN_VALUES.replace("120000000", "9000000"));
    let store = open(dir.path());
    assert_eq!((store.opened(), store.snapshot().damaged), (&Opened::Clean, 3));
    let damage = Damage::Size;
    let expected =
        [("objects", "pods/d/a"), ("module_rows", "twins/d/a"), ("outbox", "telemetry/telemetry/a")];
    assert_eq!(named(&store), expected.map(|(table, key)| (table, key.to_owned(), damage)));
    let rows = store.list_rows(Table::Twins, None).unwrap().len();
    assert_eq!((store.list_objects("pods", None).unwrap().len(), rows), (1, 1));
    assert_eq!(store.outbox_head(9, 999).unwrap().len(), 1);
    let a = ObjectKey::new("pods", "d", "a");
    assert_eq!(store.look_up(&[a]).unwrap(), [Lookup::Damaged]);
    // The cloud sends it again or has it deleted; the others are gone.
    store.commit_blocking(vec![object("a", b"{}".to_vec())]).unwrap();
    assert!(store.damaged_rows().is_empty());
    drop(store);
    assert_eq!(open(dir.path()).snapshot().damaged, 0);
}

#[test]
fn whichever_column_is_huge_the_other_rows_are_there() {
    let columns = [
        (
            "objects",
            "pods",
            &["resource", "namespace", "name", "uid", "content_hash", "resource_version"][..],
        ),
        ("module_rows", "twins", &["kind", "key1", "key2"]),
        ("outbox", "telemetry", &["queue", "class", "key"]),
    ];
    for (table, word, names) in columns {
        for name in names {
            let dir = tempfile::tempdir().unwrap();
            let huge = format!("UPDATE {table} SET {name} = printf('%9000000d', 1) WHERE rowid = 1");
            planted(dir.path(), &huge);
            let store = open(dir.path());
            let twins = store.list_rows(Table::Twins, None).unwrap().len();
            let found = store.list_objects("pods", None).unwrap().len() + twins;
            assert_eq!(found + store.outbox_head(9, 999).unwrap().len(), 5, "{table} {name}");
            let [(of, key, Damage::Size)] = <[_; 1]>::try_from(named(&store)).unwrap() else {
                panic!("{table} {name}")
            };
            assert!(of == table && (key.contains(word) || names[0] == *name), "{table} {name}: {key}");
            if let Opened::Quarantined { lost, uncounted, .. } = store.opened() {
                assert!(*lost == 1 && uncounted.is_empty(), "{table} {name}: {:?}", store.opened());
            }
            store.commit_blocking(vec![object("c", b"{}".to_vec()), row("c"), reading("c")]).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    planted(dir.path(), "UPDATE meta SET value = zeroblob(9000000) WHERE key = 'incarnation'");
    assert!(matches!(open(dir.path()).opened(), Opened::Quarantined { salvaged: 6, lost: 0, .. }));
}

#[test]
fn no_option_lets_a_row_in_that_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new([1; 16]);
    options.row_bytes = usize::MAX;
    let store = Store::open(db(dir.path()), options).unwrap();
    let most = (8 << 20) - 4096 - "podsdauh1".len();
    let refused = store.commit_blocking(vec![object("a", vec![0; most + 1])]).unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { .. }), "{refused}");
    store.commit_blocking(vec![object("a", vec![0; most])]).unwrap();
    drop(store);
    let found = open(dir.path()).list_objects("pods", None).unwrap();
    assert_eq!(found.iter().map(|pod| pod.json.len()).collect::<Vec<_>>(), [most]);
}

/// The most memory that this process ever had, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn huge_rows_cost_no_memory() {
    const NAME: &str = "huge_rows_cost_no_memory";
    if let Some(dir) = rerun::given() {
        let store = open(Path::new(&dir));
        assert_eq!(store.list_objects("pods", None).unwrap().len(), 1);
        assert!(most_memory() < 60_000, "{} KiB", most_memory());
        return;
    }
    // In the second the file has to be salvaged besides.
    for more in ["", "; CREATE TRIGGER t AFTER INSERT ON outbox BEGIN DELETE FROM module_rows; END"] {
        let dir = tempfile::tempdir().unwrap();
        planted(dir.path(), &format!("{IN_VALUES}{more}"));
        let out = rerun::this_test(NAME, dir.path().to_str().unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
    }
}
