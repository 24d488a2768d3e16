//! How many sessions may open a second, of one holder and in all, and when the others may come again. Pure.
//!
//! What is in all has two budgets: certificates that the register is known to take for good spend none of what all others may, nor those
//! of theirs.

use std::time::Duration;

use beehive::Moment;
use beehive::link::accept_limiter::RateLimiter;

use crate::known_certificates::Holder;

/// 100 a second: each costs the API server a read and the controllers a digest. Two thousand nodes are in after 20 s.
const PER_SECOND: f64 = 100.0;
/// 200 at once: a second of cuts at a full CloudCore is no storm.
const BURST: f64 = 200.0;
/// 1 s: the shortest wait; 60 s: the longest that is asked for.
const WAIT: (f64, f64) = (1.0, 60.0);

/// 1 a second and 10 at once of one holder: a node whose link breaks dials at once, and after that every second.
const OF_HOLDER: (f64, f64) = (1.0, 10.0);

/// Counts hellos.
pub(crate) struct SessionRateLimiter {
    holders: RateLimiter<Holder>,
    known: Budget,
    unknown: Budget,
}

impl SessionRateLimiter {
    pub(crate) fn new(now: Moment) -> Self {
        let (per_second, burst) = OF_HOLDER;
        let holders = RateLimiter::new(per_second, burst);
        SessionRateLimiter { holders, known: Budget::new(now), unknown: Budget::new(now) }
    }

    /// One more says hello, as `holder`. What is too much of one holder takes nothing of others.
    ///
    /// # Errors
    /// How long it has to wait: the longer, the more wait already.
    pub(crate) fn take(&mut self, holder: &Holder, now: Moment) -> Result<(), Duration> {
        self.holders.take(holder, now).map_err(|_| Duration::from_secs(1))?;
        if holder.is_known() { self.known.take(now) } else { self.unknown.take(now) }
    }
}

/// What may open in all.
struct Budget {
    /// At once now.
    tokens: f64,
    /// Those who were sent away and will come again, as far as no token has become free for them.
    waiting: f64,
    seen: Moment,
}

impl Budget {
    fn new(now: Moment) -> Self {
        Budget { tokens: BURST, waiting: 0.0, seen: now }
    }

    fn take(&mut self, now: Moment) -> Result<(), Duration> {
        let freed = now.since(self.seen).as_secs_f64() * PER_SECOND;
        self.seen = now;
        self.tokens = (self.tokens + freed).min(BURST);
        self.waiting = (self.waiting - freed).max(0.0);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        self.waiting += 1.0;
        let (least, most) = WAIT;
        Err(Duration::from_secs_f64((self.waiting / PER_SECOND).clamp(least, most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Holder {
        Holder::Unknown { name: name.to_owned() }
    }

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_is_let_in_and_a_storm_is_spread() {
        let mut limiter = SessionRateLimiter::new(at(0));
        let waits: Vec<Duration> =
            (0..2200).filter_map(|id| limiter.take(&named(&format!("n{id}")), at(0)).err()).collect();
        assert_eq!(waits.len(), 2000);
        assert_eq!(waits[0], Duration::from_secs(1));
        assert_eq!(waits[1999], Duration::from_secs(20));
        let later =
            (3000..4000).filter(|id| limiter.take(&named(&format!("n{id}")), at(1000)).is_ok()).count();
        assert_eq!(later, 100);
    }

    #[test]
    fn a_node_that_comes_again_and_again_takes_no_place_of_others() {
        let mut limiter = SessionRateLimiter::new(at(0));
        assert_eq!((0..5000).filter(|_| limiter.take(&named("loud"), at(0)).is_ok()).count(), 10);
        assert_eq!(limiter.take(&named("loud"), at(500)), Err(Duration::from_secs(1)));
        let others = (0..190).filter(|id| limiter.take(&named(&format!("n{id}")), at(0)).is_ok()).count();
        assert_eq!(others, 190);
        assert_eq!(limiter.take(&named("loud"), at(1000)), Ok(()));
    }

    #[test]
    fn certificates_that_nobody_knows_spend_nothing_of_those_that_are_good() {
        let mut limiter = SessionRateLimiter::new(at(0));
        let good = |id: u32| Holder::Known { name: format!("n{id}"), serial: "aa".to_owned() };
        while limiter.take(&named("n0"), at(0)).is_ok() {}
        for id in 0..1000 {
            let _ = limiter.take(&named(&format!("m{id}")), at(0));
        }
        assert_eq!((0..200).filter(|id| limiter.take(&good(*id), at(0)).is_ok()).count(), 200);
    }

    #[test]
    fn a_fleet_that_keeps_to_it_is_in_within_a_minute() {
        let mut limiter = SessionRateLimiter::new(at(0));
        // When each comes next; the worst jitter: half of what it was asked.
        let mut coming: std::collections::BTreeMap<(u64, u32), u32> =
            (0..2000).map(|id| ((0, id), 0)).collect();
        let mut last = 0;
        while let Some(((millis, id), asked)) = coming.pop_first() {
            match limiter.take(&named(&format!("n{id}")), at(millis)) {
                Ok(()) => last = millis,
                Err(wait) => {
                    // As a node waits: twice as long each time, up to 10 s, and never less than it was asked.
                    let wait = wait.as_millis() as u64;
                    let pause = (wait * 2_u64.pow(asked.min(6))).clamp(2000, 10_000).max(wait);
                    coming.insert((millis + pause / 2, id), asked + 1);
                }
            }
        }
        assert!(last <= 60_000, "{last}");
    }
}
