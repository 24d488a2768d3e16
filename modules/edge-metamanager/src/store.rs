//! The store as MetaManager uses it. Reads go to a thread that may wait.

use beehive::{Env, Fault};
use contract::Change;
use edge_store::{OutboxQueue, OutboxRow, Store, StoreError, Write};

use crate::inventory::HeldObjects;
use crate::plan::{DELIVERY_BYTES, DELIVERY_ROWS, QUEUES};

/// The store and a way to read it. The outer error of each read is a panic in it.
#[derive(Clone)]
pub(crate) struct MetaStore {
    store: Store,
    env: Env,
}

impl MetaStore {
    pub(crate) fn new(store: Store, env: Env) -> Self {
        MetaStore { store, env }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Result<T, String>, Fault> {
        let store = self.store.clone();
        let found = self.env.blocking(move || read(&store)).await?;
        Ok(found.map_err(|error| Fault::from_error(&error).reason))
    }

    /// All that the node holds. Made into what `make` makes of it beside the hive's thread too: it hashes every key.
    pub(crate) async fn holdings<T: Send + 'static>(
        &self,
        make: impl FnOnce(HeldObjects) -> T + Send + 'static,
    ) -> Result<Result<T, String>, Fault> {
        self.read(move |store| Ok(make(HeldObjects::new(store.object_versions()?)))).await
    }

    /// The head of a queue behind a seq.
    pub(crate) async fn head(
        &self,
        queue: OutboxQueue,
        after: i64,
    ) -> Result<Result<Vec<OutboxRow>, String>, Fault> {
        self.read(move |store| store.queue_head(queue, after, DELIVERY_ROWS, DELIVERY_BYTES)).await
    }

    /// The same without the rows of these keys.
    pub(crate) async fn head_without(
        &self,
        (queue, after): (OutboxQueue, i64),
        keys: Vec<String>,
    ) -> Result<Result<Vec<OutboxRow>, String>, Fault> {
        if keys.is_empty() {
            return self.head(queue, after).await;
        }
        self.read(move |store| store.queue_head_without((queue, after), &keys, DELIVERY_ROWS, DELIVERY_BYTES))
            .await
    }

    /// The rows of a queue whose turn it is after a key.
    pub(crate) async fn turn(
        &self,
        queue: OutboxQueue,
        after: String,
    ) -> Result<Result<Vec<OutboxRow>, String>, Fault> {
        self.read(move |store| store.queue_turn(queue, &after, DELIVERY_ROWS, DELIVERY_BYTES)).await
    }

    /// The newest row of each queue. What cannot be known is as new as can be.
    pub(crate) async fn newest(&self, queues: [OutboxQueue; QUEUES]) -> Result<[i64; QUEUES], Fault> {
        let store = self.store.clone();
        self.env.blocking(move || queues.map(|queue| store.newest_seq(queue).unwrap_or(i64::MAX))).await
    }

    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<(), String> {
        self.store.commit(writes).await.map(drop).map_err(|error| Fault::from_error(&error).reason)
    }
}

/// A change as the store takes it.
pub(crate) fn write_of(change: Change) -> Write {
    match change {
        Change::Upsert(object) => Write::PutObject {
            key: object.key,
            uid: object.uid,
            content_hash: object.content_hash,
            resource_version: object.resource_version,
            json: object.json.to_vec(),
        },
        Change::Delete { key, uid } => Write::DeleteObject { key, uid },
    }
}
