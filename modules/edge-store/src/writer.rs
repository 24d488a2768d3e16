//! The thread that writes. No error ends it: a batch that cannot be done is answered and the next one is tried. A panic ends
//! it, and with it the daemon ([`crate::Store::writer_ended`]).

use std::path::PathBuf;
use std::sync::Arc;

use beehive::Thread;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::apply::{self, ApplyError, BatchContext, Bounds};
use crate::exchanged::{self, OpenFiles, PutBack};
use crate::layout::{OBJECTS_TABLE, ROWS_TABLE};
use crate::node_key::NodeKey;
use crate::opening::{self, FileAccess};
use crate::readers::Readers;
use crate::state::{Shared, Usage};
use crate::{Committed, Options, StoreError, Write, connection, numbers, read, schema};

/// More batches in one transaction save little, and make the first of them wait.
const GROUP: usize = 64;

/// 256 free pages (1 MiB), and a quarter of the file, are kept for what is written next.
const FREE_MIN: u64 = 256;
const FREE_PART: u64 = 4;
/// 256 pages (1 MiB) are given back after a transaction at the most, where more are free: what waits behind it waits for no more.
const GIVEN_BACK: u64 = 256;
/// 4096 pages (16 MiB) when the log is moved.
const GIVEN_BACK_AT_REST: u64 = 4096;

pub(crate) type CommitReply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Job {
    Commit(Batch),
    /// Moves the log into the file and gives free pages back.
    Checkpoint(CommitReply<()>),
    /// Takes rows out of the outbox that nobody can ever send.
    Drop(Vec<i64>),
    /// Looks whether the files' names still lead to them.
    Look,
}

#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) writes: Vec<Write>,
    pub(crate) answer: CommitReply<Committed>,
}

pub(crate) struct Writer {
    /// `None` while the disk has taken no write since the file was opened.
    conn: Option<Connection>,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    node_key: Arc<NodeKey>,
    options: Options,
    bounds: Bounds,
    usage: Usage,
    revision: u64,
    /// What the connection has open.
    files: Option<Arc<OpenFiles>>,
    /// The files were taken away, and what they held was put back.
    put_back: Option<PutBack>,
    /// They were, and it could not be.
    is_torn_away: bool,
    /// The node's key is not in its file, and could not be put back there.
    is_key_gone: bool,
}

impl Writer {
    /// The writer and the readers of a file, with what the disk allows.
    pub(crate) fn new(
        access: FileAccess,
        shared: Arc<Shared>,
        node_key: Arc<NodeKey>,
        options: Options,
        usage: Usage,
    ) -> Self {
        let path = shared.path.clone();
        let (conn, readers) = match access {
            FileAccess::Full(conn) => (Some(conn), Readers::beside(path)),
            FileAccess::Reading(conn, error) => {
                shared.trouble(error.to_string());
                (None, Readers::alone(path, conn))
            }
        };
        let (revision, bounds) = (shared.revision(), Bounds::from(&options));
        let readers = Arc::new(readers);
        let (files, put_back, is_torn_away, is_key_gone) = (None, None, false, false);
        let mut writer = Writer {
            conn,
            shared,
            readers,
            node_key,
            options,
            bounds,
            usage,
            revision,
            files,
            put_back,
            is_torn_away,
            is_key_gone,
        };
        writer.note_running();
        writer.note_files();
        writer
    }

    /// From now on it is missed when one of them goes.
    fn note_files(&mut self) {
        if self.conn.is_some() {
            let files = Arc::new(OpenFiles::of(&self.shared.path));
            self.readers.beside_files(Arc::clone(&files));
            self.files = Some(files);
        }
    }

