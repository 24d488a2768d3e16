//! What the broker knows of one client, connected or not.

mod handle;
mod patience;
mod rows;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use beehive::Moment;

use crate::access::{AuthMethod, Rights};
use crate::held_bytes::HeldBytes;
use crate::message::Message;
use crate::packet::Will;
use crate::plan;
use crate::qos2::Unreleased;

pub(crate) use handle::{CloseReason, ConnectInfo, ConnectionHandle};
pub(crate) use rows::{Restored, RowKey};

/// How long the session of an absent client of MQTT 3.1.1 lives (`clean session` 0), and one of MQTT 5 that asks for no end: until it has
/// to make room.
pub(crate) const KEPT_FOR_EVER: u32 = u32::MAX;

/// What a client asked for with a filter, as it was granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) qos: u8,
    /// Nothing of the client's own.
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// What MQTT 5 calls a subscription identifier.
    pub(crate) id: Option<u32>,
}

/// How a message goes to one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// Of the subscriptions that take it.
    pub(crate) ids: Vec<u32>,
    /// It is a retained message for a new subscription.
    pub(crate) kept: bool,
}

/// A message in a client's queue, or on its way to it.
#[derive(Debug)]
struct Queued {
    /// Its place among all of the session.
    seq: u64,
    message: Rc<Message>,
    delivery: Delivery,
    /// One of QoS 2 in a session that outlives the daemon has its identifier from the beginning, and waits until the store has
    /// it: an identifier that a client has seen and the store has not would never be released.
    pkid: Option<u16>,
}

/// A message of QoS 1 or 2 on its way.
#[derive(Debug)]
struct Flying {
    seq: u64,
    pkid: u16,
    qos: u8,
    /// It was written to the client, in this run of edgecore. Of one that the store had nobody knows.
    is_begun: bool,
    /// `None` when the client has it, and only PUBREL and PUBCOMP are due.
    queued: Option<Queued>,
}

/// Retained messages that a new subscription is still to get.
#[derive(Debug)]
pub(crate) struct Owed {
    /// In the router's form.
    pub(crate) filter: String,
    pub(crate) subscription: Subscription,
    /// The topic behind which they go on.
    pub(crate) after: Option<String>,
}

/// What became of a message that was put into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnqueueOutcome {
    Queued,
    /// The client is away, and QoS 0 is not kept for it.
    NotKept,
    /// QoS 0, and the queue has no room.
    Dropped,
    /// QoS 1 or 2, and the queue has no room.
    Lost,
}

/// A will that waits for its delay to pass.
#[derive(Debug)]
pub(crate) struct PendingWill {
    pub(crate) will: Rc<Will>,
    pub(crate) due: Moment,
}

/// A client's session.
pub(crate) struct Session {
    /// How long it outlives its connection, in seconds; 0: not at all; [`KEPT_FOR_EVER`]: until it has to make room.
    pub(crate) expiry: u32,
    /// What proved who its client is, when it last came.
    pub(crate) auth_method: AuthMethod,
    /// What its client may do.
    pub(crate) rights: Rights,
    /// What was granted, by filters in the router's form; a shared one has `$share/` and its group before it.
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    pub(crate) handle: Option<Rc<ConnectionHandle>>,
    /// Orders the sessions of absent clients by the time they left.
    pub(crate) left: u64,
    /// When the client left.
    pub(crate) left_at: Moment,
    pub(crate) will: Option<PendingWill>,
    queue: VecDeque<Queued>,
    /// How many of `queue` are retained messages, which have a bound of their own and are shared.
    kept: usize,
    /// Retained messages that are not in `queue` yet.
    pub(crate) owed: VecDeque<Owed>,
    /// From how many messages in its queue on publishers wait for its client.
    long: usize,
    /// Messages and bytes at which `queue` is full, the retained ones apart.
    most: (usize, usize),
    /// Bytes of payload in the others.
    bytes: usize,
    inflight: VecDeque<Flying>,
    /// Bytes of payload in `inflight`.
    flying: usize,
    /// How many of `inflight` were written on this connection.
    written: usize,
    /// What its client has published with QoS 2.
    pub(crate) unreleased: Rc<Unreleased>,
    last_pkid: u16,
    /// Packet identifiers that are taken.
    used: HashSet<u16>,
    last_seq: u64,
    /// Rows that are not in the store as they are here.
    dirty: BTreeSet<RowKey>,
    /// Of those, some are waited for.
    urgent: bool,
    /// Messages that have a row.
    stored: BTreeSet<u64>,
    /// The last message that the store was handed, and the last one that it has taken.
    handed: u64,
    committed: u64,
}

impl Session {
    pub(crate) fn new(expiry: u32, rights: Rights) -> Self {
        let dirty = if expiry > 0 { BTreeSet::from([RowKey::Session]) } else { BTreeSet::new() };
        Session {
            expiry,
            auth_method: AuthMethod::None,
            rights,
            subscriptions: BTreeMap::new(),
            handle: None,
            left: 0,
            left_at: Moment::default(),
            will: None,
            queue: VecDeque::new(),
            kept: 0,
            owed: VecDeque::new(),
            long: plan::QUEUE_SIZE,
            most: (plan::QUEUE_SIZE * plan::QUEUE_ENDS, plan::QUEUE_BYTES),
            bytes: 0,
            inflight: VecDeque::new(),
            flying: 0,
            written: 0,
            unreleased: Rc::default(),
            last_pkid: 0,
            used: HashSet::new(),
            last_seq: 0,
            urgent: expiry > 0,
            dirty,
            stored: BTreeSet::new(),
            handed: 0,
            committed: 0,
        }
    }

