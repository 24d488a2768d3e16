//! Objects in one SQLite file, and all of them in memory.
//!
//! A single box has few enough objects to hold them all, so that reads and watches never touch the disk. One thread
//! writes; what waits together is committed together, and nobody sees a change before it is on disk.

mod file;
mod quota;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use apimachinery::ObjectKey;
use beehive::{Fault, Thread};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use kubeapi::{
    Change, Changes, Item, Page, QuotaCheck, Range, ReadStore, Store, StoreError, WatchError, Write,
    WriteError,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use self::quota::{Usage, UsageChange};
use crate::folder::Lock;

/// What the store holds at the most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreBounds {
    /// How many changes are remembered: how far back a watch may begin, and how far behind a watcher may be.
    pub(crate) changes: usize,
    /// How many bytes they may have, each with what was before and what is after.
    pub(crate) change_bytes: usize,
    /// How many bytes all objects may have. What makes them more is refused then; removing always works.
    pub(crate) object_bytes: usize,
    /// How many of these are kept back for [`QuotaCheck::Exempt`].
    pub(crate) reserve: usize,
    /// How many bytes the objects of one namespace may have, unless they are written with [`QuotaCheck::Exempt`].
    pub(crate) space_bytes: usize,
    /// How many objects of one resource a namespace may have, with the same exception.
    pub(crate) space_objects: usize,
    /// How many pods there may be in all namespaces, with the same exception.
    pub(crate) pods: usize,
}

/// 10,000 changes, 64 MiB of them, 512 MiB of objects: all of them are in memory. 64 MiB of these are kept back, 128 MiB
/// and 10,000 of a resource are a namespace's, and 30,000 pods are all.
pub(crate) const BOUNDS: StoreBounds = StoreBounds {
    changes: 10_000,
    change_bytes: 64 << 20,
    object_bytes: 512 << 20,
    reserve: 64 << 20,
    space_bytes: 128 << 20,
    space_objects: 10_000,
    pods: 30_000,
};
/// 64 changes or 1 MiB that a watcher takes at once.
const TAKEN: (usize, usize) = (64, 1 << 20);
/// 256 writes that wait for the disk.
const QUEUE: usize = 256;

/// Why the store did not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// SQLite refused the file.
    #[error(
        "database `{path}`: check that it can be read and written, and that its disk is not full; one that is damaged has to be restored from a backup"
    )]
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
    items: BTreeMap<ObjectKey, Item>,
    /// What all items come to.
    usage: Usage,
    history: VecDeque<Change>,
    /// Bytes of the history.
    history_bytes: usize,
    /// Changes up to this one are no longer known.
    forgotten: u64,
}

impl State {
    /// The items of a range, whatever its limit.
    fn within<'a>(&'a self, range: &'a Range) -> impl Iterator<Item = &'a Item> {
        let begin = match (&range.after, &range.namespace) {
            (Some((namespace, name)), _) => Bound::Excluded(ObjectKey {
                resource: range.resource.clone(),
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            (None, namespace) => Bound::Included(ObjectKey {
                resource: range.resource.clone(),
                namespace: namespace.clone().unwrap_or_default(),
                name: String::new(),
            }),
        };
        self.items.range((begin, Bound::Unbounded)).map(|(_, item)| item).take_while(|item| {
            item.key.resource == range.resource
                && range.namespace.as_ref().is_none_or(|namespace| *namespace == item.key.namespace)
        })
    }
}

struct Shared {
    bounds: StoreBounds,
    state: RwLock<State>,
    /// The last revision: it wakes watchers, who read the history themselves.
    news: watch::Sender<u64>,
}

/// What an object counts: its JSON, its key and the place of both.
fn weight(key: &ObjectKey, json: &Bytes) -> usize {
    json.len() + key.resource.len() + key.namespace.len() + key.name.len() + 256
}

fn weight_of(change: &Change) -> usize {
    [&change.before, &change.after].into_iter().flatten().map(|json| weight(&change.key, json)).sum()
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
            let key = change.key.clone();
            let old = match &change.after {
                Some(json) => {
                    let item = Item { key: key.clone(), revision: change.revision, json: json.clone() };
                    state.items.insert(key.clone(), item)
                }
                None => state.items.remove(&key),
            };
            let old = old.map(|old| weight(&old.key, &old.json));
            let new = change.after.as_ref().map(|json| weight(&key, json));
            state.usage.take(UsageChange { key: &key, old, new });
            state.history_bytes += weight_of(&change);
            state.history.push_back(change);
        }
        while state.history.len() > self.bounds.changes || state.history_bytes > self.bounds.change_bytes {
            let Some(oldest) = state.history.pop_front() else { break };
            state.history_bytes = state.history_bytes.saturating_sub(weight_of(&oldest));
            state.forgotten = oldest.revision;
        }
        // While the state is held: whoever reads this revision finds each watcher awake that has not told of it.
        self.news.send_replace(state.revision);
    }
}

