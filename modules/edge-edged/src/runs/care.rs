//! Which pods begin when. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;

use crate::runs::plan::{RunRecord, SHORT, pause};
use crate::runs::why::Why;

/// 2 min without a word of the cloud: then the pods begin all the same.
const CLOUD_WITHIN: Duration = Duration::from_secs(120);
/// 10 s from the link's beginning: what the cloud has changed meanwhile is in the store by then.
const CLOUD_SPEAKS: Duration = Duration::from_secs(10);
/// 5 s between one group of pods and the next.
const BETWEEN: Duration = Duration::from_secs(5);
/// Up to 5 ends in a row pods of which something runs are taken up at once: probes, ends and deadlines are seen. If the runs go on to end, what
/// EdgeCore does for one of those may be it, and they wait with the others.
const TAKEN_UP: u32 = 5;
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

/// The pods of the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pods {
    /// Those that wait to be begun, in their order.
    pub(crate) wait: Vec<String>,
    /// These and those that run: none that has ended, or is to.
    pub(crate) there: BTreeSet<String>,
    /// Those of which something runs in the runtime.
    pub(crate) run: BTreeSet<String>,
    /// Of where pods come from, all was read.
    pub(crate) are_all: bool,
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
    /// The half of the suspects that was begun and is watched, and until when.
    watched: Vec<String>,
    until: Moment,
    /// How many suspects wait behind these.
    suspects_left: usize,
    /// Who was there when the run began: runs before may have begun them.
    old: BTreeSet<String>,
    /// That these are all.
    knows_old: bool,
    /// What runs is taken up at once.
    takes_up: bool,
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
        let care = record.needs_care().map(|ends| Care {
            began: now,
            next: now + CLOUD_WITHIN,
            group: 1,
            begun: BTreeSet::new(),
            watch: Duration::from_secs(record.watch).clamp(BETWEEN, WELL),
            watched: Vec::new(),
            until: now,
            suspects_left: record.suspects.len(),
            old: BTreeSet::new(),
            knows_old: false,
            takes_up: ends <= TAKEN_UP,
        });
        let culprits = record.culprits.iter().map(|(uid, ends)| (uid.clone(), now + pause(*ends)));
        CarefulStart { care, culprits: culprits.collect(), trial: None }
    }

    /// Pods begin a few at a time, or not yet.
    pub(crate) fn needs_care(&self) -> bool {
        self.care.is_some()
    }

    /// What runs is taken up at once, so it is worth knowing what does.
    pub(crate) fn takes_up(&self) -> bool {
        self.care.as_ref().is_some_and(|care| care.takes_up)
    }

    /// There is a link to the cloud. Answers whether pods begin earlier for it.
    pub(crate) fn link_is_up(&mut self, now: Moment) -> bool {
        let Some(care) = self.care.as_mut().filter(|care| care.begun.is_empty()) else { return false };
        let is_earlier = now + CLOUD_SPEAKS < care.next;
        care.next = care.next.min(now + CLOUD_SPEAKS);
        is_earlier
    }

    /// What becomes of the pods that wait to be begun. What changes in the record is to be kept before they are.
    pub(crate) fn release(&mut self, record: &mut RunRecord, pods: &Pods, now: Moment) -> Release {
        self.end_trial(record, now);
        let (culprits, others): (Vec<String>, Vec<String>) =
            pods.wait.iter().cloned().partition(|uid| self.culprits.contains_key(uid));
        let mut release = Release::default();
        if let Some(care) = &mut self.care {
            match care.release(record, pods, others, now) {
                Some(careful) => release = careful,
                None => {
                    self.care = None;
                    record.suspects.clear();
                    record.newcomers.clear();
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

    /// Why a pod is held that [`CarefulStart::release`] has held.
    pub(crate) fn why(&self, record: &RunRecord, uid: &str, now: Moment) -> Option<Why> {
        if let Some(ends) = record.ends_by(uid) {
            return Some(Why::Culprit { ends });
        }
        self.care.as_ref().map(|care| care.why(record, uid, now))
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
    fn release(
        &mut self,
        record: &mut RunRecord,
        pods: &Pods,
        wait: Vec<String>,
        now: Moment,
    ) -> Option<Release> {
        let (taken_up, wait): (Vec<String>, Vec<String>) =
            wait.into_iter().partition(|uid| self.takes_up && pods.run.contains(uid));
        self.take_up(record, taken_up, now);
        let wait: Vec<String> = wait.into_iter().filter(|uid| !self.begun.contains(uid)).collect();
        self.tell_newcomers(record, pods, &wait);
        self.clear(record, pods, now);
        let suspects: Vec<String> = wait.iter().filter(|uid| record.is_suspect(uid)).cloned().collect();
        if suspects.is_empty() && self.watched.is_empty() {
            if self.began + WELL <= now {
                return None;
            }
            // Those that were begun beside the halves are now as good as any that this run has begun.
            if self.is_under_way(now) {
                record.suspects.clear();
            }
        }
        let begun = self.group(record, &wait, &suspects, now);
        if !begun.is_empty() {
            self.next = now + BETWEEN;
            self.begun.extend(begun.iter().cloned());
            record.begun.extend(begun.iter().cloned());
            record.newcomers.retain(|uid| !begun.contains(uid));
            record.first_begun.get_or_insert(now.since(self.began).as_secs());
        }
        self.suspects_left = suspects.iter().filter(|uid| !begun.contains(uid)).count();
        let held: BTreeSet<String> = wait.iter().filter(|uid| !begun.contains(uid)).cloned().collect();
        let is_over = held.is_empty() && self.watched.is_empty();
        let has_newcomers = held.iter().any(|uid| record.is_newcomer(uid));
        let again = if has_newcomers { self.next } else { self.next.max(self.until) };
        // When it is over is looked at, too, so that it is said.
        let again = if is_over { self.began + WELL } else { again };
        Some(Release { held, begun, again: Some(again) })
    }

    /// These go on beside whoever is watched, and are suspects as they are.
    fn take_up(&self, record: &mut RunRecord, taken_up: Vec<String>, now: Moment) {
        for uid in taken_up {
            if !record.suspects.is_empty() && !record.is_suspect(&uid) {
                record.suspects.push(uid.clone());
            }
            if !record.begun.contains(&uid) {
                record.begun.push(uid);
                record.first_begun.get_or_insert(now.since(self.began).as_secs());
            }
        }
    }

    /// Pods may begin.
    fn is_under_way(&self, now: Moment) -> bool {
        !self.begun.is_empty() || self.next <= now
    }

    /// Whoever was not there when the run began was begun by none before it.
    fn tell_newcomers(&mut self, record: &mut RunRecord, pods: &Pods, wait: &[String]) {
        for uid in wait {
            if self.old.contains(uid) || record.is_newcomer(uid) {
                continue;
            }
            if self.knows_old {
                record.newcomers.push(uid.clone());
            } else {
                self.old.insert(uid.clone());
            }
        }
        self.knows_old |= pods.are_all;
        if self.knows_old {
            record.newcomers.retain(|uid| wait.contains(uid));
        }
    }

    /// Those are no suspects any more with whom the run has lived on, and those that have ended, or are to, before they were begun.
    fn clear(&mut self, record: &mut RunRecord, pods: &Pods, now: Moment) {
        if self.until <= now || !self.watched.iter().any(|uid| pods.there.contains(uid)) {
            record.suspects.retain(|uid| !self.watched.contains(uid));
            self.watched.clear();
            self.until = self.until.min(now);
        }
        if self.is_under_way(now) {
            // One that was begun is in question for as long as those that were begun with it.
            record.suspects.retain(|uid| pods.there.contains(uid) || record.begun.contains(uid));
        }
    }

    /// Half of the suspects, as long as there are any: they are watched by themselves, so that it is known of whom the run ends. Beside
    /// them those begin alone that no run has begun before, a few at a time, and are suspects as they are. Then the others.
    fn group(
        &mut self,
        record: &mut RunRecord,
        wait: &[String],
        suspects: &[String],
        now: Moment,
    ) -> Vec<String> {
        if self.next > now {
            return Vec::new();
        }
        if suspects.is_empty() && self.watched.is_empty() {
            return self.few(wait.iter());
        }
        let mut begun = self.few(wait.iter().filter(|uid| record.is_newcomer(uid)));
        record.suspects.extend(begun.iter().cloned());
        if self.watched.is_empty() {
            self.watched = suspects.iter().take(half(suspects.len())).cloned().collect();
            self.until = now + self.watch;
            begun.extend(self.watched.iter().cloned());
        }
        begun
    }

    /// The first of these, each time twice as many as the time before.
    fn few<'a>(&mut self, of: impl Iterator<Item = &'a String>) -> Vec<String> {
        let group: Vec<String> = of.take(self.group).cloned().collect();
        if !group.is_empty() {
            self.group = self.group.saturating_mul(2);
        }
        group
    }

    /// See [`CarefulStart::why`].
    fn why(&self, record: &RunRecord, uid: &str, now: Moment) -> Why {
        let wait = |until: Moment, rounds: u32| until.since(now) + self.watch * rounds;
        let free = self.next.max(self.until);
        let rounds = rounds(self.suspects_left);
        if record.is_suspect(uid) {
            return Why::Suspect { within: wait(free, rounds.saturating_sub(1)) };
        }
        let many = self.suspects_left + self.watched.len();
        if many > 0 && !record.is_newcomer(uid) {
            return Why::Suspects { many, watch: self.watch, within: wait(free, rounds) };
        }
        let within = wait(self.next, 0);
        if self.begun.is_empty() { Why::Cloud { within } } else { Why::Turn { within } }
    }
}

/// How many of so many suspects begin.
fn half(suspects: usize) -> usize {
    (suspects / 2).max(1)
}

/// How many halves there are of so many suspects, when the run lives on with all of them.
fn rounds(mut suspects: usize) -> u32 {
    let mut rounds = 0;
    while suspects > 0 {
        suspects -= half(suspects);
        rounds += 1;
    }
    rounds
}

#[cfg(test)]
#[path = "care_tests.rs"]
mod tests;
