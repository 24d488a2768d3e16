//! Handshakes of QUIC: how many at once, how many a second, and when an address has to be proved first.
//!
//! A first packet costs the accepting end a key exchange, a signature and some 100 KiB, and anybody can send one under
//! anybody's address. So while few are under way a few are taken at their word; beyond that each is asked to come again
//! with a token (Retry, RFC 9000 section 8.1.2), which costs nothing to keep. Each address has a rate of its own and a share
//! of what may be under way. What comes too fast is not answered: it comes again by itself, later each time. Whoever floods
//! under the address of another drives that one to the transport over TCP at the worst, where addresses cannot be forged.
//!
//! Who was asked for a proof is not taken at its word soon after. A first packet is sent again when the answer
//! takes long; the library (s2n-quic 1.91) makes a connection of the second, if that is let in, and another of what comes with
//! the token that answered the first, under the same first id. One of them stays behind until its time is over, and a debug
//! build ends the endpoint. A token is good for at most two seconds and for one connection, and is not asked for here when it comes: 264 more
//! may begin of one address at the worst, those that it was asked for meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome};
use s2n_quic::provider::event::events::SocketAddress;

use super::door::{PER_SECOND, Rates, origin};
use crate::{Clock, Moment};

/// 32 under way: beyond them every address has to be proved.
const UNPROVED_MAX: usize = 32;
/// 20 a second and 50 at once of one address are taken at their word.
const UNPROVED_RATE: (f64, f64) = (20.0, 50.0);
/// 100 a second, as many as a hub lets in, and 64 at once of one address are asked to prove it.
const RETRY_RATE: (f64, f64) = (PER_SECOND, 64.0);
/// 128 under way of one address: with 100 KiB each, 12 MiB.
const EACH_MAX: usize = 128;
/// 512 under way in all.
const ALL_MAX: usize = 512;
/// 10 s, the time of a handshake: who was asked to prove its address is asked again, at least as long as that.
const ASKED_FOR: Duration = Duration::from_secs(10);
/// 4096 who were asked within that time: with more of them everybody is.
const ASKED_MAX: usize = 4096;

/// What is under way at one endpoint.
#[derive(Clone)]
pub(super) struct Handshakes(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
}

struct Counts {
    /// How many may be under way before every address has to be proved.
    unproved_max: usize,
    under_way: BTreeMap<IpAddr, usize>,
    all: usize,
    unproved: Rates<IpAddr>,
    retries: Rates<IpAddr>,
    asked: Asked,
}

/// Who was asked to prove its address: a lot that grows, and the one before it.
#[derive(Default)]
struct Asked {
    latest: BTreeSet<(IpAddr, u16)>,
    before: BTreeSet<(IpAddr, u16)>,
    since: Moment,
}

impl Asked {
    /// Whether `from` was asked lately, or so many were that it might be.
    fn knows(&mut self, from: (IpAddr, u16), now: Moment) -> bool {
        let age = now.since(self.since);
        if age >= ASKED_FOR {
            self.before = std::mem::take(&mut self.latest);
            self.since = now;
        }
        if age >= 2 * ASKED_FOR {
            self.before.clear();
        }
        let many = self.latest.len() >= ASKED_MAX || self.before.len() >= ASKED_MAX;
        many || self.latest.contains(&from) || self.before.contains(&from)
    }

    fn add(&mut self, from: (IpAddr, u16)) {
        if self.latest.len() < ASKED_MAX {
            self.latest.insert(from);
        }
    }
}

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Begin,
    ProveIt,
    Nothing,
}

impl Counts {
    fn new() -> Self {
        let rates = |(per_second, burst)| Rates::new(per_second, burst);
        let (unproved, retries) = (rates(UNPROVED_RATE), rates(RETRY_RATE));
        let (under_way, asked) = (BTreeMap::new(), Asked::default());
        Counts { unproved_max: UNPROVED_MAX, under_way, all: 0, unproved, retries, asked }
    }

    /// To a first packet from an address and a port.
    fn answer(&mut self, from: (IpAddr, u16), now: Moment) -> Answer {
        let address = origin(from.0);
        let own = self.under_way.get(&address).copied().unwrap_or(0);
        if self.all >= ALL_MAX || own >= EACH_MAX {
            return Answer::Nothing;
        }
        let asked = self.asked.knows(from, now);
        if !asked && self.all < self.unproved_max && self.unproved.take(&address, now).is_ok() {
            return Answer::Begin;
        }
        if self.retries.take(&address, now).is_err() {
            return Answer::Nothing;
        }
        self.asked.add(from);
        Answer::ProveIt
    }

    fn begin(&mut self, address: IpAddr) {
        self.all += 1;
        *self.under_way.entry(address).or_default() += 1;
    }

