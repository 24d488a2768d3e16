//! What the writer and the readers tell the handle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::UnknownRows;
use crate::layout::KEY_WIDTH;

/// The list is for a person and for Edged's caution, so it need not be longer.
const DAMAGED_KEPT: usize = 4096;
/// More damaged reports than three full outboxes are not told apart any more, and not counted.
const REPORTS_KEPT: usize = 65_536;
/// A log that repeats itself hides the rest.
const DAMAGED_LOGGED: usize = 64;

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Damage {
    /// It is not what was written.
    Checksum,
    /// The node key does not open it.
    Sealed,
    /// It is a secret and stands in the open, so this store has not written it.
    Unsealed,
    /// Its revision or seq is greater than any that a store gives.
    Number,
    /// It is larger than any row that a store writes, or a part of it is missing; it is not read.
    Size,
    /// The part of the file that it stood in cannot be read.
    Lost,
}

impl Damage {
    /// In a person's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Damage::Checksum => "its checksum is wrong",
            Damage::Sealed => "the node key does not open it",
            Damage::Unsealed => "it is a secret that is not sealed",
            Damage::Number => "its number is none that a store has counted to",
            Damage::Size => "its size is none that a store has written",
            Damage::Lost => "its part of the file cannot be read",
        }
    }
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedRow {
    /// Its table; `log` stands for commits, and `file` for rows, of which nothing is known any more.
    pub table: &'static str,
    /// Its key, as far as it can be read.
    pub key: String,
    /// What is wrong with it.
    pub damage: Damage,
    /// How many rows there are with this key: readings of one topic all have the same. Of `log` and `file` at least so many.
    pub rows: u64,
    /// The place in the outbox by which one of several with the same key is known.
    pub(crate) seq: Option<i64>,
}

impl DamagedRow {
    pub(crate) fn new(table: &'static str, key: &[&[u8]], damage: Damage) -> Self {
        // A damaged key may have any length and hold anything; a line of a log may not.
        let part = |bytes: &&[u8]| -> String {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        };
        let key = key.iter().map(part).collect::<Vec<_>>().join("/");
        DamagedRow { table, key, damage, rows: 1, seq: None }
    }

    /// [`DamagedRow::new`] with the key in the first columns of `row`, as far as it can be read.
    pub(crate) fn of(table: &'static str, row: &rusqlite::Row<'_>, damage: Damage) -> Self {
        let part = |at| row.get_ref(at).ok().and_then(|value| value.as_bytes().ok()).unwrap_or_default();
        DamagedRow::new(table, &std::array::from_fn::<_, KEY_WIDTH, _>(part), damage)
    }
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
    /// Rows that could not be read, since the store opened; at most a few thousand are told apart.
    pub damaged: u64,
    /// Those of them that were written again or are not wanted any more.
    pub healed: u64,
    /// Objects whose rows were read since the store was opened: each costs a checksum, and a Secret its seal.
    pub objects_read: u64,
    /// Rows of kinds that this release does not know, when the store was opened.
    pub unknown: u64,
    /// Rows in the outbox.
    pub outbox_rows: u64,
    /// Bytes of keys and bodies in the outbox.
    pub outbox_bytes: u64,
    /// Why the disk refused the last write, or files that were taken away are not put back, with the cure; `None` again once that is
    /// over.
    pub trouble: Option<String>,
}

/// How full the outbox is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of these the queue of rules.
    pub(crate) rule_rows: u64,
    pub(crate) rule_bytes: u64,
}

/// What is known of damaged rows: by table and key what is wrong and how many there are, and which rows of the outbox are
/// counted, for one that could not be dropped is found again.
#[derive(Debug, Default)]
struct KnownDamage {
    rows: BTreeMap<(&'static str, String), (Damage, u64)>,
    reports: BTreeSet<i64>,
}

impl KnownDamage {
    /// Takes in what is new among these; answers it by table and key.
    fn take(
        &mut self,
        found: impl IntoIterator<Item = DamagedRow>,
    ) -> BTreeMap<(&'static str, String), (Damage, u64)> {
        let mut new: BTreeMap<_, (Damage, u64)> = BTreeMap::new();
        for DamagedRow { table, key, damage, rows, seq } in found {
            let by = (table, key);
            let (is_known, is_full) = (self.rows.contains_key(&by), self.rows.len() >= DAMAGED_KEPT);
            let is_new = match seq {
                Some(seq) => self.reports.len() < REPORTS_KEPT && self.reports.insert(seq),
                None => !is_known,
            };
            if is_new && (is_known || !is_full) {
                self.rows.entry(by.clone()).or_insert((damage, 0)).1 += rows;
                new.entry(by).or_insert((damage, 0)).1 += rows;
            }
        }
        new
    }
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
    healed: AtomicU64,
    objects_read: AtomicU64,
    known: Mutex<KnownDamage>,
    unknown: Vec<UnknownRows>,
    trouble: Mutex<Option<String>>,
    /// Why files that were taken away are not put back yet.
    exchanged: Mutex<Option<String>>,
    broken: watch::Sender<Option<String>>,
}

impl Shared {
    pub(crate) fn new(path: PathBuf, revision: u64, usage: Usage, unknown: Vec<UnknownRows>) -> Self {
        for UnknownRows { table, kind, rows } in &unknown {
            tracing::warn!(
                path = %path.display(), table, kind, rows,
                "rows of a kind that this release does not know are kept: a newer one wrote them"
            );
        }
        let shared = Shared { path, unknown, ..Shared::default() };
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
        let trouble = lock(&self.trouble).take();
        if trouble.is_some() {
            tracing::info!(path = %self.path.display(), "database takes writes again");
        }
    }

