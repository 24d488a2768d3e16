//! How long a watch that broke off waits before it lists again. Pure.

use std::time::Duration;

use beehive::Moment;

/// 1 s, doubled at each time up to 8 s: the pause before a watch that broke off lists again.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(1);
pub(crate) const AGAIN_MAX: Duration = Duration::from_secs(8);

/// 30 s: a watch that was cut off after this time is taken for one that works; those that are cut sooner and sooner again are asked
/// for with growing pauses, since each begins with a list. That a list was answered says nothing of watches.
pub(crate) const LIVED: Duration = Duration::from_secs(30);

/// The pauses of one watch.
#[derive(Debug, Clone)]
pub struct WatchPause {
    first: Duration,
    longest: Duration,
    next: Duration,
    /// Since when it tries.
    since: Moment,
}

impl WatchPause {
    /// Of a watch that begins `now`: `first`, doubled at each break up to `longest`.
    pub fn new(first: Duration, longest: Duration, now: Moment) -> Self {
        WatchPause { first, longest, next: first, since: now }
    }

    /// It broke off. Answers how long to wait.
    pub fn broke(&mut self, now: Moment) -> Duration {
        if now.since(self.since) >= LIVED {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = (2 * pause).min(self.longest);
        self.since = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_breaks_off_again_and_again_waits_longer_and_one_that_lived_begins_anew() {
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let mut pause = WatchPause::new(Duration::from_secs(1), Duration::from_secs(8), at(0));
        let mut now = 0;
        let broke_after = |lived: u64| {
            now += lived;
            let waits = pause.broke(at(now)).as_secs();
            now += waits;
            waits
        };
        let waits = [0, 1, 0, 29, 0, 30, 0].map(broke_after);
        assert_eq!(waits, [1, 2, 4, 8, 8, 1, 2]);
    }
}
