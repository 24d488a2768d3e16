//! Secrets in the file: nobody reads them without the key, and without the key they are fetched again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use edge_store::{
    Class, Harm, ObjectKey, Opened, Options, Peek, Report, Store, StoreError, Table, WallClock, Write,
};
use rusqlite::Connection;
use tempfile::TempDir;

const WORD: &str = "hunter2-and-nobody-else";

fn open(dir: &TempDir) -> Store {
    let mut options = Options::new([1; 16]);
    options.clock = Some(WallClock::new(|| 1_700_000_000));
    Store::open(dir.path().join("edgecore.db"), options).unwrap()
}

fn key(resource: &str, name: &str) -> ObjectKey {
    ObjectKey::new(resource, "default", name)
}

fn put(resource: &str, name: &str, json: &str) -> Write {
    Write::PutObject {
        key: key(resource, name),
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
        json: json.as_bytes().to_vec(),
    }
}

fn token(name: &str, value: &str) -> Write {
    Write::PutRow {
        table: Table::Tokens,
        key1: name.to_owned(),
        key2: String::new(),
        value: value.as_bytes().to_vec(),
    }
}

fn all() -> Vec<Write> {
    vec![
        put("secrets", "s", WORD),
        put("configmaps", "c", "in the open"),
        token("t", WORD),
        Write::Enqueue { class: Class::Event, key: "event/d/e".to_owned(), body: b"body".to_vec() },
    ]
}

/// The files in the folder that have `text` in them.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    names
}

fn secret(store: &Store) -> Option<String> {
    store.get_object(&key("secrets", "s")).unwrap().map(|object| String::from_utf8(object.json).unwrap())
}

fn token_of(store: &Store) -> Option<String> {
    store.get_row(Table::Tokens, "t", "").unwrap().map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn secrets_and_tokens_do_not_stand_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.commit_blocking(all()).unwrap();
    assert_eq!(files_with(dir.path(), WORD), [""; 0]);
    assert_eq!(files_with(dir.path(), "in the open"), ["edgecore.db-wal"]);
    assert_eq!((secret(&store).as_deref(), token_of(&store).as_deref()), (Some(WORD), Some(WORD)));
    drop(store);
    assert_eq!(files_with(dir.path(), WORD), [""; 0]);
    let store = open(&dir);
    assert_eq!((secret(&store).as_deref(), token_of(&store).as_deref()), (Some(WORD), Some(WORD)));
    assert_eq!(store.list_rows(Table::Tokens, None).unwrap()[0].value, WORD.as_bytes());
    assert_eq!(store.object_heads().unwrap().len(), 2);
}

#[test]
fn without_its_key_a_secret_is_named_and_written_again() {
    for wrong in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        open(&dir).commit_blocking(all()).unwrap();
        let path = dir.path().join("edgecore.db.key");
        fs::remove_file(&path).unwrap();
        if wrong {
            let other = tempfile::tempdir().unwrap();
            drop(open(&other));
            fs::copy(other.path().join("edgecore.db.key"), &path).unwrap();
        }
        let store = open(&dir);
        assert_eq!(store.opened(), &Opened::Clean);
        let [lost] = store.damaged_rows().try_into().unwrap();
        assert_eq!((lost.key.as_str(), lost.harm), ("secrets/default/s", Harm::Sealed));
        let [lost] = store.lost_rows().try_into().unwrap();
        assert_eq!((lost.table, lost.key.as_str(), lost.harm), ("plain", "tokens/t/", Harm::Sealed));
        assert_eq!((secret(&store), token_of(&store)), (None, None));
        let heads = store.object_heads().unwrap();
        assert_eq!((heads[0].2.as_str(), heads[1].2.as_str()), ("7", ""), "the cloud sends the secret again");
        assert_eq!(store.outbox_head(9, 999).unwrap().len(), 1);
        store.commit_blocking(vec![put("secrets", "s", WORD), token("t", WORD)]).unwrap();
        assert!(store.damaged_rows().is_empty() && store.lost_rows().is_empty());
        assert_eq!((store.snapshot().damaged, store.snapshot().healed), (2, 2));
        drop(store);
        let store = open(&dir);
        assert_eq!((secret(&store).as_deref(), store.snapshot().damaged), (Some(WORD), 0));
    }
}

