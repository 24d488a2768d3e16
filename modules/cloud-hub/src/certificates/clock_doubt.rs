//! Whether this machine's clock is believed where certificates are dated by it.
//!
//! A clock that is weeks ahead signs what nodes take as a sign that those weeks have passed, and one that is behind what has ended when it is
//! set. So it is in doubt until it was held against the API server's, and whenever they are apart. Whether a node's certificate has ended is judged
//! by the clock that is behind then: one that is ahead would shut every node out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use beehive::{Clock, Moment};

use crate::error::SecretError;

/// 1 h that this machine's clock and the API server's may be apart: certificates begin an hour before they are signed.
const CLOCKS_APART: Duration = Duration::from_secs(3600);

/// What time it was, and when that was found out.
#[derive(Clone, Copy)]
struct Reading {
    at: Moment,
    time: SystemTime,
}

/// Between which moments it is now, whichever clock is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeSpan {
    pub(crate) earliest: SystemTime,
    pub(crate) latest: SystemTime,
}

/// Whether this machine's clock and the API server's are apart, or were not compared yet: nothing is signed for nodes by it then. Begins as
/// doubt. Its clones are one, on all threads.
#[derive(Clone, Default)]
pub struct ClockDoubt(Arc<Mutex<Option<Reading>>>);

impl ClockDoubt {
    fn reading(&self) -> Option<Reading> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API server says that it is this late now; `None`: it says no time, and this machine's clock is the only one.
    pub(crate) fn compared(&self, clock: &dyn Clock, theirs: Option<SystemTime>) {
        let reading = Reading { at: clock.now(), time: theirs.unwrap_or_else(|| clock.wall()) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }

    /// What the other clock says by now, if it was asked: one of this machine that was set since is noticed by it.
    fn expected(&self, clock: &dyn Clock) -> Option<SystemTime> {
        let Reading { at, time } = self.reading()?;
        time.checked_add(clock.now().since(at))
    }

    /// How far both are apart; `None`: nobody knows.
    pub(crate) fn apart(&self, clock: &dyn Clock) -> Option<Duration> {
        let (wall, expected) = (clock.wall(), self.expected(clock)?);
        Some(wall.duration_since(expected).unwrap_or_else(|error| error.duration()))
    }

    /// Whether it is in doubt.
    pub(crate) fn is(&self, clock: &dyn Clock) -> bool {
        self.apart(clock).is_none_or(|apart| apart > CLOCKS_APART)
    }

    /// What people are told of it, once it was compared: how far both are apart, and the cure.
    pub fn says(&self, clock: &dyn Clock) -> Option<String> {
        let apart = self.apart(clock).filter(|apart| *apart > CLOCKS_APART)?;
        Some(SecretError::Clock { seconds: apart.as_secs() }.to_string())
    }

    /// By which time it is judged whether a node's certificate has ended: this machine's clock, and while that is in doubt the one of both that
    /// is behind. Never before this program was made.
    pub fn judged_by(&self, clock: &dyn Clock) -> SystemTime {
        self.span(clock).earliest
    }

    /// What time it is, as far as that is known. A certificate that is good in all of it is good, and begins no later than it is.
    pub(crate) fn span(&self, clock: &dyn Clock) -> TimeSpan {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX);
        let wall = clock.wall().max(made);
        if !self.is(clock) {
            return TimeSpan { earliest: wall, latest: wall };
        }
        let other = self.expected(clock).map_or(made, |expected| expected.max(made));
        TimeSpan { earliest: wall.min(other), latest: wall.max(other) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use futures::future::BoxFuture;

    /// A clock that a test sets: what people read on it, and the time that passes.
    pub(crate) struct SetClock(pub(crate) Mutex<(SystemTime, Moment)>);

    impl SetClock {
        pub(crate) fn at(wall: SystemTime) -> Arc<Self> {
            Arc::new(SetClock(Mutex::new((wall, Moment::default()))))
        }

        pub(crate) fn set(&self, wall: SystemTime, passed: Duration) {
            *self.0.lock().unwrap() = (wall, Moment(passed));
        }
    }

    impl Clock for SetClock {
        fn now(&self) -> Moment {
            self.0.lock().unwrap().1
        }
        fn wall(&self) -> SystemTime {
            self.0.lock().unwrap().0
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    pub(crate) const DAY: Duration = Duration::from_secs(86_400);

    /// A time after this program was made.
    pub(crate) fn today() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX) + 100 * DAY
    }

    #[test]
    fn it_is_doubt_until_the_clocks_were_compared() {
        let (clock, doubt) = (SetClock::at(today()), ClockDoubt::default());
        assert!(doubt.is(&*clock));
        let span = doubt.span(&*clock);
        assert_eq!((span.earliest, span.latest), (today() - 100 * DAY, today()), "no later than it can be");
        doubt.compared(&*clock, Some(today() + Duration::from_secs(1800)));
        assert!(!doubt.is(&*clock));
        assert_eq!(doubt.span(&*clock), TimeSpan { earliest: today(), latest: today() });
    }

    #[test]
    fn apart_from_the_other_clock_it_is_doubt_whichever_is_right() {
        let (clock, doubt) = (SetClock::at(today()), ClockDoubt::default());
        for theirs in [today() - 30 * DAY, today() + 30 * DAY] {
            doubt.compared(&*clock, Some(theirs));
            assert!(doubt.is(&*clock) && doubt.clone().is(&*clock));
            let wanted = TimeSpan { earliest: theirs.min(today()), latest: theirs.max(today()) };
            assert_eq!((doubt.span(&*clock), doubt.apart(&*clock)), (wanted, Some(30 * DAY)));
        }
    }

    #[test]
    fn a_clock_that_was_set_since_is_noticed_before_the_next_look() {
        for theirs in [None, Some(today())] {
            let (clock, doubt) = (SetClock::at(today()), ClockDoubt::default());
            doubt.compared(&*clock, theirs);
            clock.set(today() + DAY, DAY);
            assert!(!doubt.is(&*clock), "a day has passed");
            clock.set(today() + 20 * DAY, DAY);
            assert!(doubt.is(&*clock));
            let wanted = TimeSpan { earliest: today() + DAY, latest: today() + 20 * DAY };
            assert_eq!(doubt.span(&*clock), wanted);
            doubt.compared(&*clock, theirs.map(|_| today() + 20 * DAY));
            assert!(!doubt.is(&*clock));
        }
    }

    #[test]
    fn what_has_ended_is_judged_by_the_clock_that_is_behind() {
        let (clock, doubt) = (SetClock::at(today()), ClockDoubt::default());
        for (theirs, judged) in [
            (today() - 31 * DAY, today() - 31 * DAY),
            (today() + 31 * DAY, today()),
            (today() - DAY / 48, today()),
        ] {
            doubt.compared(&*clock, Some(theirs));
            assert_eq!(doubt.judged_by(&*clock), judged);
        }
    }

    #[test]
    fn a_clock_in_1970_counts_as_that_of_when_this_program_was_made() {
        let (clock, doubt) = (SetClock::at(SystemTime::UNIX_EPOCH), ClockDoubt::default());
        doubt.compared(&*clock, Some(today()));
        assert!(doubt.is(&*clock));
        assert_eq!(doubt.span(&*clock), TimeSpan { earliest: today() - 100 * DAY, latest: today() });
    }
}
