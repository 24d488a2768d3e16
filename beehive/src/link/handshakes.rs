//! Handshakes of QUIC: how many at once, how many a second, and when an address has to be proved first.
//!
//! A first packet costs the accepting end a key exchange, a signature and some 100 KiB, and anybody can send one under
//! anybody's address. So while few are under way a few are taken at their word; beyond that each is asked to come again
//! with a token (Retry, RFC 9000 section 8.1.2), which costs nothing to keep. Each address has a rate of its own and a share
//! of the places for what is under way; when all are taken, an address that holds fewer than the greediest has one of that
//! one's ([`super::door::Places`]), and the handshake that has lost its place is ended. What comes too fast is not answered: it
//! comes again by itself, later each time. Whoever floods under the address of another drives that one to the transport over
//! TCP at the worst, where addresses cannot be forged.
//!
//! Who was asked for a proof is not taken at its word soon after. A first packet is sent again when the answer
//! takes long; the library (s2n-quic 1.91) makes a connection of the second, if that is let in, and another of what comes with
//! the token that answered the first, under the same first id. One of them stays behind until its time is over, and a debug
//! build ends the endpoint. A token is good for at most two seconds and for one connection, and is not asked for here when it
//! comes: what then begins beyond the places has none and is ended at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome};
use s2n_quic::provider::event::events::SocketAddress;

use super::door::{PER_SECOND, Places, Rates, origin};
use crate::{Clock, Moment};

/// 32 under way: beyond them every address has to be proved.
const UNPROVED_MAX: usize = 32;
/// 20 a second and 50 at once of one address are taken at their word.
const UNPROVED_RATE: (f64, f64) = (20.0, 50.0);
/// 100 a second, as many as a hub lets in, and 64 at once of one address are asked to prove it.
const RETRY_RATE: (f64, f64) = (PER_SECOND, 64.0);
/// 512 under way in all and 128 of one address: with 100 KiB each, 50 MiB and 12. One that takes more than 3 s yields to
/// another of its address.
const PLACES: (usize, usize, Duration) = (512, 128, Duration::from_secs(3));
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
    places: Places,
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
        let (most, each, yields_after) = PLACES;
        let places = Places::new(most, each, yields_after);
        Counts { unproved_max: UNPROVED_MAX, places, unproved, retries, asked: Asked::default() }
    }

    /// To a first packet from an address and a port.
    fn answer(&mut self, from: (IpAddr, u16), now: Moment) -> Answer {
        let address = origin(from.0);
        if !self.places.has_room(address, now) {
            return Answer::Nothing;
        }
        let asked = self.asked.knows(from, now);
        if !asked && self.places.taken() < self.unproved_max && self.unproved.take(&address, now).is_ok() {
            return Answer::Begin;
        }
        if self.retries.take(&address, now).is_err() {
            return Answer::Nothing;
        }
        self.asked.add(from);
        Answer::ProveIt
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

    /// Fewer places, for a test that fills them: as many in all, and as many of one address.
    #[cfg(test)]
    pub(super) fn narrow(&self, most: usize, each: usize) {
        self.counts().places = Places::new(most, each, PLACES.2);
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.counts().places.taken()
    }

    /// How many were begun and are not ended, with a place or without, and how many hold this besides.
    #[cfg(test)]
    pub(super) fn not_ended(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// One has begun; it is under way until what is answered is dropped.
    pub(super) fn begun(&self, address: IpAddr) -> UnderWay {
        let now = self.0.clock.now();
        let place = self.counts().places.enter(address, now).map(|(id, _)| id);
        UnderWay { handshakes: self.clone(), place }
    }
}

/// A handshake that is under way.
pub(super) struct UnderWay {
    handshakes: Handshakes,
    place: Option<u64>,
}

impl UnderWay {
    /// Whether it may go on: it found a place, and nobody else has that now.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some_and(|id| self.handshakes.counts().places.holds(id))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(id) = self.place {
            self.handshakes.counts().places.leave(id);
        }
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

    fn begin(counts: &mut Counts, address: IpAddr, count: usize) -> Vec<u64> {
        let now = Moment::default();
        (0..count).map(|_| counts.places.enter(address, now).unwrap().0).collect()
    }

    #[test]
    fn what_is_under_way_asks_others_for_a_proof_and_has_a_bound() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        let (most, each, yields_after) = PLACES;
        let mut held = begin(&mut counts, ip(1), UNPROVED_MAX);
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt);
        held.extend(begin(&mut counts, ip(1), each - UNPROVED_MAX));
        assert_eq!(counts.answer(from(ip(1), 5), now), Answer::Nothing);
        assert_eq!(counts.answer(from(ip(1), 5), now + yields_after), Answer::ProveIt);
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt);
        for other in 3..6 {
            held.extend(begin(&mut counts, ip(other), each));
        }
        assert_eq!(counts.places.taken(), most);
        // Those who hold all have no more, and everybody else is asked.
        assert_eq!(counts.answer(from(ip(3), 5), now), Answer::Nothing);
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt);
        held.into_iter().for_each(|id| counts.places.leave(id));
        assert_eq!(counts.answer(from(ip(2), 5), now), Answer::ProveIt, "it was asked before");
        assert_eq!(counts.answer(from(ip(2), 6), now), Answer::Begin);
        assert_eq!(counts.places.taken(), 0);
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
