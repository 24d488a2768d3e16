//! Whose a job is. While nodes move over from KubeEdge one by one its CloudCore has the others, and reads the same jobs: one that names a node
//! of its is not done here, and its status is not written. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;

/// 60 s before a job that is left alone is looked at again: its nodes may have moved over.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Whose a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// All edge nodes that it names are CloudCore's.
    Ours,
    /// It names one that is not.
    Anothers,
}

/// What is known of the jobs that are not over, by their uids.
#[derive(Debug, Default)]
pub(crate) struct Ownership(BTreeMap<String, (Whose, Moment)>);

impl Ownership {
    /// Somebody has looked. Answers whether it is news that the job is left alone.
    pub(crate) fn found(&mut self, uid: &str, whose: Whose, now: Moment) -> bool {
        let before = self.0.insert(uid.to_owned(), (whose, now));
        whose == Whose::Anothers && before.is_none_or(|(before, _)| before != whose)
    }

    /// Whether the job is known to be ours. It stays so: what becomes of its nodes then is said of each of them.
    pub(crate) fn is_ours(&self, uid: &str) -> bool {
        self.0.get(uid).is_some_and(|(whose, _)| *whose == Whose::Ours)
    }

    /// Whether nothing is done about the job now.
    pub(crate) fn is_left_alone(&self, uid: &str, now: Moment) -> bool {
        let found = self.0.get(uid);
        found.is_some_and(|(whose, at)| *whose == Whose::Anothers && now.since(*at) < LOOK_AGAIN)
    }

    /// How many are left alone.
    pub(crate) fn left_alone(&self) -> usize {
        self.0.values().filter(|(whose, _)| *whose == Whose::Anothers).count()
    }

    /// Forgets a job that is over or gone.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_anothers_is_left_alone_and_looked_at_now_and_then() {
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let mut jobs = Ownership::default();
        assert!(!jobs.is_ours("a") && !jobs.is_left_alone("a", at(0)), "nobody has looked");
        assert!(jobs.found("a", Whose::Anothers, at(1)));
        assert!(jobs.is_left_alone("a", at(60)) && !jobs.is_left_alone("a", at(61)));
        assert!(!jobs.found("a", Whose::Anothers, at(61)), "that is no news");
        assert!(jobs.is_left_alone("a", at(100)) && !jobs.is_ours("a") && jobs.left_alone() == 1);
        // Its last node has moved over.
        assert!(!jobs.found("a", Whose::Ours, at(121)));
        assert!(jobs.is_ours("a") && !jobs.is_left_alone("a", at(122)) && jobs.left_alone() == 0);
        jobs.forget("a");
        assert!(!jobs.is_ours("a"));
    }
}
