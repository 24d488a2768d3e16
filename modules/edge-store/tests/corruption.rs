//! Files that lost or changed bytes: the store always opens, and never answers with what was not written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use edge_store::{Class, Lookup, ObjectKey, Opened, Options, OutboxQueue, Store, Table, Write};
use rusqlite::Connection;
use tempfile::TempDir;

const NAMES: usize = 60;
const RUNS: u64 = 100;

fn db(dir: &Path) -> PathBuf {
    dir.join("edgecore.db")
}

fn open(dir: &Path, incarnation: u8) -> Store {
    Store::open(db(dir), Options::new([incarnation; 16])).unwrap()
}

fn value(what: &str, n: usize, version: u8) -> Vec<u8> {
    format!("{what} {n} {version} ").repeat(20 + n * 3).into_bytes()
}

fn batch(version: u8) -> Vec<Write> {
    (0..NAMES)
        .flat_map(|n| {
            [
                Write::PutObject {
                    key: ObjectKey::new("pods", "default", format!("p{n}")),
                    uid: format!("uid-{n}"),
                    content_hash: version.to_string(),
                    resource_version: "7".to_owned(),
                    json: value("pod", n, version),
                },
                Write::PutRow {
                    table: Table::Twins,
                    key1: "d".to_owned(),
                    key2: format!("t{n}"),
                    value: value("twin", n, version),
                },
                Write::Enqueue {
                    queue: OutboxQueue::Node,
                    class: Class::Status,
                    key: format!("s{n}"),
                    body: value("report", n, version),
                },
            ]
        })
        .collect()
}

