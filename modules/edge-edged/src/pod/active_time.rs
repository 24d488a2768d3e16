//! How long a pod with `activeDeadlineSeconds` has been active on the node. Pure.
//!
//! It is counted by the clock that nobody sets, and carried over a restart through the store: a wall clock that jumps ends no
//! pod. What passes while EdgeCore does not run is not counted, nor is what passed since it was kept last if EdgeCore
//! is killed: a pod may have more time than its deadline then, and never less.

use std::time::Duration;

use beehive::Moment;

/// 10 s: it is kept at most so often, because flash wears out.
const KEPT_EVERY_MIN: Duration = Duration::from_secs(10);
/// 10 min, 144 times a day: a machine that is switched off every night comes to the end of a deadline of weeks, too.
const KEPT_EVERY_MAX: Duration = Duration::from_secs(600);

/// How long a pod has been active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ActiveTime {
    /// Before this worker.
    before: Duration,
    since: Option<Moment>,
    kept: Duration,
}

impl ActiveTime {
    /// Goes on from what was kept.
    pub(crate) fn after(kept: Duration) -> Self {
        ActiveTime { before: kept, since: None, kept }
    }

    /// It is active from now on, if it was not before.
    pub(crate) fn start(&mut self, now: Moment) {
        self.since.get_or_insert(now);
    }

    /// How long it has been active by now.
    pub(crate) fn so_far(&self, now: Moment) -> Duration {
        self.before.saturating_add(self.since.map_or(Duration::ZERO, |since| now.since(since)))
    }

    /// What is to be kept now, for a deadline of `limit`. It counts as kept then.
    pub(crate) fn take_due(&mut self, limit: Duration, now: Moment) -> Option<Duration> {
        let active = self.so_far(now);
        // That it has run out of its time is kept at once: it does not begin again if edgecore ends before it has ended.
        let is_new = active >= limit && self.kept < limit;
        if active.saturating_sub(self.kept) < kept_every(limit) && !is_new {
            return None;
        }
        self.kept = active;
        Some(active)
    }

    /// When to look again: at the deadline, or to keep it.
    pub(crate) fn wake(&self, limit: Duration, now: Moment) -> Moment {
        let active = self.so_far(now);
        let next = self.kept.saturating_add(kept_every(limit)).min(limit);
        now + next.saturating_sub(active).max(Duration::from_millis(1))
    }
}

fn kept_every(limit: Duration) -> Duration {
    (limit / 10).clamp(KEPT_EVERY_MIN, KEPT_EVERY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn it_is_counted_over_restarts_and_kept_seldom() {
        let limit = Duration::from_secs(1000);
        let mut active = ActiveTime::default();
        active.start(at(5));
        active.start(at(50));
        assert_eq!(active.so_far(at(65)), Duration::from_secs(60));
        assert_eq!(active.wake(limit, at(65)), at(105));
        assert_eq!(active.take_due(limit, at(104)), None);
        assert_eq!(active.take_due(limit, at(105)), Some(Duration::from_secs(100)));
        assert_eq!(active.take_due(limit, at(106)), None);
        let mut next = ActiveTime::after(Duration::from_secs(950));
        next.start(at(1));
        assert_eq!(next.so_far(at(11)), Duration::from_secs(960));
        assert_eq!(next.wake(limit, at(11)), at(51), "the deadline comes first");
        let mut short = ActiveTime::default();
        short.start(at(0));
        let writes = (0..30).filter(|second| short.take_due(Duration::from_secs(30), at(*second)).is_some());
        assert_eq!(writes.count(), 2);
    }

    #[test]
    fn a_long_deadline_comes_on_a_machine_that_is_switched_off_every_night_and_is_not_forgotten() {
        let (limit, day) = (Duration::from_secs(7 * 86_400), Duration::from_secs(10 * 3600));
        let (mut kept, mut days) = (Duration::ZERO, 0);
        while kept < limit && days < 30 {
            let mut active = ActiveTime::after(kept);
            active.start(at(0));
            let mut now = at(0);
            while now < Moment(day) && kept < limit {
                now = active.wake(limit, now).min(Moment(day));
                kept = active.take_due(limit, now).unwrap_or(kept);
            }
            days += 1;
        }
        assert!(kept >= limit && days == 17, "{kept:?} after {days} days");
        let mut over = ActiveTime::after(limit);
        over.start(at(0));
        assert_eq!(over.take_due(limit, at(0)), None, "it is known");
    }
}
