//! Objects in one SQLite file, and all of them in memory.
//!
//! A single box has few enough objects to hold them all, so that reads and watches never touch the disk. One thread
//! writes; what waits together is committed together, and nobody sees a change before it is on disk.

mod file;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use kubeapi::{Change, Changes, Item, Key, Page, Range, Store, StoreError, WatchError, Write, WriteError};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot};

/// 10,000 changes: how far back a watch may begin.
const HISTORY: usize = 10_000;
/// 4,096 changes that a slow watcher may be behind before it has to list again.
const BEHIND: usize = 4_096;
/// 256 writes that wait for the disk.
const QUEUE: usize = 256;

/// Why the store did not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// SQLite refused the file.
    #[error("database `{path}`: check that it can be read and written, and that its disk is not full")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The writer's thread could not be made.
    #[error("no thread for the writer")]
    Thread(#[from] std::io::Error),
}

#[derive(Default)]
struct State {
    revision: u64,
    items: BTreeMap<Key, Item>,
    history: VecDeque<Change>,
    /// Changes up to this one are no longer known.
    forgotten: u64,
}

struct Shared {
    state: RwLock<State>,
    live: broadcast::Sender<Change>,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes committed changes visible, in order. Watchers that begin now see them exactly once.
    fn publish(&self, changes: Vec<Change>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            state.revision = change.revision;
            match &change.after {
                Some(json) => {
                    let item =
                        Item { key: change.key.clone(), revision: change.revision, json: json.clone() };
                    state.items.insert(change.key.clone(), item);
                }
                None => {
                    state.items.remove(&change.key);
                }
            }
            state.history.push_back(change.clone());
            if state.history.len() > HISTORY
                && let Some(oldest) = state.history.pop_front()
            {
                state.forgotten = oldest.revision;
            }
            // Nobody watches: nobody hears.
            let _ = self.live.send(change);
        }
    }
}

struct Job {
    write: Write,
    answer: oneshot::Sender<Result<u64, WriteError>>,
}

/// The store of the stand-alone API.
pub struct SqliteStore {
    shared: Arc<Shared>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it, and reads everything. Blocks meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let at = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let conn = file::open(path).map_err(at)?;
        let (items, revision) = file::read(&conn).map_err(at)?;
        let state = State { revision, items, history: VecDeque::new(), forgotten: revision };
        let shared = Arc::new(Shared { state: RwLock::new(state), live: broadcast::channel(BEHIND).0 });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = writer::start(conn, Arc::clone(&shared), jobs)?;
        Ok(SqliteStore { shared, queue: Some(queue), thread: Some(thread) })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It ends when the queue is empty.
            let _ = thread.join();
        }
    }
}

impl Store for SqliteStore {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        let item = self.shared.read().items.get(key).cloned();
        Box::pin(async { Ok(item) })
    }

    fn list(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let state = self.shared.read();
        let begin = match (&range.after, &range.namespace) {
            (Some((namespace, name)), _) => Bound::Excluded(Key {
                resource: range.resource.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            (None, namespace) => Bound::Included(Key {
                resource: range.resource.clone(),
                namespace: namespace.clone().unwrap_or_default(),
                name: String::new(),
            }),
        };
        let mut found =
            state.items.range((begin, Bound::Unbounded)).map(|(_, item)| item).take_while(|item| {
                item.key.resource == range.resource
                    && range.namespace.as_ref().is_none_or(|namespace| *namespace == item.key.namespace)
            });
        let limit = range.limit.unwrap_or(usize::MAX);
        let items: Vec<Item> = found.by_ref().take(limit).cloned().collect();
        let page = Page { more: found.next().is_some(), items, revision: state.revision };
        Box::pin(async { Ok(page) })
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<u64, WriteError>> {
        Box::pin(async {
            let ended = || WriteError::Store(StoreError("the writer has ended".to_owned()));
            let queue = self.queue.as_ref().ok_or_else(ended)?;
            let (answer, written) = oneshot::channel();
            queue.send(Job { write, answer }).await.map_err(|_| ended())?;
            written.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
    ) -> BoxFuture<'_, Result<Changes, WatchError>> {
        let (resource, namespace) = (resource.to_owned(), namespace.map(str::to_owned));
        let wanted = move |change: &Change| {
            change.key.resource == resource
                && namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
        };
        // Under the lock under which changes are published: nothing is missed and nothing seen twice.
        let state = self.shared.read();
        if after < state.forgotten || after > state.revision {
            let oldest = state.forgotten;
            return Box::pin(async move { Err(WatchError::Gone { oldest }) });
        }
        let past: Vec<Change> = state
            .history
            .iter()
            .filter(|change| change.revision > after && wanted(change))
            .cloned()
            .collect();
        let live = self.shared.live.subscribe();
        drop(state);
        let live = stream::unfold(Some(live), |live| async {
            let mut live = live?;
            match live.recv().await {
                Ok(change) => Some((Ok(change), Some(live))),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    // What was missed is not known to concern this watcher; listing again is always right.
                    Some((Err(WatchError::Gone { oldest: 0 }), None))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        let live = live.filter(move |change| futures::future::ready(change.as_ref().map_or(true, &wanted)));
        let changes = stream::iter(past.into_iter().map(Ok)).chain(live).boxed();
        Box::pin(async { Ok(changes) })
    }

    fn revision(&self) -> u64 {
        self.shared.read().revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn key(name: &str) -> Key {
        Key { resource: "pods".into(), namespace: "d".into(), name: name.into() }
    }

    fn json(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn create(name: &str) -> Write {
        Write::Create { key: key(name), json: json("{}") }
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
            .write(Write::Create { key: Key { resource: "nodes".into(), ..key("n") }, json: json("{}") })
            .await
            .unwrap();
        store.write(create("c")).await.unwrap();
        for (revision, name) in [(2, "b"), (4, "c")] {
            let change = watch.next().await.unwrap().unwrap();
            assert_eq!((change.revision, change.key.name.as_str()), (revision, name));
        }
    }

    #[tokio::test]
    async fn a_watcher_that_sleeps_has_to_list_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("api.db")).unwrap();
        let mut watch = store.watch("pods", None, 0).await.unwrap();
        let writes = (0..BEHIND + 10).map(|n| store.write(create(&format!("p{n}"))));
        futures::stream::iter(writes).buffer_unordered(64).for_each(|_| async {}).await;
        assert!(matches!(watch.next().await, Some(Err(WatchError::Gone { .. }))));
        assert!(watch.next().await.is_none());
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
}