    pub(crate) fn read_objects(&self, count: usize) {
        self.objects_read.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The disk refused. Said once, until it takes a write again.
    pub(crate) fn trouble(&self, reason: String) {
        let mut trouble = lock(&self.trouble);
        if trouble.is_none() {
            tracing::error!(path = %self.path.display(), reason, "database takes no writes");
        }
        *trouble = Some(reason);
    }

    /// The files were taken away and are not put back, for `reason`. Said once for each reason; `None`: they are as they were.
    pub(crate) fn exchanged(&self, reason: Option<String>) {
        let mut exchanged = lock(&self.exchanged);
        if *exchanged != reason
            && let Some(reason) = &reason
        {
            tracing::error!(path = %self.path.display(), reason, "database's files were taken away and cannot be put back");
        }
        *exchanged = reason;
    }

    /// The file broke while it was open.
    pub(crate) fn broke(&self) {
        self.ends_for(
            "the node's store is broken; the next start sets it aside and saves what can be read".to_owned(),
        );
    }

    /// The store is to be opened anew, for the first of these reasons.
    pub(crate) fn ends_for(&self, why: String) {
        self.broken.send_if_modified(|broken| broken.is_none() && broken.replace(why).is_none());
    }

    pub(crate) fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.subscribe()
    }

    /// Counts and logs rows once, however often they are read: a line for each key, with how many rows it has.
    pub(crate) fn found_damaged(&self, found: impl IntoIterator<Item = DamagedRow>) {
        let mut known = lock(&self.known);
        let before = known.rows.len();
        for (at, ((table, key), (damage, rows))) in known.take(found).into_iter().enumerate() {
            if before + at < DAMAGED_LOGGED {
                tracing::error!(
                    path = %self.path.display(), table, key, damage = damage.as_str(), rows,
                    "rows cannot be read and are skipped"
                );
            }
            self.damaged.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// The row under this key was written again, or is not wanted any more.
    pub(crate) fn healed(&self, table: &'static str, key: &[&[u8]]) {
        let mut known = lock(&self.known);
        if !known.rows.is_empty()
            && let Some((_, rows)) =
                known.rows.remove(&(table, DamagedRow::new(table, key, Damage::Lost).key))
        {
            self.healed.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// The damaged rows of the tables that `wanted` names.
    pub(crate) fn damaged_rows(&self, wanted: impl Fn(&str) -> bool) -> Vec<DamagedRow> {
        let known = lock(&self.known);
        let found = known.rows.iter().filter(|((table, _), _)| wanted(table));
        let row = |((table, key), (damage, rows)): (&(&'static str, String), &(Damage, u64))| DamagedRow {
            table,
            key: key.clone(),
            damage: *damage,
            rows: *rows,
            seq: None,
        };
        found.map(row).collect()
    }

    pub(crate) fn unknown_rows(&self) -> &[UnknownRows] {
        &self.unknown
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            revision: self.revision(),
            transactions: self.transactions.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
            healed: self.healed.load(Ordering::Relaxed),
            objects_read: self.objects_read.load(Ordering::Relaxed),
            unknown: self.unknown.iter().map(|unknown| unknown.rows).sum(),
            outbox_rows: self.outbox_rows.load(Ordering::Relaxed),
            outbox_bytes: self.outbox_bytes.load(Ordering::Relaxed),
            trouble: lock(&self.trouble).clone().or_else(|| lock(&self.exchanged).clone()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_counted_once_and_healed_by_its_key() {
        let shared = Shared::default();
        let row = |key: &str| DamagedRow::new("objects", &[b"pods", b"d", key.as_bytes()], Damage::Checksum);
        for key in ["a", "b", "a", "x\n"] {
            shared.found_damaged([row(key)]);
        }
        shared.healed("module_rows", &[b"pods", b"d", b"a"]);
        shared.healed("objects", &[b"pods", b"d", b"a"]);
        shared.healed("objects", &[b"pods", b"d", b"a"]);
        let keys: Vec<_> = shared.damaged_rows(|_| true).into_iter().map(|row| row.key).collect();
        assert_eq!(keys, ["pods/d/b", "pods/d/x\u{fffd}"]);
        let snapshot = shared.snapshot();
        assert_eq!((snapshot.damaged, snapshot.healed), (3, 1));
    }

    #[test]
    fn reports_of_one_key_are_counted_each_and_each_once() {
        let shared = Shared::default();
        let reading = |seq| DamagedRow {
            seq: Some(seq),
            ..DamagedRow::new("outbox", &[b"telemetry", b"telemetry", b"a/user/b"], Damage::Checksum)
        };
        shared.found_damaged((1..=3).map(reading));
        shared.found_damaged((2..=5).map(reading));
        let [row] = shared.damaged_rows(|_| true).try_into().unwrap();
        assert_eq!((row.key.as_str(), row.rows), ("telemetry/telemetry/a/user/b", 5));
        assert_eq!(shared.snapshot().damaged, 5);
    }

    #[test]
    fn trouble_stays_until_a_write_is_taken() {
        let shared = Shared::default();
        shared.trouble("a".to_owned());
        shared.trouble("b".to_owned());
        assert_eq!(shared.snapshot().trouble.as_deref(), Some("b"));
        shared.transaction(1);
        assert_eq!(shared.snapshot().trouble, None);
    }
}
