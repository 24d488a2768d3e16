//! How long what there was to do for a pod took, and its start, as a kubelet counts it.

use std::collections::BTreeSet;

use beehive::Moment;

use crate::kubelet_metrics::KubeletMetrics;
use crate::pod::action::Action;

/// Of one pod's worker.
#[derive(Debug)]
pub(crate) struct SyncTimes {
    /// When the node took the pod up, until it runs; `None` for one that an earlier worker took up.
    seen: Option<Moment>,
    /// Since when there is something to do.
    busy: Option<Moment>,
    operation: &'static str,
}

impl SyncTimes {
    /// `is_new`: nothing was reported of the pod yet.
    pub(crate) fn new(is_new: bool, now: Moment) -> SyncTimes {
        let operation = if is_new { "create" } else { "sync" };
        SyncTimes { seen: is_new.then_some(now), busy: None, operation }
    }

    /// The pod has changed.
    pub(crate) fn updated(&mut self) {
        if self.operation == "sync" {
            self.operation = "update";
        }
    }

    /// What is under way now.
    pub(crate) fn note(&mut self, busy: &BTreeSet<Action>, now: Moment, counts: &KubeletMetrics) {
        let works = busy.iter().any(|action| *action != Action::Report);
        match (works, self.busy) {
            (true, None) => self.busy = Some(now),
            (false, Some(since)) => {
                counts.pod_synced(self.operation, now.since(since));
                self.busy = None;
                self.operation = "sync";
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The phase that is reported.
    pub(crate) fn is_in(&mut self, phase: &str, now: Moment, counts: &KubeletMetrics) {
        if phase == "Running"
            && let Some(seen) = self.seen.take()
        {
            counts.pod_runs(now.since(seen));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use beehive::{Count, Metrics};

    use super::*;

    #[test]
    fn a_start_counts_once_and_work_by_its_kind() {
        let metrics = Metrics::default();
        let counts = KubeletMetrics::new(&metrics);
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let mut times = SyncTimes::new(true, at(1));
        let busy = BTreeSet::from([Action::Volumes]);
        times.note(&busy, at(1), &counts);
        times.is_in("Pending", at(2), &counts);
        times.note(&busy, at(3), &counts);
        times.note(&BTreeSet::from([Action::Report]), at(4), &counts);
        for second in [5, 6] {
            times.is_in("Running", at(second), &counts);
        }
        times.updated();
        times.note(&busy, at(7), &counts);
        times.note(&BTreeSet::new(), at(8), &counts);
        let starts = metrics.labelled("kubelet_pod_start_duration_seconds");
        assert!(matches!(&starts[0].1, Count::Sizes { count: 1, sum, .. } if *sum == 4.0), "{starts:?}");
        let synced = metrics.labelled("kubelet_pod_worker_duration_seconds");
        let shown: Vec<_> = synced
            .iter()
            .map(|(labels, count)| match count {
                Count::Sizes { count, sum, .. } => (labels[0].1.as_str(), *count, *sum),
                Count::Times(_) => panic!("{synced:?}"),
            })
            .collect();
        assert_eq!(shown, [("create", 1, 3.0), ("update", 1, 1.0)]);
        let mut taken_over = SyncTimes::new(false, at(9));
        taken_over.is_in("Running", at(9), &counts);
        assert!(matches!(
            &metrics.labelled("kubelet_pod_start_duration_seconds")[0].1,
            Count::Sizes { count: 1, .. }
        ));
    }
}