#[test]
fn a_broken_file_keeps_its_seals_when_it_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let many = (0..200).map(|n| put("pods", &format!("p{n}"), &format!("{n}").repeat(300)));
    open(&dir).commit_blocking(many.chain(all()).collect()).unwrap();
    let path = dir.path().join("edgecore.db");
    let mut bytes = fs::read(&path).unwrap();
    // A leaf with pods in it.
    let page = (1..bytes.len() / 4096)
        .find(|page| {
            bytes[page * 4096] == 13 && bytes[page * 4096..][..4096].windows(6).any(|w| w == b"podsde")
        })
        .unwrap();
    bytes[page * 4096..][..4096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let store = open(&dir);
    assert!(matches!(store.opened(), Opened::SetAside { .. }), "{:?}", store.opened());
    assert_eq!((secret(&store).as_deref(), token_of(&store).as_deref()), (Some(WORD), Some(WORD)));
    // Every pod that is gone is named.
    let lost = store.damaged_rows();
    assert_eq!(store.list_objects("pods", None).unwrap().len() + lost.len(), 200);
    assert!(!lost.is_empty() && lost.iter().all(|row| row.harm == Harm::Lost), "{lost:?}");
    let name = lost[0].key.strip_prefix("pods/default/").unwrap();
    store.commit_blocking(vec![put("pods", name, "again")]).unwrap();
    assert_eq!(store.damaged_rows().len() + 1, lost.len());
    assert_eq!(files_with(dir.path(), WORD), [""; 0]);
}

/// The sum of a row as the first release wrote it.
fn sum(table: &str, columns: &[&[u8]], revision: i64) -> i64 {
    let mut hash = Context::new(&SHA256);
    for column in std::iter::once(&table.as_bytes()).chain(columns) {
        hash.update(&(column.len() as u64).to_le_bytes());
        hash.update(column);
    }
    hash.update(&revision.to_le_bytes());
    i64::from_le_bytes(hash.finish().as_ref()[..8].try_into().unwrap())
}

/// A file of the release before this one: secrets in the open, older ones in its free space.
fn file_of_the_first_release(path: &Path) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
        CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL) STRICT;
        CREATE TABLE objects (
            resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            uid TEXT NOT NULL, resource_version TEXT NOT NULL, json BLOB NOT NULL,
            revision INTEGER NOT NULL, sum INTEGER NOT NULL,
            PRIMARY KEY (resource, namespace, name)
        ) STRICT;
        CREATE TABLE plain (
            kind TEXT NOT NULL, key1 TEXT NOT NULL, key2 TEXT NOT NULL, value BLOB NOT NULL,
            revision INTEGER NOT NULL, sum INTEGER NOT NULL,
            PRIMARY KEY (kind, key1, key2)
        ) STRICT;
        CREATE TABLE outbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, class TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
            revision INTEGER NOT NULL, sum INTEGER NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX outbox_newest ON outbox (key) WHERE class = 'status';
        PRAGMA user_version = 1;",
    )
    .unwrap();
    let facts: [(&str, &[u8]); 3] =
        [("version", &1_i64.to_le_bytes()), ("revision", &9_u64.to_le_bytes()), ("incarnation", &[6; 16])];
    for (key, value) in facts {
        let sum = sum("meta", &[key.as_bytes(), value], 0);
        conn.execute("INSERT INTO meta VALUES (?1, ?2, ?3)", (key, value, sum)).unwrap();
    }
    let object = |resource: &str, name: &str, json: &str| {
        let columns = [resource, "default", name, "u", "7", json].map(str::as_bytes);
        let sum = sum("objects", &columns, 9);
        let row = (resource, "default", name, "u", "7", json.as_bytes(), 9, sum);
        conn.execute("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)", row).unwrap();
    };
    for n in 0..30 {
        object("secrets", &format!("old{n}"), &WORD.repeat(n * 20 + 1));
    }
    conn.execute("DELETE FROM objects", []).unwrap();
    object("secrets", "s", WORD);
    object("configmaps", "c", "in the open");
    let row_sum = sum("plain", &[b"tokens", b"t", b"", WORD.as_bytes()], 9);
    conn.execute("INSERT INTO plain VALUES ('tokens', 't', '', ?1, 9, ?2)", (WORD.as_bytes(), row_sum))
        .unwrap();
    let out_sum = sum("outbox", &[b"event", b"e", b"body"], 9);
    conn.execute(
        "INSERT INTO outbox (class, key, body, revision, sum) VALUES ('event', 'e', ?1, 9, ?2)",
        (b"body", out_sum),
    )
    .unwrap();
}

