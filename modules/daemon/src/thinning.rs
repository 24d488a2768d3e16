//! Which lines of the log are written. Pure.
//!
//! Nodes, mappers, MQTT clients and users of the API cause lines, and may cause as many as they like. The log is not theirs: of
//! one place in the code each of them has so many lines, and all of them together have so many. Counters count everything.

use std::collections::BTreeMap;

use beehive::Moment;
use beehive::link::accept_limiter::RateLimiter;

/// 20 lines of one place about one subject at once, and then one in 10 seconds: what somebody does wrong is seen, and a flood
/// of it takes a kilobyte a minute.
const OF_SUBJECT: (f64, f64) = (0.1, 20.0);
/// 4000 lines of one place at once, and then 5 a second: a few thousand nodes that link at once are all seen, and whoever takes
/// ever new names fills no disk within a day.
const OF_PLACE: (f64, f64) = (5.0, 4000.0);

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written, and that so many of the same place were left out before it.
    Written { left_out: u64 },
    /// It is left out.
    LeftOut,
}

/// The lines of a process so far.
#[derive(Debug)]
pub(crate) struct Thinning {
    subjects: RateLimiter<(&'static str, String)>,
    places: RateLimiter<&'static str>,
    /// By place, since its last line. There are as many places as the program has.
    left_out: BTreeMap<&'static str, u64>,
}

impl Default for Thinning {
    fn default() -> Self {
        Thinning {
            subjects: RateLimiter::new(OF_SUBJECT.0, OF_SUBJECT.1),
            places: RateLimiter::new(OF_PLACE.0, OF_PLACE.1),
            left_out: BTreeMap::new(),
        }
    }
}

impl Thinning {
    /// A line comes from `place` in the code, about `subject`.
    pub(crate) fn line(&mut self, place: &'static str, subject: &str, now: Moment) -> Verdict {
        let is_written = self.subjects.take(&(place, subject.to_owned()), now).is_ok()
            && self.places.take(&place, now).is_ok();
        if is_written {
            return Verdict::Written { left_out: self.left_out.remove(place).unwrap_or(0) };
        }
        *self.left_out.entry(place).or_default() += 1;
        Verdict::LeftOut
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_flood_of_one_leaves_the_others_their_lines_and_is_counted() {
        let mut thinning = Thinning::default();
        let mut written = |subject, now| {
            (0..1000).filter(|_| thinning.line("skip", subject, now) != Verdict::LeftOut).count()
        };
        assert_eq!(written("edge-1", at(100)), 20);
        assert_eq!(written("edge-2", at(100)), 20);
        assert_eq!(written("edge-1", at(160)), 6, "one in ten seconds");
        assert_eq!(thinning.line("skip", "edge-3", at(161)), Verdict::Written { left_out: 994 });
        assert_eq!(thinning.line("skip", "edge-3", at(161)), Verdict::Written { left_out: 0 });
        assert_eq!(thinning.line("other", "edge-1", at(161)), Verdict::Written { left_out: 0 });
    }

    #[test]
    fn ever_new_names_have_a_bound_together() {
        let mut thinning = Thinning::default();
        let lines = (0..100_000)
            .filter(|n| thinning.line("refused", &format!("client-{n}"), at(n / 10_000)) != Verdict::LeftOut);
        assert!((4000..4100).contains(&lines.count()));
    }
}
