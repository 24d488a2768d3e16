//! How often a device's actor may fail before its protocol is left alone. Pure.

use std::time::Duration;

use beehive::Moment;

/// 5: a defect that shows once in a while costs a restart; one that shows at once, again and again, has to wait.
pub(crate) const FAILURES_MAX: usize = 5;
/// 10 min: older failures are forgotten. Longer than a few retries, so that a device stays unhealthy while each fails.
const WINDOW: Duration = Duration::from_secs(600);
/// 60 s: an unhealthy device is tried again that often.
pub(crate) const RETRY_UNHEALTHY: Duration = Duration::from_secs(60);

/// The failures of a device's actor.
#[derive(Debug, Default)]
pub(crate) struct CrashBudget {
    at: Vec<Moment>,
}

impl CrashBudget {
    /// The actor has failed. `Some`: the device is unhealthy until then.
    pub(crate) fn failed(&mut self, now: Moment) -> Option<Moment> {
        self.at.retain(|at| now.since(*at) < WINDOW);
        self.at.push(now);
        (self.at.len() >= FAILURES_MAX).then_some(now + RETRY_UNHEALTHY)
    }

    /// Failures that are remembered.
    pub(crate) fn count(&self) -> usize {
        self.at.len()
    }

    /// The device is described otherwise.
    pub(crate) fn forget(&mut self) {
        self.at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_too_often_is_unhealthy_for_a_while_and_old_failures_are_forgotten() {
        let mut failures = CrashBudget::default();
        let at = |seconds| Moment(Duration::from_secs(seconds));
        for second in 1..5 {
            assert_eq!(failures.failed(at(second)), None);
        }
        assert_eq!(failures.failed(at(5)), Some(at(65)));
        assert_eq!(failures.failed(at(66)), Some(at(126)), "a retry that fails");
        assert_eq!(failures.failed(at(1000)), None);
        failures.forget();
        assert_eq!(failures.count(), 0);
    }
}
