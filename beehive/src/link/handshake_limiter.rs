//! The handshake limiter of QUIC: how many at once, how many a second, and when an address is validated first (Retry,
//! RFC 9000 section 8.1.2).
//!
//! A first packet costs the accepting end a key exchange, a signature and some 100 KiB, and anybody can send one under
//! anybody's address. So while few handshakes are pending a few are accepted without validation; beyond that each client is
//! sent a Retry with a token, which costs nothing to keep. Each address has a rate of its own and a share of the slots for
//! pending handshakes; when all are taken, an address that holds fewer than the largest holder takes one of that one's
//! ([`super::accept_limiter::AcceptLimiter`]), and the handshake that has lost its slot is closed. What comes too fast is not
//! answered: the client sends it again by itself, later each time. Whoever floods under the address of another drives that
//! one to the transport over TCP at the worst, where addresses cannot be forged.
//!
//! A client that was sent a Retry is not accepted without one soon after. A first packet is sent again when the answer
//! takes long; the library (s2n-quic 1.91) makes a connection of the second, if that is let in, and another of what comes with
//! the token that answered the first, under the same first id. One of them stays behind until its time is over, and a debug
//! build ends the endpoint. A token is valid for two seconds at most and for one connection, and the limiter is not asked when one
//! comes: a handshake that then begins beyond the slots has none and is closed at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome};
use s2n_quic::provider::event::events::SocketAddress;

use super::accept_limiter::{AcceptLimiter, PER_SECOND, RateLimiter, address_prefix};
use crate::{Clock, Moment};

/// 32 pending handshakes: beyond them every address is validated.
const UNVALIDATED_MAX: usize = 32;
/// 20 a second and 50 at once of one address are accepted without validation.
const UNVALIDATED_RATE: (f64, f64) = (20.0, 50.0);
/// 100 a second, as many as a hub lets in, and 64 at once of one address are sent a Retry.
const RETRY_RATE: (f64, f64) = (PER_SECOND, 64.0);
/// 512 pending in all and 128 of one address: with 100 KiB each, 50 MiB and 12. One that takes more than 3 s yields to
/// another of its address.
const SLOTS: (usize, usize, Duration) = (512, 128, Duration::from_secs(3));
/// 10 s, the time of a handshake: a client that was sent a Retry is validated again, at least as long as that.
const RETRY_LASTS: Duration = Duration::from_secs(10);
/// 4096 clients that were sent a Retry within that time: with more of them every client is.
const RETRIES_MAX: usize = 4096;

/// The pending handshakes of one endpoint.
#[derive(Clone)]
pub(super) struct HandshakeLimiter(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
}

struct Counts {
    /// How many may be pending before every address is validated.
    unvalidated_max: usize,
    slots: AcceptLimiter,
    unvalidated: RateLimiter<IpAddr>,
    retries: RateLimiter<IpAddr>,
    recent: RecentRetries,
}

/// Clients that were sent a Retry: a generation that grows, and the one before it.
#[derive(Default)]
struct RecentRetries {
    latest: BTreeSet<(IpAddr, u16)>,
    before: BTreeSet<(IpAddr, u16)>,
    since: Moment,
}

impl RecentRetries {
    /// Whether `from` was sent a Retry lately, or so many were that it might be.
    fn knows(&mut self, from: (IpAddr, u16), now: Moment) -> bool {
        let age = now.since(self.since);
        if age >= RETRY_LASTS {
            self.before = std::mem::take(&mut self.latest);
            self.since = now;
        }
        if age >= 2 * RETRY_LASTS {
            self.before.clear();
        }
        let many = self.latest.len() >= RETRIES_MAX || self.before.len() >= RETRIES_MAX;
        many || self.latest.contains(&from) || self.before.contains(&from)
    }

    fn add(&mut self, from: (IpAddr, u16)) {
        if self.latest.len() < RETRIES_MAX {
            self.latest.insert(from);
        }
    }
}

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Accept,
    Retry,
    Drop,
}

