//! What the writer and the readers tell the handle.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The list is for a person and for Edged's caution, so it need not be longer.
const DAMAGED_KEPT: usize = 256;

/// A row that failed its checksum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    /// Its table.
    pub table: &'static str,
    /// Its key, as far as it can be read.
    pub key: String,
}

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last commit's revision.
    pub revision: u64,
    /// Transactions since the store opened.
    pub transactions: u64,
    /// Batches in them.
    pub batches: u64,
    /// Batches that were refused or failed.
    pub refused: u64,
    /// Rows found with a wrong checksum.
    pub damaged: u64,
    /// Rows in the outbox.
    pub outbox_rows: u64,
    /// Bytes of keys and bodies in the outbox.
    pub outbox_bytes: u64,
}

/// How full the outbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    revision: AtomicU64,
    transactions: AtomicU64,
    batches: AtomicU64,
    refused: AtomicU64,
    outbox_rows: AtomicU64,
    outbox_bytes: AtomicU64,
    damaged: AtomicU64,
    damaged_rows: Mutex<BTreeSet<Damaged>>,
}

impl Shared {
    pub(crate) fn new(path: PathBuf, revision: u64, usage: Usage) -> Self {
        let shared = Shared { path, ..Shared::default() };
        shared.now_at(revision, usage);
        shared
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn now_at(&self, revision: u64, usage: Usage) {
        self.outbox_rows.store(usage.rows, Ordering::Relaxed);
        self.outbox_bytes.store(usage.bytes, Ordering::Relaxed);
        self.revision.store(revision, Ordering::Release);
    }

    pub(crate) fn transaction(&self, committed: u64) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.batches.fetch_add(committed, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts and logs a row once, however often it is read.
    pub(crate) fn found_damaged(&self, row: Damaged) {
        let mut known = self.damaged_rows.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DAMAGED_KEPT || known.contains(&row) {
            return;
        }
        tracing::error!(path = %self.path.display(), table = row.table, key = %row.key, "row fails its checksum and is skipped");
        self.damaged.fetch_add(1, Ordering::Relaxed);
        known.insert(row);
    }

    pub(crate) fn damaged_rows(&self) -> Vec<Damaged> {
        self.damaged_rows.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            revision: self.revision(),
            transactions: self.transactions.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            outbox_rows: self.outbox_rows.load(Ordering::Relaxed),
            outbox_bytes: self.outbox_bytes.load(Ordering::Relaxed),
        }
    }
}
