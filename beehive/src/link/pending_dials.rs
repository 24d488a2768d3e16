//! Which of several dials of one server nobody needs any more. Pure: the time is an argument.
//!
//! The library goes on with the handshake of a dial that was given up: it sends its first packets again, later each time, and where the
//! way is whole again the other end answers each of them with its certificates. After an outage that would be three handshakes for one
//! link, 5 kB each. So a dial is closed when no caller waits for one, when another was taken, when one that began before the answer came has itself no
//! answer, and when it has had none for as long as dialers wait for one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// 3 s without one packet from there: nobody answers, or UDP is blocked on the way.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// 450 ms after its last packet the answer to a dial is not on its way any more, mostly, and the packet is not yet sent again (600 ms). One
/// that ends while it is on its way leaves the other end with half a handshake: a close of ours before its keys are there is too small a
/// packet to be heeded (RFC 9000 section 14.1), and the answer is sent again for 10 s.
const ON_ITS_WAY: Duration = Duration::from_millis(450);

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
    sent: Duration,
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
        PendingDial { began: now, sent: now, round: self.dials().round, is_answered: false }
    }

    /// A packet came for `dial`.
    pub(super) fn answered(&self, dial: &mut PendingDial, now: Duration) {
        dial.is_answered = true;
        self.dials().answered = Some(now);
    }

    /// Whether nobody needs `dial` any more, and it can be ended.
    pub(super) fn is_over(&self, dial: &PendingDial, now: Duration) -> bool {
        let dials = self.dials();
        let other_was_answered = dials.answered.is_some_and(|at| dial.began <= at);
        let waited = now.saturating_sub(dial.began) >= ANSWER_WITHIN;
        if dial.is_answered {
            return dial.round != dials.round;
        }
        let unneeded = dial.round != dials.round || other_was_answered || waited;
        unneeded && now.saturating_sub(dial.sent) >= ON_ITS_WAY
    }
}

impl PendingDial {
    /// A packet of it is sent.
    pub(super) fn sent(&mut self, now: Duration) {
        self.sent = now;
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
        assert!(!dials.is_over(&dial, at(449)), "its answer may be on its way");
        assert!(dials.is_over(&dial, at(450)));

        let caller = dials.wait();
        let (mut taken, mut other) = (dials.begin(at(500)), dials.begin(at(500)));
        for dial in [&mut taken, &mut other] {
            dials.answered(dial, at(600));
            assert!(!dials.is_over(dial, at(9_000)), "slow handshakes are waited for");
        }
        caller.connected();
        assert!(dials.is_over(&other, at(700)));
        // The next one has nothing to do with that.
        assert!(!dials.is_over(&dials.begin(at(700)), at(1_500)));
    }

    #[test]
    fn a_silent_dial_ends_by_the_answer_to_another_and_by_time() {
        let dials = PendingDials::default();
        let _caller = dials.wait();
        let (mut silent, mut heard) = (dials.begin(at(0)), dials.begin(at(1_000)));
        silent.sent(at(600));
        assert!(!dials.is_over(&silent, at(1_100)));
        dials.answered(&mut heard, at(1_200));
        assert!(dials.is_over(&silent, at(1_200)) && !dials.is_over(&heard, at(1_200)));
        silent.sent(at(1_800));
        assert!(!dials.is_over(&silent, at(2_200)) && dials.is_over(&silent, at(2_250)));
        // It begins after that answer, and has none yet.
        let mut next = dials.begin(at(2_300));
        next.sent(at(4_100));
        assert!(!dials.is_over(&next, at(5_299)));
        assert!(dials.is_over(&next, at(5_300)));
    }
}
