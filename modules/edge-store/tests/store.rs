//! The store from outside: what is written is read, a batch is one thing, bounds hold, a restart keeps all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use edge_store::{
    Class, ObjectKey, ObjectVersion, Opened, Options, OutboxQueue, Store, StoreError, Table, WallClock, Write,
};
use tempfile::TempDir;

fn open_with(dir: &TempDir, change: impl FnOnce(&mut Options)) -> Result<Store, StoreError> {
    let mut options = Options::new([7; 16]);
    change(&mut options);
    Store::open(dir.path().join("edgecore.db"), options)
}

fn open(dir: &TempDir) -> Store {
    open_with(dir, |_| ()).unwrap()
}

fn put(name: &str, uid: &str, version: &str, json: &[u8]) -> Write {
    Write::PutObject {
        key: ObjectKey::new("pods", "default", name),
        uid: uid.to_owned(),
        content_hash: version.to_owned(),
        resource_version: "7".to_owned(),
        json: json.to_vec(),
    }
}

fn enqueue(class: Class, key: &str, body: &[u8]) -> Write {
    let queue = if class == Class::Telemetry { OutboxQueue::Telemetry } else { OutboxQueue::Node };
    Write::Enqueue { queue, class, key: key.to_owned(), body: body.to_vec() }
}

fn put_row(table: Table, key1: &str, key2: &str, value: &[u8]) -> Write {
    Write::PutRow { table, key1: key1.to_owned(), key2: key2.to_owned(), value: value.to_vec() }
}

fn outbox(store: &Store) -> Vec<(i64, String, Vec<u8>)> {
    store.outbox_head(1000, 1 << 20).unwrap().into_iter().map(|row| (row.seq, row.key, row.body)).collect()
}

#[test]
fn objects_come_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    assert_eq!(store.opened(), &Opened::Fresh);
    let json = b"{\"kind\":\"Pod\", \"x\":\"\xc3\xa4\"}\n";
    let node = ObjectKey::new("nodes", "", "edge-1");
    let done = store
        .commit_blocking(vec![
            put("b", "u2", "11", b"{}"),
            put("a", "u1", "10", json),
            Write::PutObject {
                key: node.clone(),
                uid: "n".to_owned(),
                content_hash: "3".to_owned(),
                resource_version: "7".to_owned(),
                json: vec![0, 255],
            },
        ])
        .unwrap();
    assert_eq!((done.revision, store.revision()), (1, 1));
    let pods = store.list_objects("pods", None).unwrap();
    assert_eq!(pods.iter().map(|p| p.key.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((pods[0].json.as_slice(), pods[0].uid.as_str(), pods[0].revision), (json.as_slice(), "u1", 1));
    assert_eq!(store.get_object(&node).unwrap().unwrap().json, [0, 255]);
    assert!(store.list_objects("pods", Some("other")).unwrap().is_empty());
    assert_eq!(store.get_object(&ObjectKey::new("pods", "default", "zz")).unwrap(), None);
    let versions = store.object_versions().unwrap();
    assert_eq!(versions[0], ObjectVersion { key: node, uid: "n".to_owned(), content_hash: "3".to_owned() });
    assert_eq!(
        (versions.len(), pods[0].content_hash.as_str(), pods[0].resource_version.as_str()),
        (3, "10", "7")
    );
}

#[test]
fn a_delete_with_a_uid_spares_the_successor() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let key = ObjectKey::new("pods", "default", "a");
    let delete = |uid: Option<&str>| Write::DeleteObject { key: key.clone(), uid: uid.map(str::to_owned) };
    store.commit_blocking(vec![put("a", "new", "2", b"{}")]).unwrap();
    store.commit_blocking(vec![delete(Some("old"))]).unwrap();
    assert!(store.get_object(&key).unwrap().is_some());
    store.commit_blocking(vec![delete(Some("new"))]).unwrap();
    assert!(store.get_object(&key).unwrap().is_none());
    store.commit_blocking(vec![put("a", "new", "2", b"{}"), delete(None), delete(None)]).unwrap();
    assert!(store.get_object(&key).unwrap().is_none());
}

