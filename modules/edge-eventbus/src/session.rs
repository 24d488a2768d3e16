//! What the broker knows of one client, connected or not.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use beehive::Moment;
use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::access::{AuthMethod, Rights};
use crate::error::ConnectionError;
use crate::peer::Peer;
use crate::qos2::Unreleased;
use crate::{packet, plan};

/// A message on its way through the broker.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    /// The topic in the router's form.
    pub(crate) router_form: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    /// The name of the client that published it; empty for the node itself.
    pub(crate) from: Rc<str>,
}

/// How a connection came.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectInfo {
    pub(crate) peer: Peer,
    pub(crate) auth_method: AuthMethod,
    /// In seconds.
    pub(crate) keep_alive: u16,
    pub(crate) at: Moment,
}

/// A message in a client's queue.
#[derive(Debug)]
struct Queued {
    message: Rc<Message>,
    qos: u8,
    retain: bool,
}

/// What became of a message that was put into a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnqueueOutcome {
    Queued,
    /// The client is away, and QoS 0 is not kept for it.
    NotKept,
    /// QoS 0, and the queue has no room.
    Dropped,
    /// QoS 1, and the queue of a client that is away has no room.
    Lost,
    /// QoS 1, and a client that is there has let its queue overflow.
    Overflow,
}

/// What a connection and the rest of the broker share.
#[derive(Default)]
pub(crate) struct ConnectionHandle {
    pub(crate) connect_info: ConnectInfo,
    /// When the client last said something after its CONNECT.
    heard: Cell<Option<Moment>>,
    /// Packets that are no publishes; they go out first.
    control: RefCell<VecDeque<Bytes>>,
    /// There is something to write.
    pub(crate) out: Notify,
    /// Something was written or acknowledged.
    pub(crate) room: Notify,
    /// The connection has to end.
    pub(crate) ended: Notify,
    end: Cell<Option<CloseReason>>,
    slow_since: Cell<Option<Moment>>,
}

/// Why the broker ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    TakenOver,
    MadeRoom,
    Revoked,
    Stuck,
    Ending,
}

impl ConnectionHandle {
    pub(crate) fn of(connect_info: ConnectInfo) -> Rc<Self> {
        Rc::new(ConnectionHandle { connect_info, ..ConnectionHandle::default() })
    }

    pub(crate) fn heard(&self, now: Moment) {
        self.heard.set(Some(now));
    }

    pub(crate) fn last_heard(&self) -> Option<Moment> {
        self.heard.get()
    }

    pub(crate) fn send(&self, packet: Bytes) {
        self.control.borrow_mut().push_back(packet);
        self.out.notify_one();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.control.borrow().len()
    }

    pub(crate) fn close(&self, why: CloseReason) {
        if self.end.get().is_none() {
            self.end.set(Some(why));
        }
        self.ended.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.end.get().is_some()
    }

    pub(crate) fn reason(&self) -> ConnectionError {
        match self.end.get() {
            Some(CloseReason::TakenOver) => ConnectionError::TakenOver,
            Some(CloseReason::Ending) => ConnectionError::Ending,
            Some(CloseReason::MadeRoom) => ConnectionError::MadeRoom,
            Some(CloseReason::Revoked) => ConnectionError::Revoked,
            Some(CloseReason::Stuck) | None => ConnectionError::Stuck,
        }
    }

    pub(crate) fn moved(&self) {
        self.slow_since.set(None);
        self.room.notify_waiters();
    }

    /// Since when publishers have waited without the client moving.
    pub(crate) fn slow_since(&self, now: Moment) -> Moment {
        let since = self.slow_since.get().unwrap_or(now);
        self.slow_since.set(Some(since));
        since
    }
}

/// A client's session.
pub(crate) struct Session {
    pub(crate) clean: bool,
    /// What proved who its client is, when it last came.
    pub(crate) auth_method: AuthMethod,
    /// What its client may do.
    pub(crate) rights: Rights,
    /// Filters in the router's form, with the granted QoS.
    pub(crate) subscriptions: BTreeMap<String, u8>,
    pub(crate) handle: Option<Rc<ConnectionHandle>>,
    /// Orders the sessions of absent clients by the time they left.
    pub(crate) left: u64,
    queue: VecDeque<Queued>,
    /// How many of `queue` are retained messages, which have a bound of their own and are shared.
    kept: usize,
    /// Bytes of payload in the others.
    bytes: usize,
    inflight: VecDeque<(u16, Queued)>,
    /// Bytes of payload in `inflight`.
    flying: usize,
    /// How many of `inflight` were written on this connection.
    written: usize,
    /// What its client has published with QoS 2.
    pub(crate) unreleased: Rc<Unreleased>,
    last_pkid: u16,
}

