//! Which ends of EdgeCore count, and for which pods. Pure.
//!
//! Of the pods that a run has begun one may have ended it. The next run begins half of those alone, and watches them for as long as the
//! runs before have lived with theirs: whether it ends or lives on, half as many are left. So it comes to one pod, however long after its
//! begin that ends EdgeCore, and all others run. One that is left is begun once more by itself before it counts as the one: whatever else
//! ends EdgeCore, as an administrator's `kill -9` or another program's memory, ends any run, and nothing tells it from a pod's doing. The
//! one is tried again, after a pause that doubles each time.
//!
//! A pod that came later than those runs began theirs is under no suspicion, and does not wait for the halves. One that is begun beside a
//! half is a suspect as that is: if the run ends, it may be by either.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// 3 ends in a row: two may be chance, and an administrator's hand.
const ENDS: u32 = 3;
/// 10 min: a run that lasted longer was well, whatever ended it; and the first pause of a pod that ends EdgeCore.
pub(super) const SHORT: u64 = 600;
/// A day, the longest pause.
const PAUSE_MAX: u64 = 24 * 3600;

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
    /// The pods that it has begun with care, by uid.
    pub(super) begun: Vec<String>,
    /// When the first of them began, in seconds since the run did.
    pub(super) first_begun: Option<u64>,
    /// Those of which one has ended the runs before.
    pub(super) suspects: Vec<String>,
    /// How many seconds after its first pod the slowest of those runs had ended, and the next had begun.
    pub(super) watch: u64,
    /// Those that are known to end EdgeCore, and how often.
    pub(super) culprits: BTreeMap<String, u32>,
    /// The one of them that is tried again.
    pub(super) trial: Option<String>,
    /// Those that came in a run that begins pods with care, and that none has begun yet.
    #[serde(default)]
    pub(super) newcomers: Vec<String>,
}

impl RunRecord {
    /// Whether it began after this start of the machine.
    pub(crate) fn is_of_boot(&self, boot: &str) -> bool {
        self.boot == boot
    }

    /// The record of a run that begins now, `since_boot` seconds after the machine. `before`: that of the run before.
    pub(crate) fn begin(before: Option<RunRecord>, boot: &str, since_boot: u64) -> RunRecord {
        let next = RunRecord { boot: boot.to_owned(), began: since_boot, ..RunRecord::default() };
        // Without a boot id an end cannot be told from a power cut.
        match before.filter(|run| run.boot == boot && !boot.is_empty() && !run.ended) {
            Some(run) => run.blame(next),
            None => next,
        }
    }

    /// What is known when this run has ended without a word, and `next` begins.
    fn blame(mut self, next: RunRecord) -> RunRecord {
        let age = next.began.saturating_sub(self.began);
        let trial = self.trial.take();
        // A run in which somebody was watched says who it was, however long it was.
        let was_short = age < SHORT || !self.suspects.is_empty();
        let mut culprits = std::mem::take(&mut self.culprits);
        let mut convict = |uid: &String| *culprits.entry(uid.clone()).or_default() += 1;
        trial.iter().for_each(&mut convict);
        if !was_short {
            return RunRecord { ends: 1, culprits, ..next };
        }
        // Whom this run was to try alone, and has begun.
        let alone = match self.suspects.as_slice() {
            [one] => self.begun.iter().find(|uid| *uid == one).cloned(),
            _ => None,
        };
        let lasted = self.first_begun.map_or(0, |first| age.saturating_sub(first));
        let mut suspects = if trial.is_some() { self.suspects } else { narrowed(self.suspects, self.begun) };
        if let ([one], Some(alone)) = (suspects.as_slice(), &alone)
            && one == alone
        {
            convict(one);
            suspects.clear();
        }
        let (ends, watch) = (self.ends.saturating_add(1), self.watch.max(lasted));
        RunRecord { ends, suspects, watch, culprits, newcomers: self.newcomers, ..next }
    }

    /// The run was told to end.
    pub(crate) fn ended(self) -> RunRecord {
        RunRecord { ended: true, ..self }
    }

    /// How many ends there were in a row, if they are so many that care is needed.
    pub(crate) fn needs_care(&self) -> Option<u32> {
        (self.ends >= ENDS && !self.ended).then_some(self.ends)
    }

    /// How many pods may have ended the runs before.
    pub(crate) fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// Whether it may have been this pod that ended the runs before.
    pub(super) fn is_suspect(&self, uid: &str) -> bool {
        self.suspects.iter().any(|own| own == uid)
    }

