//! How often a probe was made, with which outcome, and how long it took: a kubelet's families of `/metrics/probes`
//! (`pkg/kubelet/prober/prober_manager.go`). They go with the probe.

use std::cell::OnceCell;
use std::time::Duration;

use beehive::{Counter, Metrics};

use crate::pod::id::PodId;
use crate::pod::probes::plan::ProbeKind;
use crate::prober::{Answer, Tried};

/// The family of how often.
const TOTAL: &str = "prober_probe_total";
/// The family of how long.
const DURATION: &str = "prober_probe_duration_seconds";
/// Seconds: the bounds that Prometheus' clients have by default.
const BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The counters of one probe. Each is there once it has something to count.
pub(crate) struct ProbeCounters {
    metrics: Metrics,
    pod: PodId,
    container: String,
    kind: ProbeKind,
    successful: OnceCell<Counter>,
    failed: OnceCell<Counter>,
    unknown: OnceCell<Counter>,
    duration: OnceCell<Counter>,
}

impl ProbeCounters {
    pub(crate) fn new(metrics: &Metrics, pod: &PodId, container: &str, kind: ProbeKind) -> ProbeCounters {
        ProbeCounters {
            metrics: metrics.clone(),
            pod: pod.clone(),
            container: container.to_owned(),
            kind,
            successful: OnceCell::new(),
            failed: OnceCell::new(),
            unknown: OnceCell::new(),
            duration: OnceCell::new(),
        }
    }

    /// A check was made. One that failed does not count among those whose time is told.
    pub(crate) fn made(&self, tried: &Tried, took: Duration) {
        let (counter, result) = match tried {
            Ok(Answer::Success | Answer::Warning(_)) => (&self.successful, "successful"),
            Ok(Answer::Failure(_)) => (&self.failed, "failed"),
            Err(_) => (&self.unknown, "unknown"),
        };
        counter.get_or_init(|| self.total(result)).count();
        if result != "failed" {
            self.duration.get_or_init(|| self.durations()).observe(took.as_secs_f64());
        }
    }

    fn total(&self, result: &str) -> Counter {
        let labels = vec![
            ("container", self.container.clone()),
            ("namespace", self.pod.namespace.clone()),
            ("pod", self.pod.name.clone()),
            ("pod_uid", self.pod.uid.clone()),
            ("probe_type", self.kind.word().to_owned()),
            ("result", result.to_owned()),
        ];
        self.metrics.counter(TOTAL, labels)
    }

    fn durations(&self) -> Counter {
        let labels = vec![
            ("container", self.container.clone()),
            ("namespace", self.pod.namespace.clone()),
            ("pod", self.pod.name.clone()),
            ("probe_type", self.kind.word().to_owned()),
        ];
        self.metrics.histogram(DURATION, BOUNDS, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Count;

    #[test]
    fn a_probe_is_counted_by_its_outcome_and_forgotten_with_it() {
        let metrics = Metrics::default();
        let pod = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let counters = ProbeCounters::new(&metrics, &pod, "c", ProbeKind::Readiness);
        assert!(metrics.labelled(TOTAL).is_empty(), "before the first one there is nothing to tell");
        let took = Duration::from_millis(20);
        counters.made(&Ok(Answer::Success), took);
        counters.made(&Ok(Answer::Warning("redirected".into())), took);
        counters.made(&Ok(Answer::Failure("503".into())), took);
        counters.made(&Err("no runtime".to_owned().into()), took);
        let by_result: Vec<(String, Count)> = metrics
            .labelled(TOTAL)
            .into_iter()
            .map(|(labels, count)| (labels.last().unwrap().1.clone(), count))
            .collect();
        let expected = [("failed", 1), ("successful", 2), ("unknown", 1)];
        assert_eq!(by_result, expected.map(|(result, times)| (result.to_owned(), Count::Times(times))));
        let durations = metrics.labelled(DURATION);
        let [(labels, Count::Sizes { count, within, .. })] = durations.as_slice() else {
            panic!("{durations:?}")
        };
        assert_eq!((*count, within[2]), (3, 3), "not of the one that failed");
        assert_eq!(labels[3], ("probe_type", "Readiness".to_owned()));
        drop(counters);
        assert!(metrics.labelled(TOTAL).is_empty() && metrics.labelled(DURATION).is_empty());
    }
}
