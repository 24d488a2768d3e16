//! Which job's status is written next. Pure.
//!
//! Jobs are of the cluster, and do not say who made them: what is told apart is their kinds. However many of one kind there are, those of another
//! have every third turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use beehive::Moment;
use contract::ObjectKey;
use contract::node_task::TaskKind;

/// 2 s before a job that a write has not moved is written again because time has passed, doubled at each time.
const REST_MIN: Duration = Duration::from_secs(2);
/// 60 s at the most: a node that is linked elsewhere may have become fit by then.
const REST_MAX: Duration = Duration::from_secs(60);

/// The jobs that wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct DueQueue {
    waiting: BTreeMap<TaskKind, VecDeque<ObjectKey>>,
    listed: BTreeSet<ObjectKey>,
    last: Option<TaskKind>,
}

impl DueQueue {
    /// Puts a job at the end of its kind, unless it waits already.
    pub(crate) fn push(&mut self, key: ObjectKey) {
        let Some(kind) = TaskKind::of_resource(&key.resource) else { return };
        if self.listed.insert(key.clone()) {
            self.waiting.entry(kind).or_default().push_back(key);
        }
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<ObjectKey> {
        let open = || self.waiting.iter().filter(|(_, keys)| !keys.is_empty()).map(|(kind, _)| *kind);
        let kind = open().find(|kind| Some(*kind) > self.last).or_else(|| open().next())?;
        let key = self.waiting.get_mut(&kind)?.pop_front()?;
        self.listed.remove(&key);
        self.last = Some(kind);
        Some(key)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.listed.len()
    }
}

/// When a job is written again though nothing moved but time.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    version: String,
    pause: Duration,
    until: Option<Moment>,
}

impl Rest {
    /// This version of the job is written `now`.
    pub(crate) fn begin(&mut self, version: &str, now: Moment) {
        let is_same = self.version == version && !self.pause.is_zero();
        self.pause = if is_same { (self.pause * 2).min(REST_MAX) } else { REST_MIN };
        version.clone_into(&mut self.version);
        self.until = Some(now + self.pause);
    }

    /// Whether it is too early.
    pub(crate) fn holds(&self, version: &str, now: Moment) -> bool {
        self.version == version && self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Env;

    fn key(kind: TaskKind, name: &str) -> ObjectKey {
        ObjectKey::new(kind.resource(), "", name)
    }

    #[test]
    fn many_of_one_kind_do_not_hold_up_another() {
        let mut due = DueQueue::default();
        for n in 0..3000 {
            due.push(key(TaskKind::ImagePrePull, &format!("j{n}")));
        }
        due.push(key(TaskKind::ImagePrePull, "j0"));
        assert_eq!(due.len(), 3000, "each waits once");
        assert_eq!(due.pop(), Some(key(TaskKind::ImagePrePull, "j0")));
        due.push(key(TaskKind::NodeUpgrade, "spring"));
        due.push(key(TaskKind::ConfigUpdate, "calm"));
        let first: Vec<String> = (0..3).filter_map(|_| due.pop()).map(|key| key.name).collect();
        assert_eq!(first, ["calm", "spring", "j1"]);
        due.push(key(TaskKind::ImagePrePull, "j0"));
        assert_eq!(std::iter::from_fn(|| due.pop()).last().map(|key| key.name).as_deref(), Some("j0"));
        assert_eq!((due.len(), due.pop()), (0, None));
    }

    #[test]
    fn a_job_that_only_waits_is_asked_for_less_and_less_often() {
        let begin = Env::seeded(1).now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut rest = Rest::default();
        assert!(!rest.holds("1", at(0)));
        rest.begin("1", at(0));
        assert!(rest.holds("1", at(1)) && !rest.holds("1", at(2)) && !rest.holds("2", at(1)));
        rest.begin("1", at(2));
        assert!(rest.holds("1", at(5)) && !rest.holds("1", at(6)));
        (0..9).for_each(|_| rest.begin("1", at(6)));
        assert!(rest.holds("1", at(65)) && !rest.holds("1", at(66)));
        rest.begin("2", at(66));
        assert!(!rest.holds("2", at(68)), "another version");
    }
}