    /// Whether none of the runs before can have begun this pod.
    pub(super) fn is_newcomer(&self, uid: &str) -> bool {
        self.newcomers.iter().any(|own| own == uid)
    }

    /// How often this pod has ended EdgeCore.
    pub(super) fn ends_by(&self, uid: &str) -> Option<u32> {
        self.culprits.get(uid).copied()
    }
}

/// Whom of the suspects the run that has ended has begun. It was somebody else where those are none; and where it has begun nobody at
/// all, nothing is known.
fn narrowed(suspects: Vec<String>, begun: Vec<String>) -> Vec<String> {
    if begun.is_empty() {
        return suspects;
    }
    let both: Vec<String> = suspects.into_iter().filter(|uid| begun.contains(uid)).collect();
    if both.is_empty() { begun } else { both }
}

/// How long a pod waits that has ended EdgeCore so often.
pub(crate) fn pause(ends: u32) -> Duration {
    let doubled = SHORT.saturating_mul(1 << ends.saturating_sub(1).min(16));
    Duration::from_secs(doubled.min(PAUSE_MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The record after runs that began so, each ended by itself.
    pub(crate) fn after(runs: &[(&str, u64)]) -> RunRecord {
        runs.iter().fold(None, |before, (boot, began)| Some(RunRecord::begin(before, boot, *began))).unwrap()
    }

    pub(crate) fn uids(uids: &[&str]) -> Vec<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
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
    fn each_end_leaves_fewer_to_suspect_and_the_last_one_is_named() {
        let mut run = after(&[("a", 10), ("a", 20), ("a", 30)]);
        (run.begun, run.first_begun) = (uids(&["a", "b", "c", "d"]), Some(12));
        let mut run = RunRecord::begin(Some(run), "a", 62);
        assert_eq!((run.suspects.clone(), run.watch), (uids(&["a", "b", "c", "d"]), 20));
        // Nothing was begun before it ended: nothing is learned.
        let mut same = RunRecord::begin(Some(run.clone()), "a", 70);
        assert_eq!(same.suspects, run.suspects);
        // Others than those are no suspects, unless it ended by them alone.
        run.begun = uids(&["x", "a", "b"]);
        let mut half = RunRecord::begin(Some(run), "a", 90);
        assert_eq!(half.suspects, uids(&["a", "b"]));
        same.begun = uids(&["x", "y"]);
        assert_eq!(RunRecord::begin(Some(same), "a", 99).suspects, uids(&["x", "y"]));
        // It was watched for longer than ten minutes: that counts all the same.
        half.begun = uids(&["x", "b"]);
        // One is left, and may have been begun when something else ended EdgeCore: it is begun once more by itself.
        let mut alone = RunRecord::begin(Some(half), "a", 2000);
        assert_eq!((alone.suspects.clone(), alone.ends_by("b")), (uids(&["b"]), None));
        let before_it = RunRecord::begin(Some(alone.clone()), "a", 2005);
        assert_eq!((before_it.suspects, before_it.culprits.len()), (uids(&["b"]), 0), "it was not begun");
        alone.begun = uids(&["b"]);
        let named = RunRecord::begin(Some(alone), "a", 2010);
        assert_eq!((named.ends_by("b"), named.ends_by("a"), named.ends), (Some(1), None, 6));
        assert!(named.suspects.is_empty());
        // A machine that lost its power, and who ends EdgeCore by word, begin anew.
        assert_eq!(RunRecord::begin(Some(named.clone()), "b", 9).ends_by("b"), None);
        assert_eq!(RunRecord::begin(Some(named.clone().ended()), "a", 2020).ends_by("b"), None);
        // It is known still after a run that was well.
        let mut well = RunRecord::begin(Some(named), "a", 4000);
        assert_eq!((well.ends, well.ends_by("b")), (1, Some(1)));
        well.trial = Some("b".to_owned());
        assert_eq!(RunRecord::begin(Some(well), "a", 9000).ends_by("b"), Some(2));
    }

    #[test]
    fn the_pause_doubles_to_a_day() {
        let seconds = [1, 2, 3, 8, 9, u32::MAX].map(|ends| pause(ends).as_secs());
        assert_eq!(seconds, [600, 1200, 2400, 76_800, 86_400, 86_400]);
    }
}