    fn over(&mut self, address: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(own) = self.under_way.get_mut(&address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.under_way.remove(&address);
            }
        }
    }
}

impl Handshakes {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Handshakes(Arc::new(Shared { clock, counts: Mutex::new(Counts::new()) }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may be under way before every address has to be proved.
    #[cfg(test)]
    pub(super) fn take_at_their_word(&self, most: usize) {
        self.counts().unproved_max = most;
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.counts().all
    }

    /// One has begun; it is under way until what is answered is dropped.
    pub(super) fn begun(&self, address: IpAddr) -> UnderWay {
        let address = origin(address);
        self.counts().begin(address);
        UnderWay { handshakes: self.clone(), address }
    }
}

/// A handshake that is under way.
pub(super) struct UnderWay {
    handshakes: Handshakes,
    address: IpAddr,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.handshakes.counts().over(self.address);
    }
}

/// The address without its port.
pub(super) fn ip_of(address: &SocketAddress<'_>) -> Option<IpAddr> {
    let ip = address.ip();
    let v4 = <[u8; 4]>::try_from(ip).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(ip).map(IpAddr::from)).ok()
}

impl Limiter for Handshakes {
    /// Of a first packet without a token.
    fn on_connection_attempt(&mut self, attempt: &ConnectionAttempt) -> Outcome {
        let Some(address) = ip_of(&attempt.remote_address) else { return Outcome::drop() };
        let from = (address, attempt.remote_address.port());
        let answer = self.counts().answer(from, self.0.clock.now());
        match answer {
            Answer::Begin => Outcome::allow(),
            Answer::ProveIt => Outcome::retry(),
            Answer::Nothing => Outcome::drop(),
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
    fn a_few_are_taken_at_their_word_and_then_each_address_at_its_rate() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        let mut answers = |address, count: usize| {
            let all: Vec<Answer> = (0..count).map(|port| counts.answer(from(address, port), now)).collect();
            [Answer::Begin, Answer::ProveIt, Answer::Nothing]
                .map(|what| all.iter().filter(|answer| **answer == what).count())
        };
        assert_eq!(answers(ip(1), 1000), [50, 64, 886]);
        assert_eq!(answers(ip(2), 10), [10, 0, 0]);
        let later = now + Duration::from_secs(1);
        let more =
            (2000..3000).filter(|port| counts.answer(from(ip(1), *port), later) != Answer::Nothing).count();
        assert_eq!(more, 20 + 64);
    }

    #[test]
    fn what_is_under_way_asks_others_for_a_proof_and_has_a_bound() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        (0..UNPROVED_MAX).for_each(|_| counts.begin(ip(1)));
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt);
        (UNPROVED_MAX..EACH_MAX).for_each(|_| counts.begin(ip(1)));
        assert_eq!(counts.answer(from(ip(1), 5), now), Answer::Nothing);
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt);
        for other in 3..6 {
            (0..EACH_MAX).for_each(|_| counts.begin(ip(other)));
        }
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::Nothing);
        for other in [1, 3, 4, 5] {
            (0..EACH_MAX).for_each(|_| counts.over(ip(other)));
        }
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt, "it was asked before");
        assert_eq!(counts.answer(from(ip(2), 6), now), Answer::Begin);
        assert!(counts.under_way.is_empty());
    }

    #[test]
    fn who_was_asked_is_asked_again_for_the_time_of_a_handshake() {
        let (mut counts, start) = (Counts::new(), Moment::default() + Duration::from_secs(100));
        counts.unproved_max = 0;
        assert_eq!(counts.answer(from(ip(1), 5), start), Answer::ProveIt);
        counts.unproved_max = UNPROVED_MAX;
        assert_eq!(counts.answer(from(ip(1), 6), start), Answer::Begin);
        for second in [0, 5, 10] {
            let now = start + Duration::from_secs(second);
            assert_eq!(counts.answer(from(ip(1), 5), now), Answer::ProveIt, "{second} s later");
        }
        assert_eq!(counts.answer(from(ip(1), 5), start + Duration::from_secs(31)), Answer::Begin);
    }

    #[test]
    fn with_very_many_who_were_asked_everybody_is_until_it_is_calm() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        counts.unproved_max = 0;
        for number in 0..100_000_u32 {
            counts.answer((IpAddr::from(number.to_be_bytes()), 1), now);
        }
        assert!(counts.asked.latest.len() <= ASKED_MAX);
        counts.unproved_max = UNPROVED_MAX;
        let quiet = IpAddr::from([200, 0, 0, 1]);
        assert_eq!(counts.asked.latest.len(), ASKED_MAX);
        assert_eq!(counts.answer(from(quiet, 5), now + Duration::from_secs(1)), Answer::ProveIt);
        assert_eq!(counts.answer(from(quiet, 5), now + Duration::from_secs(60)), Answer::Begin);
    }
}
