//! What a kubelet counts of itself and Edged, too: the families of `/metrics` by which Prometheus' rules and dashboards know a
//! kubelet (pkg/kubelet/metrics/metrics.go). The labels have a few values each, whatever pods ask for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Counter, Metrics};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};

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

/// The ends of containers that are counted by the runtime's word; the others are one.
const ENDS: [&str; 6] =
    ["Completed", "ContainerCannotRun", "ContainerStatusUnknown", "Error", "OOMKilled", "StartError"];

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

    /// A pod's status was reported, and `before` was the one before it. As with a kubelet a container that ended between two reports and
    /// was started again is not counted: it never showed as ended.
    pub(crate) fn containers_ended(&self, before: Option<&PodStatus>, now: &PodStatus) {
        for kind in [ContainerType::Init, ContainerType::Main, ContainerType::Ephemeral] {
            let known = before.map(|before| statuses_of(before, kind)).unwrap_or_default();
            for status in statuses_of(now, kind) {
                let Some(ended) = status.state.as_ref().and_then(|state| state.terminated.as_ref()) else {
                    continue;
                };
                let before = known.iter().find(|known| known.name == status.name);
                // Right before it is started again it shows as ended once more.
                if before.is_none_or(|known| ends_of(known).all(|earlier| !is_same_end(earlier, ended))) {
                    self.container_ended(kind, ended);
                }
            }
        }
    }

    fn container_ended(&self, kind: ContainerType, ended: &ContainerStateTerminated) {
        let reason = ended.reason.as_deref().unwrap_or_default();
        let shown = ENDS.iter().find(|own| **own == reason).copied().unwrap_or("Other");
        let labels = vec![
            ("container_type", kind.word().to_owned()),
            ("exit_code", ended.exit_code.to_string()),
            ("reason", shown.to_owned()),
        ];
        self.count("kubelet_terminated_containers_total", labels);
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

fn statuses_of(status: &PodStatus, kind: ContainerType) -> &[ContainerStatus] {
    let of_kind = match kind {
        ContainerType::Init => &status.init_container_statuses,
        ContainerType::Main => &status.container_statuses,
        ContainerType::Ephemeral => &status.ephemeral_container_statuses,
    };
    of_kind.as_deref().unwrap_or_default()
}

/// The ends that a status tells of: the container's own, and that of the one before it.
fn ends_of(status: &ContainerStatus) -> impl Iterator<Item = &ContainerStateTerminated> {
    [&status.state, &status.last_state].into_iter().filter_map(|state| state.as_ref()?.terminated.as_ref())
}

/// One that never came to be in the runtime has no id, and ends once.
fn is_same_end(one: &ContainerStateTerminated, other: &ContainerStateTerminated) -> bool {
    one.container_id == other.container_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::Count;
    use serde_json::json;

    #[test]
    fn each_end_of_a_container_is_counted_once() {
        let metrics = Metrics::default();
        let own = KubeletMetrics::new(&metrics);
        let status = |state: serde_json::Value, last: serde_json::Value| -> PodStatus {
            let container = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": state, "lastState": last});
            serde_json::from_value(json!({"containerStatuses": [container]})).unwrap()
        };
        let end = |code: i32, reason: &str, id: &str| json!({"terminated": {"exitCode": code, "reason": reason, "containerID": id}});
        let running = json!({"running": {}});
        let steps = [
            status(running.clone(), json!({})),
            status(end(139, "Error", "a"), json!({})),
            status(end(139, "Error", "a"), json!({})),
            status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), end(139, "Error", "a")),
            // As it is shown between its back-off and its start.
            status(end(139, "Error", "a"), json!({})),
            status(running.clone(), end(139, "Error", "a")),
            status(end(0, "Completed", "b"), end(139, "Error", "a")),
            status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), end(0, "Completed", "b")),
            status(end(0, "Completed", "b"), end(139, "Error", "a")),
            // What `RestartAllContainers` makes up of those that it ends.
            status(running, end(137, "RestartingAllContainers", "")),
            status(end(1, "whatever a runtime says", "c"), end(0, "Completed", "b")),
        ];
        let mut before = None;
        for step in &steps {
            own.containers_ended(before, step);
            before = Some(step);
        }
        let shown: Vec<(String, String, Count)> = metrics
            .labelled("kubelet_terminated_containers_total")
            .into_iter()
            .map(|(labels, count)| (labels[1].1.clone(), labels[2].1.clone(), count))
            .collect();
        let wanted = [("0", "Completed"), ("1", "Other"), ("139", "Error")];
        assert_eq!(shown, wanted.map(|(code, reason)| (code.to_owned(), reason.to_owned(), Count::Times(1))));
    }

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
