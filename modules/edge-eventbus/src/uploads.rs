//! From clients into the outbox: what is for the cloud is committed before it is acknowledged, in the order in which it
//! came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Address, Env, Fault};
use bytes::Bytes;
use contract::metamanager::MetaMsg;
use contract::{Telemetry, rows};
use edge_store::{Class, OutboxQueue, Store, Write};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::events::Counters;
use crate::identity::{self, Owner};
use crate::plan;
use crate::quotas::Quotas;
use crate::upload_sources::{SequenceNumber, UploadSource, UploadSources};

/// What became of a message: kept, or why not.
pub(crate) type UploadResult = Result<(), Rc<str>>;

/// One connection, as far as uploads go. Once a message that comes again was refused, nothing behind it is taken: it
/// comes again, too, and would overtake.
#[derive(Debug, Default)]
pub(crate) struct UploadOrder {
    refused: Cell<bool>,
}

/// A message on its way into the outbox.
pub(crate) struct Upload {
    pub(crate) source: UploadSource,
    pub(crate) queue: OutboxQueue,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) line: Rc<UploadOrder>,
    /// Its share of the memory, given back when it is settled. A will has none.
    pub(crate) room: Option<MemoryPermit>,
}

/// Memory for a message, until it is dropped.
pub(crate) struct MemoryPermit {
    _of_anonymous: Option<OwnedSemaphorePermit>,
    _of_all: OwnedSemaphorePermit,
}

struct QueuedUpload {
    item: Upload,
    outcome: oneshot::Sender<UploadResult>,
}

/// Messages that the store has not taken yet.
pub(crate) struct Uploads {
    counts: Counters,
    queue: RefCell<VecDeque<QueuedUpload>>,
    came: Notify,
    settled: Notify,
    /// Of a batch that is with the store.
    storing: Cell<usize>,
    room: Arc<Semaphore>,
    /// What anonymous clients have of it: whoever logs in need not wait behind all of them.
    anonymous: Arc<Semaphore>,
    quotas: Quotas,
    sources: Cell<usize>,
}

impl Default for Uploads {
    fn default() -> Self {
        Uploads {
            counts: Counters::default(),
            queue: RefCell::default(),
            came: Notify::new(),
            settled: Notify::new(),
            storing: Cell::default(),
            room: Arc::new(Semaphore::new(plan::UPLOAD_BYTES)),
            anonymous: Arc::new(Semaphore::new(plan::UPLOAD_BYTES / 2)),
            quotas: Quotas::default(),
            sources: Cell::default(),
        }
    }
}

impl Uploads {
    /// Quotas the outbox like that.
    pub(crate) fn new(quotas: Quotas, counts: Counters) -> Self {
        Uploads { quotas, counts, ..Uploads::default() }
    }

    /// Waits until there is memory for a message of so many bytes of a client.
    pub(crate) async fn room(&self, client: &str, bytes: usize) -> Option<MemoryPermit> {
        let share = u32::try_from((bytes + plan::UPLOAD_OVERHEAD).min(plan::UPLOAD_BYTES / 2)).ok()?;
        let of_anonymous = if identity::owner(client) == Owner::Anonymous {
            Some(Arc::clone(&self.anonymous).acquire_many_owned(share).await.ok()?)
        } else {
            None
        };
        let of_all = Arc::clone(&self.room).acquire_many_owned(share).await.ok()?;
        Some(MemoryPermit { _of_anonymous: of_anonymous, _of_all: of_all })
    }

    /// Whether a client's message has to stay out of the outbox of `store`, with so many bytes of others before it: the
    /// anonymous clients have a share of what telemetry may fill, and the rest is for those that log in.
    fn is_strangers(&self, item: &Upload, store: &Store, rows: usize, bytes: usize) -> bool {
        if identity::owner(&item.source.client) != Owner::Anonymous || !self.quotas.users {
            return false;
        }
        let (most_rows, most_bytes) = store.telemetry_bounds();
        let filled = store.snapshot();
        let size = item.source.topic.len() + item.payload.len();
        let share =
            |bound| self.quotas.quota(&Owner::Anonymous, usize::try_from(bound).unwrap_or(usize::MAX));
        let over = |filled: u64, more: usize, bound: u64| {
            usize::try_from(filled).unwrap_or(usize::MAX).saturating_add(more) > share(bound)
        };
        over(filled.outbox_rows, rows + 1, most_rows) || over(filled.outbox_bytes, bytes + size, most_bytes)
    }

    /// Hands a message over. What is refused only makes room for others if it is heard of.
    pub(crate) fn put(&self, item: Upload) -> oneshot::Receiver<UploadResult> {
        let (outcome, told) = oneshot::channel();
        self.queue.borrow_mut().push_back(QueuedUpload { item, outcome });
        self.came.notify_one();
        told
    }

    /// Resolves when all that was handed over is settled.
    pub(crate) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.waiting() == 0 {
                return;
            }
            settled.await;
        }
    }

    /// How many messages the store has not taken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.borrow().len() + self.storing.get()
    }

    /// How many sources are counted.
    pub(crate) fn sources(&self) -> usize {
        self.sources.get()
    }

    fn batch(&self) -> Vec<QueuedUpload> {
        let mut queue = self.queue.borrow_mut();
        let mut bytes = 0;
        let fits = |waiting: &&QueuedUpload| {
            bytes += waiting.item.payload.len();
            bytes <= plan::UPLOAD_BATCH_BYTES
        };
        let count = queue.iter().take(plan::UPLOAD_BATCH).take_while(fits).count();
        let count = count.max(1).min(queue.len());
        let batch: Vec<QueuedUpload> = queue.drain(..count).collect();
        self.storing.set(batch.len());
        batch
    }
}

