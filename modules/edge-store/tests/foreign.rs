//! What lies in the store's place and is not what this node has put there: a file with a program in it, another node's store,
//! a link to something else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use edge_store::{Class, Opened, Options, OutboxQueue, Store, StoreError, StoreInspector, Table, Write};
use rusqlite::Connection;

fn db(dir: &Path) -> PathBuf {
    dir.join("edgecore.db")
}

fn open_as(dir: &Path, node: Option<&str>) -> Result<Store, StoreError> {
    let mut options = Options::new([1; 16]);
    options.node = node.map(str::to_owned);
    Store::open(db(dir), options)
}

fn reading(n: u8) -> Write {
    let key = "a/user/b".to_owned();
    Write::Enqueue { queue: OutboxQueue::Telemetry, class: Class::Telemetry, key, body: vec![n; 100] }
}

fn fill(store: &Store) {
    let twin = Write::PutRow {
        table: Table::Twins,
        key1: "d".to_owned(),
        key2: "t".to_owned(),
        value: b"v".to_vec(),
    };
    store.commit_blocking(vec![twin, reading(1), reading(2)]).unwrap();
}

#[test]
fn a_file_that_holds_a_program_is_set_aside_and_nothing_of_it_ran() {
    let foreign = "it holds what no store has: CREATE";
    for (planted, reason) in [
        ("CREATE TRIGGER steal AFTER INSERT ON outbox BEGIN DELETE FROM module_rows; END", foreign),
        ("CREATE VIEW peek AS SELECT * FROM objects", foreign),
        // Those that say to be something else, which SQLite itself sees.
        (
            "CREATE TRIGGER steal AFTER INSERT ON outbox BEGIN DELETE FROM module_rows; END;
             PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'index' WHERE name = 'steal'",
            "malformed database schema (steal)",
        ),
        (
            "CREATE VIEW peek AS SELECT * FROM objects; PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET type = 'table', rootpage = 5 WHERE name = 'peek'",
            "malformed database schema (peek)",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(&open_as(dir.path(), None).unwrap());
        Connection::open(db(dir.path())).unwrap().execute_batch(planted).unwrap();
        let said = StoreInspector::open(db(dir.path())).unwrap_err().to_string();
        assert!(said.contains(reason), "{planted}: {said}");

        let store = open_as(dir.path(), None).unwrap();
        let Opened::Quarantined { path, salvaged: 3, lost: 0, uncounted } = store.opened() else {
            panic!("{planted}: {:?}", store.opened())
        };
        assert!(path.exists() && uncounted.is_empty(), "{planted}: {uncounted:?}");
        store.commit_blocking(vec![reading(3)]).unwrap();
        assert_eq!(store.list_rows(Table::Twins, None).unwrap().len(), 1, "{planted}");
        drop(store);
        assert_eq!(open_as(dir.path(), None).unwrap().opened(), &Opened::Clean, "{planted}");
    }
}

#[test]
fn what_refuses_the_rows_of_a_store_is_set_aside_and_they_are_carried_over() {
    let check = "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'body BLOB', 'body BLOB CHECK (length(body) > 999)') WHERE name = 'outbox'";
    // Rows, and so pages, in another order than a store has them.
    let unique = "CREATE TABLE other (seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, class TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL, body BLOB NOT NULL, revision INTEGER NOT NULL, sum INTEGER NOT NULL, queued INTEGER NOT NULL DEFAULT 0) STRICT;
         DELETE FROM outbox WHERE seq = 1; INSERT INTO other SELECT * FROM outbox; DROP TABLE outbox;
         ALTER TABLE other RENAME TO outbox; CREATE UNIQUE INDEX outbox_newest ON outbox (key) WHERE class = 'status';
         CREATE INDEX outbox_queue ON outbox (queue, seq)";
    for (planted, reason, rows) in [
        ("CREATE UNIQUE INDEX ui ON module_rows (kind)", "CREATE UNIQUE INDEX ui ON module_rows (kind)", 3),
        ("CREATE UNIQUE INDEX ui ON module_rows (kind) WHERE key1 > ''", "CREATE UNIQUE INDEX ui", 3),
        ("CREATE INDEX ji ON outbox (abs(1 / length(body)))", "CREATE INDEX ji", 3),
        (
            "DROP INDEX outbox_newest; CREATE UNIQUE INDEX outbox_newest ON outbox (seq)",
            "CREATE UNIQUE INDEX outbox_newest",
            3,
        ),
        (check, "CHECK in table outbox", 3),
        (unique, "sqlite_autoindex_outbox_1", 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(&open_as(dir.path(), None).unwrap());
        Connection::open(db(dir.path())).unwrap().execute_batch(planted).unwrap();
        let said = StoreInspector::open(db(dir.path())).unwrap_err().to_string();
        assert!(said.contains(&format!("it holds what no store has: {reason}")), "{planted}: {said}");
        let store = open_as(dir.path(), None).unwrap();
        let Opened::Quarantined { salvaged, lost: 0, uncounted, .. } = store.opened() else {
            panic!("{planted}: {:?}", store.opened())
        };
        assert!(*salvaged == rows && uncounted.is_empty(), "{planted}: {salvaged} {uncounted:?}");
        fill(&store);
        drop(store);
        assert_eq!(open_as(dir.path(), None).unwrap().opened(), &Opened::Clean, "{planted}");
    }
}

#[test]
fn what_a_newer_release_adds_to_the_tables_stays_and_refuses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open_as(dir.path(), None).unwrap());
    let added = "CREATE INDEX outbox_class ON outbox (class, queue);
         ALTER TABLE outbox ADD COLUMN checked TEXT NOT NULL DEFAULT 'no';
         CREATE TABLE leases (name TEXT PRIMARY KEY CHECK (name > ''), seq INTEGER REFERENCES outbox (seq) ON DELETE RESTRICT);
         CREATE UNIQUE INDEX lease ON leases (seq); INSERT INTO leases VALUES ('a', 1)";
    Connection::open(db(dir.path())).unwrap().execute_batch(added).unwrap();
    for _ in 0..2 {
        let store = open_as(dir.path(), None).unwrap();
        assert_eq!(store.opened(), &Opened::Clean);
        // Nothing in a table that is not ours holds our rows fast.
        let seqs = store.outbox_head(9, 9999).unwrap().iter().map(|row| row.seq).collect();
        store.commit_blocking(vec![Write::Confirm { seqs }]).unwrap();
        fill(&store);
    }
    let file = Connection::open(db(dir.path())).unwrap();
    let kept = "SELECT count(*) FROM sqlite_schema WHERE name IN ('outbox_class', 'leases', 'lease')";
    assert_eq!(file.query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 3);
}

