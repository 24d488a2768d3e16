//! How long publishers wait for their subscribers.

use std::cell::Cell;
use std::time::Duration;

use beehive::Moment;

use crate::plan;

/// How long of late others have waited for a client, or a client for others. Waits at the same time count once.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Waits that are under way.
    waits: Cell<usize>,
    /// When the last of them is over, if it is looked after in time.
    until: Cell<Moment>,
    /// Up to when they are in `spent`.
    counted: Cell<Moment>,
    spent: Cell<Duration>,
    /// When the first of them began.
    first: Cell<Option<Moment>>,
}

impl Patience {
    /// How much longer it may be; none of that comes back by itself.
    pub(crate) fn left(&self, now: Moment) -> Duration {
        let counted = self.counted.replace(now);
        if self.waits.get() > 0 {
            self.spent.set(self.spent.get() + self.until.get().min(now).since(counted));
        }
        plan::SUBSCRIBER_PATIENCE.saturating_sub(self.spent.get())
    }

    /// A wait for so long at the most.
    pub(crate) fn begin(&self, now: Moment, most: Duration) {
        self.left(now);
        self.waits.set(self.waits.get() + 1);
        self.until.set(self.until.get().max(now + most));
        if self.first.get().is_none() {
            self.first.set(Some(now));
        }
    }

    pub(crate) fn end(&self, now: Moment) {
        self.left(now);
        self.waits.set(self.waits.get().saturating_sub(1));
    }

    /// There is a reason to have patience again, if the time for that has come.
    pub(crate) fn renew(&self, now: Moment) {
        if self.first.get().is_some_and(|first| now.since(first) >= plan::PATIENCE_AGAIN) {
            self.spent.set(Duration::ZERO);
            self.first.set((self.waits.get() > 0).then_some(now));
            self.counted.set(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn it_is_one_for_all_waits_and_comes_back_with_a_reason_and_not_before_its_time() {
        let patience = Patience::default();
        let left = |now| patience.left(at(now)).as_secs();
        assert_eq!(left(100), 10);
        let long = Duration::from_secs(99);
        patience.begin(at(100), long);
        patience.begin(at(102), long);
        patience.end(at(103));
        assert_eq!(left(104), 6);
        patience.end(at(105));
        assert_eq!(left(250), 5);
        patience.renew(at(399));
        patience.begin(at(399), long);
        assert_eq!((left(401), left(450)), (3, 0), "nobody has given a reason in time");
        patience.renew(at(450));
        assert_eq!(left(454), 6, "a wait that is under way goes on");
        patience.end(at(455));
        patience.renew(at(749));
        assert_eq!(left(749), 5);
        patience.renew(at(750));
        assert_eq!(left(751), 10);
        // One that nobody looks after spends no more than it may.
        patience.begin(at(800), Duration::from_secs(1));
        assert_eq!(left(805), 9);
        patience.end(at(806));
        assert_eq!(left(807), 9);
    }
}
