//! What a kubelet counts of itself and Edged, too: the families of `/metrics` by which Prometheus' rules and dashboards know a
//! kubelet (pkg/kubelet/metrics/metrics.go). The labels have a few values each, whatever pods ask for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Counter, Metrics};

/// Seconds: the bounds that Prometheus' clients have by default.
const USUAL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds: the kubelet's of a pod's start.
const OF_STARTS: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// The reasons of admission that are counted by their names; the others are one.
const REJECTIONS: [&str; 20] = [
    "AppArmor",
    "Evicted",
    "InvalidNodeInfo",
    "NodeAffinity",
    "NodeName",
    "NodePorts",
    "NodeShutdown",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfpods",
    "OutOfephemeral-storage",
    "PodFeatureUnsupported",
    "PodOSNotSupported",
    "PodOSSelectorNodeLabelDoesNotMatch",
    "SMTAlignmentError",
    "SupplementalGroupsPolicyNotSupported",
    "SysctlForbidden",
    "TaintToleration",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
];

/// What kind a container is of, as the kubelet's labels say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerType {
    Init,
    Main,
    Ephemeral,
}

impl ContainerType {
    fn word(self) -> &'static str {
        match self {
            ContainerType::Init => "init_container",
            ContainerType::Main => "container",
            ContainerType::Ephemeral => "ephemeral_container",
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// The families. Each series is there once it has something to count, and as long as this incarnation of Edged.
pub(crate) struct KubeletMetrics {
    metrics: Metrics,
    held: RefCell<BTreeMap<(&'static str, Labels), Counter>>,
}

impl KubeletMetrics {
    pub(crate) fn new(metrics: &Metrics) -> KubeletMetrics {
        KubeletMetrics { metrics: metrics.clone(), held: RefCell::default() }
    }

    fn count(&self, family: &'static str, labels: Labels) {
        let mut held = self.held.borrow_mut();
        let make = || self.metrics.counter(family, labels.clone());
        held.entry((family, labels.clone())).or_insert_with(make).count();
    }

    fn observe(&self, family: &'static str, bounds: &'static [f64], labels: Labels, took: Duration) {
        let mut held = self.held.borrow_mut();
        let make = || self.metrics.histogram(family, bounds, labels.clone());
        held.entry((family, labels.clone())).or_insert_with(make).observe(took.as_secs_f64());
    }

    /// A sandbox was asked for.
    pub(crate) fn pod_begun(&self) {
        self.count("kubelet_started_pods_total", Vec::new());
    }

    /// It could not be made.
    pub(crate) fn pod_failed(&self) {
        self.count("kubelet_started_pods_errors_total", Vec::new());
    }

    /// A pod with users of its own got a sandbox.
    pub(crate) fn user_namespaced_pod(&self, is_made: bool) {
        let family = if is_made {
            "kubelet_started_user_namespaced_pods_total"
        } else {
            "kubelet_started_user_namespaced_pods_errors_total"
        };
        self.count(family, Vec::new());
    }

    /// A pod runs, so long after it was seen first.
    pub(crate) fn pod_runs(&self, after: Duration) {
        self.observe("kubelet_pod_start_duration_seconds", OF_STARTS, Vec::new(), after);
    }

    /// What there was to do for a pod is done. `operation`: `create`, `update` or `sync`.
    pub(crate) fn pod_synced(&self, operation: &'static str, took: Duration) {
        let labels = vec![("operation_type", operation.to_owned())];
        self.observe("kubelet_pod_worker_duration_seconds", USUAL, labels, took);
    }

    /// A container was asked for.
    pub(crate) fn container_begun(&self, kind: ContainerType) {
        let labels = vec![("container_type", kind.word().to_owned())];
        self.count("kubelet_started_containers_total", labels);
    }

    /// It did not start. `code`: as in `state.waiting.reason`.
    pub(crate) fn container_failed(&self, kind: ContainerType, code: &'static str) {
        let labels = vec![("code", code.to_owned()), ("container_type", kind.word().to_owned())];
        self.count("kubelet_started_containers_errors_total", labels);
    }

    /// The runtime was listed as a whole. `since`: the last time.
    pub(crate) fn relisted(&self, took: Duration, since: Option<Duration>) {
        self.observe("kubelet_pleg_relist_duration_seconds", USUAL, Vec::new(), took);
        if let Some(since) = since {
            self.observe("kubelet_pleg_relist_interval_seconds", USUAL, Vec::new(), since);
        }
    }

    /// A pod's cgroups were changed. `operation`: `create`, `update` or `destroy`.
    pub(crate) fn cgroups_changed(&self, operation: &'static str, took: Duration) {
        let labels = vec![("operation_type", operation.to_owned())];
        self.observe("kubelet_cgroup_manager_duration_seconds", USUAL, labels, took);
    }

    /// A pod was told to go because of a signal.
    pub(crate) fn evicted(&self, signal: &str) {
        self.count("kubelet_evictions", vec![("eviction_signal", signal.to_owned())]);
    }

    /// A pod was turned away.
    pub(crate) fn rejected(&self, reason: &str) {
        let known = REJECTIONS.iter().find(|own| **own == reason);
        let shown = match known {
            Some(own) => own,
            None if reason.starts_with("OutOf") => "OutOfExtendedResources",
            None => "Other",
        };
        self.count("kubelet_admission_rejections_total", vec![("reason", shown.to_owned())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Count;

    #[test]
    fn what_pods_ask_for_makes_no_new_series() {
        let metrics = Metrics::default();
        let own = KubeletMetrics::new(&metrics);
        for number in 0..100 {
            own.rejected(&format!("OutOfexample.com/{number}"));
            own.rejected(&format!("Reason{number}"));
        }
        own.rejected("OutOfcpu");
        let shown: Vec<(String, Count)> = metrics
            .labelled("kubelet_admission_rejections_total")
            .into_iter()
            .map(|(labels, count)| (labels[0].1.clone(), count))
            .collect();
        let wanted = [("Other", 100), ("OutOfExtendedResources", 100), ("OutOfcpu", 1)];
        assert_eq!(shown, wanted.map(|(reason, times)| (reason.to_owned(), Count::Times(times))));
    }

    #[test]
    fn a_series_is_there_once_something_was() {
        let metrics = Metrics::default();
        let own = KubeletMetrics::new(&metrics);
        assert!(metrics.labelled("kubelet_started_containers_total").is_empty());
        own.container_begun(ContainerType::Init);
        own.container_begun(ContainerType::Main);
        own.container_begun(ContainerType::Main);
        own.container_failed(ContainerType::Main, "CreateContainerError");
        own.pod_runs(Duration::from_millis(700));
        own.relisted(Duration::from_millis(2), None);
        assert_eq!(metrics.labelled("kubelet_started_containers_total").len(), 2);
        let failed = metrics.labelled("kubelet_started_containers_errors_total");
        assert_eq!(failed[0].0[0], ("code", "CreateContainerError".to_owned()));
        let starts = metrics.labelled("kubelet_pod_start_duration_seconds");
        let Count::Sizes { count, within, .. } = &starts[0].1 else { panic!("{starts:?}") };
        assert_eq!((*count, within[1]), (1, 1));
        assert!(metrics.labelled("kubelet_pleg_relist_interval_seconds").is_empty());
    }
}