#[test]
fn the_store_of_another_node_is_refused_also_where_it_is_broken_and_stays_as_it_is() {
    type Damage = fn(&Path);
    let states: [(&str, Damage); 3] = [
        ("sound", |_| {}),
        ("without a header", |path| change(path, |bytes| bytes[..100].fill(0))),
        ("without its last page", |path| change(path, |bytes| bytes.truncate(bytes.len() - 4096))),
    ];
    for (what, damage) in states {
        let dir = tempfile::tempdir().unwrap();
        fill(&open_as(dir.path(), Some("edge-1")).unwrap());
        damage(&db(dir.path()));
        for _ in 0..2 {
            let refused = open_as(dir.path(), Some("edge-2")).unwrap_err();
            assert!(matches!(refused, StoreError::OtherNode { .. }), "{what}: {refused}");
            let said = refused.to_string();
            for part in [db(dir.path()).to_str().unwrap(), "`edge-1`", "`edge-2`", "move the store away"] {
                assert!(said.contains(part), "{what}: {said}");
            }
        }
        let names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
            .collect();
        assert_eq!(names.len(), 3, "{what}: the file, its key and its lock: {names:?}");
        // Its own node has all of it.
        let store = open_as(dir.path(), Some("edge-1")).unwrap();
        assert_eq!(store.outbox_head(9, 9999).unwrap().len(), 2, "{what}");
        assert_eq!(store.list_rows(Table::Twins, None).unwrap().len(), 1, "{what}");
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_store_from_before_names_were_noted_is_its_nodes_from_the_first_start_on() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open_as(dir.path(), None).unwrap());
    let store = open_as(dir.path(), Some("edge-1")).unwrap();
    assert_eq!((store.opened(), store.outbox_head(9, 9999).unwrap().len()), (&Opened::Clean, 2));
    drop(store);
    assert!(matches!(open_as(dir.path(), Some("edge-2")), Err(StoreError::OtherNode { .. })));
    // The release before this one asks nothing.
    assert_eq!(open_as(dir.path(), None).unwrap().opened(), &Opened::Clean);
    // A copy that was salvaged has the name, too.
    change(&db(dir.path()), |bytes| bytes[..16].fill(0));
    drop(open_as(dir.path(), Some("edge-1")).unwrap());
    assert!(matches!(open_as(dir.path(), Some("edge-2")), Err(StoreError::OtherNode { .. })));
}