/// A file as a killed process leaves it: version 1 in the file, version 2 in the log.
fn killed() -> TempDir {
    let (live, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(live.path(), 1).commit_blocking(batch(1)).unwrap();
    let store = open(live.path(), 1);
    store.commit_blocking(batch(2)).unwrap();
    copy(live.path(), dir.path());
    assert!(fs::metadata(dir.path().join("edgecore.db-wal")).unwrap().len() > 0);
    dir
}

fn copy(from: &Path, to: &Path) {
    for name in ["edgecore.db", "edgecore.db-wal"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// Every row is one of the versions that were written; says how many there are.
fn only_what_was_written(store: &Store) -> usize {
    let number = |name: &str| name[1..].parse::<usize>().unwrap();
    let written = |what: &str, n: usize, bytes: &[u8]| (1..=3).any(|v| bytes == value(what, n, v));
    let pods = store.list_objects("pods", None).unwrap();
    let twins = store.list_rows(Table::Twins, None).unwrap();
    let reports = store.outbox_head(1000, 1 << 24).unwrap();
    for pod in &pods {
        let n = number(&pod.key.name);
        assert!(written("pod", n, &pod.json) && pod.uid == format!("uid-{n}"));
    }
    for twin in &twins {
        assert!(written("twin", number(&twin.key2), &twin.value));
    }
    for report in &reports {
        assert!(written("report", number(&report.key), &report.body));
    }
    store.object_versions().unwrap();
    pods.len() + twins.len() + reports.len()
}

struct Rng(u64);

impl Rng {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Rng) -> String {
    let at = dice.roll(bytes.len());
    match dice.roll(5) {
        0 => {
            for _ in 0..=dice.roll(8) {
                let at = dice.roll(bytes.len());
                bytes[at] ^= 1 << dice.roll(8);
            }
            "bits".to_owned()
        }
        1 => {
            let at = at % 200.min(bytes.len());
            bytes[at] ^= 1 << dice.roll(8);
            format!("bit in header byte {at}")
        }
        2 => {
            bytes.truncate(at);
            format!("truncated to {at}")
        }
        3 => {
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeroes at {at}")
        }
        4.. => {
            let from = at / 4096 * 4096;
            let end = (from + 4096).min(bytes.len());
            bytes[from..end].iter_mut().for_each(|b| *b = dice.roll(256).try_into().unwrap());
            format!("garbage at {from}")
        }
    }
}

#[test]
fn a_damaged_file_opens_or_is_set_aside() {
    let template = killed();
    let (mut set_aside, mut salvaged_rows) = (0, 0);
    for seed in 0..RUNS {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        let mut dice = Rng(seed);
        let file = if seed % 3 == 0 { "edgecore.db-wal" } else { "edgecore.db" };
        if seed % 2 == 0 && seed % 3 != 0 {
            // The log moved into the file first.
            drop(open(dir.path(), 1));
        }
        let mut bytes = fs::read(dir.path().join(file)).unwrap();
        let what = damage(&mut bytes, &mut dice);
        fs::write(dir.path().join(file), &bytes).unwrap();

        let store = Store::open(db(dir.path()), Options::new([2; 16]))
            .unwrap_or_else(|e| panic!("seed {seed}, {file} {what}: {e:?}"));
        let rows = only_what_was_written(&store);
        match store.opened() {
            Opened::Quarantined { path, salvaged, .. } => {
                set_aside += 1;
                salvaged_rows += salvaged;
                assert!(path.exists() || path.with_extension("db.broken-1-wal").exists(), "{path:?}");
                assert_eq!(
                    (rows as u64, store.incarnation()),
                    (*salvaged, [2; 16].as_slice()),
                    "seed {seed}: {what}"
                );
            }
            Opened::Clean => assert_eq!(store.incarnation(), [1; 16], "seed {seed}: {what}"),
            Opened::Fresh => assert_eq!(bytes.len(), 0, "seed {seed}: {what}"),
            Opened::Emptied => panic!("seed {seed}: {what}: the copies have no key beside them"),
        }
        store.commit_blocking(batch(3)).unwrap_or_else(|e| panic!("seed {seed}, {file} {what}: {e:?}"));
        assert_eq!(only_what_was_written(&store), 3 * NAMES, "seed {seed}, {file} {what}");
        drop(store);
        let store = open(dir.path(), 3);
        assert_eq!(store.opened(), &Opened::Clean, "seed {seed}, {file} {what}");
        assert_eq!(only_what_was_written(&store), 3 * NAMES);
    }
    // The runs have to reach both ways, or they show nothing.
    assert!(set_aside > RUNS / 5 && set_aside < RUNS, "{set_aside}");
    assert!(salvaged_rows > set_aside * NAMES as u64, "{salvaged_rows} rows from {set_aside} files");
}

#[test]
fn a_page_in_the_middle_costs_its_own_rows_only() {
    let dir = killed();
    drop(open(dir.path(), 1));
    let mut bytes = fs::read(db(dir.path())).unwrap();
    // 13 is the leaf of a table.
    let page = (1..bytes.len() / 4096)
        .rev()
        .find(|page| {
            bytes[page * 4096] == 13 && bytes[page * 4096..][..4096].windows(5).any(|w| w == b"uid-3")
        })
        .unwrap();
    bytes[page * 4096..][..4096].fill(0xa5);
    fs::write(db(dir.path()), &bytes).unwrap();
    let store = open(dir.path(), 2);
    let Opened::Quarantined { path, salvaged, .. } = store.opened() else { panic!("{:?}", store.opened()) };
    assert_eq!(path, &dir.path().join("edgecore.db.broken-1"));
    assert!(fs::read(path).unwrap() == bytes, "the broken file is evidence");
    assert!(*salvaged > 2 * NAMES as u64 && *salvaged < 3 * NAMES as u64, "{salvaged}");
    assert_eq!(store.list_rows(Table::Twins, None).unwrap().len(), NAMES);
    assert_eq!(store.snapshot().outbox_rows, NAMES as u64);
    // The revision goes on from the newest row, and the seqs from the newest report.
    assert_eq!(store.revision(), 2);
    let last = store.outbox_head(1000, 1 << 24).unwrap().last().unwrap().seq;
    store
        .commit_blocking(vec![Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: "e".to_owned(),
            body: vec![],
        }])
        .unwrap();
    assert!(store.outbox_head(1000, 1 << 24).unwrap().last().unwrap().seq > last);
}

#[test]
fn a_row_with_a_wrong_checksum_is_skipped_counted_and_healed() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 1).commit_blocking(batch(1)).unwrap();
    let conn = Connection::open(db(dir.path())).unwrap();
    for sql in [
        "UPDATE objects SET json = x'00' WHERE name = 'p3'",
        "UPDATE objects SET uid = 'other' WHERE name = 'p4'",
        "UPDATE module_rows SET revision = 9 WHERE key2 = 't5'",
        "UPDATE outbox SET class = 'event' WHERE key = 's0'",
        "UPDATE outbox SET sum = 0 WHERE key = 's1'",
    ] {
        assert_eq!(conn.execute(sql, []).unwrap(), 1);
    }
    drop(conn);
    let store = open(dir.path(), 1);
    assert_eq!(store.opened(), &Opened::Clean);
    for _ in 0..2 {
        assert_eq!(store.list_objects("pods", None).unwrap().len(), NAMES - 2);
        assert_eq!(store.list_rows(Table::Twins, None).unwrap().len(), NAMES - 1);
        assert_eq!(store.outbox_head(1000, 1 << 24).unwrap().len(), NAMES - 2);
    }
    assert_eq!(store.get_row(Table::Twins, "d", "t5").unwrap(), None);
    assert_eq!(store.snapshot().damaged, 5);
    let keys: Vec<_> = store.damaged_rows().into_iter().map(|row| (row.table, row.key)).collect();
    assert!(keys.contains(&("objects", "pods/default/p3".to_owned())), "{keys:?}");
    // Its head has no version, so the cloud sends it again or has it deleted.
    let head = store.object_versions().unwrap().into_iter().find(|version| version.key.name == "p3").unwrap();
    assert_eq!((head.uid.as_str(), head.content_hash.as_str()), ("", ""));
    // Who looks it up is told that it is there and cannot be read, which is no absence.
    let key = |name: &str| ObjectKey::new("pods", "default", name);
    let before = store.snapshot().objects_read;
    let found = store.look_up(&[key("p9"), key("p3"), key("none")]).unwrap();
    assert!(
        matches!(&found[..], [Lookup::Found(pod), Lookup::Damaged, Lookup::Absent] if pod.key.name == "p9")
    );
    assert_eq!(
        (store.snapshot().objects_read - before, store.object_keys("pods").unwrap().len()),
        (2, NAMES)
    );
    let delete = |name: &str| Write::DeleteObject {
        key: ObjectKey::new("pods", "default", name),
        uid: Some("uid-4".to_owned()),
    };
    store.commit_blocking(vec![delete("p4"), delete("p5")]).unwrap();
    let names: Vec<_> =
        store.object_versions().unwrap().into_iter().map(|version| version.key.name).collect();
    assert!(!names.contains(&"p4".to_owned()) && names.contains(&"p5".to_owned()));
    // The two reports left the outbox before this commit, in the writer's queue.
    assert_eq!(store.snapshot().outbox_rows, NAMES as u64 - 2);
}

