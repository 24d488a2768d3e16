//! The handle.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use beehive::{Fault, Thread};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::apply;
use crate::layout::OBJECTS_TABLE;
use crate::node_key::NodeKey;
use crate::opening::{self, FileAccess, Opened};
use crate::read::{self, Checked, OutboxPart};
use crate::readers::Readers;
use crate::state::{DamagedRow, Shared, Snapshot};
use crate::writer::{Batch, CommitReply, Job, Writer};
use crate::{
    Committed, Lookup, ObjectKey, ObjectVersion, OutboxQueue, OutboxRow, Row, StoreError, StoredObject,
    Table, UnknownRows, Write, block_on,
};

/// Tells the time, in seconds since 1970, from any thread.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl WallClock {
    /// A clock that asks `seconds`.
    pub fn new(seconds: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        WallClock(Arc::new(seconds))
    }

    pub(crate) fn seconds(&self) -> i64 {
        (self.0)()
    }
}

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The incarnation that a new file gets. Random, so that no two files are taken for one.
    pub incarnation: [u8; 16],
    /// The node that the store is of. A new file notes it, and the store of another one is refused. `None`: nothing is asked.
    pub node: Option<String>,
    /// How large the file may grow.
    pub max_bytes: u64,
    /// How many rows the outbox may have when an event or telemetry comes.
    pub outbox_rows: u64,
    /// How many bytes of keys and bodies the outbox may have with an event or telemetry that comes.
    pub outbox_bytes: u64,
    /// How large one row may be.
    pub row_bytes: usize,
    /// How many batches may wait for the writer; further ones wait for room.
    pub queue: usize,
    /// When a report is queued, so that a person sees its age. Nothing is decided by it.
    pub clock: Option<WallClock>,
    /// Whoever commits writes on its own thread: for a simulation, whose runs have to be alike.
    pub threadless: bool,
    /// A stand-in that takes no writes at times; `None`: the disk itself decides.
    pub disk: Option<StandInDisk>,
}

/// A disk of a simulation: it says before each transaction whether it is full.
#[derive(Clone)]
pub struct StandInDisk(Arc<dyn Fn() -> bool + Send + Sync>);

impl StandInDisk {
    /// A disk that is full while `full` says so.
    pub fn new(full: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        StandInDisk(Arc::new(full))
    }

    pub(crate) fn refuses(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for StandInDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StandInDisk")
    }
}

impl Options {
    /// Bounds for a small node: a file of 512 MiB at most, of which the outbox takes 64 MiB or 20 000 rows.
    pub fn new(incarnation: [u8; 16]) -> Self {
        Options {
            incarnation,
            node: None,
            max_bytes: 512 << 20,
            outbox_rows: 20_000,
            outbox_bytes: 64 << 20,
            // The largest object that the cloud sends is 3 MiB.
            row_bytes: 4 << 20,
            queue: 64,
            clock: None,
            threadless: false,
            disk: None,
        }
    }
}

/// The node's database. Clones share one file, one writer and its readers; when the last one goes, the writer finishes
/// what was queued and the file is closed.
///
/// Reads block their thread, for the disk and for a free connection: an actor hands a clone to a thread that may wait.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    node_key: Arc<NodeKey>,
    opened: Opened,
    put_back: Option<String>,
    incarnation: Vec<u8>,
    telemetry: (u64, u64),
    /// `None` only while dropping.
    writer: Option<WriterAccess>,
    thread: Option<Thread>,
    /// Held as long as the file is open.
    _lock: File,
}

/// How a job reaches the writer.
enum WriterAccess {
    /// The writer's own thread. Whoever waits for room waits in turn: a channel alone lets who comes late overtake
    /// somebody who has been given room and was not polled since.
    Thread(mpsc::Sender<Job>, tokio::sync::Mutex<()>),
    /// Whoever asks writes: for a simulation, whose runs have to be alike.
    Inline(Box<Mutex<Writer>>),
}