#[test]
fn plain_rows_are_kept_by_table_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let writes = vec![
        put_row(Table::Twins, "d1", "temperature", b"1"),
        put_row(Table::Twins, "d1", "humidity", b"2"),
        put_row(Table::Twins, "d2", "temperature", b"3"),
        put_row(Table::DeviceStates, "d1", "", b"online"),
        put_row(Table::Twins, "d2", "temperature", b"4"),
    ];
    store.commit_blocking(writes).unwrap();
    assert_eq!(store.get_row(Table::Twins, "d2", "temperature").unwrap().unwrap(), b"4");
    assert_eq!(store.get_row(Table::Mappers, "d1", "").unwrap(), None);
    let keys = |key1| -> Vec<(String, String)> {
        store.list_rows(Table::Twins, key1).unwrap().into_iter().map(|r| (r.key1, r.key2)).collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(keys(Some("d1")), [pair("d1", "humidity"), pair("d1", "temperature")]);
    assert_eq!(keys(None).len(), 3);
    let delete = |key1: &str, key2: &str| Write::DeleteRow {
        table: Table::Twins,
        key1: key1.to_owned(),
        key2: key2.to_owned(),
    };
    store.commit_blocking(vec![delete("d1", "humidity"), delete("d1", "none")]).unwrap();
    assert_eq!(keys(None).len(), 2);
    store.commit_blocking(vec![Write::DeleteRows { table: Table::Twins, key1: "d1".to_owned() }]).unwrap();
    assert_eq!(keys(None), [pair("d2", "temperature")]);
    assert_eq!(store.get_row(Table::DeviceStates, "d1", "").unwrap().unwrap(), b"online");
}

#[test]
fn a_batch_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir, |o| o.outbox_rows = 1).unwrap();
    store.commit_blocking(vec![enqueue(Class::Event, "e1", b"x")]).unwrap();
    let error = store
        .commit_blocking(vec![put("a", "u", "1", b"{}"), enqueue(Class::Event, "e2", b"x")])
        .unwrap_err();
    assert!(matches!(error, StoreError::Full { bound: "outbox_rows", limit: 1 }), "{error}");
    assert!(store.object_versions().unwrap().is_empty());
    assert_eq!((store.revision(), store.snapshot().refused, outbox(&store).len()), (1, 1, 1));
}

#[test]
fn a_status_is_newest_per_key_and_a_late_confirmation_spares_the_newer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.commit_blocking(vec![enqueue(Class::Status, "p", b"1"), enqueue(Class::Event, "p", b"e")]).unwrap();
    let first = outbox(&store)[0].0;
    store.commit_blocking(vec![enqueue(Class::Status, "p", b"2")]).unwrap();
    store.commit_blocking(vec![Write::Confirm { seqs: vec![first] }]).unwrap();
    let rows = outbox(&store);
    let bodies: Vec<_> = rows.iter().map(|(_, _, body)| body.as_slice()).collect();
    assert_eq!(bodies, [b"e".as_slice(), b"2"]);
    let seqs = rows.iter().map(|(seq, _, _)| *seq).collect();
    store.commit_blocking(vec![Write::Confirm { seqs }]).unwrap();
    assert!(outbox(&store).is_empty());
    let snapshot = store.snapshot();
    assert_eq!((snapshot.outbox_rows, snapshot.outbox_bytes), (0, 0));
    // Also an empty outbox gives out no seq a second time.
    store.commit_blocking(vec![enqueue(Class::Status, "p", b"3")]).unwrap();
    assert!(outbox(&store)[0].0 > rows[1].0);
}

#[test]
fn the_outbox_refuses_at_its_bounds_but_takes_a_status() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir, |o| (o.outbox_rows, o.outbox_bytes, o.row_bytes) = (3, 100, 90)).unwrap();
    store.commit_blocking(vec![enqueue(Class::Telemetry, "t", &[0; 79])]).unwrap();
    let error = store.commit_blocking(vec![enqueue(Class::Event, "e", &[0; 20])]).unwrap_err();
    assert!(matches!(error, StoreError::Full { bound: "outbox_bytes", limit: 100 }), "{error}");
    assert!(error.to_string().contains("outbox_bytes"), "{error}");
    for key in ["a", "b", "c", "a"] {
        store.commit_blocking(vec![enqueue(Class::Status, key, &[0; 50])]).unwrap();
    }
    let error = store.commit_blocking(vec![enqueue(Class::Event, "e", b"")]).unwrap_err();
    assert!(matches!(error, StoreError::Full { bound: "outbox_rows", limit: 3 }), "{error}");
    let error = store.commit_blocking(vec![put("big", "u", "1", &[0; 100])]).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { limit: 90, .. }), "{error}");
    assert!(error.to_string().contains("pods/default/big"), "{error}");
    assert_eq!(outbox(&store).len(), 4);
}