    /// Looks whether the files' names still lead to what is open. If not, all of it is put back, and nothing is committed any more;
    /// where that cannot be done, the store goes on in what is open.
    fn look(&mut self) {
        let (Some(files), None) = (&self.files, &self.put_back) else { return };
        let path = &self.shared.path;
        let Some(found) = files.exchanged() else {
            self.shared.exchanged(None);
            self.is_torn_away = false;
            return;
        };
        let done = self.conn().map_err(|error| StoreError::sqlite(path, error));
        match done.and_then(|conn| exchanged::put_back(conn, path, files, &self.node_key, &found)) {
            Ok(done) => {
                self.shared.exchanged(None);
                self.shared.ends_for(done.words.clone());
                self.put_back = Some(done);
            }
            Err(error) => {
                self.is_torn_away = true;
                let path = path.clone();
                let found = format!("{found}, and it cannot be put back yet: {error}");
                self.shared.exchanged(Some(StoreError::Exchanged { path, found }.to_string()));
            }
        }
    }

    /// From now on a log that is gone is missed. On a full disk it would not be.
    fn note_running(&self) {
        if let Some(conn) = &self.conn
            && let Err(error) = schema::note_running(conn, self.revision)
        {
            tracing::warn!(path = %self.shared.path.display(), %error, "database does not note that it is open");
        }
    }