impl Session {
    pub(crate) fn new(clean: bool, rights: Rights) -> Self {
        Session {
            clean,
            auth_method: AuthMethod::None,
            rights,
            subscriptions: BTreeMap::new(),
            handle: None,
            left: 0,
            queue: VecDeque::new(),
            kept: 0,
            bytes: 0,
            inflight: VecDeque::new(),
            flying: 0,
            written: 0,
            unreleased: Rc::default(),
            last_pkid: 0,
        }
    }

    /// A connection takes the session; what was not acknowledged is sent again.
    pub(crate) fn attach(&mut self, handle: Rc<ConnectionHandle>) {
        self.written = 0;
        self.auth_method = handle.connect_info.auth_method.clone();
        self.handle = Some(handle);
    }

    pub(crate) fn put(&mut self, message: &Rc<Message>, qos: u8, retain: bool) -> EnqueueOutcome {
        let away = self.handle.is_none();
        if away && qos == 0 {
            return EnqueueOutcome::NotKept;
        }
        let size = message.payload.len();
        let many = self.queue.len() - self.kept >= plan::QUEUE_HARD;
        let full = many || (self.bytes > 0 && self.bytes + size > plan::QUEUE_BYTES);
        // For retained ones, see `takes_retained`.
        if full && !retain {
            return match (qos, away) {
                (0, _) => EnqueueOutcome::Dropped,
                (_, true) => EnqueueOutcome::Lost,
                (_, false) => EnqueueOutcome::Overflow,
            };
        }
        if retain {
            self.kept += 1;
        } else {
            self.bytes += size;
        }
        self.queue.push_back(Queued { message: Rc::clone(message), qos, retain });
        if let Some(handle) = &self.handle {
            handle.out.notify_one();
        }
        EnqueueOutcome::Queued
    }

    /// Whether a new subscription's retained messages may be queued, however many they are.
    pub(crate) fn takes_retained(&self) -> bool {
        self.kept < plan::QUEUE_HARD
    }

    /// Bytes of payload that are kept in memory for this session.
    pub(crate) fn held(&self) -> usize {
        self.bytes + self.flying
    }

    /// Forgets what is in the queue; returns how many messages of QoS 1 that were.
    pub(crate) fn give_up(&mut self) -> u64 {
        let lost = self.queue.drain(..).filter(|queued| queued.qos > 0).count();
        (self.kept, self.bytes) = (0, 0);
        lost as u64
    }

    /// A connected client whose queue is so long that publishers should wait.
    pub(crate) fn is_slow(&self) -> bool {
        let long = self.queue.len() - self.kept >= plan::QUEUE_SOFT || self.bytes > plan::QUEUE_BYTES / 2;
        long && self.handle.as_ref().is_some_and(|handle| !handle.is_closing())
    }

    /// Writes what may go out now; returns how many messages.
    pub(crate) fn fill(&mut self, out: &mut BytesMut) -> u64 {
        if let Some(handle) = &self.handle {
            for packet in handle.control.borrow_mut().drain(..) {
                out.extend_from_slice(&packet);
            }
        }
        while let Some((pkid, Queued { message, retain, .. })) = self.inflight.get(self.written) {
            if out.len() >= plan::WRITE_BYTES {
                return 0;
            }
            packet::put_publish(out, &message.topic, &message.payload, Some(*pkid), true, *retain);
            self.written += 1;
        }
        let mut count = 0;
        while out.len() < plan::WRITE_BYTES {
            if self.queue.front().is_none_or(|next| self.has_to_wait(next)) {
                break;
            }
            let Some(next) = self.queue.pop_front() else { break };
            if next.retain {
                self.kept -= 1;
            } else {
                self.bytes = self.bytes.saturating_sub(next.message.payload.len());
            }
            let pkid = (next.qos > 0).then(|| self.free_pkid());
            packet::put_publish(out, &next.message.topic, &next.message.payload, pkid, false, next.retain);
            if let Some(pkid) = pkid {
                self.flying += next.message.payload.len();
                self.inflight.push_back((pkid, next));
                self.written += 1;
            }
            count += 1;
        }
        count
    }

    /// Whether earlier messages of QoS 1 have to be acknowledged first.
    fn has_to_wait(&self, next: &Queued) -> bool {
        let large = self.flying > 0 && self.flying + next.message.payload.len() > plan::INFLIGHT_BYTES;
        next.qos > 0 && (large || self.inflight.len() >= plan::INFLIGHT)
    }