#[test]
fn damaged_readings_of_one_topic_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_as(dir.path(), None).unwrap();
    fill(&store);
    store.commit_blocking((3..=9).map(reading).collect()).unwrap();
    let file = Connection::open(db(dir.path())).unwrap();
    let damage = |seqs: &str| {
        let sql = format!("UPDATE outbox SET body = x'00' WHERE seq IN ({seqs})");
        file.execute(&sql, []).unwrap();
    };
    damage("1, 2, 4, 5, 6");
    assert_eq!(store.outbox_head(99, 9999).unwrap().len(), 4);
    let rows = |store: &Store| {
        let [row] = store.lost_rows().try_into().unwrap();
        (row.key, row.rows)
    };
    let topic = "telemetry/telemetry/a/user/b".to_owned();
    assert_eq!((rows(&store), store.snapshot().damaged), ((topic.clone(), 5), 5));
    damage("9");
    store.outbox_head(99, 9999).unwrap();
    assert_eq!((rows(&store), store.snapshot().damaged), ((topic.clone(), 6), 6));
    drop(store);
    damage("3, 7, 8");
    drop(file);
    let store = open_as(dir.path(), None).unwrap();
    assert_eq!((rows(&store), store.snapshot().damaged), ((topic, 3), 3));
}

#[test]
fn a_link_in_the_place_of_a_file_is_refused_and_what_it_leads_to_stays_as_it_is() {
    for suffix in ["", "-wal", "-shm", "-journal", ".key", ".lock"] {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("target");
        fs::write(&target, b"somebody's").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        let link = dir.path().join(format!("edgecore.db{suffix}"));
        symlink(&target, &link).unwrap();
        let said = open_as(dir.path(), None).unwrap_err().to_string();
        assert!(said.contains(&format!("{} is a symbolic link", link.display())), "{said}");
        assert!(said.ends_with("move this away"), "{said}");
        // The names of the others follow from the database's.
        assert_eq!(said.contains("database.dataSource"), suffix.is_empty(), "{said}");
        assert_eq!(fs::read(&target).unwrap(), b"somebody's");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644, "{suffix}");
        // Also where nothing is yet.
        fs::remove_file(&target).unwrap();
        assert!(open_as(dir.path(), None).is_err() && !target.exists(), "{suffix}");
    }
    // The folder may lie elsewhere.
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(elsewhere.path(), dir.path().join("folder")).unwrap();
    fill(&open_as(&dir.path().join("folder"), None).unwrap());
    assert!(db(elsewhere.path()).exists());
}
