//! Where the objects are: what the rules need of a store, and nothing of how it keeps them.

use apimachinery::ObjectKey;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use thiserror::Error;

/// An object as stored.
#[derive(Debug, Clone)]
pub struct Item {
    /// Which object.
    pub key: ObjectKey,
    /// The store's revision of its last write: what clients see as `metadata.resourceVersion`.
    pub revision: u64,
    /// The object as JSON, without `metadata.resourceVersion`.
    pub json: Bytes,
}

/// What to list, in the order of (namespace, name).
#[derive(Debug, Clone)]
pub struct Range {
    /// The GroupResource.
    pub resource: String,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Begin after this (namespace, name).
    pub after: Option<(String, String)>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// An answer to [`Range`].
#[derive(Debug, Clone)]
pub struct Page {
    /// The objects.
    pub items: Vec<Item>,
    /// The store's revision at the moment of the read: where a watch begins.
    pub revision: u64,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// One write. Each gets a revision of its own, one higher than the last.
#[derive(Debug, Clone)]
pub enum Write {
    /// Refused with [`WriteError::Exists`] when the key is taken.
    Create {
        /// Which object.
        key: ObjectKey,
        /// Its JSON.
        json: Bytes,
    },
    /// Refused with [`WriteError::Conflict`] unless the stored revision is `expected`.
    Update {
        /// Which object.
        key: ObjectKey,
        /// The revision that it must have.
        expected: u64,
        /// Its new JSON.
        json: Bytes,
    },
    /// Refused with [`WriteError::Conflict`] unless the stored revision is `expected`.
    Delete {
        /// Which object.
        key: ObjectKey,
        /// The revision that it must have.
        expected: u64,
    },
}

/// Whether a write is held to the store's bounds for tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaCheck {
    /// It is: a part for each namespace, and all but the reserve.
    Enforced,
    /// It is not: for those who keep the cluster running, and for what only ends in something being removed.
    Exempt,
}

/// Why a write was refused. Nothing was written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Create: the key is taken.
    #[error("an object of this name exists")]
    Exists,
    /// Update, delete: no such object.
    #[error("no object of this name exists")]
    Missing,
    /// Update, delete: it has moved on.
    #[error("the object is at revision {current}")]
    Conflict {
        /// Its revision now.
        current: u64,
    },
    /// The namespace, or everybody together, has its share. The text says which, and how much that is.
    #[error("exceeded quota: {0}")]
    Quota(String),
    /// The store is full. The text says how much that is.
    #[error("{0}")]
    Full(String),
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store itself failed.
#[derive(Debug, Error)]
#[error("store: {0}")]
pub struct StoreError(pub String);

/// A change, as a watcher sees it. `before` and `after` let a selector decide what the change is to its reader.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its revision.
    pub revision: u64,
    /// Which object.
    pub key: ObjectKey,
    /// The JSON before; `None`: it was created.
    pub before: Option<Bytes>,
    /// The JSON after; `None`: it was deleted.
    pub after: Option<Bytes>,
}

/// Why a watch could not begin, or ended.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The history does not reach back so far, or the reader fell behind: list again (410 Gone).
    #[error("the history before revision {oldest} is gone")]
    Gone {
        /// The oldest revision that can still be had.
        oldest: u64,
    },
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Changes in the order of their revisions.
pub type Changes = BoxStream<'static, Result<Change, WatchError>>;

/// Where the objects are, for reading.
pub trait ReadStore: Send + Sync + 'static {
    /// The object, if there is one.
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Item>, StoreError>>;
    /// A page of objects and the revision that it shows.
    fn list(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>>;
    /// How many bytes the objects of a range have, without reading them; 0 from a store that does not know.
    fn weigh(&self, range: &Range) -> usize {
        let _ = range;
        0
    }
    /// What is stored under this key is no object that can be read: it is left out of lists. Told at each look.
    fn unreadable(&self, item: &Item, why: &str) {
        let _ = (item, why);
    }
    /// Changes of one resource (in one namespace, or all) after `after`, for as long as the stream is held. When the stream has
    /// nothing to tell at a look, it has told all changes up to the [`revision`](ReadStore::revision) that there was before that look:
    /// bookmarks rest on that.
    fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
    ) -> BoxFuture<'_, Result<Changes, WatchError>>;
    /// The revision of the last write.
    fn revision(&self) -> u64;
}

/// Where the objects are.
pub trait Store: ReadStore {
    /// Writes; the answer is the revision of the write, and it is durable by then.
    fn write(&self, write: Write) -> BoxFuture<'_, Result<u64, WriteError>>;
    /// The same, held to the store's bounds or not. A store without bounds knows no difference.
    fn write_with(&self, write: Write, quota: QuotaCheck) -> BoxFuture<'_, Result<u64, WriteError>> {
        let _ = quota;
        self.write(write)
    }
}
