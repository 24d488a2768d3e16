//! Which pods begin when. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;

use crate::runs::plan::{RunRecord, SHORT, pause};

/// 2 min without a word of the cloud: then the pods begin all the same.
const CLOUD_WITHIN: Duration = Duration::from_secs(120);
/// 10 s from the link's beginning: what the cloud has changed meanwhile is in the store by then.
const CLOUD_SPEAKS: Duration = Duration::from_secs(10);
/// 5 s between one group of pods and the next.
const BETWEEN: Duration = Duration::from_secs(5);
/// As [`SHORT`].
const WELL: Duration = Duration::from_secs(SHORT);

/// Which pods begin when: in a run that needs care a few at a time, in any other all at once, but for those that end EdgeCore.
#[derive(Debug, Default)]
pub(crate) struct CarefulStart {
    care: Option<Care>,
    /// The pods that end EdgeCore, and until when they wait.
    culprits: BTreeMap<String, Moment>,
    /// Until when the one that is tried again is watched.
    trial: Option<Moment>,
}

#[derive(Debug)]
struct Care {
    began: Moment,
    /// When the next group begins, and how many it is.
    next: Moment,
    group: usize,
    /// Those that were let go, be it that something else keeps them waiting.
    begun: BTreeSet<String>,
    /// How long it is watched whether the run ends by those that were begun.
    watch: Duration,
    /// Suspects that were begun and are watched, and until when.
    watched: Vec<String>,
    until: Moment,
}

/// What becomes of the pods that have not begun.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Release {
    /// They wait.
    pub(crate) held: BTreeSet<String>,
    /// They are begun now.
    pub(crate) begun: Vec<String>,
    /// When to ask again.
    pub(crate) again: Option<Moment>,
}

impl Release {
    fn ask_again(&mut self, at: Moment) {
        self.again = self.again.into_iter().chain([at]).min();
    }
}

impl CarefulStart {
    /// For the run of this record, whose pods are about to begin.
    pub(crate) fn of(record: &RunRecord, now: Moment) -> CarefulStart {
        let care = record.needs_care().map(|_| Care {
            began: now,
            next: now + CLOUD_WITHIN,
            group: 1,
            begun: BTreeSet::new(),
            watch: Duration::from_secs(record.watch).clamp(BETWEEN, WELL),
            watched: Vec::new(),
            until: now,
        });
        let culprits = record.culprits.iter().map(|(uid, ends)| (uid.clone(), now + pause(*ends)));
        CarefulStart { care, culprits: culprits.collect(), trial: None }
    }

    /// There is a link to the cloud. Answers whether pods begin earlier for it.
    pub(crate) fn link_is_up(&mut self, now: Moment) -> bool {
        let Some(care) = self.care.as_mut().filter(|care| care.begun.is_empty()) else { return false };
        let is_earlier = now + CLOUD_SPEAKS < care.next;
        care.next = care.next.min(now + CLOUD_SPEAKS);
        is_earlier
    }

    /// What becomes of the pods that `wait` to be begun, in their order. What changes in the record is to be kept before they are.
    pub(crate) fn release(&mut self, record: &mut RunRecord, wait: &[String], now: Moment) -> Release {
        self.end_trial(record, now);
        let (culprits, others): (Vec<String>, Vec<String>) =
            wait.iter().cloned().partition(|uid| self.culprits.contains_key(uid));
        let mut release = Release::default();
        if let Some(care) = &mut self.care {
            match care.release(record, others, now) {
                Some(careful) => release = careful,
                None => {
                    self.care = None;
                    record.suspects.clear();
                }
            }
        }
        for uid in culprits {
            self.hold_culprit(record, uid, &mut release, now);
        }
        if let Some(until) = self.trial {
            release.ask_again(until);
        }
        release
    }

    /// One that ended EdgeCore is tried again when its pause is over, and nobody else is looked at.
    fn hold_culprit(&mut self, record: &mut RunRecord, uid: String, release: &mut Release, now: Moment) {
        let until = self.culprits.get(&uid).copied().unwrap_or(now);
        if until <= now && self.care.is_none() && self.trial.is_none() {
            self.culprits.remove(&uid);
            self.trial = Some(now + WELL);
            record.trial = Some(uid.clone());
            release.begun.push(uid);
            return;
        }
        // Otherwise it is asked for when the others are done.
        if until > now {
            release.ask_again(until);
        }
        release.held.insert(uid);
    }

    /// The run has gone on with the pod that was tried again: it was not its doing, or is not any more.
    fn end_trial(&mut self, record: &mut RunRecord, now: Moment) {
        if self.trial.is_some_and(|until| until <= now) {
            self.trial = None;
            if let Some(uid) = record.trial.take() {
                record.culprits.remove(&uid);
            }
        }
    }
}

