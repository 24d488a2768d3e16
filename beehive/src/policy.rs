//! The restart policy of an actor (as OTP's restart intensity), and how long a message may take. Pure.

use std::time::Duration;

use crate::{Capacity, Moment};

/// How often an actor may fail, and how long a message may take.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Pause before the first restart; doubles up to `backoff_max`, with jitter.
    pub backoff_min: Duration,
    /// The longest pause between restarts.
    pub backoff_max: Duration,
    /// Restarts within `window` before the daemon ends.
    pub budget: usize,
    /// The window of the budget. A quiet window also resets the back-off.
    pub window: Duration,
    /// The bound of a child's mailbox. An actor that the wiring registers brings its mailbox, and this says nothing.
    pub capacity: Capacity,
    /// A message in hand for longer than this counts as stuck, and the actor is restarted.
    pub stuck_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            budget: 10,
            window: Duration::from_secs(300),
            capacity: Capacity::new(
                64,
                "a burst of what one child is told; more means that it does not keep up",
            ),
            stuck_after: Duration::from_secs(60),
        }
    }
}

/// What follows a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartDecision {
    /// A new incarnation after this pause (before jitter).
    RestartAfter(Duration),
    /// The budget is spent.
    GiveUp,
}

/// Counts faults against a [`Policy`] (OTP: restart intensity). Pure.
#[derive(Debug, Default)]
pub(crate) struct RestartBudget {
    faults: Vec<Moment>,
}

impl RestartBudget {
    /// Notes a fault at `now` and decides.
    pub(crate) fn fault(&mut self, policy: &Policy, now: Moment) -> RestartDecision {
        self.faults.retain(|at| now.since(*at) < policy.window);
        let earlier = self.faults.len();
        self.faults.push(now);
        if earlier >= policy.budget {
            return RestartDecision::GiveUp;
        }
        let doublings = u32::try_from(earlier).unwrap_or(u32::MAX).min(16);
        RestartDecision::RestartAfter((policy.backoff_min * 2_u32.pow(doublings)).min(policy.backoff_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_and_the_budget_ends_it() {
        let policy = Policy { budget: 3, ..Policy::default() };
        let mut budget = RestartBudget::default();
        let at = |s| Moment(Duration::from_secs(s));
        assert_eq!(budget.fault(&policy, at(0)), RestartDecision::RestartAfter(Duration::from_millis(100)));
        assert_eq!(budget.fault(&policy, at(1)), RestartDecision::RestartAfter(Duration::from_millis(200)));
        assert_eq!(budget.fault(&policy, at(2)), RestartDecision::RestartAfter(Duration::from_millis(400)));
        assert_eq!(budget.fault(&policy, at(3)), RestartDecision::GiveUp);
    }

    #[test]
    fn a_quiet_window_forgives() {
        let policy = Policy { budget: 1, ..Policy::default() };
        let mut budget = RestartBudget::default();
        assert_eq!(
            budget.fault(&policy, Moment::default()),
            RestartDecision::RestartAfter(Duration::from_millis(100))
        );
        let later = Moment(policy.window);
        assert_eq!(budget.fault(&policy, later), RestartDecision::RestartAfter(Duration::from_millis(100)));
    }
}