#[test]
fn a_flood_of_telemetry_leaves_room_for_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir, |o| o.outbox_rows = 16).unwrap();
    for number in 0..14 {
        store.commit_blocking(vec![enqueue(Class::Telemetry, &format!("t{number}"), b"x")]).unwrap();
    }
    let error = store.commit_blocking(vec![enqueue(Class::Telemetry, "one more", b"x")]).unwrap_err();
    assert!(matches!(error, StoreError::Full { bound: "outbox_rows", limit: 14 }), "{error}");
    for number in 0..2 {
        store.commit_blocking(vec![enqueue(Class::Event, &format!("e{number}"), b"x")]).unwrap();
    }
    assert!(store.commit_blocking(vec![enqueue(Class::Event, "e3", b"x")]).is_err());
}

#[test]
fn rules_whose_targets_are_away_leave_room_for_other_telemetry() {
    let dir = tempfile::tempdir().unwrap();
    let bound = |o: &mut Options| o.outbox_rows = 16;
    let store = open_with(&dir, bound).unwrap();
    let rule = |key: &str| {
        let (key, body) = (key.to_owned(), b"x".to_vec());
        Write::Enqueue { queue: OutboxQueue::Rules, class: Class::Telemetry, key, body }
    };
    // Seven eighths are telemetry's, and half of these are the rules'.
    for number in 0..7 {
        store.commit_blocking(vec![rule(if number % 2 == 0 { "d/a" } else { "d/\"b" })]).unwrap();
    }
    let is_full = |store: &Store| {
        let refused = store.commit_blocking(vec![rule("d/a")]).unwrap_err();
        matches!(refused, StoreError::Full { bound: "outbox_rows", limit: 7 })
    };
    assert!(is_full(&store));
    store.commit_blocking(vec![enqueue(Class::Telemetry, "t", b"x")]).unwrap();
    drop(store);
    let store = open_with(&dir, bound).unwrap();
    assert!(is_full(&store), "it is counted anew from the file");
    let head = |keys: &[String]| -> Vec<(i64, String)> {
        let rows = store.queue_head_without((OutboxQueue::Rules, 0), keys, 9, 999).unwrap();
        rows.into_iter().map(|row| (row.seq, row.key)).collect()
    };
    assert_eq!(head(&[]).len(), 7);
    let others = head(&["d/\"b".to_owned()]);
    assert!(others.len() == 4 && others.iter().all(|(_, key)| key == "d/a"), "{others:?}");
    assert!(head(&["d/\"b".to_owned(), "d/a".to_owned()]).is_empty());
    store.commit_blocking(vec![Write::Confirm { seqs: vec![others[0].0] }]).unwrap();
    store.commit_blocking(vec![rule("d/a")]).unwrap();
    assert!(is_full(&store));
}

#[test]
fn the_head_of_the_outbox_is_oldest_first_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let writes = (0..10).map(|n| enqueue(Class::Event, &format!("{n}"), &[0; 99])).collect();
    store.commit_blocking(writes).unwrap();
    let keys = |rows, bytes| -> String {
        store.outbox_head(rows, bytes).unwrap().into_iter().map(|row| row.key).collect()
    };
    assert_eq!(keys(3, 1000), "012");
    assert_eq!(keys(9, 250), "01");
    assert_eq!(keys(9, 1), "0");
    assert_eq!(keys(0, 1000), "");
}