impl Care {
    /// See [`CarefulStart::release`]. `None`: no more care is needed.
    fn release(&mut self, record: &mut RunRecord, wait: Vec<String>, now: Moment) -> Option<Release> {
        if self.until <= now {
            // The run has lived on with them.
            record.suspects.retain(|uid| !self.watched.contains(uid));
            self.watched.clear();
        }
        let wait: Vec<String> = wait.into_iter().filter(|uid| !self.begun.contains(uid)).collect();
        let (suspects, others): (Vec<&String>, Vec<&String>) =
            wait.iter().partition(|uid| record.suspects.contains(*uid));
        if self.began + WELL <= now && suspects.is_empty() && self.watched.is_empty() {
            return None;
        }
        let begun = self.group(&others, &suspects, now);
        if !begun.is_empty() {
            self.next = now + BETWEEN;
            self.begun.extend(begun.iter().cloned());
            record.begun.extend(begun.iter().cloned());
            record.first_begun.get_or_insert(now.since(self.began).as_secs());
        }
        let held: BTreeSet<String> = wait.iter().filter(|uid| !begun.contains(uid)).cloned().collect();
        let is_over = held.is_empty() && self.watched.is_empty();
        let again = (!is_over).then_some(self.next.max(self.until));
        Some(Release { held, begun, again })
    }

