//! When a certificate is renewed. Pure: the times and the lot are arguments.
//!
//! The clock of a node may be years off. Within the life of the certificate it is believed; outside of it, it is not, or the certificate has
//! ended: both are mended by asking at once, and what is asked for then is counted by the time that passes, whatever the clock says.

use std::time::{Duration, SystemTime};

use beehive::Moment;
use pki::Validity;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// 2 s, doubled at each time, before a renewal that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// 10 min at the most, and no more than a twentieth of the certificate's life.
const AGAIN_MAX: Duration = Duration::from_secs(600);
const TRIES_IN_A_LIFE: u32 = 20;
/// A day over which nodes spread whose certificates are of a CA that has given way to its successor.
const SUPERSEDED_MAX: Duration = Duration::from_secs(86_400);
/// 1 h: the longest time between looks at the clock, which may be set, and stands still while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// 30 s over which nodes spread that are due when their links come up, and no more than a twentieth of the life.
const SPREAD: Duration = Duration::from_secs(30);

/// When the certificate of now is renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalPlan {
    validity: Validity,
    renew_at: SystemTime,
    /// By the time that passes.
    due: Moment,
    /// Not before: the last try failed.
    not_before: Moment,
    failures: u32,
}

impl RenewalPlan {
    /// For a certificate that was found at the start, at `wall` by the clock. `part`, from 0 to 1, is drawn.
    pub fn found(validity: Validity, wall: SystemTime, now: Moment, part: f64) -> Self {
        let renew_at = validity.renew_at(part);
        let left = if validity.holds(wall) {
            renew_at.duration_since(wall).unwrap_or_default()
        } else {
            Duration::ZERO
        };
        RenewalPlan { validity, renew_at, due: now + left, not_before: now, failures: 0 }
    }

    /// For a certificate that was signed just now. A clock that contradicts it does not have it renewed all the time.
    pub fn renewed(validity: Validity, wall: SystemTime, now: Moment, part: f64) -> Self {
        let plan = RenewalPlan::found(validity, wall, now, part);
        let least = validity.life() / 4;
        RenewalPlan { due: plan.due.max(now + least), not_before: now + least, ..plan }
    }

    /// Another CA signs by now: the certificate is renewed soon, all nodes over a twentieth of their certificates' life, and a day at the
    /// most. `part`, from 0 to 1, is drawn.
    pub fn superseded(&mut self, now: Moment, part: f64) {
        let within = SUPERSEDED_MAX.min(self.validity.life() / TRIES_IN_A_LIFE);
        self.due = self.due.min(now + within.mul_f64(part.clamp(0.0, 1.0)));
    }

    /// Whether it is to be renewed now.
    pub fn is_due(&self, wall: SystemTime, now: Moment) -> bool {
        let by_the_clock = self.validity.holds(wall) && wall >= self.renew_at;
        now >= self.not_before && (now >= self.due || by_the_clock)
    }

    /// How long until the next look.
    pub fn pause(&self, wall: SystemTime, now: Moment) -> Duration {
        if self.is_due(wall, now) {
            // There was no link, or it is being renewed.
            return AGAIN_AFTER.max(self.again_max() / 4);
        }
        self.due.max(self.not_before).since(now).clamp(Duration::from_millis(100), LOOK_EVERY)
    }

    /// Over how long nodes spread that are due when their links come up.
    pub fn spread(&self) -> Duration {
        SPREAD.min(self.validity.life() / TRIES_IN_A_LIFE)
    }

    /// A try failed. Answers the pause before the next one: what the cloud asked to wait, or one that doubles.
    pub fn failed(
        &mut self,
        wait: Option<Duration>,
        now: Moment,
        jitter: impl Fn(Duration) -> Duration,
    ) -> Duration {
        let grown = AGAIN_AFTER.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.again_max());
        let pause = jitter(wait.map_or(grown, |wait| wait.clamp(AGAIN_AFTER, AGAIN_MAX)));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause;
        pause
    }

    fn again_max(&self) -> Duration {
        AGAIN_MAX.min(self.validity.life() / TRIES_IN_A_LIFE).max(AGAIN_AFTER)
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// When it is renewed, by the clock.
    pub fn renew_at(&self) -> SystemTime {
        self.renew_at
    }
}

