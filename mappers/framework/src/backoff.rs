//! Waiting longer after every failure.

use std::time::Duration;

use beehive::Moment;

/// Delays that double up to a cap; the caller adds the jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Backoff { first, cap, next: first }
    }

    /// How long to wait before the next try.
    pub(crate) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.cap);
        delay
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A minute of good answers on one connection: what went wrong before says nothing any more.
const STEADY: Duration = Duration::from_secs(60);
/// 1 s to a minute between two tries to reach a device.
const DIAL: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// 1 s where one property ends the connection and the others answer: it is asked less and less often by itself.
const ONE_ASKED: Duration = Duration::from_secs(1);

/// When a device is dialled again. One that answers and then breaks off, over and over, is dialled ever later: a good answer alone
/// proves nothing, since each connection may cost the device a session that it has few of.
#[derive(Debug, Clone)]
pub(crate) struct Redial {
    backoff: Backoff,
    /// No connection was lost since the last good minute: the next one is made at once.
    is_first: bool,
    /// Since when this connection brings good answers.
    good_since: Option<Moment>,
}

impl Redial {
    pub(crate) const fn new() -> Self {
        Redial { backoff: DIAL, is_first: true, good_since: None }
    }

    /// The device has answered.
    pub(crate) fn answered(&mut self, now: Moment) {
        self.good_since.get_or_insert(now);
    }

    /// The device has ended the connection: how long to wait.
    pub(crate) fn lost(&mut self, now: Moment) -> Duration {
        self.ended(now);
        if std::mem::take(&mut self.is_first) { Duration::ZERO } else { self.backoff.delay() }
    }

    /// It has ended the connection when it was asked for one property of several: how long to wait.
    pub(crate) fn lost_with_one(&mut self, now: Moment) -> Duration {
        self.ended(now);
        if std::mem::take(&mut self.is_first) { Duration::ZERO } else { ONE_ASKED }
    }

    /// There is no connection: how long to wait.
    pub(crate) fn failed(&mut self) -> Duration {
        self.good_since = None;
        self.backoff.delay()
    }

    /// It says nothing any more: how long to wait. One that has just answered has lost nothing by it.
    pub(crate) fn silent(&mut self) -> Duration {
        if self.good_since.take().is_some() { ONE_ASKED } else { self.backoff.delay() }
    }

    fn ended(&mut self, now: Moment) {
        if self.good_since.take().is_some_and(|since| now.since(since) >= STEADY) {
            *self = Redial::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_their_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for millis in [100, 200, 400, 400] {
            assert_eq!(backoff.delay(), Duration::from_millis(millis));
        }
        backoff.reset();
        assert_eq!(backoff.delay(), Duration::from_millis(100));
    }

    #[test]
    fn what_breaks_off_again_and_again_is_dialled_ever_later_until_it_was_good_for_a_minute() {
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let mut redial = Redial::new();
        let lost = |redial: &mut Redial, answered: u64, ended: u64| {
            redial.answered(at(answered));
            redial.answered(at(answered + 1));
            redial.lost(at(ended)).as_secs()
        };
        let waits: Vec<u64> = (0..9).map(|round| lost(&mut redial, round * 100, round * 100 + 59)).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!((lost(&mut redial, 1000, 1060), lost(&mut redial, 1061, 1062)), (0, 1));
        // One property that ends it each time is that property's affair.
        assert_eq!((redial.lost_with_one(at(1063)), redial.lost_with_one(at(1064))), (ONE_ASKED, ONE_ASKED));
        assert_eq!((redial.failed().as_secs(), redial.silent().as_secs()), (2, 4));
        redial.answered(at(1070));
        assert_eq!((redial.silent(), redial.failed().as_secs()), (ONE_ASKED, 8));
    }
}
