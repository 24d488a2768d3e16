//! `/metrics`: the kubelet's own families that are known here, and EdgeCore's counters.

use beehive::Metrics;

use crate::stats::exposition::{Exposition, borrowed};
use crate::stats::sample::Sample;

/// What Edged and the calls of its runtime count: the families and their meanings, which are the kubelet's.
const COUNTED: [(&str, &str); 10] = [
    ("kubelet_admission_rejections_total", "Cumulative number pod admission rejections by the Kubelet."),
    ("kubelet_evictions", "Cumulative number of pod evictions by eviction signal"),
    (
        "kubelet_runtime_operations_errors_total",
        "Cumulative number of runtime operation errors by operation type.",
    ),
    ("kubelet_runtime_operations_total", "Cumulative number of runtime operations by operation type."),
    ("kubelet_started_containers_errors_total", "Cumulative number of errors when starting containers"),
    ("kubelet_started_containers_total", "Cumulative number of containers started"),
    ("kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods"),
    ("kubelet_started_pods_total", "Cumulative number of pods started"),
    (
        "kubelet_started_user_namespaced_pods_errors_total",
        "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux.",
    ),
    (
        "kubelet_started_user_namespaced_pods_total",
        "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux.",
    ),
];
/// Those of which the sizes are counted.
const MEASURED: [(&str, &str); 6] = [
    (
        "kubelet_cgroup_manager_duration_seconds",
        "Duration in seconds for cgroup manager operations. Broken down by method.",
    ),
    ("kubelet_pleg_relist_duration_seconds", "Duration in seconds for relisting pods in PLEG."),
    ("kubelet_pleg_relist_interval_seconds", "Interval in seconds between relisting in PLEG."),
    (
        "kubelet_pod_start_duration_seconds",
        "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
    ),
    (
        "kubelet_pod_worker_duration_seconds",
        "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
    ),
    (
        "kubelet_runtime_operations_duration_seconds",
        "Duration in seconds of runtime operations. Broken down by operation type.",
    ),
];

fn counted(page: &mut Exposition, metrics: &Metrics) {
    for (family, help) in COUNTED {
        for (labels, count) in metrics.labelled(family) {
            page.counter(family, help).count(&borrowed(&labels), &count);
        }
    }
    for (family, help) in MEASURED {
        for (labels, count) in metrics.labelled(family) {
            page.histogram(family, help).count(&borrowed(&labels), &count);
        }
    }
}

/// The page. `metrics`: what EdgeCore has counted.
pub(crate) fn page(node: &str, sample: Option<&Sample>, metrics: &Metrics) -> String {
    let mut page = Exposition::default();
    counted(&mut page, metrics);
    page.gauge("kubelet_node_name", "The node's name. The count is always 1.").add(
        &[("node", node)],
        1.0,
        None,
    );
    if let Some(sample) = sample {
        let help = "Number of pods that have a running pod sandbox";
        page.gauge("kubelet_running_pods", help).add(&[], sample.pods.len() as f64, None);
        let running = [("container_state", "running")];
        let help = "Number of containers currently running";
        page.gauge("kubelet_running_containers", help).add(&running, sample.containers.len() as f64, None);
        for own in &sample.containers {
            let labels = [
                ("container", own.name.as_str()),
                ("namespace", &own.pod.namespace),
                ("pod", &own.pod.name),
                ("uid", &own.uid),
            ];
            if let Some(bytes) = own.logs.used {
                let help = "Bytes used by the container's logs on the filesystem.";
                page.gauge("kubelet_container_log_filesystem_used_bytes", help).add(
                    &labels,
                    bytes as f64,
                    None,
                );
            }
        }
    }
    let help = "How often an event of EdgeCore's was counted since it began";
    for (event, count) in metrics.counters() {
        page.counter("kubehive_edge_events_total", help).add(&[("event", event)], count as f64, None);
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::sample;

    #[test]
    fn the_node_its_pods_and_its_events_are_counted() {
        let metrics = Metrics::default();
        metrics.add("edgehub_linked", 3);
        let operation = || vec![("operation_type", "run_podsandbox".to_owned())];
        let made = metrics.counter("kubelet_runtime_operations_total", operation());
        made.count();
        let took = metrics.histogram("kubelet_runtime_operations_duration_seconds", &[0.5], operation());
        took.observe(0.25);
        let text = page("n", Some(&sample()), &metrics);
        for line in [
            "kubelet_node_name{node=\"n\"} 1",
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "kubelet_container_log_filesystem_used_bytes{container=\"c\",namespace=\"d\",pod=\"p\",uid=\"u\"} 5",
            "kubehive_edge_events_total{event=\"edgehub_linked\"} 3",
            "# TYPE kubelet_runtime_operations_total counter",
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
            "# TYPE kubelet_runtime_operations_duration_seconds histogram",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"run_podsandbox\",le=\"0.5\"} 1",
            "kubelet_runtime_operations_duration_seconds_sum{operation_type=\"run_podsandbox\"} 0.25",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
        assert!(page("n", None, &Metrics::default()).contains("kubelet_node_name"));
    }
}