#[test]
fn what_comes_again_keeps_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let report =
        |queue, class, key: &str| Write::Enqueue { queue, class, key: key.to_owned(), body: vec![1] };
    let devices = |key: &str| report(OutboxQueue::Devices, Class::Status, key);
    let all = ["b", "a", "c"].into_iter().map(devices);
    let of_others =
        [report(OutboxQueue::Node, Class::Status, "bb"), report(OutboxQueue::Devices, Class::Event, "bc")];
    store.commit_blocking(all.chain(of_others).collect()).unwrap();
    let turn = |after: &str, limit| -> Vec<String> {
        let rows = store.queue_turn(OutboxQueue::Devices, after, limit, 1000).unwrap();
        rows.into_iter().map(|row| row.key).collect()
    };
    assert_eq!(turn("", 2), ["a", "b"]);
    store.commit_blocking(vec![devices("a"), devices("b")]).unwrap();
    assert_eq!(turn("b", 2), ["c"]);
    assert!(turn("c", 2).is_empty());
    assert_eq!(turn("", 9), ["a", "b", "c"]);
}

#[test]
fn each_queue_has_a_head_of_its_own_behind_any_seq() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    // The key says nothing about the queue.
    let report =
        |queue, n: u8| Write::Enqueue { queue, class: Class::Event, key: "twin/x".to_owned(), body: vec![n] };
    let writes = (1..=6).map(|n| report(OutboxQueue::ALL[usize::from(n) % 3], n)).collect();
    store.commit_blocking(writes).unwrap();
    let head = |queue, after| -> Vec<(i64, u8)> {
        let rows = store.queue_head(queue, after, 10, 1000).unwrap();
        rows.into_iter()
            .inspect(|row| assert_eq!(row.queue, queue))
            .map(|row| (row.seq, row.body[0]))
            .collect()
    };
    assert_eq!(head(OutboxQueue::Node, 0), [(3, 3), (6, 6)]);
    assert_eq!(head(OutboxQueue::Devices, 1), [(4, 4)]);
    assert_eq!(
        (head(OutboxQueue::Telemetry, 5), store.newest_seq(OutboxQueue::Telemetry).unwrap()),
        (vec![], 5)
    );
    store.commit_blocking(vec![Write::Confirm { seqs: vec![2, 5] }]).unwrap();
    assert_eq!(store.newest_seq(OutboxQueue::Telemetry).unwrap(), 0);
}

#[test]
fn a_handle_goes_to_threads_that_may_wait() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    is_shared(&store);
    store.commit_blocking(vec![put("a", "u", "1", b"{}")]).unwrap();
    let reads: Vec<_> = (0..32)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || store.list_objects("pods", None).unwrap().len())
        })
        .collect();
    assert!(reads.into_iter().all(|read| read.join().unwrap() == 1));
}

#[test]
fn a_reopened_store_has_everything_and_goes_on_counting() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store
        .commit_blocking(vec![
            put("a", "u", "1", b"{}"),
            put_row(Table::Facts, "k", "", b"v"),
            enqueue(Class::Event, "e", b"12"),
        ])
        .unwrap();
    let (seq, ..) = outbox(&store)[0];
    store
        .commit_blocking(vec![Write::Confirm { seqs: vec![seq] }, enqueue(Class::Status, "s", b"345")])
        .unwrap();
    drop(store);
    assert!(!dir.path().join("edgecore.db-wal").exists(), "the log is tidied away on a clean end");
    let store = open_with(&dir, |o| o.incarnation = [8; 16]).unwrap();
    assert_eq!(store.opened(), &Opened::Clean);
    assert_eq!((store.incarnation(), store.revision()), ([7; 16].as_slice(), 2));
    assert_eq!(store.get_object(&ObjectKey::new("pods", "default", "a")).unwrap().unwrap().uid, "u");
    assert_eq!(store.get_row(Table::Facts, "k", "").unwrap().unwrap(), b"v");
    assert_eq!((store.snapshot().outbox_rows, store.snapshot().outbox_bytes), (1, 4));
    assert!(outbox(&store)[0].0 > seq);
    assert_eq!(store.commit_blocking(vec![put("b", "u", "1", b"{}")]).unwrap().revision, 3);
}

#[test]
fn a_file_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let error = open_with(&dir, |_| ()).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    let clone = store.clone();
    drop(store);
    assert!(open_with(&dir, |_| ()).is_err());
    drop(clone);
    open(&dir);
}

#[test]
fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    store.commit_blocking(vec![put("a", "u", "1", b"{}")]).unwrap();
    for file in ["edgecore.db", "edgecore.db-wal", "edgecore.db.lock"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} {mode:o}");
    }
}

