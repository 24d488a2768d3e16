//! Handshakes of QUIC: how many at once, how many a second, and when an address has to be proved first.
//!
//! A first packet costs the accepting end a key exchange, a signature and some 100 KiB, and anybody can send one under
//! anybody's address. So while few are under way a few are taken at their word; beyond that each is asked to come again
//! with a token (Retry, RFC 9000 section 8.1.2), which costs nothing to keep. Each address has a rate of its own and a share
//! of what may be under way. What comes too fast is not answered: it comes again by itself, later each time. Whoever floods
//! under the address of another drives that one to the transport over TCP at the worst, where addresses cannot be forged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// What is under way at one endpoint.
#[derive(Clone)]
pub(super) struct Handshakes(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
}

struct Counts {
    under_way: BTreeMap<IpAddr, usize>,
    all: usize,
    unproved: Rates<IpAddr>,
    retries: Rates<IpAddr>,
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
        Counts { under_way: BTreeMap::new(), all: 0, unproved, retries }
    }

    fn answer(&mut self, address: IpAddr, now: Moment) -> Answer {
        let address = origin(address);
        let own = self.under_way.get(&address).copied().unwrap_or(0);
        if self.all >= ALL_MAX || own >= EACH_MAX {
            return Answer::Nothing;
        }
        if self.all < UNPROVED_MAX && self.unproved.take(&address, now).is_ok() {
            return Answer::Begin;
        }
        if self.retries.take(&address, now).is_ok() { Answer::ProveIt } else { Answer::Nothing }
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
        let answer = self.counts().answer(address, self.0.clock.now());
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
    use std::time::Duration;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_few_are_taken_at_their_word_and_then_each_address_at_its_rate() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        let mut answers = |address, count: usize| {
            let all: Vec<Answer> = (0..count).map(|_| counts.answer(address, now)).collect();
            [Answer::Begin, Answer::ProveIt, Answer::Nothing]
                .map(|what| all.iter().filter(|answer| **answer == what).count())
        };
        assert_eq!(answers(ip(1), 1000), [50, 64, 886]);
        assert_eq!(answers(ip(2), 10), [10, 0, 0]);
        let later = now + Duration::from_secs(1);
        let more = (0..1000).filter(|_| counts.answer(ip(1), later) != Answer::Nothing).count();
        assert_eq!(more, 20 + 64);
    }

    #[test]
    fn what_is_under_way_asks_others_for_a_proof_and_has_a_bound() {
        let (mut counts, now) = (Counts::new(), Moment::default());
        (0..UNPROVED_MAX).for_each(|_| counts.begin(ip(1)));
        assert_eq!(counts.answer(ip(2), now), Answer::ProveIt);
        (UNPROVED_MAX..EACH_MAX).for_each(|_| counts.begin(ip(1)));
        assert_eq!(counts.answer(ip(1), now), Answer::Nothing);
        assert_eq!(counts.answer(ip(2), now), Answer::ProveIt);
        for other in 3..6 {
            (0..EACH_MAX).for_each(|_| counts.begin(ip(other)));
        }
        assert_eq!(counts.answer(ip(2), now), Answer::Nothing);
        for other in [1, 3, 4, 5] {
            (0..EACH_MAX).for_each(|_| counts.over(ip(other)));
        }
        assert_eq!(counts.answer(ip(2), now), Answer::Begin);
        assert!(counts.under_way.is_empty());
    }
}
