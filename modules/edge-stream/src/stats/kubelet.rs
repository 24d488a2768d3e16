//! `/metrics`: the kubelet's own families that are known here, and EdgeCore's counters.

use std::collections::BTreeMap;

use contract::volume_stats::{VolumeUsage, VolumesOfPods};

use crate::stats::exposition::Exposition;
use crate::stats::sample::Sample;

/// The page. `counters`: EdgeCore's events and how often each was counted.
pub(crate) fn page(
    node: &str,
    sample: Option<&Sample>,
    volumes: &VolumesOfPods,
    counters: &BTreeMap<&'static str, u64>,
) -> String {
    let mut page = Exposition::default();
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
    for (event, count) in counters {
        page.counter("kubehive_edge_events_total", help).add(&[("event", event)], *count as f64, None);
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
        let text = page("n", Some(&sample()), &volumes(), &BTreeMap::from([("edgehub_linked", 3)]));
        for line in [
            "kubelet_node_name{node=\"n\"} 1",
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "kubelet_container_log_filesystem_used_bytes{container=\"c\",namespace=\"d\",pod=\"p\",uid=\"u\"} 5",
            "kubelet_volume_stats_capacity_bytes{namespace=\"d\",persistentvolumeclaim=\"data\"} 1000",
            "kubelet_volume_stats_used_bytes{namespace=\"d\",persistentvolumeclaim=\"data\"} 100",
            "kubelet_volume_stats_inodes_used{namespace=\"d\",persistentvolumeclaim=\"data\"} 3",
            "kubehive_edge_events_total{event=\"edgehub_linked\"} 3",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
        assert!(page("n", None, &volumes(), &BTreeMap::new()).contains("kubelet_node_name"));
    }
}
