//! The bytes of version 1 of the file are frozen, and what a newer release left in it stays until that is back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use edge_store::{
    Class, ObjectKey, Opened, Options, OutboxQueue, Store, StoreInspector, Table, UnknownRows, Write,
};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

fn db(dir: &Path) -> PathBuf {
    dir.join("edgecore.db")
}

fn open(dir: &Path) -> Store {
    Store::open(db(dir), Options::new([1; 16])).unwrap()
}

fn one_of_each() -> Vec<Write> {
    let report = |queue, class, key: &str| Write::Enqueue {
        queue,
        class,
        key: key.to_owned(),
        body: b"body".to_vec(),
    };
    vec![
        Write::PutObject {
            key: ObjectKey::new("configmaps", "d", "c"),
            uid: "u".to_owned(),
            content_hash: "ad63601adf5af798571dde756f0b4707".to_owned(),
            resource_version: "42".to_owned(),
            json: b"{}".to_vec(),
        },
        Write::PutRow {
            table: Table::Twins,
            key1: "d/pump".to_owned(),
            key2: "speed".to_owned(),
            value: b"v".to_vec(),
        },
        report(OutboxQueue::Node, Class::Status, "pod/u"),
        report(OutboxQueue::Devices, Class::Event, "twin/d/pump/speed"),
        report(OutboxQueue::Telemetry, Class::Telemetry, "a/user/b"),
    ]
}

/// Every row of a table, its columns by `|`.
fn rows(file: &Connection, table: &str) -> Vec<String> {
    let mut statement = file.prepare(&format!("SELECT * FROM {table} ORDER BY rowid")).unwrap();
    let width = statement.column_count();
    let lines = statement.query_map([], |row| {
        let columns: Vec<String> = (0..width)
            .map(|at| match row.get_ref(at).unwrap() {
                ValueRef::Integer(number) => number.to_string(),
                ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        Ok(columns.join("|"))
    });
    lines.unwrap().map(Result::unwrap).collect()
}

#[test]
fn version_1_of_the_file_is_frozen() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit_blocking(one_of_each()).unwrap();
    let file = Connection::open(db(dir.path())).unwrap();
    let version: i64 = file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let found: Vec<String> =
        ["objects", "module_rows", "outbox"].into_iter().flat_map(|table| rows(&file, table)).collect();
    assert_eq!((version, found.join("\n").as_str()), (1, include_str!("layout-1.txt").trim_end()));
}

/// The sum of a row that is not sealed.
fn sum(table: &str, columns: &[&str], revision: i64) -> i64 {
    let mut hash = Context::new(&SHA256);
    for column in std::iter::once(&table).chain(columns) {
        hash.update(&(column.len() as u64).to_le_bytes());
        hash.update(column.as_bytes());
    }
    hash.update(&revision.to_le_bytes());
    i64::from_le_bytes(hash.finish().as_ref()[..8].try_into().unwrap())
}

/// What a newer release has done to the file: one more column and table, and rows of kinds that this one does not know.
fn used_by_a_newer_release(path: &Path) {
    let file = Connection::open(path).unwrap();
    file.execute_batch(
        "ALTER TABLE outbox ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
         CREATE TABLE leases (name TEXT NOT NULL PRIMARY KEY) STRICT;
         PRAGMA user_version = 2;",
    )
    .unwrap();
    let value = 2_i64.to_le_bytes();
    let mut hash = Context::new(&SHA256);
    for column in [b"meta".as_slice(), b"version", &value] {
        hash.update(&(column.len() as u64).to_le_bytes());
        hash.update(column);
    }
    hash.update(&0_i64.to_le_bytes());
    let meta_sum = i64::from_le_bytes(hash.finish().as_ref()[..8].try_into().unwrap());
    file.execute("UPDATE meta SET value = ?1, sum = ?2 WHERE key = 'version'", (value, meta_sum)).unwrap();
    let row_sum = sum("module_rows", &["schedules", "a", "", "x"], 1);
    file.execute(
        "INSERT INTO module_rows VALUES ('schedules', 'a', '', CAST('x' AS BLOB), 1, ?1)",
        [row_sum],
    )
    .unwrap();
    // Ahead of everything that this release has queued.
    for (seq, (queue, class)) in
        [("alarms", "event"), ("node", "metric"), ("node", "metric")].into_iter().enumerate()
    {
        let (seq, key) = (i64::try_from(seq).unwrap() - 10, format!("k{seq}"));
        let sum = sum("outbox", &[queue, class, &key, "x"], 1);
        let row = (seq, queue, class, key, sum);
        let sql = "INSERT INTO outbox (seq, queue, class, key, body, revision, sum, expires) \
            VALUES (?1, ?2, ?3, ?4, CAST('x' AS BLOB), 1, ?5, 9)";
        file.execute(sql, row).unwrap();
    }
}

#[test]
fn rows_of_a_newer_release_are_kept_counted_named_and_hold_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit_blocking(one_of_each()).unwrap();
    used_by_a_newer_release(&db(dir.path()));
    for _ in 0..2 {
        let store = open(dir.path());
        assert_eq!(store.opened(), &Opened::Clean);
        let unknown = |table, kind: &str, rows| UnknownRows { table, kind: kind.to_owned(), rows };
        let expected = [
            unknown("module_rows", "schedules", 1),
            unknown("outbox", "alarms/event", 1),
            unknown("outbox", "node/metric", 2),
        ];
        assert_eq!(store.unknown_rows(), expected);
        assert_eq!(
            (store.snapshot().unknown, store.snapshot().damaged, store.snapshot().outbox_rows),
            (4, 0, 6)
        );
        assert!(store.damaged_rows().is_empty() && store.lost_rows().is_empty());
        // What this release knows goes on as if they were not there.
        let heads = [OutboxQueue::Node, OutboxQueue::Devices, OutboxQueue::Telemetry]
            .map(|queue| store.queue_head(queue, i64::MIN, 1, 1000).unwrap().len());
        assert_eq!((heads, store.outbox_head(9, 999).unwrap().len()), ([1, 1, 1], 3));
        store.commit_blocking(one_of_each()).unwrap();
        let newest = store.outbox_head(9, 999).unwrap();
        let seqs = newest.iter().filter(|row| row.seq > 3).map(|row| row.seq).collect();
        store.commit_blocking(vec![Write::Confirm { seqs }]).unwrap();
        store
            .commit_blocking(vec![Write::Enqueue {
                queue: OutboxQueue::Node,
                class: Class::Status,
                key: "pod/u".to_owned(),
                body: b"body".to_vec(),
            }])
            .unwrap();
    }
    let inspector = StoreInspector::open(db(dir.path())).unwrap();
    let strange = inspector.entries(Some("schedules"), None, false).unwrap();
    assert_eq!((strange.len(), strange[0].known, strange[0].damage), (1, false, None));
    assert_eq!(inspector.reports(None).unwrap().iter().filter(|report| !report.known).count(), 3);
    drop(inspector);
    // And they are still as they were.
    let file = Connection::open(db(dir.path())).unwrap();
    let kept: i64 = file
        .query_row("SELECT count(*) FROM outbox WHERE expires = 9 AND body = CAST('x' AS BLOB)", [], |row| {
            row.get(0)
        })
        .unwrap();
    let version: i64 = file.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!((kept, version), (3, 2));
}