    /// The client has acknowledged a message. An unknown one is an answer to an earlier connection.
    pub(crate) fn acknowledged(&mut self, pkid: u16) {
        if let Some(place) = self.inflight.iter().position(|(known, _)| *known == pkid) {
            if let Some((_, done)) = self.inflight.remove(place) {
                self.flying = self.flying.saturating_sub(done.message.payload.len());
            }
            if place < self.written {
                self.written -= 1;
            }
        }
        if let Some(handle) = &self.handle {
            handle.moved();
            handle.out.notify_one();
        }
    }

    fn free_pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.wrapping_add(1);
            let pkid = self.last_pkid;
            if pkid != 0 && self.inflight.iter().all(|(used, _)| *used != pkid) {
                return pkid;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Rc<Message> {
        Rc::new(Message {
            topic: "t".into(),
            router_form: "u/t".into(),
            payload: Bytes::copy_from_slice(payload),
            qos: 1,
            from: "".into(),
        })
    }

    fn connected() -> Session {
        let mut session = Session::new(false, Rights::KubeEdge);
        session.attach(Rc::default());
        session
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_with_its_number() {
        let mut session = connected();
        for n in 0..3 {
            session.put(&message(&[n]), 1, false);
        }
        let mut out = BytesMut::new();
        assert_eq!(session.fill(&mut out), 3);
        session.acknowledged(2);
        session.attach(Rc::default());
        out.clear();
        assert_eq!(session.fill(&mut out), 0);
        assert_eq!(&out[..], b"\x3a\x06\0\x01t\0\x01\0\x3a\x06\0\x01t\0\x03\x02");
    }

    #[test]
    fn a_client_that_acknowledges_nothing_gets_a_window_and_no_more() {
        let mut session = connected();
        for _ in 0..plan::INFLIGHT + 5 {
            session.put(&message(b"x"), 1, false);
        }
        let mut out = BytesMut::new();
        assert_eq!(session.fill(&mut out), plan::INFLIGHT as u64);
        session.acknowledged(1);
        assert_eq!(session.fill(&mut out), 1);
        assert_eq!(session.fill(&mut out), 0);
    }

    #[test]
    fn large_messages_have_a_smaller_window_and_one_always_goes() {
        let mut session = connected();
        let (large, small) = (message(&vec![0; plan::INFLIGHT_BYTES]), message(b"x"));
        assert_eq!(
            (session.put(&large, 1, false), session.put(&small, 1, false)),
            (EnqueueOutcome::Queued, EnqueueOutcome::Queued)
        );
        let mut out = BytesMut::new();
        assert_eq!((session.fill(&mut out), session.held() > plan::INFLIGHT_BYTES), (1, true));
        session.acknowledged(1);
        out.clear();
        assert_eq!(session.fill(&mut out), 1);
        session.put(&large, 1, false);
        out.clear();
        assert_eq!(session.fill(&mut out), 0);
        session.acknowledged(2);
        assert_eq!(session.fill(&mut out), 1);
        session.acknowledged(3);
        assert_eq!(session.held(), 0);
    }

    #[test]
    fn retained_messages_in_the_queue_do_not_make_it_full() {
        let mut session = connected();
        for _ in 0..plan::RETAINED {
            assert_eq!(session.put(&message(&[0; 4096]), 1, true), EnqueueOutcome::Queued);
        }
        assert!(!session.takes_retained() && !session.is_slow() && session.held() == 0);
        assert_eq!(session.put(&message(b"x"), 1, false), EnqueueOutcome::Queued);
        assert_eq!(session.give_up(), plan::RETAINED as u64 + 1);
        assert!(session.takes_retained() && session.held() == 0);
    }

    #[test]
    fn a_full_queue_says_what_became_of_the_message() {
        let mut session = connected();
        while session.put(&message(b"x"), 1, false) == EnqueueOutcome::Queued {}
        assert_eq!(session.put(&message(b"x"), 0, false), EnqueueOutcome::Dropped);
        assert_eq!(session.put(&message(b"x"), 1, false), EnqueueOutcome::Overflow);
        session.handle = None;
        assert_eq!(session.put(&message(b"x"), 1, false), EnqueueOutcome::Lost);
        assert_eq!(session.put(&message(b"x"), 0, false), EnqueueOutcome::NotKept);
        let mut session = connected();
        let large = vec![0; plan::QUEUE_BYTES * 2];
        assert_eq!(session.put(&message(&large), 1, false), EnqueueOutcome::Queued);
        assert_eq!(session.put(&message(b"x"), 0, false), EnqueueOutcome::Dropped);
    }
}