impl Counts {
    fn new() -> Self {
        let rates = |(per_second, burst)| RateLimiter::new(per_second, burst);
        let (unvalidated, retries) = (rates(UNVALIDATED_RATE), rates(RETRY_RATE));
        let (most, each, yields_after) = SLOTS;
        let slots = AcceptLimiter::new(most, each, yields_after);
        Counts {
            unvalidated_max: UNVALIDATED_MAX,
            slots,
            unvalidated,
            retries,
            recent: RecentRetries::default(),
        }
    }

    /// To a first packet from an address and a port.
    fn decide(&mut self, from: (IpAddr, u16), now: Moment) -> Decision {
        let address = address_prefix(from.0);
        if !self.slots.has_slot(address, now) {
            return Decision::Drop;
        }
        let asked = self.recent.knows(from, now);
        if !asked
            && self.slots.in_use() < self.unvalidated_max
            && self.unvalidated.take(&address, now).is_ok()
        {
            return Decision::Accept;
        }
        if self.retries.take(&address, now).is_err() {
            return Decision::Drop;
        }
        self.recent.add(from);
        Decision::Retry
    }
}

impl HandshakeLimiter {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        HandshakeLimiter(Arc::new(Shared { clock, counts: Mutex::new(Counts::new()) }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may be pending before every address is validated.
    #[cfg(test)]
    pub(super) fn accept_without_retry(&self, most: usize) {
        self.counts().unvalidated_max = most;
    }

    /// Fewer slots, for a test that fills them: as many in all, and as many of one address.
    #[cfg(test)]
    pub(super) fn limit_slots(&self, most: usize, each: usize) {
        self.counts().slots = AcceptLimiter::new(most, each, SLOTS.2);
    }

    /// How many are pending.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.counts().slots.in_use()
    }

    /// How many were begun and are not ended, with a slot or without, and how many hold this besides.
    #[cfg(test)]
    pub(super) fn open_connections(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// One has begun; it is pending until what is returned is dropped.
    pub(super) fn start(&self, address: IpAddr) -> PendingHandshake {
        let now = self.0.clock.now();
        let slot = self.counts().slots.acquire(address, now).map(|(id, _)| id);
        PendingHandshake { handshakes: self.clone(), slot }
    }
}

/// A handshake that is pending, until this is dropped.
pub(super) struct PendingHandshake {
    handshakes: HandshakeLimiter,
    slot: Option<u64>,
}

impl PendingHandshake {
    /// Whether it may go on: it found a slot, and nobody else has that now.
    pub(super) fn has_slot(&self) -> bool {
        self.slot.is_some_and(|id| self.handshakes.counts().slots.holds(id))
    }
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        if let Some(id) = self.slot {
            self.handshakes.counts().slots.release(id);
        }
    }
}

/// The address without its port.
pub(super) fn ip_of(address: &SocketAddress<'_>) -> Option<IpAddr> {
    let ip = address.ip();
    let v4 = <[u8; 4]>::try_from(ip).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(ip).map(IpAddr::from)).ok()
}

