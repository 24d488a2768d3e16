//! From a session's queue to its client, and what the client says of that.

use beehive::Moment;

use super::{ConnectInfo, Delivery, Flying, Queued, RowKey, Session};
use crate::outbox::PacketSink;
use crate::packet::{self, Outgoing, Packet};
use crate::plan;

impl Session {
    /// Writes what may go out now; returns how many messages. What has expired, or is larger than the client takes, is left
    /// out.
    pub(crate) fn fill(&mut self, out: &mut impl PacketSink, now: Moment) -> u64 {
        let Some(handle) = self.handle.clone() else { return 0 };
        for packet in handle.control() {
            out.head().extend_from_slice(&packet);
        }
        let ConnectInfo { version, packet_maximum: most, .. } = handle.connect_info;
        let mut aliases = handle.aliases.borrow_mut();
        let window = plan::INFLIGHT.min(handle.connect_info.receive_maximum.into());
        while self.written < window
            && let Some(Flying { pkid, is_begun, queued, .. }) = self.inflight.get_mut(self.written)
        {
            if out.size() >= plan::WRITE_BYTES {
                return 0;
            }
            let fits = match queued {
                Some(queued) if !*is_begun && queued.message.is_expired(now) => false,
                Some(queued) => {
                    *is_begun = true;
                    packet::put_publish(out, queued.outgoing(*pkid, true), version, now, most, &mut aliases)
                }
                None => {
                    out.head().extend_from_slice(&packet::pubrel(*pkid, version, 0));
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
        while out.size() < plan::WRITE_BYTES {
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
            let outgoing = next.outgoing(pkid, false);
            if !wanted || !packet::put_publish(out, outgoing, version, now, most, &mut aliases) {
                self.used.remove(&pkid);
                self.drop_queued(&next);
                continue;
            }
            if qos > 0 {
                self.flying += next.message.size();
                self.inflight.push_back(Flying {
                    seq: next.seq,
                    pkid,
                    qos,
                    is_begun: true,
                    queued: Some(next),
                });
                self.written += 1;
            }
            count += 1;
        }
        if !self.is_slow() {
            handle.others_patience.renew(now);
        }
        handle.moved();
        count
    }

    /// Whether something waits for nothing but its client's socket.
    pub(crate) fn may_send(&self) -> bool {
        let Some(handle) = self.handle.as_ref().filter(|handle| !handle.is_closing()) else { return false };
        let window = plan::INFLIGHT.min(handle.connect_info.receive_maximum.into());
        self.queue.front().is_some_and(|next| !self.has_to_wait(next, window))
    }

    /// Whether earlier messages of QoS 1 and 2 have to be acknowledged first, or the store has to have this one.
    fn has_to_wait(&self, next: &Queued, window: usize) -> bool {
        let large = self.flying > 0 && self.flying + next.message.size() > plan::INFLIGHT_BYTES;
        let is_uncommitted = next.pkid.is_some() && self.is_persistent() && next.seq > self.committed;
        next.delivery.qos > 0 && (large || self.inflight.len() >= window || is_uncommitted)
    }

    /// Whether the client acknowledges a message as one of another QoS, or as complete before it has received it. No message of
    /// that identifier is no contradiction.
    pub(crate) fn is_contradicted_by(&self, packet: &Packet) -> bool {
        let (pkid, qos, is_end) = match packet {
            Packet::PubAck(pkid) => (*pkid, 1, false),
            Packet::PubRec(pkid, _) => (*pkid, 2, false),
            Packet::PubComp(pkid) => (*pkid, 2, true),
            _ => return false,
        };
        let flying = self.inflight.iter().find(|flying| flying.pkid == pkid);
        flying.is_some_and(|flying| flying.qos != qos || (is_end && flying.queued.is_some()))
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
            self.wake();
        }
    }

    /// There may be something to write.
    pub(super) fn wake(&self) {
        if let Some(handle) = &self.handle {
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

    pub(super) fn drop_queued(&mut self, queued: &Queued) {
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

    pub(super) fn free_pkid(&mut self) -> u16 {
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
