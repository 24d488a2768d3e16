//! Which topics of rules wait, and for how long: one whose target is away holds up no other. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;

use crate::plan::{PAUSE_MAX, PAUSE_MIN};

/// A topic of which the last delivery left something.
#[derive(Debug)]
struct Waiting {
    until: Moment,
    /// Deliveries in a row that brought nothing of it.
    failures: u32,
}

/// The topics that wait.
#[derive(Debug, Default)]
pub(crate) struct RuleTopics {
    waiting: BTreeMap<String, Waiting>,
    /// Row and topic of what is on its way.
    sent: Vec<(i64, String)>,
    /// For when a look is due already.
    armed: Option<Moment>,
}

impl RuleTopics {
    /// Another cloud may do what the last one could not.
    pub(crate) fn link_up(&mut self) {
        *self = RuleTopics::default();
    }

    /// These are on their way.
    pub(crate) fn sent(&mut self, rows: Vec<(i64, String)>) {
        self.sent = rows;
    }

    /// The cloud has answered about what was on its way: of a topic of which anything is left nothing is sent for a while.
    pub(crate) fn answered(&mut self, confirmed: &[i64], now: Moment) {
        let confirmed: BTreeSet<i64> = confirmed.iter().copied().collect();
        let mut topics: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        for (row, topic) in std::mem::take(&mut self.sent) {
            let (any, all) = topics.entry(topic).or_insert((false, true));
            let is_confirmed = confirmed.contains(&row);
            *any |= is_confirmed;
            *all &= is_confirmed;
        }
        for (topic, (any, all)) in topics {
            if all {
                self.waiting.remove(&topic);
                continue;
            }
            let failures = self.waiting.get(&topic).map_or(0, |waiting| waiting.failures);
            let failures = if any { 0 } else { failures };
            let pause = (PAUSE_MIN * 2_u32.pow(failures.min(8))).min(PAUSE_MAX);
            self.waiting.insert(topic, Waiting { until: now + pause, failures: failures.saturating_add(1) });
        }
    }

    /// What was on its way got no answer: nothing is known of any topic.
    pub(crate) fn unanswered(&mut self) {
        self.sent.clear();
    }

    /// Of which nothing is sent now.
    pub(crate) fn held(&self, now: Moment) -> Vec<String> {
        let held = self.waiting.iter().filter(|(_, waiting)| waiting.until > now);
        held.map(|(topic, _)| topic.clone()).collect()
    }

    /// How long until the next one may be tried, once for each such time; `None` where none waits, or a look is due before.
    pub(crate) fn arm(&mut self, now: Moment) -> Option<Duration> {
        let next = self.waiting.values().map(|waiting| waiting.until).filter(|until| *until > now).min()?;
        if self.armed.is_some_and(|armed| armed > now && armed <= next) {
            return None;
        }
        self.armed = Some(next);
        Some(next.since(now))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Env;

    fn rows(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
        rows.iter().map(|(row, topic)| (*row, (*topic).to_owned())).collect()
    }

    #[test]
    fn a_topic_that_brings_nothing_waits_longer_each_time_and_alone() {
        let start = Env::seeded(1).now();
        let mut topics = RuleTopics::default();
        let mut now = start;
        for pause in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            topics.sent(rows(&[(1, "d/a"), (2, "d/b"), (3, "d/a")]));
            topics.answered(&[2], now);
            assert_eq!(topics.held(now), ["d/a"], "of b all has arrived");
            assert_eq!(topics.arm(now), Some(Duration::from_millis(pause)));
            assert_eq!(topics.arm(now), None, "one look is enough");
            now = now + Duration::from_millis(pause);
            assert!(topics.held(now).is_empty());
        }
        // Something has arrived: it begins anew.
        topics.sent(rows(&[(1, "d/a"), (3, "d/a")]));
        topics.answered(&[1], now);
        assert_eq!(topics.arm(now), Some(PAUSE_MIN));
        topics.sent(rows(&[(3, "d/a")]));
        topics.answered(&[3], now);
        assert_eq!((topics.len(), topics.arm(now)), (0, None));
    }

    #[test]
    fn no_answer_says_nothing_of_a_topic_and_a_new_link_begins_anew() {
        let now = Env::seeded(1).now();
        let mut topics = RuleTopics::default();
        topics.sent(rows(&[(1, "d/a")]));
        topics.unanswered();
        topics.answered(&[], now);
        assert!(topics.held(now).is_empty());
        topics.sent(rows(&[(1, "d/a")]));
        topics.answered(&[], now);
        assert_eq!(topics.held(now), ["d/a"]);
        topics.link_up();
        assert!(topics.held(now).is_empty());
    }
}