impl Limiter for HandshakeLimiter {
    /// Of a first packet without a token.
    fn on_connection_attempt(&mut self, attempt: &ConnectionAttempt) -> Outcome {
        let Some(address) = ip_of(&attempt.remote_address) else { return Outcome::drop() };
        let from = (address, attempt.remote_address.port());
        let decision = self.counts().decide(from, self.0.clock.now());
        match decision {
            Decision::Accept => Outcome::allow(),
            Decision::Retry => Outcome::retry(),
            Decision::Drop => Outcome::drop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// From another port each time.
    fn from(address: IpAddr, port: usize) -> (IpAddr, u16) {
        (address, u16::try_from(port).unwrap())
    }

    #[test]
    fn a_few_are_accepted_and_then_each_address_is_validated_at_its_rate() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        let mut answers = |address, count: usize| {
            let all: Vec<Decision> = (0..count).map(|port| counts.decide(from(address, port), now)).collect();
            [Decision::Accept, Decision::Retry, Decision::Drop]
                .map(|what| all.iter().filter(|answer| **answer == what).count())
        };
        assert_eq!(answers(ip(1), 1000), [50, 64, 886]);
        assert_eq!(answers(ip(2), 10), [10, 0, 0]);
        let later = now + Duration::from_secs(1);
        let more =
            (2000..3000).filter(|port| counts.decide(from(ip(1), *port), later) != Decision::Drop).count();
        assert_eq!(more, 20 + 64);
    }

    fn begin(counts: &mut Counts, address: IpAddr, count: usize) -> Vec<u64> {
        let now = Moment::default();
        (0..count).map(|_| counts.slots.acquire(address, now).unwrap().0).collect()
    }

    #[test]
    fn pending_handshakes_cause_retries_and_are_bounded() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        let (most, each, yields_after) = SLOTS;
        let mut held = begin(&mut counts, ip(1), UNVALIDATED_MAX);
        assert_eq!(counts.decide(from(ip(2), 5), now), Decision::Retry);
        held.extend(begin(&mut counts, ip(1), each - UNVALIDATED_MAX));
        assert_eq!(counts.decide(from(ip(1), 5), now), Decision::Drop);
        assert_eq!(counts.decide(from(ip(1), 5), now + yields_after), Decision::Retry);
        assert_eq!(counts.decide(from(ip(2), 5), now), Decision::Retry);
        for other in 3..6 {
            held.extend(begin(&mut counts, ip(other), each));
        }
        assert_eq!(counts.slots.in_use(), most);
        // Those who hold all have no more, and everybody else is asked.
        assert_eq!(counts.decide(from(ip(3), 5), now), Decision::Drop);
        assert_eq!(counts.decide(from(ip(2), 5), now), Decision::Retry);
        held.into_iter().for_each(|id| counts.slots.release(id));
        assert_eq!(counts.decide(from(ip(2), 5), now), Decision::Retry, "it was asked before");
        assert_eq!(counts.decide(from(ip(2), 6), now), Decision::Accept);
        assert_eq!(counts.slots.in_use(), 0);
    }

    #[test]
    fn a_client_that_was_sent_a_retry_is_validated_for_the_time_of_a_handshake() {
        let (mut counts, start) = (Counts::new(), Moment::default() + Duration::from_secs(100));
        counts.unvalidated_max = 0;
        assert_eq!(counts.decide(from(ip(1), 5), start), Decision::Retry);
        counts.unvalidated_max = UNVALIDATED_MAX;
        assert_eq!(counts.decide(from(ip(1), 6), start), Decision::Accept);
        for second in [0, 5, 10] {
            let now = start + Duration::from_secs(second);
            assert_eq!(counts.decide(from(ip(1), 5), now), Decision::Retry, "{second} s later");
        }
        assert_eq!(counts.decide(from(ip(1), 5), start + Duration::from_secs(31)), Decision::Accept);
    }

    #[test]
    fn with_very_many_retries_every_client_is_validated_until_it_is_calm() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        counts.unvalidated_max = 0;
        for number in 0..100_000_u32 {
            counts.decide((IpAddr::from(number.to_be_bytes()), 1), now);
        }
        assert!(counts.recent.latest.len() <= RETRIES_MAX);
        counts.unvalidated_max = UNVALIDATED_MAX;
        let quiet = IpAddr::from([200, 0, 0, 1]);
        assert_eq!(counts.recent.latest.len(), RETRIES_MAX);
        assert_eq!(counts.decide(from(quiet, 5), now + Duration::from_secs(1)), Decision::Retry);
        assert_eq!(counts.decide(from(quiet, 5), now + Duration::from_secs(60)), Decision::Accept);
    }
}