    /// Half of the suspects, as long as there are any: they are watched by themselves, so that it is known of whom the run ends. Then
    /// the others, each time twice as many as the time before.
    fn group(&mut self, others: &[&String], suspects: &[&String], now: Moment) -> Vec<String> {
        if self.next.max(self.until) > now {
            return Vec::new();
        }
        let first = |of: &[&String], many: usize| -> Vec<String> {
            of.iter().take(many).map(|uid| (*uid).clone()).collect()
        };
        if suspects.is_empty() {
            let group = first(others, self.group);
            if !group.is_empty() {
                self.group = self.group.saturating_mul(2);
            }
            return group;
        }
        self.watched = first(suspects, (suspects.len() / 2).max(1));
        self.until = now + self.watch;
        self.watched.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::plan::tests::{after, uids};

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    const FAULTY: [(&str, u64); 4] = [("a", 10), ("a", 20), ("a", 30), ("a", 40)];

    #[test]
    fn the_cloud_speaks_first_and_those_who_are_suspected_begin_by_themselves() {
        let mut record = after(&FAULTY);
        (record.suspects, record.watch) = (uids(&["b", "c"]), 20);
        let wait = uids(&["a", "b", "c", "d", "e"]);
        let mut start = CarefulStart::of(&record, at(100));
        let held = start.release(&mut record, &wait, at(100));
        assert_eq!((held.held.len(), held.begun.len(), held.again), (5, 0, Some(at(220))));
        assert!(start.link_is_up(at(130)) && !start.link_is_up(at(131)));
        assert_eq!(start.release(&mut record, &wait, at(139)).again, Some(at(140)));
        let (mut rest, mut groups, mut now) = (wait, Vec::new(), at(140));
        loop {
            let Release { held, begun, again } = start.release(&mut record, &rest, now);
            rest.retain(|uid| held.contains(uid));
            if !begun.is_empty() {
                groups.push((now.0.as_secs(), begun));
            }
            let Some(again) = again else { break };
            now = again;
        }
        let wanted =
            [(140, uids(&["b"])), (160, uids(&["c"])), (180, uids(&["a"])), (185, uids(&["d", "e"]))];
        assert_eq!(groups, wanted);
        assert!(record.suspects.is_empty());
        assert_eq!(record.begun, uids(&["b", "c", "a", "d", "e"]));
        assert_eq!(
            start.release(&mut record, &uids(&["a"]), now).held.len(),
            0,
            "whatever else it waits for"
        );
        // Who comes later is one more group; and after ten minutes there is no care any more.
        let late = uids(&["f", "g", "h", "i", "j"]);
        assert_eq!(start.release(&mut record, &late, at(190)).held.len(), 1);
        assert_eq!(start.release(&mut record, &late, at(700)), Release::default());
    }

    #[test]
    fn without_a_cloud_the_pods_begin_after_two_minutes_and_without_faults_at_once() {
        let mut record = after(&FAULTY);
        let mut start = CarefulStart::of(&record, at(0));
        assert!(start.release(&mut record, &uids(&["a"]), at(119)).begun.is_empty());
        assert_eq!(start.release(&mut record, &uids(&["a"]), at(120)).begun, ["a"]);
        let mut usual = after(&FAULTY[..3]);
        let mut start = CarefulStart::of(&usual, at(0));
        assert_eq!(start.release(&mut usual, &uids(&["a"]), at(0)), Release::default());
    }

    /// What comes of a node with these pods, some of which end EdgeCore so many seconds after they are begun: whom it holds at the end of
    /// each run of its life, and when those began.
    struct Life<'a> {
        pods: Vec<String>,
        culprits: &'a [(&'a str, u64)],
        record: RunRecord,
        clock: u64,
        /// Somebody else ends each run after so many seconds.
        killed_after: Option<u64>,
    }

    impl<'a> Life<'a> {
        fn of(pods: usize, culprits: &'a [(&'a str, u64)]) -> Life<'a> {
            let pods = (0..pods).map(|pod| format!("p{pod:02}")).collect();
            Life { pods, culprits, record: after(&FAULTY), clock: 40, killed_after: None }
        }

        /// One run: how many seconds it lasts, unless it is well for two hours, and whom it holds at its end.
        fn run(&mut self) -> (Option<u64>, BTreeSet<String>) {
            let mut start = CarefulStart::of(&self.record, at(self.clock));
            start.link_is_up(at(self.clock));
            let (mut wait, mut now) = (self.pods.clone(), self.clock);
            let mut ends = self.killed_after.map(|after| now + after);
            let two_hours = self.clock + 7200;
            loop {
                let Release { held, again, .. } = start.release(&mut self.record, &wait, at(now));
                for uid in wait.iter().filter(|uid| !held.contains(*uid)) {
                    let end = self.culprits.iter().find(|(own, _)| own == uid).map(|(_, after)| now + after);
                    ends = ends.into_iter().chain(end).min();
                }
                wait.retain(|uid| held.contains(uid));
                let next = again.map_or(two_hours, |again| again.0.as_secs());
                let over = ends.filter(|end| *end <= next.min(two_hours));
                if let Some(end) = over {
                    let lasted = end - self.clock;
                    // systemd begins it anew after two seconds.
                    self.clock = end + 2;
                    self.record = RunRecord::begin(Some(self.record.clone()), "a", self.clock);
                    return (Some(lasted), held);
                }
                if next >= two_hours {
                    return (None, held);
                }
                now = next;
            }
        }
    }

    #[test]
    fn whoever_ends_edgecore_is_found_and_all_others_run() {
        let cases: [(usize, &[(&str, u64)]); 8] = [
            (3, &[("p00", 20)]),
            (3, &[("p00", 1)]),
            (3, &[("p01", 200)]),
            (1, &[("p00", 30)]),
            (110, &[("p57", 40)]),
            (110, &[("p109", 3)]),
            (20, &[("p03", 30), ("p11", 30)]),
            (20, &[("p03", 1), ("p11", 60)]),
        ];
        for (pods, culprits) in cases {
            let mut life = Life::of(pods, culprits);
            let named: BTreeSet<String> = culprits.iter().map(|(uid, _)| (*uid).to_owned()).collect();
            let mut runs = 1;
            while !life.record.culprits.keys().eq(named.iter()) {
                let innocent = life.record.culprits.keys().find(|uid| !named.contains(*uid));
                assert_eq!(innocent, None, "{pods} {culprits:?} after {runs} runs");
                assert!(life.run().0.is_some(), "{pods} {culprits:?}: it was well after {runs} runs");
                runs += 1;
                assert!(runs < 24, "{pods} {culprits:?}: {:?}", life.record);
            }
            // From now on it ends for none but those that are tried again.
            let (lasted, held) = life.run();
            assert!(lasted.is_some_and(|lasted| lasted >= SHORT), "{pods} {culprits:?}: {lasted:?}");
            assert!(held.is_subset(&named), "{pods} {culprits:?}: {held:?}");
        }
    }

    #[test]
    fn whoever_was_begun_first_when_edgecore_was_killed_from_outside_is_not_held_for_it() {
        let mut life = Life::of(5, &[]);
        // A fourth time by hand, soon after the first pod was begun; and then not any more.
        life.killed_after = Some(15);
        assert_eq!(life.run().0, Some(15));
        assert_eq!(life.record.suspects, ["p00"]);
        life.killed_after = None;
        assert_eq!(life.run(), (None, BTreeSet::new()));
        assert_eq!((life.record.culprits.len(), life.record.suspects.len()), (0, 0));
    }

    #[test]
    fn one_that_was_held_for_anothers_doing_is_let_go_when_it_is_tried_again() {
        let mut record = after(&FAULTY);
        record.culprits.insert("a".to_owned(), 1);
        let mut start = CarefulStart::of(&record, at(0));
        start.link_is_up(at(0));
        let wait = uids(&["a"]);
        let first = start.release(&mut record, &wait, at(0));
        assert_eq!((first.held.len(), first.again), (1, Some(at(600))));
        let tried = start.release(&mut record, &wait, at(600));
        assert_eq!((tried.begun, tried.again, record.trial.as_deref()), (wait, Some(at(1200)), Some("a")));
        assert_eq!(start.release(&mut record, &[], at(1199)).again, Some(at(1200)));
        assert_eq!(start.release(&mut record, &[], at(1200)), Release::default());
        assert_eq!((record.trial, record.culprits.len()), (None, 0));
    }
}
