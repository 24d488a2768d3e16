//! Which ends count, and which pods begin when. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use beehive::Moment;
use serde::{Deserialize, Serialize};

/// 3 ends in a row: two may be chance, and an administrator's hand.
const ENDS: u32 = 3;
/// 10 min: a run that lasted longer was well, whatever ended it.
const SHORT: u64 = 600;
/// 2 min without a word of the cloud: then the pods begin all the same.
const CLOUD_WITHIN: Duration = Duration::from_secs(120);
/// 10 s from the link's beginning: what the cloud has changed meanwhile is in the store by then.
const CLOUD_SPEAKS: Duration = Duration::from_secs(10);
/// 5 s between one group of pods and the next: an end in between is the last group's.
const BETWEEN: Duration = Duration::from_secs(5);

/// The run that goes on, or the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunRecord {
    /// The kernel's boot id.
    boot: String,
    /// When it began, in seconds since the machine did: no clock that anybody sets.
    began: u64,
    /// It was told to end.
    ended: bool,
    /// How many runs before it ended without that in a row, each soon after its begin, since the machine began.
    ends: u32,
    /// The pods that were begun last, by uid.
    begun: Vec<String>,
}

impl RunRecord {
    /// The record of a run that begins now, `since_boot` seconds after the machine. `before`: that of the run before.
    pub(crate) fn begin(before: Option<RunRecord>, boot: &str, since_boot: u64) -> RunRecord {
        // Without a boot id an end cannot be told from a power cut.
        let unclean = before.filter(|run| run.boot == boot && !boot.is_empty() && !run.ended);
        let (ends, begun) = match unclean {
            Some(run) if since_boot.saturating_sub(run.began) < SHORT => {
                (run.ends.saturating_add(1), run.begun)
            }
            Some(_) => (1, Vec::new()),
            None => (0, Vec::new()),
        };
        RunRecord { boot: boot.to_owned(), began: since_boot, ended: false, ends, begun }
    }

    /// The run was told to end.
    pub(crate) fn ended(self) -> RunRecord {
        RunRecord { ended: true, ..self }
    }

    /// These pods are begun now.
    pub(crate) fn beginning(&mut self, pods: &[String]) {
        pods.clone_into(&mut self.begun);
    }

    /// How many ends there were in a row, if they are so many that care is needed.
    pub(crate) fn needs_care(&self) -> Option<u32> {
        (self.ends >= ENDS && !self.ended).then_some(self.ends)
    }
}

/// Which pods begin when, in a run that needs care; in any other all at once.
#[derive(Debug, Default)]
pub(crate) struct CarefulStart(Option<Care>);

#[derive(Debug)]
struct Care {
    /// Those that were begun right before the last end.
    suspects: BTreeSet<String>,
    /// When the next group begins, and how many it is.
    next: Moment,
    group: usize,
    /// Those that were let go, be it that something else keeps them waiting.
    begun: BTreeSet<String>,
    /// The run has gone well.
    over: Moment,
}

/// What becomes of the pods that have not begun.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Release {
    /// They wait.
    pub(crate) held: BTreeSet<String>,
    /// They are begun now, and it is to be kept that they are.
    pub(crate) begun: Vec<String>,
    /// When to ask again.
    pub(crate) again: Option<Moment>,
}

impl CarefulStart {
    /// For the run of this record, whose pods are about to begin.
    pub(crate) fn of(record: &RunRecord, now: Moment) -> CarefulStart {
        CarefulStart(record.needs_care().map(|_| Care {
            suspects: record.begun.iter().cloned().collect(),
            next: now + CLOUD_WITHIN,
            group: 1,
            begun: BTreeSet::new(),
            over: now + Duration::from_secs(SHORT),
        }))
    }

    /// There is a link to the cloud. Answers whether pods begin earlier for it.
    pub(crate) fn link_is_up(&mut self, now: Moment) -> bool {
        let Some(care) = self.0.as_mut().filter(|care| care.begun.is_empty()) else { return false };
        let is_earlier = now + CLOUD_SPEAKS < care.next;
        care.next = care.next.min(now + CLOUD_SPEAKS);
        is_earlier
    }

    /// Whether this pod was begun right before the last end.
    pub(crate) fn is_suspect(&self, uid: &str) -> bool {
        self.0.as_ref().is_some_and(|care| care.suspects.contains(uid))
    }

    /// What becomes of the pods that `wait` to be begun, in their order.
    pub(crate) fn release(&mut self, wait: &[String], now: Moment) -> Release {
        let Some(care) = self.0.as_mut().filter(|care| now < care.over) else {
            self.0 = None;
            return Release::default();
        };
        let wait: Vec<String> = wait.iter().filter(|uid| !care.begun.contains(*uid)).cloned().collect();
        if wait.is_empty() {
            return Release::default();
        }
        let mut begun = Vec::new();
        if care.next <= now {
            begun = care.group(&wait);
            care.next = now + BETWEEN;
            care.begun.extend(begun.iter().cloned());
        }
        let held: BTreeSet<String> = wait.iter().filter(|uid| !begun.contains(uid)).cloned().collect();
        let again = (!held.is_empty()).then_some(care.next);
        Release { held, begun, again }
    }
}

