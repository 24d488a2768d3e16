//! Secrets in the file: nobody reads them without the key, and without the key they are fetched again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use edge_store::{
    Class, Damage, InspectedReport, ObjectKey, Opened, Options, OutboxQueue, Store, StoreError,
    StoreInspector, Table, WallClock, Write,
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
        content_hash: "7".to_owned(),
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
        Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: "event/d/e".to_owned(),
            body: b"body".to_vec(),
        },
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
    assert_eq!(store.object_versions().unwrap().len(), 2);
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
        assert_eq!((lost.key.as_str(), lost.damage), ("secrets/default/s", Damage::Sealed));
        let [lost] = store.lost_rows().try_into().unwrap();
        assert_eq!(
            (lost.table, lost.key.as_str(), lost.damage),
            ("module_rows", "tokens/t/", Damage::Sealed)
        );
        assert_eq!((secret(&store), token_of(&store)), (None, None));
        let versions = store.object_versions().unwrap();
        assert_eq!(
            (versions[0].content_hash.as_str(), versions[1].content_hash.as_str()),
            ("7", ""),
            "the cloud sends the secret again"
        );
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
    assert!(matches!(store.opened(), Opened::Quarantined { .. }), "{:?}", store.opened());
    assert_eq!((secret(&store).as_deref(), token_of(&store).as_deref()), (Some(WORD), Some(WORD)));
    // Every pod that is gone is named.
    let lost = store.damaged_rows();
    assert_eq!(store.list_objects("pods", None).unwrap().len() + lost.len(), 200);
    assert!(!lost.is_empty() && lost.iter().all(|row| row.damage == Damage::Lost), "{lost:?}");
    let name = lost[0].key.strip_prefix("pods/default/").unwrap();
    store.commit_blocking(vec![put("pods", name, "again")]).unwrap();
    assert_eq!(store.damaged_rows().len() + 1, lost.len());
    assert_eq!(files_with(dir.path(), WORD), [""; 0]);
}

#[test]
fn a_secret_in_the_open_was_not_written_by_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgecore.db");
    open(&dir).commit_blocking(all()).unwrap();
    let file = Connection::open(&path).unwrap();
    let (json, token) = (b"{\"forged\":true}".as_slice(), b"forged".as_slice());
    let object_sum = sum("objects", &[b"secrets", b"default", b"s", b"u", b"7", b"7", json], 1);
    let row_sum = sum("module_rows", &[b"tokens", b"t", b"", token], 1);
    file.execute("UPDATE objects SET json = ?1, sum = ?2 WHERE resource = 'secrets'", (json, object_sum))
        .unwrap();
    file.execute("UPDATE module_rows SET value = ?1, sum = ?2", (token, row_sum)).unwrap();
    drop(file);
    let entries = StoreInspector::open(&path).unwrap().entries(None, None, false).unwrap();
    let damages: Vec<_> = entries.into_iter().map(|entry| entry.damage).collect();
    assert_eq!(damages, [None, Some(Damage::Unsealed), Some(Damage::Unsealed)]);
    let store = open(&dir);
    assert_eq!((secret(&store), token_of(&store)), (None, None));
    let [lost] = store.damaged_rows().try_into().unwrap();
    assert_eq!((lost.key.as_str(), lost.damage), ("secrets/default/s", Damage::Unsealed));
    assert!(store.object_versions().unwrap().iter().any(|version| version.content_hash.is_empty()));
}

/// The sum of a row that is not sealed.
fn sum(table: &str, columns: &[&[u8]], revision: i64) -> i64 {
    let mut hash = Context::new(&SHA256);
    for column in std::iter::once(&table.as_bytes()).chain(columns) {
        hash.update(&(column.len() as u64).to_le_bytes());
        hash.update(column);
    }
    hash.update(&revision.to_le_bytes());
    i64::from_le_bytes(hash.finish().as_ref()[..8].try_into().unwrap())
}

#[test]
fn a_look_shows_all_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edgecore.db");
    assert!(matches!(StoreInspector::open(&path).unwrap_err(), StoreError::Missing { .. }));
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
        let inspector = StoreInspector::open(&path).unwrap();
        let entries = inspector.entries(None, None, false).unwrap();
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
        assert!(entries.iter().all(|e| e.damage.is_none() && e.value.is_none() && e.size > 8));
        let one = inspector.entries(Some("secrets"), Some("default/s"), true).unwrap();
        assert_eq!((one.len(), one[0].value.as_deref()), (1, Some(WORD.as_bytes())));
        assert!(inspector.entries(Some("secrets"), Some("c"), true).unwrap().is_empty());
        let report = InspectedReport {
            seq: 1,
            queue: "node".to_owned(),
            known: true,
            class: "event".to_owned(),
            key: "event/d/e".to_owned(),
            size: 4,
            queued: Some(1_700_000_000),
            damage: None,
        };
        assert_eq!(inspector.reports(Some("e")).unwrap(), [report]);
        assert!(inspector.reports(Some("other")).unwrap().is_empty() && inspector.key_trouble().is_none());
        drop(inspector);
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
    let inspector = StoreInspector::open(&path).unwrap();
    assert!(inspector.key_trouble().unwrap().contains("edgecore.db.key does not exist"));
    let damages: Vec<_> =
        inspector.entries(None, None, true).unwrap().into_iter().map(|e| e.damage).collect();
    assert_eq!(damages, [Some(Damage::Checksum), Some(Damage::Sealed), Some(Damage::Sealed)]);
    let report = inspector.reports(None).unwrap().remove(0);
    assert_eq!((report.damage, report.key.as_str()), (Some(Damage::Checksum), "a\u{fffd}b"));
    for text in [b"".as_slice(), b"something else", &[7; 5000]] {
        fs::write(&path, text).unwrap();
        let error = StoreInspector::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotAStore { .. }), "{error:?}");
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(StoreInspector::open(&path).unwrap_err(), StoreError::NotAStore { .. }));
}