#[test]
fn a_file_of_the_first_release_is_sealed_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgecore.db");
    file_of_the_first_release(&path);
    assert_eq!(files_with(dir.path(), WORD), ["edgecore.db"]);
    // A look changes nothing and shows what is not sealed yet.
    let entries = Peek::open(&path).unwrap().entries(Some("secrets"), None, false).unwrap();
    assert_eq!(
        (entries.len(), entries[0].sealed, entries[0].secret, entries[0].harm),
        (1, false, true, None)
    );
    assert!(!dir.path().join("edgecore.db.key").exists());

    let store = open(&dir);
    assert_eq!(
        (store.opened(), store.incarnation(), store.revision()),
        (&Opened::Clean, [6; 16].as_slice(), 9)
    );
    assert_eq!(files_with(dir.path(), WORD), [""; 0]);
    assert_eq!((secret(&store).as_deref(), token_of(&store).as_deref()), (Some(WORD), Some(WORD)));
    assert_eq!(store.outbox_head(9, 999).unwrap()[0].body, b"body");
    store.commit_blocking(all()).unwrap();
    drop(store);
    assert_eq!(open(&dir).snapshot().damaged, 0);

    // The first release takes a sealed row for damaged, asks for it again, and never for its text.
    let conn = Connection::open(&path).unwrap();
    let (json, revision, held): (Vec<u8>, i64, i64) = conn
        .query_row("SELECT json, revision, sum FROM objects WHERE resource = 'secrets'", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_ne!(held, sum("objects", &[b"secrets", b"default", b"s", b"u", b"7", &json], revision));
    // What it writes back in the open is sealed again at the next start.
    let sum = sum("objects", &[b"secrets", b"default", b"s", b"u", b"7", WORD.as_bytes()], revision);
    conn.execute("UPDATE objects SET json = ?1, sum = ?2 WHERE resource = 'secrets'", (WORD.as_bytes(), sum))
        .unwrap();
    conn.execute(
        "INSERT INTO outbox (class, key, body, revision, sum) VALUES ('event', 'old', x'', 9, 1)",
        [],
    )
    .unwrap();
    drop(conn);
    let store = open(&dir);
    assert_eq!((secret(&store).as_deref(), files_with(dir.path(), WORD).len()), (Some(WORD), 0));
    assert_eq!(store.snapshot().outbox_rows, 2, "a report that nobody can read is dropped");
    assert_eq!(store.lost_rows()[0].key, "event/old");
}

#[test]
fn a_look_shows_all_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgecore.db");
    assert!(matches!(Peek::open(&path).unwrap_err(), StoreError::Missing { .. }));
    let store = open(&dir);
    store.commit_blocking(all()).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let look = || {
        let before = names();
        let peek = Peek::open(&path).unwrap();
        let entries = peek.entries(None, None, false).unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|e| (e.class.as_str(), e.key.0.as_str(), e.key.1.as_str(), e.version.as_str(), e.sealed))
            .collect();
        let expected = [
            ("configmaps", "default", "c", "7", false),
            ("secrets", "default", "s", "7", true),
            ("tokens", "t", "", "#1", true),
        ];
        assert_eq!(shown, expected);
        assert!(entries.iter().all(|e| e.harm.is_none() && e.value.is_none() && e.size > 8));
        let one = peek.entries(Some("secrets"), Some("default/s"), true).unwrap();
        assert_eq!((one.len(), one[0].value.as_deref()), (1, Some(WORD.as_bytes())));
        assert!(peek.entries(Some("secrets"), Some("c"), true).unwrap().is_empty());
        let report = Report {
            seq: 1,
            class: "event".to_owned(),
            key: "event/d/e".to_owned(),
            size: 4,
            queued: Some(1_700_000_000),
            harm: None,
        };
        assert_eq!(peek.reports(Some("e")).unwrap(), [report]);
        assert!(peek.reports(Some("other")).unwrap().is_empty() && peek.key_trouble().is_none());
        drop(peek);
        assert_eq!(names(), before);
    };
    look();
    store.commit_blocking(vec![]).unwrap();
    drop(store);
    look();

    fs::remove_file(dir.path().join("edgecore.db.key")).unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute("UPDATE objects SET uid = 'x\u{1b}[2J' WHERE resource = 'configmaps'", []).unwrap();
    conn.execute("UPDATE outbox SET key = 'a\u{1b}b'", []).unwrap();
    drop(conn);
    let peek = Peek::open(&path).unwrap();
    assert!(peek.key_trouble().unwrap().contains("edgecore.db.key does not exist"));
    let harms: Vec<_> = peek.entries(None, None, true).unwrap().into_iter().map(|e| e.harm).collect();
    assert_eq!(harms, [Some(Harm::Checksum), Some(Harm::Sealed), Some(Harm::Sealed)]);
    let report = peek.reports(None).unwrap().remove(0);
    assert_eq!((report.harm, report.key.as_str()), (Some(Harm::Checksum), "a\u{fffd}b"));
    for text in [b"".as_slice(), b"something else", &[7; 5000]] {
        fs::write(&path, text).unwrap();
        let error = Peek::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotAStore { .. }), "{error:?}");
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(Peek::open(&path).unwrap_err(), StoreError::NotAStore { .. }));
}
