//! What the broker knows of one client, connected or not.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use beehive::Moment;
use bytes::BytesMut;

use crate::access::{AuthMethod, Rights};
use crate::message::Message;
use crate::packet::{self, Outgoing, Publish};
use crate::plan;
use crate::qos2::Unreleased;

pub(crate) use handle::{CloseReason, ConnectInfo, ConnectionHandle};
pub(crate) use rows::{Restored, RowKey};

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
    /// One of QoS 2 in a session that outlives the daemon has its identifier from the beginning, so that it is in the store
    /// before the client has seen it.
    pkid: Option<u16>,
}

/// A message of QoS 1 or 2 on its way.
#[derive(Debug)]
struct Flying {
    seq: u64,
    pkid: u16,
    qos: u8,
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
    /// QoS 1 or 2, and the queue of a client that is away has no room.
    Lost,
    /// QoS 1 or 2, and a client that is there has let its queue overflow.
    Overflow,
}

/// A will that waits for its delay to pass.
#[derive(Debug)]
pub(crate) struct PendingWill {
    pub(crate) publish: Publish,
    pub(crate) due: Moment,
}

/// A client's session.
pub(crate) struct Session {
    /// How long it outlives its connection, in seconds; 0: not at all; `u32::MAX`: until it has to make room.
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
        }
    }

    /// Whether it outlives its connection, and the daemon.
    pub(crate) fn is_persistent(&self) -> bool {
        self.expiry > 0
    }

    /// A connection takes the session; what was not acknowledged is sent again.
    pub(crate) fn attach(&mut self, handle: Rc<ConnectionHandle>) {
        self.written = 0;
        self.auth_method = handle.connect_info.auth_method.clone();
        self.handle = Some(handle);
        self.will = None;
    }

    /// When it is over, if its client stays away.
    pub(crate) fn ends(&self) -> Option<Moment> {
        let limited = self.handle.is_none() && self.expiry != u32::MAX;
        limited.then(|| self.left_at + std::time::Duration::from_secs(self.expiry.into()))
    }

    pub(crate) fn put(&mut self, message: &Rc<Message>, delivery: Delivery) -> EnqueueOutcome {
        let away = self.handle.is_none();
        let Delivery { qos, kept, .. } = delivery;
        if away && qos == 0 {
            return EnqueueOutcome::NotKept;
        }
        let size = message.size();
        let many = self.queue.len() - self.kept >= plan::QUEUE_HARD;
        let full = many || (self.bytes > 0 && self.bytes + size > plan::QUEUE_BYTES);
        if full && !kept {
            return match (qos, away) {
                (0, _) => EnqueueOutcome::Dropped,
                (_, true) => EnqueueOutcome::Lost,
                (_, false) => EnqueueOutcome::Overflow,
            };
        }
        if kept {
            self.kept += 1;
        } else {
            self.bytes += size;
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        let stays = self.is_persistent() && qos > 0 && !kept;
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
        let long = self.queue.len() - self.kept >= plan::QUEUE_SOFT || self.bytes > plan::QUEUE_BYTES / 2;
        long && self.handle.as_ref().is_some_and(|handle| !handle.is_closing())
    }

    /// Writes what may go out now; returns how many messages. What has expired, or is larger than the client takes, is left
    /// out.
    pub(crate) fn fill(&mut self, out: &mut BytesMut, now: Moment) -> u64 {
        let Some(handle) = self.handle.clone() else { return 0 };
        for packet in handle.control() {
            out.extend_from_slice(&packet);
        }
        let ConnectInfo { version, packet_maximum: most, .. } = handle.connect_info;
        let window = plan::INFLIGHT.min(handle.connect_info.receive_maximum.into());
        while self.written < window
            && let Some(Flying { pkid, queued, .. }) = self.inflight.get(self.written)
        {
            if out.len() >= plan::WRITE_BYTES {
                return 0;
            }
            let fits = match queued {
                Some(queued) => packet::put_publish(out, queued.outgoing(*pkid, true), version, now, most),
                None => {
                    out.extend_from_slice(&packet::pubrel(*pkid, version, 0));
                    true
                }
            };
            if fits {
                self.written += 1;
            } else {
                self.take_flying(self.written);
            }
        }
        let mut count = 0;
        while out.len() < plan::WRITE_BYTES {
            if self.queue.front().is_none_or(|next| self.has_to_wait(next, window)) {
                break;
            }
            let Some(next) = self.queue.pop_front() else { break };
            if next.delivery.kept {
                self.kept -= 1;
            } else {
                self.bytes = self.bytes.saturating_sub(next.message.size());
            }
            let qos = next.delivery.qos;
            let pkid = if qos > 0 { next.pkid.unwrap_or_else(|| self.free_pkid()) } else { 0 };
            let wanted = !next.message.is_expired(now);
            if !wanted || !packet::put_publish(out, next.outgoing(pkid, false), version, now, most) {
                self.used.remove(&pkid);
                self.drop_queued(&next);
                continue;
            }
            if qos > 0 {
                self.flying += next.message.size();
                self.inflight.push_back(Flying { seq: next.seq, pkid, qos, queued: Some(next) });
                self.written += 1;
            }
            count += 1;
        }
        count
    }

    /// Whether earlier messages of QoS 1 and 2 have to be acknowledged first.
    fn has_to_wait(&self, next: &Queued, window: usize) -> bool {
        let large = self.flying > 0 && self.flying + next.message.size() > plan::INFLIGHT_BYTES;
        next.delivery.qos > 0 && (large || self.inflight.len() >= window)
    }

    /// The client has acknowledged a message of QoS 1. An unknown one is an answer to an earlier connection.
    pub(crate) fn acknowledged(&mut self, pkid: u16) {
        self.finish(pkid, 1);
    }

    /// The client has got a message of QoS 2, or refuses it. Says whether there is one of that identifier.
    pub(crate) fn received(&mut self, pkid: u16, is_refused: bool) -> bool {
        let Some(flying) = self.inflight.iter_mut().find(|flying| flying.pkid == pkid && flying.qos == 2)
        else {
            return false;
        };
        if is_refused {
            self.finish(pkid, 2);
            return true;
        }
        if let Some(queued) = flying.queued.take() {
            self.flying = self.flying.saturating_sub(queued.message.size());
            let seq = flying.seq;
            if self.stored.contains(&seq) || self.dirty.contains(&RowKey::Message(seq)) {
                self.soil(RowKey::Message(seq));
            }
        }
        true
    }

    /// The client has released the identifier of a message of QoS 2.
    pub(crate) fn completed(&mut self, pkid: u16) {
        self.finish(pkid, 2);
    }

    fn finish(&mut self, pkid: u16, qos: u8) {
        let is_it = |flying: &Flying| flying.pkid == pkid && flying.qos == qos;
        if let Some(place) = self.inflight.iter().position(is_it) {
            self.take_flying(place);
            if place < self.written {
                self.written -= 1;
            }
        }
        if let Some(handle) = &self.handle {
            handle.moved();
            handle.out.notify_one();
        }
    }

    fn take_flying(&mut self, place: usize) {
        let Some(done) = self.inflight.remove(place) else { return };
        self.used.remove(&done.pkid);
        if let Some(queued) = &done.queued {
            self.flying = self.flying.saturating_sub(queued.message.size());
        }
        self.gone(done.seq);
    }

    fn drop_queued(&mut self, queued: &Queued) {
        if let Some(pkid) = queued.pkid {
            self.used.remove(&pkid);
        }
        self.gone(queued.seq);
    }

    /// A message is not the session's any more; that its row goes nobody waits for.
    fn gone(&mut self, seq: u64) {
        if self.stored.contains(&seq) {
            self.dirty.insert(RowKey::Message(seq));
        } else {
            self.dirty.remove(&RowKey::Message(seq));
        }
    }

    fn free_pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.wrapping_add(1);
            if self.last_pkid != 0 && self.used.insert(self.last_pkid) {
                return self.last_pkid;
            }
        }
    }
}