    /// With a queue of that size: from so many messages on publishers wait.
    pub(crate) fn with_queue(self, size: usize) -> Self {
        let (_, bytes) = self.most;
        Session { long: size, most: (size.saturating_mul(plan::QUEUE_ENDS), bytes), ..self }
    }

    /// With room for so many messages and bytes in its queue.
    pub(crate) fn with_room(self, messages: usize, bytes: usize) -> Self {
        Session { most: (messages, bytes), ..self }
    }

    /// Messages that its client has not acknowledged.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }

    /// Whether it outlives its connection, and the daemon.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry > 0
    }

    /// A connection takes the session; what was not acknowledged is sent again.
    pub(crate) fn attach(&mut self, handle: Rc<ConnectionHandle>) {
        self.written = 0;
        let auth_method = handle.connect_info.auth_method.clone();
        // Whether its user has to be in the password file is asked of the row after a restart.
        if rows::auth_code(&auth_method) != rows::auth_code(&self.auth_method) {
            self.soil(RowKey::Session);
        }
        self.auth_method = auth_method;
        self.handle = Some(handle);
        self.will = None;
    }

    /// When it is over, if its client stays away.
    pub(crate) fn ends(&self) -> Option<Moment> {
        let limited = self.handle.is_none() && self.expiry != KEPT_FOR_EVER;
        limited.then(|| self.left_at + std::time::Duration::from_secs(self.expiry.into()))
    }

    pub(crate) fn put(&mut self, message: &Rc<Message>, delivery: Delivery) -> EnqueueOutcome {
        let away = self.handle.is_none();
        let Delivery { qos, kept, .. } = delivery;
        if away && qos == 0 {
            return EnqueueOutcome::NotKept;
        }
        let size = message.size();
        let (messages, bytes) = self.most;
        let many = self.queue.len() - self.kept >= messages;
        let full = many || (self.bytes > 0 && self.bytes + size > bytes);
        if full && !kept {
            return if qos == 0 { EnqueueOutcome::Dropped } else { EnqueueOutcome::Lost };
        }
        if kept {
            self.kept += 1;
        } else {
            self.bytes += size;
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        let stays = self.is_persistent() && outlives(qos, kept);
        let pkid = (stays && qos == 2).then(|| self.free_pkid());
        self.queue.push_back(Queued { seq, message: Rc::clone(message), delivery, pkid });
        if stays {
            self.soil(RowKey::Message(seq));
        }
        if let Some(handle) = &self.handle {
            handle.out.notify_one();
        }
        EnqueueOutcome::Queued
    }

    /// Whether more of the retained messages that it is owed may be queued.
    pub(crate) fn takes_retained(&self) -> bool {
        !self.owed.is_empty() && self.kept < plan::RETAINED_PAGE && self.handle.is_some()
    }

    /// Bytes of payload that are kept in memory for this session.
    pub(crate) fn held(&self) -> usize {
        self.bytes + self.flying
    }

    /// What it was restored with counts in `held`.
    pub(crate) fn count_in(&mut self, held: &HeldBytes) {
        let flying = self.inflight.iter_mut().filter_map(|flying| flying.queued.as_mut());
        for queued in self.queue.iter_mut().chain(flying) {
            queued.message = Rc::new((*queued.message).clone().counted_in(held));
        }
    }

    /// The same with what its connection is half-way through writing, which is no more in the queue.
    pub(crate) fn held_in_all(&self) -> usize {
        self.held() + self.handle.as_ref().map_or(0, |handle| handle.unwritten.get())
    }

    /// Forgets what is in the queue; returns how many messages of QoS 1 and 2 that were.
    pub(crate) fn give_up(&mut self) -> u64 {
        let mut lost = 0;
        for queued in std::mem::take(&mut self.queue) {
            lost += u64::from(queued.delivery.qos > 0);
            self.drop_queued(&queued);
        }
        (self.kept, self.bytes) = (0, 0);
        self.owed.clear();
        lost
    }

    /// A connected client whose queue is so long that publishers should wait.
    pub(crate) fn is_slow(&self) -> bool {
        let long = self.queue.len() - self.kept >= self.long || self.bytes > plan::QUEUE_BYTES / 2;
        long && self.handle.as_ref().is_some_and(|handle| !handle.is_closing())
    }

    /// Whether publishers should wait now, as long as they have patience. For a client that is held up itself they wait only
    /// when its queue is almost full: its acknowledgements lie behind its publishes, and who waits for those may be whom it waits
    /// for.
    pub(crate) fn is_waited_for(&self, now: Moment) -> bool {
        let (messages, bytes) = self.most;
        let is_almost_full =
            self.queue.len() - self.kept >= messages - messages / 10 || self.bytes > bytes / 4 * 3;
        let Some(handle) = &self.handle else { return false };
        self.is_slow()
            && (is_almost_full || !handle.is_held_up())
            && !handle.others_patience.left(now).is_zero()
    }
}

/// Whether a message has a row in the store, if its session has one. Of retained messages one of QoS 2, for its identifier.
fn outlives(qos: u8, kept: bool) -> bool {
    qos == 2 || (qos == 1 && !kept)
}