/// The first certificate of a PEM text, in DER.
pub(super) fn first_of_pem(pem: &str) -> Option<Vec<u8>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn wall(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000 + second)
    }

    fn at(second: u64) -> Moment {
        Moment(Duration::from_secs(second))
    }

    fn month() -> Validity {
        Validity { not_before: wall(0), not_after: wall(30 * DAY) }
    }

    fn whole(pause: Duration) -> Duration {
        pause
    }

    #[test]
    fn it_is_due_at_its_part_of_the_life_and_the_looks_are_an_hour_apart() {
        let plan = RenewalPlan::found(month(), wall(10 * DAY), at(5), 0.5);
        assert!(!plan.is_due(wall(24 * DAY - 1), at(5 + 14 * DAY - 1)));
        assert!(plan.is_due(wall(24 * DAY), at(5 + 14 * DAY)));
        assert_eq!(plan.pause(wall(10 * DAY), at(5)), LOOK_EVERY);
        assert_eq!(plan.pause(wall(24 * DAY - 60), at(5 + 14 * DAY - 60)), Duration::from_secs(60));
    }

    #[test]
    fn a_machine_that_slept_renews_by_the_clock_and_one_whose_clock_was_set_back_by_the_time_that_passed() {
        let plan = RenewalPlan::found(month(), wall(10 * DAY), at(5), 0.5);
        assert!(plan.is_due(wall(25 * DAY), at(6)), "it slept");
        assert!(plan.is_due(wall(1), at(5 + 14 * DAY)), "its clock was set back");
    }

    #[test]
    fn a_clock_that_is_years_off_asks_once_and_not_all_the_time() {
        for off in [wall(4000 * DAY), SystemTime::UNIX_EPOCH] {
            let plan = RenewalPlan::found(month(), off, at(5), 0.5);
            assert!(plan.is_due(off, at(5)), "who knows what time it is");
            let plan = RenewalPlan::renewed(month(), off, at(5), 0.5);
            let mut now = at(5);
            for _ in 0..100 {
                assert!(!plan.is_due(off, now), "within the first hundred hours");
                now = now + plan.pause(off, now);
            }
            assert!(plan.is_due(off, at(5 + 8 * DAY)), "a quarter of its life later");
        }
    }

    #[test]
    fn a_try_that_failed_is_followed_by_others_ever_more_seldom_and_as_the_cloud_asks() {
        let mut plan = RenewalPlan::found(month(), wall(29 * DAY), at(0), 0.5);
        let pauses: Vec<u64> = (0..12).map(|_| plan.failed(None, at(0), whole).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
        assert!(!plan.is_due(wall(29 * DAY), at(599)) && plan.is_due(wall(29 * DAY), at(600)));
        let asked = |plan: &mut RenewalPlan, wait| {
            plan.failed(Some(Duration::from_secs(wait)), at(0), whole).as_secs()
        };
        assert_eq!((asked(&mut plan, 60), asked(&mut plan, 0), asked(&mut plan, 99_999)), (60, 2, 600));
        // A life of a minute has more than one try.
        let minute = Validity { not_before: wall(0), not_after: wall(60) };
        let mut plan = RenewalPlan::found(minute, wall(50), at(0), 0.5);
        let pauses: Vec<u64> = (0..4).map(|_| plan.failed(None, at(0), whole).as_secs()).collect();
        assert_eq!(pauses, [2, 3, 3, 3]);
        assert_eq!(plan.spread(), Duration::from_secs(3));
    }

    #[test]
    fn one_of_a_ca_that_has_given_way_is_renewed_within_a_day() {
        let long = Validity { not_before: wall(0), not_after: wall(365 * DAY) };
        let mut plan = RenewalPlan::found(long, wall(10 * DAY), at(0), 0.5);
        plan.superseded(at(0), 0.5);
        assert!(!plan.is_due(wall(10 * DAY), at(DAY / 2 - 1)) && plan.is_due(wall(10 * DAY), at(DAY / 2)));
        plan.superseded(at(100), 1.0);
        assert!(plan.is_due(wall(10 * DAY), at(DAY / 2)), "said again it is not put off");
        assert!(plan.pause(wall(10 * DAY), at(DAY / 2 - 60)) <= Duration::from_secs(60));
        let minute = Validity { not_before: wall(0), not_after: wall(60) };
        let mut plan = RenewalPlan::found(minute, wall(1), at(0), 0.5);
        plan.superseded(at(0), 1.0);
        assert!(plan.is_due(wall(4), at(3)));
    }

    #[test]
    fn one_that_has_ended_is_due_at_once() {
        assert!(RenewalPlan::found(month(), wall(31 * DAY), at(7), 0.5).is_due(wall(31 * DAY), at(7)));
    }
}