impl std::fmt::Debug for WriterAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WriterAccess::Thread(..) => "Thread",
            WriterAccess::Inline(_) => "Inline",
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Readers first: only the last connection tidies the log away, and that has to be the writer.
        self.readers.close();
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Store {
    /// Opens the file at `path`, or makes it. Blocks while the file is checked.
    ///
    /// A file on a disk that takes no writes is opened all the same: it is read, commits are refused with the reason, and
    /// each of them looks whether the disk takes it by now.
    ///
    /// # Errors
    /// When the disk, the folder or another process stands in the way. A broken file is no error: it is set aside, and
    /// [`Store::opened`] says so.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Store, StoreError> {
        let found = opening::open(path.as_ref(), &options)?;
        let path = path.as_ref().to_owned();
        let (FileAccess::Full(conn) | FileAccess::Reading(conn, _)) = &found.conn;
        let usage = read::usage(conn).map_err(|e| StoreError::sqlite(&path, e))?;
        let shared = Arc::new(Shared::new(path.clone(), found.meta.revision, usage, found.unknown));
        shared.found_damaged(found.damaged);
        let node_key = Arc::clone(&found.node_key);
        let telemetry =
            (apply::telemetry_share(options.outbox_rows), apply::telemetry_share(options.outbox_bytes));
        let (length, threadless) = (options.queue.max(1), options.threadless);
        let writer = Writer::new(found.conn, Arc::clone(&shared), found.node_key, options, usage);
        let readers = writer.readers();
        let (writer, thread) = if threadless {
            (WriterAccess::Inline(Box::new(Mutex::new(writer))), None)
        } else {
            let (queue, jobs) = mpsc::channel(length);
            let thread = writer.start(jobs).map_err(|e| StoreError::file("start the writer of", &path, e))?;
            (WriterAccess::Thread(queue, tokio::sync::Mutex::default()), Some(thread))
        };
        let inner = Inner {
            shared,
            readers,
            node_key,
            opened: found.opened,
            put_back: found.put_back,
            incarnation: found.meta.incarnation,
            telemetry,
            writer: Some(writer),
            thread,
            _lock: found.lock,
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// How the file was found.
    pub fn opened(&self) -> &Opened {
        &self.inner.opened
    }

    /// What is to be told of the files that the run before had to put back: they were removed or replaced while it had them open.
    pub fn put_back_before(&self) -> Option<&str> {
        self.inner.put_back.as_deref()
    }

    /// Which file this is: revisions of different incarnations do not compare.
    pub fn incarnation(&self) -> &[u8] {
        &self.inner.incarnation
    }

    /// Up to how many rows, and how many bytes of keys and bodies, in the outbox it takes telemetry.
    pub fn telemetry_bounds(&self) -> (u64, u64) {
        self.inner.telemetry
    }

    /// The revision of the last commit.
    pub fn revision(&self) -> u64 {
        self.inner.shared.revision()
    }

    /// How the store stands.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.shared.snapshot()
    }

    /// Objects that damage destroyed and the cloud has neither sent again nor had deleted since: those found when the
    /// store was opened and those read since.
    pub fn damaged_rows(&self) -> Vec<DamagedRow> {
        self.inner.shared.damaged_rows(|table| table == OBJECTS_TABLE)
    }

    /// Everything else that damage destroyed since the store was opened: rows of the node's own tables, reports,
    /// commits in a log that was lost, and rows of which nobody knows how many they were. Nobody sends these again under their keys; a restart forgets them.
    pub fn lost_rows(&self) -> Vec<DamagedRow> {
        self.inner.shared.damaged_rows(|table| table != OBJECTS_TABLE)
    }

    /// Rows of kinds that this release does not know, as they were when the store was opened: written by a newer one and
    /// kept for it.
    pub fn unknown_rows(&self) -> &[UnknownRows] {
        self.inner.shared.unknown_rows()
    }

    /// Resolves, with the reason, when the file breaks while it is open, or was taken away and is put back. The cure is to open it
    /// anew, which sets a broken one aside.
    pub fn broken(&self) -> impl Future<Output = String> + Send + use<> {
        let mut broken = self.inner.shared.broken();
        async move {
            // The sender lives as long as the store; without one nothing breaks any more.
            match broken.wait_for(Option::is_some).await.map(|why| why.clone()) {
                Ok(Some(why)) => why,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }

    /// Has the writer look whether the names of the store's files still lead to those that are open; each commit looks, too. When
    /// they do not, [`Store::broken`] resolves as soon as everything is put back, or [`Snapshot::trouble`] says why it is not.
    pub fn look_after_files(&self) {
        match &self.inner.writer {
            // A writer that has that much to do looks by itself.
            Some(WriterAccess::Thread(queue, _)) => drop(queue.try_send(Job::Look)),
            Some(WriterAccess::Inline(writer)) => lock(writer).run(Job::Look),
            None => {}
        }
    }

    /// Completes when the writer's thread has ended under a store that is open, which only a mistake of ours does: nothing
    /// can be written from then on. Whoever owns the store ends with it; the next start opens the file anew.
    pub fn writer_ended(&self) -> impl Future<Output = Fault> + Send + use<> {
        let ended = self.inner.thread.as_ref().map(Thread::ended);
        async move {
            match ended {
                Some(ended) => ended.await,
                // Whoever commits writes, and dies of the panic himself.
                None => std::future::pending().await,
            }
        }
    }

    /// Bytes of the file and its log.
    ///
    /// # Errors
    /// When the file's size cannot be read.
    pub fn size_on_disk(&self) -> Result<u64, StoreError> {
        opening::size_on_disk(&self.inner.shared.path)
    }

    /// Commits a batch: all of it or nothing. Resolves after the COMMIT returned.
    ///
    /// Batches are committed in the order in which their futures are first polled. Nothing happens before; dropped later, the batch may or may not be committed.
    ///
    /// # Errors
    /// When a bound is reached, a row is too large or the disk is full, read-only or broken; then nothing of the batch
    /// is kept.
    pub fn commit(
        &self,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Committed, StoreError>> + Send + use<> {
        self.ask(|answer| Job::Commit(Batch { writes, answer }))
    }

    /// [`Store::commit`] for a thread that may block.
    ///
    /// # Errors
    /// As for [`Store::commit`].
    pub fn commit_blocking(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        block_on::block_on(self.commit(writes))
    }

    /// Moves the log into the file and gives free pages back to the file system.
    ///
    /// # Errors
    /// When the disk does not take it; nothing is lost.
    pub fn checkpoint(&self) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.ask(Job::Checkpoint)
    }

    /// One object; `None` if it is not held or damaged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn get_object(&self, key: &ObjectKey) -> Result<Option<StoredObject>, StoreError> {
        let found = self.read(|conn, node_key| read::object(conn, node_key, key))?;
        self.inner.shared.read_objects(usize::from(found.is_some()));
        Ok(self.sound(found).pop())
    }

    /// The objects of a resource, in one namespace or all, by namespace and name. DamagedRow ones are left out:
    /// who acts on an absence looks at [`Store::damaged_rows`] first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list_objects(
        &self,
        resource: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<StoredObject>, StoreError> {
        let found = self.read(|conn, node_key| read::objects(conn, node_key, resource, namespace))?;
        self.inner.shared.read_objects(found.len());
        Ok(self.sound(found))
    }

    /// What is under each of these keys, in their order and all at one moment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn look_up(&self, keys: &[ObjectKey]) -> Result<Vec<Lookup>, StoreError> {
        let found = self.read(|conn, node_key| read::look_up(conn, node_key, keys))?;
        self.inner.shared.read_objects(found.iter().flatten().count());
        let lookup = |row| match row {
            None => Lookup::Absent,
            Some(Ok(object)) => Lookup::Found(object),
            Some(Err(damaged)) => {
                self.inner.shared.found_damaged([damaged]);
                Lookup::Damaged
            }
        };
        Ok(found.into_iter().map(lookup).collect())
    }

    /// The keys of a resource, also those of damaged rows, by namespace and name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn object_keys(&self, resource: &str) -> Result<Vec<ObjectKey>, StoreError> {
        self.read(|conn, _| read::keys(conn, resource))
    }

    /// Key, uid and content hash of every object. A damaged one has an empty uid and hash, so that comparing with the
    /// cloud's replaces or deletes it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn object_versions(&self) -> Result<Vec<ObjectVersion>, StoreError> {
        let (versions, damaged) = self.read(read::versions)?;
        self.inner.shared.read_objects(versions.len());
        self.inner.shared.found_damaged(damaged);
        Ok(versions)
    }

    /// The oldest rows of the outbox: at most `limit_rows`, and no more than `limit_bytes` unless the first row alone
    /// is larger. Damaged rows are reported and dropped; those of a queue or class that this release does not know are
    /// passed over and stay.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn outbox_head(&self, limit_rows: usize, limit_bytes: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.head(OutboxPart::Whole, limit_rows, limit_bytes)
    }

    /// The oldest rows of one queue of the outbox whose seq is greater than `after`, within the limits as
    /// [`Store::outbox_head`] has them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn queue_head(
        &self,
        queue: OutboxQueue,
        after: i64,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.head(OutboxPart::Queue(queue, after), limit_rows, limit_bytes)
    }

    /// The same without the rows of some keys.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn queue_head_without(
        &self,
        (queue, after): (OutboxQueue, i64),
        keys: &[String],
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.head(OutboxPart::QueueWithout(queue, after, keys), limit_rows, limit_bytes)
    }

    /// The rows of one queue that replace their elders (status), by their keys, from the first key that is greater than `after`, within
    /// the limits as [`Store::outbox_head`] has them.
    ///
    /// A row that replaces another one stands at the end of its queue. Where each comes again sooner than its queue is gone through,
    /// the head is no order: whichever is read before it comes again is the lucky one. By keys each has its turn.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn queue_turn(
        &self,
        queue: OutboxQueue,
        after: &str,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.head(OutboxPart::Turn(queue, after), limit_rows, limit_bytes)
    }

    /// The seq of the newest row of a queue; 0 if there is none. Every row that comes later has a greater one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn newest_seq(&self, queue: OutboxQueue) -> Result<i64, StoreError> {
        self.read(|conn, _| read::newest(conn, queue))
    }

    fn head(
        &self,
        part: OutboxPart<'_>,
        limit_rows: usize,
        limit_bytes: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let head = self.read(|conn, _| read::outbox_head(conn, part, limit_rows, limit_bytes))?;
        let seqs: Vec<i64> = head.damaged.iter().map(|(seq, _)| *seq).collect();
        self.inner.shared.found_damaged(head.damaged.into_iter().map(|(_, row)| row));
        if !seqs.is_empty() {
            match &self.inner.writer {
                // If the queue is full the next look finds them again.
                Some(WriterAccess::Thread(queue, _)) => drop(queue.try_send(Job::Drop(seqs))),
                Some(WriterAccess::Inline(writer)) => lock(writer).run(Job::Drop(seqs)),
                None => {}
            }
        }
        Ok(head.rows)
    }

    /// The value of one row of a module; `None` if there is none or it is damaged.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn get_row(&self, table: Table, key1: &str, key2: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.read(|conn, node_key| read::row(conn, node_key, table, key1, key2))?;
        Ok(self.sound(found).pop().map(|row| row.value))
    }

    /// The rows of a table, all or those under one first key, by their keys. DamagedRow ones are left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list_rows(&self, table: Table, key1: Option<&str>) -> Result<Vec<Row>, StoreError> {
        let found = self.read(|conn, node_key| read::rows(conn, node_key, table, key1))?;
        Ok(self.sound(found))
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection, &NodeKey) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let answer = self.inner.readers.with(|conn| read(conn, &self.inner.node_key));
        if matches!(answer, Err(StoreError::Damaged { .. })) {
            self.inner.shared.broke();
        }
        answer
    }

    fn sound<T>(&self, found: impl IntoIterator<Item = Checked<T>>) -> Vec<T> {
        let report = |row| self.inner.shared.found_damaged([row]);
        found.into_iter().filter_map(|row| row.map_err(report).ok()).collect()
    }

    fn ask<T, J>(&self, job: J) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, J>
    where
        T: Send,
        J: FnOnce(CommitReply<T>) -> Job + Send,
    {
        // Holds the store open until the answer is there.
        let inner = Arc::clone(&self.inner);
        async move {
            let stopped = || StoreError::Stopped { path: inner.shared.path.clone() };
            let (answer, answered) = oneshot::channel();
            match inner.writer.as_ref().ok_or_else(stopped)? {
                WriterAccess::Thread(queue, turn) => {
                    let _turn = turn.lock().await;
                    queue.send(job(answer)).await.map_err(|_| stopped())?;
                }
                WriterAccess::Inline(writer) => lock(writer).run(job(answer)),
            }
            answered.await.map_err(|_| stopped())?
        }
    }
}

fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}