    pub(crate) fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.readers)
    }

    /// The one thread of this crate; it ends when the last handle is gone and its queue is empty.
    pub(crate) fn start(mut self, mut jobs: mpsc::Receiver<Job>) -> std::io::Result<Thread> {
        Thread::start("edge-store", move || {
            while let Some(job) = jobs.blocking_recv() {
                self.turn(job, &mut jobs);
            }
        })
    }

    /// Does one job on the caller's thread.
    pub(crate) fn run(&mut self, job: Job) {
        let (_, mut nothing) = mpsc::channel(1);
        self.turn(job, &mut nothing);
    }

    /// Does `job`, and with it the batches that wait behind it.
    fn turn(&mut self, job: Job, jobs: &mut mpsc::Receiver<Job>) {
        let mut group = Vec::new();
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Commit(batch) => {
                    group.push(batch);
                    if group.len() < GROUP {
                        next = jobs.try_recv().ok();
                    }
                }
                Job::Checkpoint(answer) => {
                    self.commit(std::mem::take(&mut group));
                    let done =
                        self.ensure_connection().and_then(|()| self.checkpoint().map_err(|e| self.fail(e)));
                    let _ = answer.send(done);
                }
                Job::Drop(seqs) => {
                    self.commit(std::mem::take(&mut group));
                    self.forget(&seqs);
                }
                Job::Look => {
                    self.commit(std::mem::take(&mut group));
                    self.look();
                    self.look_after_key();
                }
            }
        }
        self.commit(group);
    }

    fn commit(&mut self, group: Vec<Batch>) {
        if group.is_empty() {
            return;
        }
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|b| (b.writes, b.answer)).unzip();
        let outcomes = self.commit_group(&batches);
        // Before anybody is answered: what is answered is in the file of that name. Where it is known that it is not, a minute passes
        // until that is tried again.
        if !self.is_torn_away {
            self.look();
        }
        for ((answer, outcome), batch) in answers.into_iter().zip(outcomes).zip(&batches) {
            match &outcome {
                Ok(_) => self.healed(batch),
                Err(error) => {
                    self.shared.refused();
                    if !error.is_bound() {
                        self.shared.trouble(error.to_string());
                    }
                }
            }
            // Whoever asked may have left; what is committed stays committed.
            let _ = answer.send(outcome);
        }
        // Without it the file would only be smaller when the log is moved the next time.
        if let Err(error) = self.give_back() {
            tracing::debug!(path = %self.shared.path.display(), %error, "free pages stay");
        }
    }

    /// Gives pages back to the disk if many are free: objects that are gone were large.
    fn give_back(&self) -> rusqlite::Result<()> {
        let Some(conn) = &self.conn else { return Ok(()) };
        let count = |pragma: &str| {
            conn.query_row(pragma, [], |row| row.get::<_, i64>(0))
                .map(|count| u64::try_from(count).unwrap_or(0))
        };
        let free = count("PRAGMA freelist_count")?;
        if free > FREE_MIN && free > count("PRAGMA page_count")? / FREE_PART {
            vacuum(conn, GIVEN_BACK)?;
        }
        Ok(())
    }

    /// What is written again or deleted is no damage any more.
    fn healed(&self, batch: &[Write]) {
        for write in batch {
            match write {
                Write::PutObject { key, .. } | Write::DeleteObject { key, .. } => {
                    let key = [&key.resource, &key.namespace, &key.name].map(String::as_bytes);
                    self.shared.healed(OBJECTS_TABLE, &key);
                }
                Write::PutRow { table, key1, key2, .. } | Write::DeleteRow { table, key1, key2 } => {
                    let key = [table.as_str().as_bytes(), key1.as_bytes(), key2.as_bytes()];
                    self.shared.healed(ROWS_TABLE, &key);
                }
                Write::DeleteRows { .. } | Write::Enqueue { .. } | Write::Confirm { .. } => {}
            }
        }
    }

    /// The connection; where there is none, the disk may take writes by now.
    fn ensure_connection(&mut self) -> Result<(), StoreError> {
        if self.conn.is_some() {
            return Ok(());
        }
        let (path, options, node_key) = (&self.shared.path, &self.options, &self.node_key);
        let (conn, meta) = self.readers.release_during(|| opening::open_again(path, options, node_key))?;
        self.revision = meta.revision;
        self.conn = Some(conn);
        self.note_running();
        self.note_files();
        Ok(())
    }

    /// Without its file the next start could not open what is sealed.
    fn look_after_key(&mut self) {
        if self.conn.is_none() {
            return;
        }
        let gone = self.node_key.put_back().err();
        if let Some(error) = gone.as_ref().filter(|_| !self.is_key_gone) {
            tracing::error!(key = %self.node_key.path().display(), %error, "node key is not in its file any more and cannot be put back");
        }
        self.is_key_gone = gone.is_some();
    }

    fn conn(&self) -> rusqlite::Result<&Connection> {
        self.conn.as_ref().ok_or(rusqlite::Error::InvalidQuery)
    }

    /// One transaction, or if it fails as a whole one for each batch, so that no batch pays for its neighbour.
    fn commit_group(&mut self, batches: &[Vec<Write>]) -> Vec<Result<Committed, StoreError>> {
        if let Some(disk) = &self.options.disk
            && disk.refuses()
        {
            let full = || StoreError::NoSpace { path: self.shared.path.clone() };
            return batches.iter().map(|_| Err(full())).collect();
        }
        if let Some(done) = &self.put_back {
            let path = &self.shared.path;
            let again = || StoreError::Exchanged { path: path.clone(), found: done.words.clone() };
            return batches.iter().map(|_| Err(again())).collect();
        }
        if let Err(error) = self.ensure_connection() {
            return batches.iter().map(|_| Err(error.again(&self.shared.path))).collect();
        }
        match self.transaction(batches) {
            Ok(outcomes) => outcomes,
            Err(error) if batches.len() == 1 => vec![Err(self.fail(error))],
            Err(_) => batches
                .iter()
                .map(|batch| match self.transaction(std::slice::from_ref(batch)) {
                    Ok(mut outcomes) => outcomes.pop().unwrap_or_else(|| Err(self.stopped())),
                    Err(error) => Err(self.fail(error)),
                })
                .collect(),
        }
    }

    fn transaction(
        &mut self,
        batches: &[Vec<Write>],
    ) -> rusqlite::Result<Vec<Result<Committed, StoreError>>> {
        let before = (self.usage, self.revision);
        let outcome = self.try_transaction(batches);
        if outcome.is_err() {
            (self.usage, self.revision) = before;
            self.leave_transaction();
        }
        outcome
    }

    fn try_transaction(
        &mut self,
        batches: &[Vec<Write>],
    ) -> rusqlite::Result<Vec<Result<Committed, StoreError>>> {
        let start = self.revision;
        let mut outcomes = Vec::with_capacity(batches.len());
        self.conn()?.execute_batch("BEGIN IMMEDIATE")?;
        for batch in batches {
            outcomes.push(self.batch(batch)?);
        }
        if self.revision == start {
            self.conn()?.execute_batch("ROLLBACK")?;
            return Ok(outcomes);
        }
        schema::put_commit(self.conn()?, self.revision)?;
        self.conn()?.execute_batch("COMMIT")?;
        self.shared.now_at(self.revision, self.usage);
        self.shared.transaction(outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64);
        Ok(outcomes)
    }

    /// One batch in a savepoint. The outer error means that the whole transaction is lost.
    fn batch(&mut self, writes: &[Write]) -> rusqlite::Result<Result<Committed, StoreError>> {
        if writes.is_empty() {
            return Ok(Ok(Committed { revision: self.revision }));
        }
        let Some((revision, stamp)) = numbers::next(self.revision) else {
            self.shared.broke();
            let reason = format!("there is no revision after {}", self.revision);
            return Ok(Err(StoreError::Impaired { path: self.shared.path.clone(), reason }));
        };
        let mut usage = self.usage;
        let conn = self.conn()?;
        conn.execute_batch("SAVEPOINT batch")?;
        let batch = BatchContext {
            conn,
            node_key: &self.node_key,
            bounds: &self.bounds,
            revision: stamp,
            now: self.options.clock.as_ref().map_or(0, |clock| clock.seconds()),
        };
        let done = writes.iter().try_for_each(|write| apply::apply(&batch, write, &mut usage));
        let error = match done {
            Ok(()) => {
                conn.execute_batch("RELEASE batch")?;
                (self.usage, self.revision) = (usage, revision);
                return Ok(Ok(Committed { revision }));
            }
            Err(ApplyError::Refused(error)) => error,
            // SQLite itself may have rolled everything back.
            Err(ApplyError::Sql(error)) if conn.is_autocommit() => return Err(error),
            Err(ApplyError::Sql(error)) => self.fail(error),
        };
        conn.execute_batch("ROLLBACK TO batch; RELEASE batch")?;
        Ok(Err(error))
    }

    /// Gets out of a transaction that failed, with a new connection if the old one is stuck in it.
    fn leave_transaction(&mut self) {
        let Ok(conn) = self.conn() else { return };
        if conn.is_autocommit() || conn.execute_batch("ROLLBACK").is_ok() {
            return;
        }
        // By its name another file would be opened.
        if self.files.as_ref().is_some_and(|files| files.exchanged().is_some()) {
            return;
        }
        match connection::writer(&self.shared.path, self.options.max_bytes) {
            Ok(conn) => self.conn = Some(conn),
            Err(error) => {
                tracing::error!(path = %self.shared.path.display(), %error, "writer cannot reopen its file")
            }
        }
    }

    fn forget(&mut self, seqs: &[i64]) {
        // Without a writer the next start drops them.
        let Ok(conn) = self.conn() else { return };
        let mut usage = self.usage;
        match apply::confirm(conn, seqs, &mut usage) {
            Ok(()) => {
                self.usage = usage;
                self.shared.now_at(self.revision, usage);
            }
            Err(error) => {
                tracing::warn!(path = %self.shared.path.display(), %error, "damaged rows stay in the outbox");
                // Some may be gone, each in a transaction of its own.
                if let Ok(usage) = read::usage(conn) {
                    self.usage = usage;
                }
            }
        }
    }

    fn checkpoint(&self) -> rusqlite::Result<()> {
        let conn = self.conn()?;
        vacuum(conn, GIVEN_BACK_AT_REST)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    fn fail(&self, error: rusqlite::Error) -> StoreError {
        let error = StoreError::sqlite(&self.shared.path, error);
        if matches!(error, StoreError::Damaged { .. }) {
            self.shared.broke();
        }
        error
    }

    fn stopped(&self) -> StoreError {
        StoreError::Stopped { path: PathBuf::from(&self.shared.path) }
    }
}