/// A watcher: where it is in the history, and what it has taken of it.
struct Watcher {
    shared: Arc<Shared>,
    news: watch::Receiver<u64>,
    resource: String,
    namespace: Option<String>,
    seen: u64,
    taken: VecDeque<Change>,
    over: bool,
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        change.key.resource == self.resource
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
    }

    /// Takes some of what is new; `false` if it is too late for that.
    fn take(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let state = shared.read();
        if self.seen < state.forgotten {
            return false;
        }
        let from = state.history.partition_point(|change| change.revision <= self.seen);
        let mut bytes = 0;
        for change in state.history.range(from..) {
            self.seen = change.revision;
            if self.wants(change) {
                bytes += weight_of(change);
                self.taken.push_back(change.clone());
            }
            if self.taken.len() >= TAKEN.0 || bytes >= TAKEN.1 {
                break;
            }
        }
        true
    }

    async fn next(mut self) -> Option<(Result<Change, WatchError>, Self)> {
        loop {
            if let Some(change) = self.taken.pop_front() {
                return Some((Ok(change), self));
            }
            if self.over {
                return None;
            }
            // Before the look, so that what is written during it wakes.
            let newest = *self.news.borrow_and_update();
            if !self.take() {
                self.over = true;
                // What was missed is not known to concern this watcher; listing again is always right.
                let oldest = self.shared.read().forgotten;
                return Some((Err(WatchError::Gone { oldest }), self));
            }
            if self.taken.is_empty() && self.seen >= newest {
                self.news.changed().await.ok()?;
            }
        }
    }
}

struct Job {
    write: Write,
    quota: QuotaCheck,
    answer: oneshot::Sender<Result<u64, WriteError>>,
}

/// The store of the stand-alone API.
pub struct SqliteStore {
    shared: Arc<Shared>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<Thread>,
    /// What cannot be read and was named already, with its revision.
    named: Mutex<BTreeSet<(ObjectKey, u64)>>,
    /// Its folder, as long as anything is written there.
    lock: Option<Lock>,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it, and reads everything. Blocks meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        SqliteStore::bounded(path, BOUNDS)
    }

    /// The store keeps the lock of its folder until the last write is on disk.
    pub(crate) fn locked(mut self, lock: Lock) -> Self {
        self.lock = Some(lock);
        self
    }

    pub(crate) fn bounded(path: &Path, bounds: StoreBounds) -> Result<Self, OpenError> {
        let at = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let conn = file::open(path).map_err(at)?;
        let (items, revision) = file::read(&conn).map_err(at)?;
        let mut usage = Usage::default();
        for item in items.values() {
            usage.take(UsageChange { key: &item.key, old: None, new: Some(weight(&item.key, &item.json)) });
        }
        let state = State { revision, items, usage, forgotten: revision, ..State::default() };
        let news = watch::Sender::new(revision);
        let shared = Arc::new(Shared { bounds, state: RwLock::new(state), news });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = writer::start(conn, Arc::clone(&shared), jobs)?;
        Ok(SqliteStore {
            shared,
            queue: Some(queue),
            thread: Some(thread),
            named: Mutex::default(),
            lock: None,
        })
    }

    /// Completes when the writer's thread has ended under a store that is open, which only a mistake of ours does: nothing is
    /// written from then on.
    pub(crate) fn writer_ended(&self) -> impl Future<Output = Fault> + Send + use<> {
        let ended = self.thread.as_ref().map(Thread::ended);
        async move {
            match ended {
                Some(ended) => ended.await,
                None => Fault::new("the writer has ended"),
            }
        }
    }

    /// The same store with a writer that panics when it starts.
    #[cfg(test)]
    pub(crate) fn with_a_dead_writer(mut self) -> Self {
        self.thread = Thread::start("api-writer", || panic!("a test planned it")).ok();
        self
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It ends when the queue is empty.
            thread.join();
        }
        drop(self.lock.take());
    }
}

impl ReadStore for SqliteStore {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        let item = self.shared.read().items.get(key).cloned();
        Box::pin(async { Ok(item) })
    }

    fn list(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let state = self.shared.read();
        let mut found = state.within(&range);
        let limit = range.limit.unwrap_or(usize::MAX);
        let items: Vec<Item> = found.by_ref().take(limit).cloned().collect();
        let page = Page { more: found.next().is_some(), items, revision: state.revision };
        Box::pin(async { Ok(page) })
    }

    fn weigh(&self, range: &Range) -> usize {
        let state = self.shared.read();
        let items = state.within(range).take(range.limit.unwrap_or(usize::MAX));
        items.map(|item| weight(&item.key, &item.json)).sum()
    }

    fn unreadable(&self, item: &Item, why: &str) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.insert((item.key.clone(), item.revision)) {
            tracing::error!(
                object = %item.key, revision = item.revision, why,
                "what is stored cannot be read and is left out of lists: delete the object and make it anew"
            );
        }
    }

    fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
    ) -> BoxFuture<'_, Result<Changes, WatchError>> {
        let state = self.shared.read();
        if after < state.forgotten || after > state.revision {
            let oldest = state.forgotten;
            return Box::pin(async move { Err(WatchError::Gone { oldest }) });
        }
        drop(state);
        let watcher = Watcher {
            shared: Arc::clone(&self.shared),
            news: self.shared.news.subscribe(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            seen: after,
            taken: VecDeque::new(),
            over: false,
        };
        let changes = stream::unfold(watcher, Watcher::next).boxed();
        Box::pin(async { Ok(changes) })
    }

    fn revision(&self) -> u64 {
        self.shared.read().revision
    }
}

impl Store for SqliteStore {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<u64, WriteError>> {
        self.write_with(write, QuotaCheck::Exempt)
    }

    fn write_with(&self, write: Write, quota: QuotaCheck) -> BoxFuture<'_, Result<u64, WriteError>> {
        Box::pin(async move {
            let ended = || WriteError::Store(StoreError("the writer has ended".to_owned()));
            let queue = self.queue.as_ref().ok_or_else(ended)?;
            let (answer, written) = oneshot::channel();
            queue.send(Job { write, quota, answer }).await.map_err(|_| ended())?;
            written.await.unwrap_or_else(|_| Err(ended()))
        })
    }
}

#[cfg(test)]
mod tests;
