//! What the log said a moment ago and need not say again: what goes wrong with each look of many. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;

/// After so long the log says again what has not changed: who reads it from its end finds it.
pub(crate) const SAID_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// So much is remembered.
const REMEMBERED: usize = 256;

/// What was said, about what, and when.
#[derive(Debug, Default)]
pub(crate) struct SaidLately(BTreeMap<String, (String, Moment)>);

impl SaidLately {
    /// Whether `words` about `what` are to be said now. Other words always are.
    pub(crate) fn is_news(&mut self, what: &str, words: &str, now: Moment) -> bool {
        let is_old = |(_, at): &(String, Moment)| now.since(*at) >= SAID_AGAIN_AFTER;
        if self.0.get(what).is_some_and(|said| said.0 == words && !is_old(said)) {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, said| !is_old(said));
        }
        // Rather said twice than remembered without a bound.
        if self.0.len() < REMEMBERED || self.0.contains_key(what) {
            self.0.insert(what.to_owned(), (words.to_owned(), now));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_ten_minutes_and_what_is_new_at_once() {
        let mut said = SaidLately::default();
        let at = |second: u64| Moment(Duration::from_secs(second));
        let times: Vec<u64> =
            (0..1300).step_by(10).filter(|second| said.is_news("disk", "full", at(*second))).collect();
        assert_eq!(times, [0, 600, 1200]);
        assert!(said.is_news("images", "full", at(1300)), "about something else");
        assert!(said.is_news("disk", "fuller", at(1310)) && said.is_news("disk", "full", at(1320)));
        assert!(!said.is_news("disk", "full", at(1330)));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_makes_room() {
        let mut said = SaidLately::default();
        let at = |second: u64| Moment(Duration::from_secs(second));
        for n in 0..2 * REMEMBERED {
            assert!(said.is_news(&n.to_string(), "", at(1)));
        }
        assert_eq!(said.0.len(), REMEMBERED);
        assert!(said.is_news("late", "", at(700)) && !said.is_news("late", "", at(701)));
        assert_eq!(said.0.len(), 1);
    }
}