/// Brings messages into the outbox until it is dropped.
pub(crate) async fn keep(uploads: Rc<Uploads>, env: Env, store: Store, meta: Address<MetaMsg>) {
    let counted = store.clone();
    let sources = UploadSources::new(plan::UPLOAD_SOURCES, move || {
        // The revision only grows within one file, so that boots differ even where randomness repeats itself.
        let mut boot = env.random_id();
        boot[8..].copy_from_slice(&counted.revision().to_be_bytes());
        boot
    });
    let mut keeper = UploadWriter { uploads: Rc::clone(&uploads), store, sources };
    loop {
        let batch = uploads.batch();
        if batch.is_empty() {
            uploads.came.notified().await;
            continue;
        }
        if keeper.settle(batch).await {
            // A full mailbox already holds a nudge to look.
            let _ = meta.try_tell(MetaMsg::OutboxGrew);
        }
        uploads.sources.set(keeper.sources.len());
        uploads.storing.set(0);
        uploads.settled.notify_waiters();
    }
}

struct UploadWriter {
    uploads: Rc<Uploads>,
    store: Store,
    sources: UploadSources,
}

impl UploadWriter {
    /// Settles each; says whether anything was kept.
    async fn settle(&mut self, batch: Vec<QueuedUpload>) -> bool {
        let (refused, batch): (Vec<QueuedUpload>, Vec<QueuedUpload>) =
            batch.into_iter().partition(|waiting| waiting.item.line.refused.get());
        for waiting in refused {
            self.behind(waiting);
        }
        let batch = self.without_strangers(batch);
        if batch.is_empty() {
            return false;
        }
        let items: Vec<&Upload> = batch.iter().map(|waiting| &waiting.item).collect();
        if self.commit(&items).await.is_ok() {
            for waiting in batch {
                self.kept(waiting);
            }
            return true;
        }
        // All or nothing was refused: each on its own, for there may be room for the first, or the last be too large.
        let mut any = false;
        for waiting in batch {
            if waiting.item.line.refused.get() {
                self.behind(waiting);
                continue;
            }
            match self.commit(&[&waiting.item]).await {
                Ok(()) => {
                    self.kept(waiting);
                    any = true;
                }
                Err(why) => self.refused(waiting, why),
            }
        }
        any
    }

    /// Refuses what there is no room for in the anonymous clients' share; gives back the rest.
    fn without_strangers(&mut self, batch: Vec<QueuedUpload>) -> Vec<QueuedUpload> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for waiting in batch {
            if waiting.item.line.refused.get() {
                self.behind(waiting);
            } else if self.uploads.is_strangers(&waiting.item, &self.store, taken.len(), bytes) {
                self.refused(waiting, "anonymous clients have their share of the outbox".into());
            } else {
                bytes += waiting.item.source.topic.len() + waiting.item.payload.len();
                taken.push(waiting);
            }
        }
        taken
    }

    /// Numbers and commits these, or leaves no trace of them.
    async fn commit(&mut self, items: &[&Upload]) -> UploadResult {
        let numbers: Vec<SequenceNumber> = items.iter().map(|item| self.sources.next(&item.source)).collect();
        let writes: Result<Vec<Write>, rows::RowError> =
            items.iter().zip(&numbers).map(|(item, number)| write(item, *number)).collect();
        let done = match writes {
            Ok(writes) => self.store.commit(writes).await.map_err(|error| Fault::from_error(&error).reason),
            Err(error) => Err(Fault::from_error(&error).reason),
        };
        let Err(reason) = done else { return Ok(()) };
        for (item, number) in items.iter().zip(&numbers).rev() {
            self.sources.take_back(&item.source, *number);
        }
        Err(reason.into())
    }

    fn kept(&self, waiting: QueuedUpload) {
        let QueuedUpload { item, outcome } = waiting;
        self.uploads.counts.upload_kept();
        drop(item.room);
        let _ = outcome.send(Ok(()));
    }

    fn behind(&mut self, waiting: QueuedUpload) {
        self.refused(waiting, "one before it was refused".into());
    }

    /// What comes again is refused; what does not is lost, and leaves a gap in its source's numbers.
    fn refused(&mut self, waiting: QueuedUpload, why: Rc<str>) {
        let QueuedUpload { item, outcome } = waiting;
        if item.qos > 0 {
            item.line.refused.set(true);
            let UploadSource { client, topic } = &item.source;
            self.uploads.counts.upload_refused(client, topic, &why);
            let _ = outcome.send(Err(why));
            return;
        }
        self.sources.next(&item.source);
        let UploadSource { client, topic } = &item.source;
        self.uploads.counts.upload_dropped(client, topic, &why);
    }
}

fn write(item: &Upload, number: SequenceNumber) -> Result<Write, rows::RowError> {
    let UploadSource { client, topic } = &item.source;
    let telemetry = Telemetry {
        client: client.to_string(),
        topic: topic.to_string(),
        boot: number.boot,
        sequence: number.sequence,
        dup: item.dup,
        qos: item.qos,
        payload: item.payload.clone(),
    };
    let body = rows::encode_telemetry(&telemetry)?;
    Ok(Write::Enqueue { queue: item.queue, class: Class::Telemetry, key: telemetry.topic, body })
}