fn nothing_of(path: PathBuf) -> Opened {
    Opened::Quarantined { path, salvaged: 0, lost: 0, uncounted: vec!["objects", "module_rows", "outbox"] }
}

#[test]
fn something_else_in_the_files_place_is_set_aside_and_three_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    // Where nothing of a node is, the name is a wrong one: whatever has it stays as it is, as often as it is tried.
    for _ in 0..2 {
        fs::write(db(dir.path()), b"somebody's".repeat(20)).unwrap();
        let refused = Store::open(db(dir.path()), Options::new([0; 16])).unwrap_err().to_string();
        assert!(refused.contains("is no database") && refused.contains("database.dataSource"), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
    fs::remove_file(db(dir.path())).unwrap();
    drop(open(dir.path(), 0));
    for n in 1..=5_u8 {
        fs::write(db(dir.path()), vec![n; 3000]).unwrap();
        let store = open(dir.path(), n);
        let aside = dir.path().join(format!("edgecore.db.broken-{n}"));
        assert_eq!(store.opened(), &nothing_of(aside.clone()));
        assert!(fs::read(aside).unwrap() == vec![n; 3000]);
    }
    let broken = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("broken"));
    assert_eq!(broken.count(), 3);
    // A database of another program is not ours to write into, either.
    fs::remove_file(db(dir.path())).unwrap();
    Connection::open(db(dir.path()))
        .unwrap()
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .unwrap();
    assert!(matches!(open(dir.path(), 1).opened(), Opened::Quarantined { salvaged: 0, .. }));
}

#[test]
fn a_log_without_its_file_is_not_replayed() {
    let dir = killed();
    fs::remove_file(db(dir.path())).unwrap();
    let store = open(dir.path(), 2);
    assert!(matches!(store.opened(), Opened::Quarantined { salvaged: 0, .. }), "{:?}", store.opened());
    assert!(dir.path().join("edgecore.db.broken-1-wal").exists());
    assert_eq!(only_what_was_written(&store), 0);
}

#[test]
fn a_crash_while_setting_aside_is_finished() {
    // The broken file is moved, its log is not, and the finished copy has not taken the place.
    let dir = killed();
    let copy_dir = tempfile::tempdir().unwrap();
    open(copy_dir.path(), 9).commit_blocking(batch(1)).unwrap();
    fs::rename(db(dir.path()), dir.path().join("edgecore.db.broken-4")).unwrap();
    fs::copy(db(copy_dir.path()), dir.path().join("edgecore.db.salvage")).unwrap();
    let store = open(dir.path(), 2);
    let aside = dir.path().join("edgecore.db.broken-4");
    // What the run before it lost was said there.
    let (salvaged, uncounted) = (3 * NAMES as u64, vec!["file"]);
    assert_eq!(store.opened(), &Opened::Quarantined { path: aside, salvaged, lost: 0, uncounted });
    assert!(dir.path().join("edgecore.db.broken-4-wal").exists());
    assert_eq!((only_what_was_written(&store), store.incarnation()), (3 * NAMES, [9; 16].as_slice()));
    // An unfinished copy beside a file that is there is thrown away.
    drop(store);
    fs::write(dir.path().join("edgecore.db.salvage"), b"half").unwrap();
    assert_eq!(open(dir.path(), 2).opened(), &Opened::Clean);
    assert!(!dir.path().join("edgecore.db.salvage").exists());
}
