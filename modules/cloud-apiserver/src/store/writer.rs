//! The one thread that writes: takes what waits, commits it as one transaction, makes it visible, answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use kubeapi::{Change, Key, StoreError, Write, WriteError};
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{Job, Shared, State, file, weight};

/// 128 writes in one transaction.
const BATCH: usize = 128;

pub(super) fn start(
    mut conn: Connection,
    shared: Arc<Shared>,
    mut jobs: mpsc::Receiver<Job>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("api-writer".to_owned()).spawn(move || {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
            write(&mut conn, &shared, std::mem::take(&mut batch));
        }
    })
}

fn write(conn: &mut Connection, shared: &Shared, batch: Vec<Job>) {
    let mut stage = Stage::default();
    let mut answers = Vec::with_capacity(batch.len());
    {
        let state = shared.read();
        stage.revision = state.revision;
        stage.bytes = state.bytes;
        stage.bytes_max = shared.bounds.object_bytes;
        for job in batch {
            match stage.take(&state, job.write) {
                Ok(revision) => answers.push((job.answer, revision)),
                // An asker that has gone needs no answer.
                Err(error) => drop(job.answer.send(Err(error))),
            }
        }
    }
    let outcome = if stage.changes.is_empty() { Ok(()) } else { file::commit(conn, &stage.changes) };
    match outcome {
        Ok(()) => {
            shared.publish(stage.changes);
            for (answer, revision) in answers {
                let _ = answer.send(Ok(revision));
            }
        }
        Err(error) => {
            tracing::error!(%error, writes = answers.len(), "writes not committed");
            for (answer, _) in answers {
                let _ = answer.send(Err(WriteError::Store(StoreError(error.to_string()))));
            }
        }
    }
}

/// A batch on its way: what its earlier writes made of an object counts for its later ones.
#[derive(Default)]
struct Stage {
    revision: u64,
    /// What all objects have after the writes so far, and what they may have.
    bytes: usize,
    bytes_max: usize,
    changes: Vec<Change>,
    touched: BTreeMap<Key, Option<(u64, Bytes)>>,
}

impl Stage {
    fn take(&mut self, state: &State, write: Write) -> Result<u64, WriteError> {
        let (key, expected, after) = match write {
            Write::Create { key, json } => (key, None, Some(json)),
            Write::Update { key, expected, json } => (key, Some(expected), Some(json)),
            Write::Delete { key, expected } => (key, Some(expected), None),
        };
        let before = match self.touched.get(&key) {
            Some(touched) => touched.clone(),
            None => state.items.get(&key).map(|item| (item.revision, item.json.clone())),
        };
        match (&before, expected) {
            (Some(_), None) => return Err(WriteError::Exists),
            (None, Some(_)) => return Err(WriteError::Missing),
            (Some((current, _)), Some(expected)) if *current != expected => {
                return Err(WriteError::Conflict { current: *current });
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let weight_of = |json: &Bytes| weight(&key, json);
        let (old, new) =
            (before.as_ref().map_or(0, |(_, json)| weight_of(json)), after.as_ref().map_or(0, weight_of));
        let bytes = self.bytes.saturating_sub(old).saturating_add(new);
        if new > old && bytes > self.bytes_max {
            let most = self.bytes_max >> 20;
            let what = format!("the database is full ({most} MiB of objects): delete some first");
            return Err(WriteError::Store(StoreError(what)));
        }
        self.bytes = bytes;
        self.revision += 1;
        let revision = self.revision;
        self.touched.insert(key.clone(), after.clone().map(|json| (revision, json)));
        self.changes.push(Change { revision, key, before: before.map(|(_, json)| json), after });
        Ok(revision)
    }
}