/// Gives free pages back, so many at the most.
fn vacuum(conn: &Connection, pages: u64) -> rusqlite::Result<()> {
    let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Of a transaction that a panic left behind: what is noted in it would go with it.
        self.leave_transaction();
        self.look();
        // To fold the log in would remove the log at that name, which is another file's.
        if self.put_back.is_some() || self.is_torn_away {
            return;
        }
        let Some(conn) = &self.conn else { return };
        // Where that cannot be noted the log stays, and the next start sees that nothing of it is lost.
        if let Err(error) = schema::note_end(conn).and_then(|()| connection::fold_on_close(conn)) {
            tracing::warn!(path = %self.shared.path.display(), %error, "database is left with its log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Options, OutboxQueue};

    fn writer(dir: &tempfile::TempDir) -> Writer {
        let path = dir.path().join("edgecore.db");
        let mut options = Options::new([1; 16]);
        options.outbox_rows = 2;
        let found = opening::open(&path, &options).unwrap();
        let shared = Arc::new(Shared::new(path, 0, Usage::default(), Vec::new()));
        Writer::new(found.conn, shared, found.node_key, options, Usage::default())
    }

    fn event(key: &str) -> Write {
        Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: key.to_owned(),
            body: b"b".to_vec(),
        }
    }

    #[test]
    fn a_group_is_one_transaction_and_a_refused_batch_leaves_no_trace_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        let group = [vec![event("a")], vec![event("b"), event("c")], vec![], vec![event("d")]];
        let outcomes = writer.commit_group(&group);
        let revisions: Vec<_> = outcomes.iter().map(|o| o.as_ref().ok().map(|c| c.revision)).collect();
        assert_eq!(revisions, [Some(1), None, Some(1), Some(2)]);
        assert!(matches!(outcomes[1], Err(StoreError::Full { bound: "outbox_rows", limit: 2 })));
        let keys: Vec<_> = read::outbox_head(writer.conn().unwrap(), read::OutboxPart::Whole, 9, 999)
            .unwrap()
            .rows
            .into_iter()
            .map(|r| r.key)
            .collect();
        assert_eq!(keys, ["a", "d"]);
        assert_eq!(writer.shared.snapshot().transactions, 1);
        assert_eq!(read::usage(writer.conn().unwrap()).unwrap(), writer.usage);
    }

    #[test]
    fn the_head_of_a_queue_is_found_by_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(&dir);
        for (statement, by) in [(read::QUEUE, "(queue=? AND seq>?)"), (read::NEWEST, "(queue=?)")] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let conn = writer.conn().unwrap();
            let mut statement = conn.prepare(&explain).unwrap();
            let values: Vec<_> = (0..statement.parameter_count()).map(|_| "0").collect();
            let plan: String =
                statement.query_row(rusqlite::params_from_iter(values), |row| row.get(3)).unwrap();
            assert!(plan.ends_with(&format!("INDEX outbox_queue {by}")), "{plan}");
        }
    }

    #[test]
    fn what_waits_in_the_queue_shares_a_transaction_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        let (queue, mut jobs) = mpsc::channel(8);
        let answers: Vec<_> = ["a", "b"]
            .map(|key| {
                let (answer, answered) = oneshot::channel();
                queue.try_send(Job::Commit(Batch { writes: vec![event(key)], answer })).unwrap();
                answered
            })
            .into();
        let first = jobs.try_recv().unwrap();
        writer.turn(first, &mut jobs);
        let revisions: Vec<_> =
            answers.into_iter().map(|a| a.blocking_recv().unwrap().unwrap().revision).collect();
        assert_eq!(revisions, [1, 2]);
        let snapshot = writer.shared.snapshot();
        assert_eq!((snapshot.transactions, snapshot.batches), (1, 2));
    }

    #[test]
    fn a_transaction_that_fails_as_a_whole_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(&dir);
        writer.conn().unwrap().pragma_update(None, "query_only", "ON").unwrap();
        let outcomes = writer.commit_group(&[vec![event("a")], vec![event("b")]]);
        assert!(outcomes.iter().all(|o| matches!(o, Err(StoreError::ReadOnly { .. }))), "{outcomes:?}");
        assert_eq!((writer.usage, writer.revision), (Usage::default(), 0));
        writer.conn().unwrap().pragma_update(None, "query_only", "OFF").unwrap();
        assert_eq!(writer.commit_group(&[vec![event("a")]])[0].as_ref().unwrap().revision, 1);
    }
}
