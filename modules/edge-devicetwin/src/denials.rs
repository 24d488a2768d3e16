//! Which denied calls are said: of each caller the first one, and how many followed. Pure.
//!
//! A mapper that nobody knows yet, as after its node has joined anew, has all of its reports denied until it registers, a call for each
//! property: one fault is not twenty lines.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;

/// 10 s until it is said how many followed: a mapper registers again before that.
const TOGETHER: Duration = Duration::from_secs(10);
/// 64 callers at a time are told apart; those beyond are said together, as one.
const CALLERS_MAX: usize = 64;
/// How those are called.
const OTHERS: &str = "others";

/// Denied calls of one caller that are said in one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Who called.
    pub(crate) caller: String,
    /// How many calls were denied since the last line about him, 1 or more.
    pub(crate) more: u64,
    /// Why the last of them was.
    pub(crate) reason: String,
}

#[derive(Debug)]
struct Caller {
    since: Moment,
    more: u64,
    reason: String,
}

/// The calls of mappers that were not theirs to make.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    total: u64,
    callers: BTreeMap<String, Caller>,
}

impl Denials {
    /// One more. Whether it is said at once.
    pub(crate) fn denied(&mut self, caller: &str, reason: &str, now: Moment) -> bool {
        self.total = self.total.saturating_add(1);
        let is_known = self.callers.contains_key(caller);
        let caller = if is_known || self.callers.len() < CALLERS_MAX { caller } else { OTHERS };
        match self.callers.get_mut(caller) {
            None => {
                let first = Caller { since: now, more: 0, reason: reason.to_owned() };
                self.callers.insert(caller.to_owned(), first);
                true
            }
            Some(known) => {
                known.more = known.more.saturating_add(1);
                reason.clone_into(&mut known.reason);
                false
            }
        }
    }

    /// What is to be said now. A caller of whom nothing followed is forgotten.
    pub(crate) fn due(&mut self, now: Moment) -> Vec<Followed> {
        let mut due = Vec::new();
        self.callers.retain(|name, caller| {
            if now.since(caller.since) < TOGETHER {
                return true;
            }
            let more = std::mem::take(&mut caller.more);
            caller.since = now;
            if more > 0 {
                due.push(Followed { caller: name.clone(), more, reason: caller.reason.clone() });
            }
            more > 0
        });
        due
    }

    /// Whether there is anybody of whom something may be due.
    pub(crate) fn is_any(&self) -> bool {
        !self.callers.is_empty()
    }

    /// How many there were in all.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_mapper_that_is_denied_is_said_at_once_and_then_by_a_count() {
        let mut denials = Denials::default();
        assert!(denials.denied("user 0", "a", at(1)));
        for reason in ["b", "c", "d"] {
            assert!(!denials.denied("user 0", reason, at(2)));
        }
        assert!(denials.denied("user 1", "e", at(2)), "another one's is seen all the same");
        assert_eq!(denials.due(at(10)), []);
        let followed =
            |more, reason: &str| Followed { caller: "user 0".to_owned(), more, reason: reason.to_owned() };
        assert_eq!(denials.due(at(12)), [followed(3, "d")]);
        // He goes on.
        assert!(!denials.denied("user 0", "f", at(13)));
        assert_eq!(denials.due(at(22)), [followed(1, "f")]);
        assert_eq!(denials.due(at(32)), []);
        assert!(!denials.is_any());
        assert!(denials.denied("user 0", "g", at(33)), "after a while it is news again");
        assert_eq!(denials.total(), 7);
    }

    #[test]
    fn ever_new_callers_have_one_line_together() {
        let mut denials = Denials::default();
        let said = (0..1000).filter(|n| denials.denied(&format!("user {n}"), "x", at(1))).count();
        assert_eq!(said, CALLERS_MAX + 1);
        let due = denials.due(at(11));
        assert_eq!((due.len(), due[0].more), (1, 1000 - CALLERS_MAX as u64 - 1));
        assert_eq!(denials.total(), 1000);
    }
}
