//! How often something may happen: a token bucket.

use std::time::Duration;

use crate::Moment;

/// So many at once, and then one in each of so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    burst: u32,
    every: Duration,
    /// When it will be full again.
    full_at: Moment,
}

impl Bucket {
    /// A full one of `burst` places, of which one becomes free `every` so often.
    pub fn new(burst: u32, every: Duration) -> Self {
        Bucket { burst, every, full_at: Moment(Duration::ZERO) }
    }

    /// Takes a place, if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        let full_at = self.full_at.max(now) + self.every;
        if full_at.since(now) > self.every * self.burst {
            return false;
        }
        self.full_at = full_at;
        true
    }

    /// When a place is free; now, if one is.
    pub fn free_at(&self, now: Moment) -> Moment {
        let ahead = self.full_at.max(now).since(now) + self.every;
        now + ahead.saturating_sub(self.every * self.burst)
    }

    /// When nothing will be taken any more.
    pub fn full_at(&self) -> Moment {
        self.full_at
    }

    /// Takes so many places whether they are there or not. Answers in how long they all will have been.
    pub fn take_on_credit(&mut self, places: u32, now: Moment) -> Duration {
        self.full_at = self.full_at.max(now) + self.every * places;
        self.full_at.since(now).saturating_sub(self.every * self.burst)
    }

    /// Whether nothing is taken: it is as good as a new one.
    pub fn is_full(&self, now: Moment) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let mut bucket = Bucket::new(25, Duration::from_secs(300));
        let mut taken = |now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(at(1000)), 25);
        assert_eq!(taken(at(1299)), 0);
        assert_eq!(taken(at(1300)), 1);
        assert_eq!(taken(at(2200)), 3);
        assert_eq!(taken(at(1_000_000)), 25, "no more than a burst is saved up");
        assert_eq!(bucket.free_at(at(1_000_000)), at(1_000_300));
        assert_eq!(
            (bucket.free_at(at(1_000_300)), bucket.full_at()),
            (at(1_000_300), at(1_000_000 + 25 * 300))
        );
        assert!(!bucket.is_full(at(1_000_001)) && bucket.is_full(at(1_000_000 + 25 * 300)));
    }

    #[test]
    fn credit_is_paid_back_by_waiting() {
        let mut bucket = Bucket::new(10, Duration::from_secs(1));
        assert_eq!(bucket.take_on_credit(10, at(50)), Duration::ZERO);
        assert_eq!(bucket.take_on_credit(5, at(50)), Duration::from_secs(5));
        assert_eq!(bucket.take_on_credit(1, at(55)), Duration::from_secs(1));
        assert_eq!(bucket.take_on_credit(0, at(56)), Duration::ZERO);
    }
}