#[tokio::test]
async fn futures_commit_in_the_order_of_their_first_poll() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir, |o| o.queue = 4).unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|n| tokio::spawn(store.commit(vec![put_row(Table::Facts, "n", &format!("{n}"), b"")])))
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap().unwrap().revision);
    }
    assert_eq!(revisions, (1..=50).collect::<Vec<u64>>());
    assert!(store.snapshot().transactions <= 50);
    assert_eq!(store.list_rows(Table::Facts, Some("n")).unwrap().len(), 50);
    // Also from inside a task, where blocking would be a mistake but must not hang or panic.
    assert_eq!(store.commit_blocking(vec![]).unwrap().revision, 50);
}

#[tokio::test]
async fn a_commit_outlives_the_last_handle() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let commit = store.commit(vec![put("a", "u", "1", b"{}")]);
    drop(store);
    assert_eq!(commit.await.unwrap().revision, 1);
    assert_eq!(open(&dir).object_versions().unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_file_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_with(&dir, |o| o.max_bytes = 256 << 10).unwrap();
    let mut kept = 0;
    let error = loop {
        let batch = vec![
            put_row(Table::Facts, "n", &format!("{kept}"), &[1; 5000]),
            enqueue(Class::Status, "s", b"x"),
        ];
        match store.commit(batch).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 100);
    };
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("edgecore.db") && error.to_string().contains("512 MiB"), "{error}");
    assert_eq!(store.list_rows(Table::Facts, None).unwrap().len(), kept);
    assert_eq!(store.revision(), kept as u64);
    // Neighbours in the queue do not pay for the one that does not fit.
    let big = tokio::spawn(store.commit(vec![put_row(Table::Facts, "big", "", &[1; 200_000])]));
    let small =
        tokio::spawn(store.commit(vec![Write::DeleteRows { table: Table::Facts, key1: "n".to_owned() }]));
    assert!(big.await.unwrap().is_err());
    small.await.unwrap().unwrap();
    store.commit(vec![put_row(Table::Facts, "big", "", &[1; 150_000])]).await.unwrap();
    let before = store.size_on_disk().unwrap();
    store.commit(vec![Write::DeleteRows { table: Table::Facts, key1: "big".to_owned() }]).await.unwrap();
    store.checkpoint().await.unwrap();
    assert!(store.size_on_disk().unwrap() < before.min(100_000), "{before} {:?}", store.size_on_disk());
}

/// Large objects that came and went, and then what an idle node writes.
#[tokio::test]
async fn a_file_gets_small_again_as_it_is_written_a_bounded_part_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
    for n in 0..20 {
        let row = put_row(Table::Facts, "big", &n.to_string(), &vec![1; 400_000]);
        store.commit(vec![row]).await.unwrap();
    }
    let file = || std::fs::metadata(dir.path().join("edgecore.db")).unwrap().len();
    store.checkpoint().await.unwrap();
    let full = file();
    assert!(full > 7 << 20, "{full}");
    store.commit(vec![Write::DeleteRows { table: Table::Facts, key1: "big".to_owned() }]).await.unwrap();
    let mut commits = 0;
    while file() > 3 << 20 {
        store.commit(vec![put_row(Table::Facts, "small", "", &[commits; 2000])]).await.unwrap();
        commits += 1;
        assert!(commits < 200, "{} of {full}", file());
    }
    assert!(commits > 2, "no transaction waits for all of it");
    assert_eq!(store.list_rows(Table::Facts, None).unwrap().len(), 1);
}

#[tokio::test]
async fn a_writer_that_panics_is_heard_by_who_owns_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new([1; 16]);
    options.clock = Some(WallClock::new(|| panic!("a clock of a test")));
    let store = Store::open(dir.path().join("edgecore.db"), options).unwrap();
    let ended = store.writer_ended();
    let write = || Write::Enqueue {
        queue: OutboxQueue::Node,
        class: Class::Event,
        key: "e".to_owned(),
        body: vec![],
    };
    assert!(matches!(store.commit(vec![write()]).await, Err(StoreError::Stopped { .. })));
    assert_eq!(ended.await.reason, "the thread `edge-store` panicked: a clock of a test");
    assert!(matches!(store.commit(vec![write()]).await, Err(StoreError::Stopped { .. })));
}
