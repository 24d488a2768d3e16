//! Every way in which an SQLite file is typically broken, with the rows that are saved and what is said of the others.
//!
//! No row comes back that was removed. A removed row's bytes stay in the file: in a page that was given back, or in the
//! part of a page that no cell points to; the fixture makes sure of both. They are not read because salvage begins at the
//! root of each table and follows the tree's own pointers: a page that was given back left the tree in the same commit,
//! and so did the cell. Damage takes pages out of the tree, and nobody looks for them elsewhere: neither the list of free
//! pages nor the map of pages is believed, and no page is taken for its looks. A root comes from the file's own list of
//! tables, or from the place that it has in every store; it never moves, and is never given back. That a page which lost
//! its last write would still show the row is no damage of these kinds and cannot be told by anybody. The log is the one
//! exception: with commits that removed something the removal is lost, too. Then `log` stands among what is uncounted,
//! the file gets another incarnation, and the cloud has deleted what it does not have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use edge_store::{Class, ObjectKey, Opened, Options, OutboxQueue, Store, StoreInspector, Table, Write};
use tempfile::TempDir;

const PAGE: usize = 4096;
const ALL: u64 = 90;

fn db(dir: &Path) -> PathBuf {
    dir.join("edgecore.db")
}

fn open(dir: &Path, incarnation: u8) -> Store {
    Store::open(db(dir), Options::new([incarnation; 16])).unwrap()
}

fn body(name: &str) -> Vec<u8> {
    format!("{name} ").repeat(200 / (name.len() + 1)).into_bytes()
}

fn pod(name: String) -> Write {
    let json = body(&name);
    Write::PutObject {
        key: ObjectKey::new("pods", "d", name),
        uid: "u".to_owned(),
        content_hash: "h".to_owned(),
        resource_version: "1".to_owned(),
        json,
    }
}

fn twin(name: String) -> Write {
    Write::PutRow { table: Table::Twins, key1: "d".to_owned(), value: body(&name), key2: name }
}

fn report(queue: OutboxQueue, class: Class, key: String) -> Write {
    Write::Enqueue { queue, class, body: body(&key), key }
}

fn rows(prefix: &str, each: [usize; 4]) -> Vec<Write> {
    let [pods, twins, statuses, readings] = each.map(|count| (0..count).map(|n| format!("{prefix}-{n}")));
    let statuses = statuses.map(|key| report(OutboxQueue::Node, Class::Status, key));
    let readings = readings.map(|key| report(OutboxQueue::Telemetry, Class::Telemetry, key));
    pods.map(pod).chain(twins.map(twin)).chain(statuses).chain(readings).collect()
}

/// 90 rows that are kept among 320 that are removed again: the last removal is in the log while the store is open.
fn write(dir: &Path) -> Store {
    let store = open(dir, 1);
    store.commit_blocking(rows("removed", [80, 80, 0, 80])).unwrap();
    store.commit_blocking(rows("kept", [20, 20, 10, 40])).unwrap();
    store.commit_blocking(rows("removed2", [0, 0, 0, 80])).unwrap();
    drop(store);
    let store = open(dir, 1);
    let pods = (0..80)
        .map(|n| Write::DeleteObject { key: ObjectKey::new("pods", "d", format!("removed-{n}")), uid: None });
    let twins = (0..80).map(|n| Write::DeleteRow {
        table: Table::Twins,
        key1: "d".to_owned(),
        key2: format!("removed-{n}"),
    });
    let reports = store.outbox_head(1000, 1 << 24).unwrap();
    let seqs = reports.iter().filter(|report| report.key.starts_with("removed")).map(|report| report.seq);
    let confirm = Write::Confirm { seqs: seqs.collect() };
    store.commit_blocking(pods.chain(twins).chain([confirm]).collect()).unwrap();
    store
}

/// A store as a stop leaves it, and as a kill does.
fn closed() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    drop(write(dir.path()));
    let bytes = fs::read(db(dir.path())).unwrap();
    let removed = bytes.windows(8).filter(|window| window == b"removed-").count();
    assert!(removed > 1000, "what was removed still stands in the file: {removed}");
    assert!(u32::from_be_bytes(bytes[36..40].try_into().unwrap()) > 5, "pages were given back");
    dir
}