impl Queued {
    fn outgoing(&self, pkid: u16, again: bool) -> Outgoing<'_> {
        let Delivery { qos, retain, ids, .. } = &self.delivery;
        Outgoing { message: &self.message, qos: *qos, pkid, again: again && *qos > 0, retain: *retain, ids }
    }
}

mod handle;
mod rows;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn at(qos: u8) -> Delivery {
        Delivery { qos, ..Delivery::default() }
    }

    fn message(payload: &[u8]) -> Rc<Message> {
        Rc::new(Message::of_node("t".into(), Bytes::copy_from_slice(payload), 1, false))
    }

    fn connected() -> Session {
        let mut session = Session::new(u32::MAX, Rights::KubeEdge);
        session.attach(Rc::default());
        session
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_with_its_number() {
        let mut session = connected();
        for n in 0..3 {
            session.put(&message(&[n]), at(1));
        }
        let mut out = BytesMut::new();
        assert_eq!(session.fill(&mut out, Moment::default()), 3);
        session.acknowledged(2);
        session.attach(Rc::default());
        out.clear();
        assert_eq!(session.fill(&mut out, Moment::default()), 0);
        assert_eq!(&out[..], b"\x3a\x06\0\x01t\0\x01\0\x3a\x06\0\x01t\0\x03\x02");
    }

    #[test]
    fn a_client_that_acknowledges_nothing_gets_a_window_and_no_more() {
        let mut session = connected();
        for _ in 0..plan::INFLIGHT + 5 {
            session.put(&message(b"x"), at(1));
        }
        let mut out = BytesMut::new();
        assert_eq!(session.fill(&mut out, Moment::default()), plan::INFLIGHT as u64);
        session.acknowledged(1);
        assert_eq!(session.fill(&mut out, Moment::default()), 1);
        assert_eq!(session.fill(&mut out, Moment::default()), 0);
    }

    #[test]
    fn large_messages_have_a_smaller_window_and_one_always_goes() {
        let mut session = connected();
        let (large, small) = (message(&vec![0; plan::INFLIGHT_BYTES]), message(b"x"));
        assert_eq!(
            (session.put(&large, at(1)), session.put(&small, at(1))),
            (EnqueueOutcome::Queued, EnqueueOutcome::Queued)
        );
        let mut out = BytesMut::new();
        assert_eq!(
            (session.fill(&mut out, Moment::default()), session.held() > plan::INFLIGHT_BYTES),
            (1, true)
        );
        session.acknowledged(1);
        out.clear();
        assert_eq!(session.fill(&mut out, Moment::default()), 1);
        session.put(&large, at(1));
        out.clear();
        assert_eq!(session.fill(&mut out, Moment::default()), 0);
        session.acknowledged(2);
        assert_eq!(session.fill(&mut out, Moment::default()), 1);
        session.acknowledged(3);
        assert_eq!(session.held(), 0);
    }

    #[test]
    fn retained_messages_in_the_queue_do_not_make_it_full() {
        let mut session = connected();
        let owed = |after| Owed { filter: "u/#".into(), subscription: Subscription::default(), after };
        session.owed.push_back(owed(None));
        for _ in 0..plan::RETAINED_PAGE {
            assert!(session.takes_retained());
            let kept = Delivery { kept: true, retain: true, ..at(1) };
            assert_eq!(session.put(&message(&[0; 65536]), kept), EnqueueOutcome::Queued);
        }
        assert!(!session.takes_retained() && !session.is_slow() && session.held() == 0);
        assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Queued);
        assert_eq!(session.give_up(), plan::RETAINED_PAGE as u64 + 1);
        assert!(!session.takes_retained() && session.held() == 0);
    }

    #[test]
    fn a_message_of_qos_2_is_resent_until_it_was_received_and_then_only_released() {
        let mut session = connected();
        session.put(&message(b"x"), at(2));
        let mut out = BytesMut::new();
        session.fill(&mut out, Moment::default());
        assert_eq!(&out[..], b"\x34\x06\0\x01t\0\x01x");
        // An acknowledgement of the other kind is none.
        session.acknowledged(1);
        assert!(!session.received(2, false) && session.received(1, false) && session.held() == 0);
        session.attach(Rc::default());
        out.clear();
        session.fill(&mut out, Moment::default());
        assert_eq!(&out[..], b"\x62\x02\0\x01");
        session.completed(1);
        assert!(session.inflight.is_empty() && session.used.is_empty());
        session.put(&message(b"y"), at(2));
        out.clear();
        session.fill(&mut out, Moment::default());
        assert!(session.received(2, true) && session.inflight.is_empty());
    }

    #[test]
    fn what_a_client_does_not_take_is_left_out_and_its_window_is_its_own() {
        let mut session = connected();
        let info = ConnectInfo { receive_maximum: 2, packet_maximum: 12, ..ConnectInfo::default() };
        session.attach(ConnectionHandle::of(info));
        let old = Message { expires: Some(Moment::default()), ..(*message(b"old")).clone() };
        session.put(&message(&[b'x'; 40]), at(1));
        session.put(&Rc::new(old), at(1));
        for _ in 0..3 {
            session.put(&message(b"1"), at(1));
        }
        let mut out = BytesMut::new();
        assert_eq!(session.fill(&mut out, Moment::default()), 2);
        assert_eq!(&out[..], b"\x32\x06\0\x01t\0\x031\x32\x06\0\x01t\0\x041");
        session.acknowledged(3);
        assert_eq!((session.fill(&mut out, Moment::default()), session.used.len()), (1, 2));
    }

    #[test]
    fn a_full_queue_says_what_became_of_the_message() {
        let mut session = connected();
        while session.put(&message(b"x"), at(1)) == EnqueueOutcome::Queued {}
        assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::Dropped);
        assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Overflow);
        session.handle = None;
        assert_eq!(session.put(&message(b"x"), at(1)), EnqueueOutcome::Lost);
        assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::NotKept);
        let mut session = connected();
        let large = vec![0; plan::QUEUE_BYTES * 2];
        assert_eq!(session.put(&message(&large), at(1)), EnqueueOutcome::Queued);
        assert_eq!(session.put(&message(b"x"), at(0)), EnqueueOutcome::Dropped);
    }
}
