//! The one thread that writes: takes what waits, commits it as one transaction, makes it visible, answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::ObjectKey;
use beehive::Thread;
use bytes::Bytes;
use kubeapi::{Change, QuotaCheck, StoreError, Write, WriteError};
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::quota::{Usage, UsageChange};
use super::{Job, Shared, State, StoreBounds, file, weight};

/// 128 writes in one transaction.
const BATCH: usize = 128;

pub(super) fn start(
    mut conn: Connection,
    shared: Arc<Shared>,
    mut jobs: mpsc::Receiver<Job>,
) -> std::io::Result<Thread> {
    Thread::start("api-writer", move || {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
            write(&mut conn, &shared, std::mem::take(&mut batch));
        }
    })
}

fn write(conn: &mut Connection, shared: &Shared, jobs: Vec<Job>) {
    let mut answers = Vec::with_capacity(jobs.len());
    let batch = {
        let state = shared.read();
        let mut batch = WriteBatch {
            revision: state.revision,
            usage: state.usage.clone(),
            bounds: shared.bounds,
            changes: Vec::new(),
            touched: BTreeMap::new(),
        };
        for job in jobs {
            match batch.take(&state, job.write, job.quota) {
                Ok(revision) => answers.push((job.answer, revision)),
                // An asker that has gone needs no answer.
                Err(error) => drop(job.answer.send(Err(error))),
            }
        }
        batch
    };
    let outcome = if batch.changes.is_empty() { Ok(()) } else { file::commit(conn, &batch.changes) };
    match outcome {
        Ok(()) => {
            shared.publish(batch.changes);
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

fn no_revision() -> WriteError {
    WriteError::Store(StoreError("the database has no revision left; restore it from a backup".to_owned()))
}

/// A batch on its way: what its earlier writes made of an object counts for its later ones.
struct WriteBatch {
    revision: u64,
    /// What all objects come to after the writes so far, and what they may.
    usage: Usage,
    bounds: StoreBounds,
    changes: Vec<Change>,
    touched: BTreeMap<ObjectKey, Option<(u64, Bytes)>>,
}

impl WriteBatch {
    fn take(&mut self, state: &State, write: Write, quota: QuotaCheck) -> Result<u64, WriteError> {
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
        let old = before.as_ref().map(|(_, json)| weight_of(json));
        let change = UsageChange { key: &key, old, new: after.as_ref().map(weight_of) };
        let revision = file::next(self.revision).ok_or_else(no_revision)?;
        self.usage.admit(change, quota, &self.bounds)?;
        self.usage.take(change);
        self.revision = revision;
        self.touched.insert(key.clone(), after.clone().map(|json| (revision, json)));
        self.changes.push(Change { revision, key, before: before.map(|(_, json)| json), after });
        Ok(revision)
    }
}