fn killed() -> TempDir {
    let (live, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _store = write(live.path());
    copy(live.path(), dir.path());
    assert!(fs::metadata(beside(dir.path(), "-wal")).unwrap().len() > 0);
    dir
}

fn beside(dir: &Path, suffix: &str) -> PathBuf {
    dir.join(format!("edgecore.db{suffix}"))
}

fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-shm", ".key", ".lock"] {
        if beside(from, suffix).exists() {
            fs::copy(beside(from, suffix), beside(to, suffix)).unwrap();
        }
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// How many rows the store gives. Each of them is one that was kept.
fn only_kept(store: &Store, what: &str) -> u64 {
    let pods = store.list_objects("pods", None).unwrap().into_iter().map(|pod| (pod.key.name, pod.json));
    let twins = store.list_rows(Table::Twins, None).unwrap().into_iter().map(|twin| (twin.key2, twin.value));
    let reports = store.outbox_head(1000, 1 << 24).unwrap().into_iter().map(|out| (out.key, out.body));
    let found: Vec<(String, Vec<u8>)> = pods.chain(twins).chain(reports).collect();
    for (name, value) in &found {
        assert!(name.starts_with("kept-") && *value == body(name), "{what}: {name} came back");
    }
    found.len() as u64
}

fn aside_log(path: &Path) -> String {
    format!("{}-wal", path.file_name().unwrap().to_string_lossy())
}

/// Opens the damaged store; gives how many rows are saved, how many are known to be lost, and of what more is.
fn opened(dir: &Path, what: &str) -> (u64, u64, Vec<&'static str>) {
    let store = open(dir, 2);
    let saved = only_kept(&store, what);
    let (lost, uncounted) = match store.opened() {
        Opened::Quarantined { path, salvaged, lost, uncounted } => {
            assert!(path.exists() || path.with_file_name(aside_log(path)).exists(), "{what}");
            assert_eq!((store.incarnation(), *salvaged), ([2; 16].as_slice(), saved), "{what}");
            (*lost, uncounted.clone())
        }
        Opened::Clean => (0, Vec::new()),
        Opened::Fresh | Opened::Emptied => (0, vec!["file"]),
    };
    // The count is the truth, or it is said that it is not.
    assert!(saved + lost == ALL || !uncounted.is_empty(), "{what}: {saved} saved, {lost} lost");
    assert!(saved + lost <= ALL, "{what}: {saved} saved, {lost} lost");
    let told = store.damaged_rows().len() + store.lost_rows().len();
    assert_eq!(told as u64, lost + uncounted.len() as u64, "{what}: {:?}", store.lost_rows());
    assert!(!beside(dir, ".mended").exists() && !beside(dir, ".salvage").exists(), "{what}");
    store.commit_blocking(rows("kept", [20, 20, 10, 0])).unwrap();
    drop(store);
    let store = open(dir, 3);
    assert_eq!(store.opened(), &Opened::Clean, "{what}");
    only_kept(&store, what);
    (saved, lost, uncounted)
}

type Case = (&'static str, fn(&Path), u64, u64, &'static [&'static str]);

const TABLES: &[&str] = &["objects", "module_rows", "outbox"];

fn file(dir: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    change(&db(dir), edit);
}

fn log(dir: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    change(&beside(dir, "-wal"), edit);
}

/// What is damaged, how, the rows saved, those known to be lost, and of what more is.
const CLOSED: &[Case] = &[
    ("nothing", |_| {}, ALL, 0, &[]),
    ("the magic is gone", |dir| file(dir, |b| b[..16].fill(0)), ALL, 0, &[]),
    ("the magic is another", |dir| file(dir, |b| b[..16].copy_from_slice(b"SQLite format 4\0")), ALL, 0, &[]),
    ("the header is zero", |dir| file(dir, |b| b[..100].fill(0)), ALL, 0, &[]),
    ("the header is garbage", |dir| file(dir, |b| b[..100].fill(0xa5)), ALL, 0, &[]),
    ("page 1 is zero", |dir| file(dir, |b| b[..PAGE].fill(0)), ALL, 0, &[]),
    ("page 1 is garbage", |dir| file(dir, |b| b[..PAGE].fill(0xa5)), ALL, 0, &[]),
    ("the list of tables is garbage", |dir| file(dir, |b| b[2000..PAGE].fill(0xa5)), ALL, 0, &[]),
    ("the page size is another", |dir| file(dir, |b| b[16..18].copy_from_slice(&[2, 0])), ALL, 0, &[]),
    ("the page size is none", |dir| file(dir, |b| b[16..18].copy_from_slice(&[0, 3])), ALL, 0, &[]),
    ("the page count is too great", |dir| file(dir, |b| b[28..32].fill(0x10)), ALL, 0, &[]),
    (
        "the page count is too small",
        |dir| file(dir, |b| b[28..32].copy_from_slice(&[0, 0, 0, 3])),
        ALL,
        0,
        &[],
    ),
    ("the list of free pages leads nowhere", |dir| file(dir, |b| b[32..36].fill(0x10)), ALL, 0, &[]),
    (
        "the list of free pages leads into a table",
        |dir| file(dir, |b| b[32..36].copy_from_slice(&[0, 0, 0, 9])),
        ALL,
        0,
        &[],
    ),
    ("the count of free pages is wrong", |dir| file(dir, |b| b[36..40].fill(1)), ALL, 0, &[]),
    ("the map of pages is zero", |dir| file(dir, |b| b[PAGE..2 * PAGE].fill(0)), ALL, 0, &[]),
    ("there is garbage behind the end", |dir| file(dir, |b| b.extend([0xa5; 3 * PAGE + 77])), ALL, 0, &[]),
    ("there are zeroes behind the end", |dir| file(dir, |b| b.extend([0; 2 * PAGE])), ALL, 0, &[]),
    ("the last bytes are gone", |dir| file(dir, |b| b.truncate(b.len() - 100)), ALL, 0, &[]),
    ("the last page is gone", |dir| file(dir, |b| b.truncate(b.len() - PAGE)), ALL, 0, &[]),
    ("half is gone", |dir| file(dir, |b| b.truncate(b.len() / 2)), 40, 50, &[]),
    ("all but a few bytes are gone", |dir| file(dir, |b| b.truncate(50)), 0, 0, TABLES),
    ("all but page 1 is gone", |dir| file(dir, |b| b.truncate(PAGE)), 0, 0, TABLES),
    (
        "the second half is zero",
        |dir| {
            file(dir, |b| {
                let half = b.len() / 2;
                b[half..].fill(0);
            })
        },
        40,
        50,
        &[],
    ),
    ("all is zero", |dir| file(dir, |b| b.fill(0)), 0, 0, TABLES),
    ("all is gone", |dir| file(dir, Vec::clear), 0, 0, &["file"]),
    ("the file is gone", |dir| fs::remove_file(db(dir)).unwrap(), 0, 0, &["file"]),
    ("the key is gone", |dir| fs::remove_file(beside(dir, ".key")).unwrap(), ALL, 0, &[]),
    (
        "the magic and the key are gone",
        |dir| {
            fs::remove_file(beside(dir, ".key")).unwrap();
            file(dir, |b| b[..16].fill(0));
        },
        ALL,
        0,
        &[],
    ),
];

const KILLED: &[Case] = &[
    ("nothing", |_| {}, ALL, 0, &[]),
    ("the magic is gone", |dir| file(dir, |b| b[..16].fill(0)), ALL, 0, &[]),
    ("page 1 is zero", |dir| file(dir, |b| b[..PAGE].fill(0)), ALL, 0, &[]),
    ("the file is cut", |dir| file(dir, |b| b.truncate(5 * PAGE)), ALL, 0, &[]),
    ("the log's index is gone", |dir| fs::remove_file(beside(dir, "-shm")).unwrap(), ALL, 0, &[]),
    ("the log's index is garbage", |dir| change(&beside(dir, "-shm"), |b| b.fill(0xa5)), ALL, 0, &[]),
    ("the file is gone", |dir| fs::remove_file(db(dir)).unwrap(), 0, 0, &["file"]),
    ("the file is empty", |dir| file(dir, Vec::clear), 0, 0, &["file"]),
];

fn each(template: &TempDir, cases: &[Case]) {
    let mut wrong = Vec::new();
    for (what, damage, saved, lost, uncounted) in cases {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        damage(dir.path());
        let found = opened(dir.path(), what);
        if found != (*saved, *lost, uncounted.to_vec()) {
            wrong.push(format!("{what}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn of_a_closed_store_what_is_there_is_saved_and_what_is_not_is_said() {
    each(&closed(), CLOSED);
}

#[test]
fn of_a_killed_store_the_log_counts() {
    each(&killed(), KILLED);
}

#[test]
fn whichever_page_is_zero_costs_its_own_rows_and_the_count_is_the_truth() {
    let template = closed();
    let pages = fs::read(db(template.path())).unwrap().len() / PAGE;
    let mut whole = 0;
    for page in 0..pages {
        for fill in [0, 0xa5] {
            let (what, dir) = (format!("page {} is {fill:#x}", page + 1), tempfile::tempdir().unwrap());
            copy(template.path(), dir.path());
            file(dir.path(), |bytes| bytes[page * PAGE..][..PAGE].fill(fill));
            let (saved, ..) = opened(dir.path(), &what);
            whole += usize::from(saved == ALL);
            // A root costs its table, any other page a few rows.
            assert!(saved >= ALL - 50, "{what}: {saved}");
        }
    }
    assert!(whole > pages && whole < 2 * pages, "{whole} of {pages}");
}

#[test]
fn wherever_the_file_is_cut_the_count_is_the_truth() {
    let template = closed();
    let pages = fs::read(db(template.path())).unwrap().len() / PAGE;
    let mut before = 0;
    for left in 1..pages {
        let (what, dir) = (format!("{left} pages are left"), tempfile::tempdir().unwrap());
        copy(template.path(), dir.path());
        file(dir.path(), |bytes| bytes.truncate(left * PAGE));
        let (saved, _, uncounted) = opened(dir.path(), &what);
        assert!(saved >= before, "{what}: {saved}, and with one page less {before}");
        // The index of all reports has one page, the last of the roots: from there on nothing is unknown.
        assert_eq!(uncounted.is_empty(), left >= 12, "{what}: {uncounted:?}");
        before = saved;
    }
    assert_eq!(before, ALL, "the last page is a free one");
}

#[test]
fn with_commits_of_the_log_removals_are_lost_and_that_is_said() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("the log is gone", |dir| fs::remove_file(beside(dir, "-wal")).unwrap()),
        ("the log is garbage", |dir| log(dir, |b| b.fill(0x5a))),
        ("the log's header is zero", |dir| log(dir, |b| b[..32].fill(0))),
    ];
    let template = killed();
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        copy(template.path(), dir.path());
        damage(dir.path());
        let store = open(dir.path(), 2);
        let Opened::Quarantined { salvaged, lost, uncounted, .. } = store.opened() else {
            panic!("{what}: {:?}", store.opened())
        };
        // The state before the removals, under another incarnation.
        assert_eq!((*salvaged, *lost, uncounted.as_slice()), (ALL + 320, 0, ["log"].as_slice()), "{what}");
        assert_eq!(store.incarnation(), [2; 16], "{what}");
    }
}

#[test]
fn a_store_that_was_emptied_is_no_fresh_one() {
    let dir = closed();
    fs::write(db(dir.path()), b"").unwrap();
    let error = StoreInspector::open(db(dir.path())).unwrap_err().to_string();
    assert!(error.contains("it is empty, though its key lies beside it"), "{error}");
    let store = open(dir.path(), 2);
    assert_eq!((store.opened(), store.snapshot().damaged), (&Opened::Emptied, 1));
    let lost: Vec<String> =
        store.lost_rows().into_iter().map(|row| format!("{}: {}", row.table, row.key)).collect();
    assert_eq!(lost, ["file: everything in it"]);
    assert!(store.damaged_rows().is_empty(), "the cloud sends every object: none is missing for ever");
    store.commit_blocking(rows("kept", [1, 1, 1, 1])).unwrap();
    drop(store);
    assert_eq!(open(dir.path(), 2).opened(), &Opened::Clean);
    // One that never was, is.
    let other = tempfile::tempdir().unwrap();
    fs::write(db(other.path()), b"").unwrap();
    assert_eq!(open(other.path(), 1).opened(), &Opened::Fresh);
}

#[test]
fn what_is_no_regular_file_is_refused_by_name_and_nobody_waits_for_it() {
    for suffix in ["", "-wal", "-shm", "-journal", ".key", ".lock"] {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, beside(dir.path(), suffix), 0o600.into()).unwrap();
        let name = beside(dir.path(), suffix).display().to_string();
        let refused = |error: &dyn std::fmt::Display| {
            let text = error.to_string();
            assert!(text.contains(&format!("{name} is a named pipe and no regular file")), "{text}");
            assert_eq!(text.contains("database.dataSource"), suffix.is_empty(), "{text}");
        };
        refused(&Store::open(db(dir.path()), Options::new([1; 16])).unwrap_err());
        refused(&edge_store::hold(&db(dir.path())).unwrap_err());
        if suffix.is_empty() {
            refused(&StoreInspector::open(db(dir.path())).unwrap_err());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(db(dir.path())).unwrap();
    let error = Store::open(db(dir.path()), Options::new([1; 16])).unwrap_err().to_string();
    assert!(error.contains("is a folder and no regular file"), "{error}");
    let error = Store::open("/dev/null", Options::new([1; 16])).unwrap_err().to_string();
    assert!(error.contains("/dev/null is a device"), "{error}");
}
