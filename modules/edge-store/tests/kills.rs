//! A process that is killed at any instant: what it was answered is there afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod rerun;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use edge_store::{Class, ObjectKey, Opened, Options, OutboxQueue, Store, Table, Write};

const ROUNDS: u64 = 16;
const TASKS: u64 = 6;
const PODS: u64 = 40;

fn open(dir: &Path) -> Store {
    let mut options = Options::new([1; 16]);
    options.outbox_rows = 1_000_000;
    Store::open(dir.join("edgecore.db"), options).unwrap()
}

fn batch(id: u64) -> Vec<Write> {
    vec![
        Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: format!("{id}"),
            body: vec![b'x'; (id % 900) as usize],
        },
        Write::PutObject {
            key: ObjectKey::new("secrets", "default", format!("s{}", id % PODS)),
            uid: "u".to_owned(),
            content_hash: format!("{id}"),
            resource_version: "7".to_owned(),
            json: format!("{id}").repeat(50).into_bytes(),
        },
        Write::PutRow {
            table: Table::Tokens,
            key1: format!("t{}", id % PODS),
            key2: String::new(),
            value: format!("{id}").into_bytes(),
        },
    ]
}

/// Writes from several tasks until it is killed, and says each id that was answered. Ids of one task ascend.
fn write_until_killed(dir: &Path, from: u64) {
    let store = open(dir);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let writers: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::task::spawn_local(async move {
                    for id in (from + task..).step_by(TASKS as usize) {
                        store.commit(batch(id)).await.unwrap();
                        println!("answered {id}");
                        std::io::stdout().flush().unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn what_was_answered_before_a_kill_is_there_after_it() {
    if let Some(given) = rerun::given() {
        let (dir, from) = given.split_once(' ').unwrap();
        return write_until_killed(Path::new(dir), from.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut answered = BTreeSet::new();
    for round in 0..ROUNDS {
        // From a kill before the first answer to one in the middle of moving a large log.
        let until = (round * round * 7) as usize;
        let given = format!("{} {}", folder.path().display(), round * 1_000_000);
        let mut child = rerun::this_test("what_was_answered_before_a_kill_is_there_after_it", &given)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut killed = false;
        let mut seen = 0;
        for line in lines {
            // The last line may be half a line.
            let line = line.unwrap();
            if !killed && seen >= until {
                child.kill().unwrap();
                killed = true;
            }
            if let Some(id) = line.strip_prefix("answered ") {
                seen += 1;
                // The pipe holds whole lines: each is one write.
                answered.insert(id.parse::<u64>().unwrap());
            }
        }
        child.wait().unwrap();
        assert!(killed && seen >= until, "round {round} ended by itself after {seen}");

        let store = open(folder.path());
        match store.opened() {
            Opened::Clean => {}
            Opened::Fresh => assert!(answered.is_empty(), "round {round}"),
            Opened::Emptied => panic!("round {round}: a kill empties no store"),
            Opened::Quarantined { .. } => {
                panic!("round {round}: a kill breaks no file: {:?}", store.lost_rows())
            }
        }
        assert_eq!(store.snapshot().damaged, 0, "round {round}");
        let held: BTreeSet<u64> = store
            .outbox_head(usize::MAX, usize::MAX)
            .unwrap()
            .iter()
            .map(|row| row.key.parse().unwrap())
            .collect();
        let missing: Vec<_> = answered.difference(&held).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?}");
        // A batch is all or nothing, also for a kill, and the newest of each key is the one that counts.
        for (place, newest) in newest(&held) {
            let key = ObjectKey::new("secrets", "default", format!("s{place}"));
            let object = store.get_object(&key).unwrap().unwrap();
            let version: u64 = object.content_hash.parse().unwrap();
            assert!(
                held.contains(&version) && version / 1_000_000 == newest / 1_000_000,
                "{key} is at {version}"
            );
            let token = store.get_row(Table::Tokens, &format!("t{place}"), "").unwrap().unwrap();
            assert_eq!(String::from_utf8(token).unwrap(), object.content_hash);
        }
    }
    eprintln!("{ROUNDS} kills, {} ids answered, all there", answered.len());
    assert!(answered.len() > 1000, "{}", answered.len());
}

fn newest(held: &BTreeSet<u64>) -> std::collections::BTreeMap<u64, u64> {
    held.iter().map(|id| (id % PODS, *id)).collect()
}

const ROWS: usize = 3000;

/// A file with a page of garbage in it, and its key.
fn broken_file(dir: &Path) {
    let store = open(dir);
    let row = |n: usize| Write::PutRow {
        table: Table::Tokens,
        key1: format!("{n}"),
        key2: String::new(),
        value: vec![b'v'; 300],
    };
    store.commit_blocking((0..ROWS).map(row).collect()).unwrap();
    drop(store);
    let path = dir.join("edgecore.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // 13 is the leaf of a table.
    let leaf = (bytes.len() / 8192..).find(|page| bytes[page * 4096] == 13).unwrap();
    bytes[leaf * 4096..][..4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
}

fn tokens(store: &Store) -> usize {
    store.list_rows(Table::Tokens, None).unwrap().len()
}

/// What is made in the course of salvaging, in order.
const MILESTONES: [&str; 5] = [".lock", "-wal", ".salvage", ".salvage-wal", ".broken-1"];

#[test]
fn a_kill_while_a_broken_file_is_salvaged_costs_nothing() {
    const NAME: &str = "a_kill_while_a_broken_file_is_salvaged_costs_nothing";
    if let Some(dir) = rerun::given() {
        drop(open(Path::new(&dir)));
        return;
    }
    let broken = tempfile::tempdir().unwrap();
    broken_file(broken.path());
    let copy = || {
        let dir = tempfile::tempdir().unwrap();
        for name in ["edgecore.db", "edgecore.db.key"] {
            std::fs::copy(broken.path().join(name), dir.path().join(name)).unwrap();
        }
        dir
    };
    let undisturbed = copy();
    let readable = tokens(&open(undisturbed.path()));
    assert!(readable < ROWS && readable > ROWS - 50, "{readable}");
    let (mut killed, mut rounds) = (0, 0);
    // A parent that others keep from the processor comes too late: it tries again.
    while killed < 5 {
        rounds += 1;
        assert!(rounds <= 7, "only {killed} were killed before they had ended");
        for (milestone, turns) in MILESTONES.iter().flat_map(|at| [0, 300, 3000].map(|turns| (at, turns))) {
            let dir = copy();
            let seen = dir.path().join(format!("edgecore.db{milestone}"));
            let given = dir.path().display().to_string();
            let mut child = rerun::this_test(NAME, &given).stdout(Stdio::null()).spawn().unwrap();
            while !seen.exists() && child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            (0..turns).for_each(|_| std::thread::yield_now());
            killed += usize::from(child.try_wait().unwrap().is_none());
            let _ = child.kill();
            child.wait().unwrap();
            assert_eq!(tokens(&open(dir.path())), readable, "killed at {milestone}, {turns} turns later");
            assert_eq!(open(dir.path()).opened(), &Opened::Clean);
        }
    }
    eprintln!("{killed} kills while salvaging, {readable} of {ROWS} rows readable each time");
}
