//! The store over a file, its watchers and its bounds.

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey { resource: "pods".into(), namespace: "d".into(), name: name.into() }
}

fn json(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn create(name: &str) -> Write {
    Write::Create { key: key(name), json: json("{}") }
}

#[tokio::test]
async fn a_revision_at_the_end_of_the_range_is_refused_at_the_start_and_in_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    drop(SqliteStore::open(&path).unwrap());
    for (last, is_taken) in [(-1, false), (i64::MAX, false), ((1 << 62) + 1, false), (1 << 62, true)] {
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute("UPDATE revision SET last = ?1", [last]).unwrap();
        assert_eq!(SqliteStore::open(&path).is_ok(), is_taken, "{last}");
    }
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.write(create("a")).await.unwrap(), (1 << 62) + 1);
    store.shared.state.write().unwrap().revision = i64::MAX as u64;
    let refused = store.write(create("b")).await.unwrap_err().to_string();
    assert!(refused.contains("no revision left"), "{refused}");
    assert!(store.get(&key("b")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.write(create("a")).await.unwrap(), 1);
    assert_eq!(store.write(create("b")).await.unwrap(), 2);
    assert!(matches!(store.write(create("a")).await, Err(WriteError::Exists)));
    let update = |expected| Write::Update { key: key("a"), expected, json: json("{\"x\":1}") };
    assert_eq!(store.write(update(1)).await.unwrap(), 3);
    assert!(matches!(store.write(update(1)).await, Err(WriteError::Conflict { current: 3 })));
    assert_eq!(store.write(Write::Delete { key: key("b"), expected: 2 }).await.unwrap(), 4);
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.revision(), 4);
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().json, json("{\"x\":1}"));
    assert!(store.get(&key("b")).await.unwrap().is_none());
    assert!(matches!(store.watch("pods", None, 3).await, Err(WatchError::Gone { .. })));
    assert!(store.watch("pods", None, 4).await.is_ok());
}

#[tokio::test]
async fn writers_that_come_together_get_one_winner_each() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("api.db")).unwrap();
    store.write(create("a")).await.unwrap();
    let update = || store.write(Write::Update { key: key("a"), expected: 1, json: json("{}") });
    let results = futures::future::join_all((0..50).map(|_| update())).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(store.revision(), 2);
}

#[tokio::test]
async fn a_watch_goes_on_from_the_past_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("api.db")).unwrap();
    for name in ["a", "b"] {
        store.write(create(name)).await.unwrap();
    }
    let mut watch = store.watch("pods", Some("d"), 1).await.unwrap();
    store
        .write(Write::Create { key: ObjectKey { resource: "nodes".into(), ..key("n") }, json: json("{}") })
        .await
        .unwrap();
    store.write(create("c")).await.unwrap();
    for (revision, name) in [(2, "b"), (4, "c")] {
        let change = watch.next().await.unwrap().unwrap();
        assert_eq!((change.revision, change.key.name.as_str()), (revision, name));
    }
}

fn small(folder: &Path, bounds: StoreBounds) -> SqliteStore {
    SqliteStore::bounded(&folder.join("api.db"), bounds).unwrap()
}

#[tokio::test]
async fn a_watcher_that_sleeps_has_to_list_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = small(folder.path(), StoreBounds { changes: 100, ..BOUNDS });
    let mut watch = store.watch("pods", None, 0).await.unwrap();
    let writes = (0..110).map(|n| store.write(create(&format!("p{n}"))));
    futures::stream::iter(writes).buffer_unordered(64).for_each(|_| async {}).await;
    assert!(matches!(watch.next().await, Some(Err(WatchError::Gone { oldest: 10 }))));
    assert!(watch.next().await.is_none());
    // Who is not so late misses nothing.
    let watch = store.watch("pods", None, 10).await.unwrap();
    let seen: Vec<u64> = watch.take(100).map(|change| change.unwrap().revision).collect().await;
    assert_eq!(seen, Vec::from_iter(11..=110));
}

#[tokio::test]
async fn large_changes_are_forgotten_sooner() {
    let folder = tempfile::tempdir().unwrap();
    let store = small(folder.path(), StoreBounds { change_bytes: 40_000, ..BOUNDS });
    let large = Bytes::from(vec![b' '; 10_000]);
    store.write(Write::Create { key: key("a"), json: large.clone() }).await.unwrap();
    for revision in 1..50 {
        store.write(Write::Update { key: key("a"), expected: revision, json: large.clone() }).await.unwrap();
    }
    let state = store.shared.read();
    assert!(state.history_bytes <= 40_000 && state.history.len() == 1, "{}", state.history.len());
    assert_eq!((state.forgotten, state.usage.bytes), (49, weight(&key("a"), &large)));
}

#[tokio::test]
async fn a_full_store_refuses_more_and_takes_less() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = StoreBounds { object_bytes: 10_000, ..BOUNDS };
    let store = small(folder.path(), bounds);
    let object =
        |name: &str, bytes: usize| Write::Create { key: key(name), json: Bytes::from(vec![b' '; bytes]) };
    store.write(object("a", 8_000)).await.unwrap();
    let refused = store.write(object("b", 2_000)).await.unwrap_err().to_string();
    assert!(refused.contains("is full") && refused.contains("delete"), "{refused}");
    let update = |expected, bytes: usize| Write::Update {
        key: key("a"),
        expected,
        json: Bytes::from(vec![b' '; bytes]),
    };
    assert!(store.write(update(1, 9_900)).await.is_err());
    assert_eq!(store.write(update(1, 7_000)).await.unwrap(), 2);
    store.write(object("b", 2_000)).await.unwrap();
    drop(store);
    // Also with what was there at the start.
    let store = small(folder.path(), bounds);
    assert!(store.write(object("c", 2_000)).await.is_err());
    store.write(Write::Delete { key: key("a"), expected: 2 }).await.unwrap();
    store.write(object("c", 2_000)).await.unwrap();
}

#[tokio::test]
async fn pages_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("api.db")).unwrap();
    for name in ["a", "b", "c"] {
        store.write(create(name)).await.unwrap();
    }
    let range = |after: Option<&str>| Range {
        resource: "pods".into(),
        namespace: None,
        after: after.map(|name| ("d".to_owned(), name.to_owned())),
        limit: Some(2),
    };
    let first = store.list(range(None)).await.unwrap();
    assert_eq!((first.items.len(), first.more), (2, true));
    let second = store.list(range(Some("b"))).await.unwrap();
    assert_eq!((second.items[0].key.name.as_str(), second.more), ("c", false));
}
