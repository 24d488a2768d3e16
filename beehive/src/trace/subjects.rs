//! What is followed, by its name. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::TraceContext;
use crate::Moment;

/// 512 things at once; then the one that was followed longest goes.
const SUBJECTS_MAX: usize = 512;
/// 10 min from the first step: what happens later is another matter.
const FOLLOWED_FOR: Duration = Duration::from_secs(600);
/// 64 steps after it: what reports itself every second is followed for a minute.
const STEPS_MAX: u32 = 64;
/// 512 bytes: longer names are of nothing that is followed.
const NAME_MAX: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Subject {
    context: TraceContext,
    /// When its trace was first seen here.
    since: Moment,
    /// How many steps of that trace were asked for.
    steps: u32,
}

/// The contexts that wait by name.
#[derive(Debug, Default)]
pub(super) struct Subjects(BTreeMap<String, Subject>);

impl Subjects {
    /// The next step of `name` will be a child of `context`. A trace that goes on keeps its age.
    pub(super) fn put(&mut self, name: String, context: TraceContext, now: Moment) {
        if name.len() > NAME_MAX {
            return;
        }
        let (since, steps) = match self.0.get(&name) {
            Some(held) if held.context.trace_id == context.trace_id => (held.since, held.steps),
            Some(_) | None => (now, 0),
        };
        self.0.insert(name, Subject { context, since, steps });
        if self.0.len() > SUBJECTS_MAX {
            self.0.retain(|_, held| now.since(held.since) < FOLLOWED_FOR);
        }
        if self.0.len() > SUBJECTS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, held)| held.since);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.0.remove(&name);
            }
        }
    }

    pub(super) fn get(&mut self, name: &str, now: Moment) -> Option<TraceContext> {
        let held = self.0.get_mut(name)?;
        held.steps += 1;
        if now.since(held.since) >= FOLLOWED_FOR || held.steps > STEPS_MAX {
            self.0.remove(name);
            return None;
        }
        Some(held.context)
    }

    pub(super) fn take(&mut self, name: &str, now: Moment) -> Option<TraceContext> {
        let found = self.get(name, now);
        self.0.remove(name);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(trace: u8, span: u8) -> TraceContext {
        TraceContext { trace_id: [trace; 16], span_id: [span; 8], is_sampled: true }
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn a_subject_is_followed_for_a_while_however_often_it_is_touched() {
        let mut subjects = Subjects::default();
        subjects.put("a".to_owned(), context(1, 1), at(0));
        subjects.put("a".to_owned(), context(1, 2), at(500));
        assert_eq!(subjects.get("a", at(599)), Some(context(1, 2)));
        assert_eq!(subjects.get("a", at(600)), None);
        subjects.put("a".to_owned(), context(1, 3), at(600));
        subjects.put("a".to_owned(), context(2, 4), at(900));
        assert_eq!(subjects.take("a", at(1400)), Some(context(2, 4)), "another trace has an age of its own");
        assert_eq!(subjects.take("a", at(1400)), None);
    }

    #[test]
    fn what_goes_on_and_on_is_followed_for_some_steps() {
        let mut subjects = Subjects::default();
        let mut steps = 0;
        subjects.put("a".to_owned(), context(1, 1), at(0));
        while let Some(held) = subjects.get("a", at(1)) {
            steps += 1;
            subjects.put("a".to_owned(), TraceContext { span_id: [steps; 8], ..held }, at(1));
        }
        assert_eq!(u32::from(steps), STEPS_MAX);
    }

    #[test]
    fn there_are_no_more_than_the_bound() {
        let mut subjects = Subjects::default();
        for second in 0..2000 {
            subjects.put(format!("s{second}"), context(1, 1), at(second / 10));
        }
        assert_eq!(subjects.0.len(), SUBJECTS_MAX);
        assert_eq!(subjects.get("s0", at(200)), None);
        assert!(subjects.get("s1999", at(200)).is_some());
        subjects.put("x".repeat(NAME_MAX + 1), context(1, 1), at(200));
        assert_eq!(subjects.0.len(), SUBJECTS_MAX);
    }
}