impl Care {
    /// Twice as many as the time before; suspects one by one, when nobody else is left.
    fn group(&mut self, wait: &[String]) -> Vec<String> {
        let others: Vec<String> =
            wait.iter().filter(|uid| !self.suspects.contains(*uid)).take(self.group).cloned().collect();
        if others.is_empty() {
            return wait.first().cloned().into_iter().collect();
        }
        self.group = self.group.saturating_mul(2);
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn uids(uids: &[&str]) -> Vec<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    /// The record after runs that began so, each ended by itself.
    fn after(runs: &[(&str, u64)]) -> RunRecord {
        runs.iter().fold(None, |before, (boot, began)| Some(RunRecord::begin(before, boot, *began))).unwrap()
    }

    #[test]
    fn only_short_runs_of_one_boot_that_nobody_ended_count() {
        let ends = |runs: &[(&str, u64)]| after(runs).needs_care();
        assert_eq!(ends(&[("a", 10), ("a", 20), ("a", 30)]), None, "two ends");
        assert_eq!(ends(&[("a", 10), ("a", 20), ("a", 30), ("a", 40)]), Some(3));
        // A ship whose power fails six times in an hour, and each time twice while it starts.
        let cuts: Vec<(String, u64)> = (0..12).map(|cut| (format!("boot-{cut}"), 9)).collect();
        let cuts: Vec<(&str, u64)> = cuts.iter().map(|(boot, began)| (boot.as_str(), *began)).collect();
        assert!((1..=12).all(|cuts_so_far| ends(&cuts[..cuts_so_far]).is_none()));
        // A run that was well for ten minutes begins the count anew; so does one that was told to end.
        assert_eq!(ends(&[("a", 10), ("a", 20), ("a", 30), ("a", 630), ("a", 640)]), None);
        let told = after(&[("a", 10), ("a", 20), ("a", 30), ("a", 40)]).ended();
        assert_eq!(RunRecord::begin(Some(told), "a", 50).needs_care(), None);
        // A machine that says no boot id.
        assert_eq!(ends(&[("", 1), ("", 2), ("", 3), ("", 4), ("", 5)]), None);
        assert_eq!(after(&[("a", 10), ("b", 20)]).ends, 0, "the last run of another boot");
    }

    #[test]
    fn the_cloud_speaks_first_and_the_last_to_begin_begin_last() {
        let mut record = after(&[("a", 10), ("a", 20), ("a", 30)]);
        record.beginning(&uids(&["c"]));
        let record = RunRecord::begin(Some(record), "a", 40);
        let wait = uids(&["a", "b", "c", "d", "e"]);
        let mut start = CarefulStart::of(&record, at(100));
        assert!(start.is_suspect("c") && !start.is_suspect("a"));
        let held = start.release(&wait, at(100));
        assert_eq!((held.held.len(), held.begun.len(), held.again), (5, 0, Some(at(220))));
        assert!(start.link_is_up(at(130)) && !start.link_is_up(at(131)));
        assert_eq!(start.release(&wait, at(139)).again, Some(at(140)));
        let mut rest = wait;
        let mut groups = Vec::new();
        let mut now = at(140);
        while !rest.is_empty() {
            let Release { held, begun, again } = start.release(&rest, now);
            rest.retain(|uid| held.contains(uid));
            groups.push(begun);
            now = again.unwrap_or(now);
        }
        assert_eq!(start.release(&uids(&["a"]), now), Release::default(), "whatever else it waits for");
        assert_eq!(groups, [uids(&["a"]), uids(&["b", "d"]), uids(&["e"]), uids(&["c"])]);
        // Who comes later is one more group; and after ten minutes there is no care any more.
        let late = uids(&["f"]);
        assert_eq!(start.release(&late, now).held.len(), 1);
        assert_eq!(start.release(&late, at(700)), Release::default());
    }

    #[test]
    fn without_a_cloud_the_pods_begin_after_two_minutes_and_without_faults_at_once() {
        let record = after(&[("a", 10), ("a", 20), ("a", 30), ("a", 40)]);
        let mut start = CarefulStart::of(&record, at(0));
        assert!(start.release(&uids(&["a"]), at(119)).begun.is_empty());
        assert_eq!(start.release(&uids(&["a"]), at(120)).begun, ["a"]);
        let mut usual = CarefulStart::of(&after(&[("a", 10), ("a", 20)]), at(0));
        assert_eq!(usual.release(&uids(&["a"]), at(0)), Release::default());
    }
}
