//! Which of several dials of one server nobody needs any more. Pure: the time is an argument.
//!
//! The library goes on with the handshake of a dial that was given up: it sends its first packets again, later each time, and where the
//! way is whole again the other end answers each of them with its certificates. After an outage that would be three handshakes for one
//! link, 5 kB each. So a dial is closed when no caller waits for one, when another was taken, when one that began before the answer came has itself no
//! answer, and when it has had none for as long as dialers wait for one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::quic::ANSWER_WITHIN;

/// The dials of one endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct PendingDials(Arc<Mutex<Dials>>);

#[derive(Debug, Default)]
struct Dials {
    /// Callers that wait for a connection.
    callers: usize,
    /// Grows when the dials that are under way are not needed any more.
    round: u64,
    /// When a packet for a dial under way came last.
    answered: Option<Duration>,
}

/// A dial that is under way, as the endpoint sees it. Times are since the endpoint's start.
#[derive(Debug)]
pub(super) struct PendingDial {
    began: Duration,
    round: u64,
    is_answered: bool,
}

impl PendingDials {
    fn dials(&self) -> MutexGuard<'_, Dials> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for a connection, until the guard goes.
    pub(super) fn wait(&self) -> DialCaller {
        self.dials().callers += 1;
        DialCaller(self.clone())
    }

    /// A dial begins.
    pub(super) fn begin(&self, now: Duration) -> PendingDial {
        PendingDial { began: now, round: self.dials().round, is_answered: false }
    }

    /// A packet came for `dial`.
    pub(super) fn answered(&self, dial: &mut PendingDial, now: Duration) {
        dial.is_answered = true;
        self.dials().answered = Some(now);
    }

    /// Whether nobody needs `dial` any more.
    pub(super) fn is_over(&self, dial: &PendingDial, now: Duration) -> bool {
        let dials = self.dials();
        let other_was_answered = dials.answered.is_some_and(|at| dial.began <= at);
        let waited = now.saturating_sub(dial.began) >= ANSWER_WITHIN;
        dial.round != dials.round || (!dial.is_answered && (other_was_answered || waited))
    }
}

/// Somebody who waits for a connection.
#[derive(Debug)]
pub(super) struct DialCaller(PendingDials);

impl DialCaller {
    /// Has one: the other dials are not needed.
    pub(super) fn connected(&self) {
        self.0.dials().round += 1;
    }
}

impl Drop for DialCaller {
    fn drop(&mut self) {
        let mut dials = self.0.dials();
        dials.callers = dials.callers.saturating_sub(1);
        if dials.callers == 0 {
            dials.round += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_dial_ends_with_the_last_caller_or_when_another_was_taken() {
        let dials = PendingDials::default();
        let (first, second) = (dials.wait(), dials.wait());
        let dial = dials.begin(at(0));
        drop(first);
        assert!(!dials.is_over(&dial, at(100)), "somebody waits still");
        drop(second);
        assert!(dials.is_over(&dial, at(100)));

        let caller = dials.wait();
        let (mut taken, mut other) = (dials.begin(at(200)), dials.begin(at(200)));
        for dial in [&mut taken, &mut other] {
            dials.answered(dial, at(300));
            assert!(!dials.is_over(dial, at(9_000)), "slow handshakes are waited for");
        }
        caller.connected();
        assert!(dials.is_over(&other, at(400)));
        // The next one has nothing to do with that.
        assert!(!dials.is_over(&dials.begin(at(400)), at(500)));
    }

    #[test]
    fn a_silent_dial_ends_by_the_answer_to_another_and_by_time() {
        let dials = PendingDials::default();
        let _caller = dials.wait();
        let (silent, mut heard) = (dials.begin(at(0)), dials.begin(at(1_000)));
        assert!(!dials.is_over(&silent, at(1_100)));
        dials.answered(&mut heard, at(1_200));
        assert!(dials.is_over(&silent, at(1_200)) && !dials.is_over(&heard, at(1_200)));
        // It begins after that answer, and has none yet.
        let next = dials.begin(at(1_300));
        assert!(!dials.is_over(&next, at(4_299)));
        assert!(dials.is_over(&next, at(4_300)));
    }
}
