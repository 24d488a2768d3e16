//! Waiting longer each time, as Kubernetes does it.

use std::time::Duration;

use beehive::Moment;

/// The first pause.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// A container that ran so long starts from the beginning.
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The pause after one of `before`: none, 10 s, 20 s, … 300 s.
pub(crate) fn next(before: Option<Duration>) -> Duration {
    before.map_or(FIRST, |before| (before * 2).min(LONGEST))
}

/// Something that failed and is tried again later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// As in `state.waiting.reason`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) pause: Duration,
    pub(crate) until: Moment,
    /// Something that is missing may come: then there is nothing to wait for.
    pub(crate) may_come: bool,
}

impl Failure {
    /// A fault that follows `before`, if there was one.
    pub(crate) fn after(
        before: Option<&Failure>,
        reason: &'static str,
        message: String,
        now: Moment,
    ) -> Failure {
        let pause = next(before.map(|fault| fault.pause));
        Failure { reason, message, pause, until: now + pause, may_come: false }
    }

    /// A fault in the pod or its objects: tried again at the same pace.
    pub(crate) fn steady(reason: &'static str, message: String, may_come: bool, now: Moment) -> Failure {
        Failure { reason, message, pause: FIRST, until: now + FIRST, may_come }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let mut pause = None;
        let seconds: Vec<u64> = (0..7)
            .map(|_| {
                let next = next(pause);
                pause = Some(next);
                next.as_secs()
            })
            .collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
    }
}
