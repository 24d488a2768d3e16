//! `/metrics`: the kubelet's own families that are known here, and EdgeCore's counters.

use std::collections::BTreeMap;

use beehive::Metrics;

use contract::volume_stats::{VolumeUsage, VolumesOfPods};

use crate::stats::exposition::{Exposition, borrowed};
use crate::stats::process::{self, Process};
use crate::stats::sample::Sample;

/// What Edged and the calls of its runtime count: the families and their meanings, which are the kubelet's.
const COUNTED: [(&str, &str); 11] = [
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
    ("kubelet_terminated_containers_total", "Cumulative number of container terminations."),
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

/// The page. `version`: as the Node says it. `metrics`: what EdgeCore has counted.
pub(crate) fn page(
    (node, version): (&str, &str),
    own: &Process,
    sample: Option<&Sample>,
    volumes: &VolumesOfPods,
    metrics: &Metrics,
) -> String {
    let mut page = Exposition::default();
    counted(&mut page, metrics);
    process::put(&mut page, own);
    process::put_build(&mut page, version);
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
        of_claims(&mut page, sample, volumes);
    }
    let help = "How often an event of EdgeCore's was counted since it began";
    for (event, count) in metrics.counters() {
        page.counter("kubehive_edge_events_total", help).add(&[("event", event)], count as f64, None);
    }
    page.text()
}

/// A figure of a claim's volume: its name, its help, and where it is.
type Figure = (&'static str, &'static str, fn(&VolumeUsage) -> u64);

const OF_CLAIMS: [Figure; 6] = [
    ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |usage| usage.capacity),
    ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |usage| {
        usage.available
    }),
    ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |usage| usage.used),
    ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |usage| usage.inodes),
    ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |usage| usage.inodes_free),
    ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |usage| usage.inodes_used),
];

/// The volumes of claims, each claim once however many pods have it.
fn of_claims(page: &mut Exposition, sample: &Sample, volumes: &VolumesOfPods) {
    let mut claims: BTreeMap<(&str, &str), &VolumeUsage> = BTreeMap::new();
    for pod in &sample.pods {
        for volume in volumes.get(&pod.uid).into_iter().flatten() {
            if let Some(claim) = &volume.claim {
                claims.entry((&pod.pod.namespace, claim)).or_insert(&volume.usage);
            }
        }
    }
    for (name, help, value) in OF_CLAIMS {
        for ((namespace, claim), usage) in &claims {
            let labels = [("namespace", *namespace), ("persistentvolumeclaim", *claim)];
            page.gauge(name, help).add(&labels, value(usage) as f64, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::{sample, volumes};

    #[test]
    fn the_node_its_pods_and_its_events_are_counted() {
        let metrics = Metrics::default();
        metrics.add("edgehub_linked", 3);
        let operation = || vec![("operation_type", "run_podsandbox".to_owned())];
        let made = metrics.counter("kubelet_runtime_operations_total", operation());
        made.count();
        let took = metrics.histogram("kubelet_runtime_operations_duration_seconds", &[0.5], operation());
        took.observe(0.25);
        let own = Process { open_files: 7, ..Process::default() };
        let text = page(("n", "v1.33.0"), &own, Some(&sample()), &volumes(), &metrics);
        for line in [
            "kubelet_node_name{node=\"n\"} 1",
            "process_open_fds 7",
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "kubelet_container_log_filesystem_used_bytes{container=\"c\",namespace=\"d\",pod=\"p\",uid=\"u\"} 5",
            "kubelet_volume_stats_capacity_bytes{namespace=\"d\",persistentvolumeclaim=\"data\"} 1000",
            "kubelet_volume_stats_used_bytes{namespace=\"d\",persistentvolumeclaim=\"data\"} 100",
            "kubelet_volume_stats_inodes_used{namespace=\"d\",persistentvolumeclaim=\"data\"} 3",
            "kubehive_edge_events_total{event=\"edgehub_linked\"} 3",
            "# TYPE kubelet_runtime_operations_total counter",
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
            "# TYPE kubelet_runtime_operations_duration_seconds histogram",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"run_podsandbox\",le=\"0.5\"} 1",
            "kubelet_runtime_operations_duration_seconds_sum{operation_type=\"run_podsandbox\"} 0.25",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
        let bare = page(("n", "v1.33.0"), &own, None, &volumes(), &Metrics::default());
        assert!(bare.contains("kubelet_node_name") && bare.contains("kubernetes_build_info{"));
    }
}
