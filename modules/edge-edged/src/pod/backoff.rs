//! Waiting longer each time, as Kubernetes does it.

use std::time::Duration;

use beehive::Moment;

/// The first pause.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// The longest pause.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// The first pause of a volume that could not be mounted, and the longest: a kubelet's (exponentialbackoff of its volume operations).
const VOLUME_FIRST: Duration = Duration::from_millis(500);
const VOLUME_LONGEST: Duration = Duration::from_secs(122);
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

    /// A volume that could not be mounted, after `before`: tried again after 0.5 s, 1 s, 2 s … 122 s.
    pub(crate) fn of_volume(
        before: Option<&Failure>,
        message: String,
        may_come: bool,
        now: Moment,
    ) -> Failure {
        let pause = before.map_or(VOLUME_FIRST, |before| (before.pause * 2).min(VOLUME_LONGEST));
        Failure { reason: "FailedMount", message, pause, until: now + pause, may_come }
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

    #[test]
    fn a_volume_is_tried_again_as_soon_as_a_kubelet_does() {
        let mut failure = None;
        let pauses: Vec<u128> = (0..10)
            .map(|_| {
                let next = Failure::of_volume(failure.as_ref(), String::new(), false, Moment::default());
                let pause = next.pause.as_millis();
                failure = Some(next);
                pause
            })
            .collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 122_000, 122_000]);
    }
}
