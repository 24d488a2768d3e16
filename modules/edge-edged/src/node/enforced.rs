//! What this run has said of the bounds of all pods together. Pure.

use std::cell::Cell;
use std::time::Duration;

use beehive::Moment;

/// 1 min before it is said again that pods cannot be bounded: a kubelet's pause between two tries.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Enforcement {
    /// That pods are bounded, after which systemd knows, too.
    is_told: Cell<bool>,
    /// When it was said last that they cannot be.
    failed_at: Cell<Option<Moment>>,
}

impl Enforcement {
    /// Whether pods are bounded, as far as this run knows.
    pub(crate) fn is_done(&self) -> bool {
        self.is_told.get()
    }

    /// Notes whether they are. Answers whether they were.
    pub(crate) fn set_done(&self, is_done: bool) -> bool {
        self.is_told.replace(is_done)
    }

    /// Whether it is said that they cannot be bounded.
    pub(crate) fn is_failure_told(&self, now: Moment) -> bool {
        let is_due = self.failed_at.get().is_none_or(|at| now.since(at) >= SAID_AGAIN_AFTER);
        if is_due {
            self.failed_at.set(Some(now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_it_fails_is_said_once_in_a_minute() {
        let own = Enforcement::default();
        let at = |second: u64| Moment(Duration::from_secs(second));
        let told: Vec<u64> = (0..150).step_by(6).filter(|second| own.is_failure_told(at(*second))).collect();
        assert_eq!(told, [0, 60, 120]);
    }
}
