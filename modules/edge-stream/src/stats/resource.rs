//! `/metrics/resource`, which metrics-server reads.

use crate::stats::exposition::Exposition;
use crate::stats::sample::Sample;

/// The page; without a sample the one that says so, which is no error of HTTP's.
pub(crate) fn page(sample: Option<&Sample>) -> String {
    let mut page = Exposition::default();
    if let Some(sample) = sample {
        node(&mut page, sample);
        pods(&mut page, sample);
        containers(&mut page, sample);
    }
    let failed = f64::from(u8::from(sample.is_none()));
    let meaning = "1 if there was an error while getting container metrics, 0 otherwise";
    page.gauge("resource_scrape_error", meaning).add(&[], failed, None);
    page.gauge("scrape_error", meaning).add(&[], failed, None);
    page.text()
}

pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn millis(nanos: i64) -> Option<i64> {
    Some(nanos / 1_000_000)
}

fn node(page: &mut Exposition, sample: &Sample) {
    let node = &sample.node;
    if let Some(cpu) = node.cpu {
        let meaning = "Cumulative cpu time consumed by the node in core-seconds";
        page.counter("node_cpu_usage_seconds_total", meaning).add(&[], seconds(cpu.usage), millis(cpu.at));
    }
    if let Some(bytes) = node.memory.working_set {
        let meaning = "Current working set of the node in bytes";
        page.gauge("node_memory_working_set_bytes", meaning).add(&[], bytes as f64, millis(node.memory.at));
    }
    if let Some(swap) = node.swap {
        let meaning = "Current swap usage of the node in bytes. Reported only on non-windows systems";
        page.gauge("node_swap_usage_bytes", meaning).add(&[], swap.usage as f64, millis(sample.at));
    }
}

fn pods(page: &mut Exposition, sample: &Sample) {
    for pod in &sample.pods {
        let labels = [("namespace", pod.pod.namespace.as_str()), ("pod", pod.pod.name.as_str())];
        if let Some(cpu) = pod.cpu {
            let meaning = "Cumulative cpu time consumed by the pod in core-seconds";
            let mut family = page.counter("pod_cpu_usage_seconds_total", meaning);
            family.add(&labels, seconds(cpu.usage), millis(cpu.at));
        }
        if let Some((bytes, at)) = pod.memory.and_then(|own| Some((own.working_set?, own.at))) {
            let meaning = "Current working set of the pod in bytes";
            page.gauge("pod_memory_working_set_bytes", meaning).add(&labels, bytes as f64, millis(at));
        }
        if let Some(bytes) = pod.cgroup.as_ref().and_then(|(_, own)| own.swap) {
            let meaning =
                "Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
            page.gauge("pod_swap_usage_bytes", meaning).add(&labels, bytes as f64, millis(sample.at));
        }
    }
}

fn containers(page: &mut Exposition, sample: &Sample) {
    for own in &sample.containers {
        let labels = [("container", &*own.name), ("namespace", &*own.pod.namespace), ("pod", &*own.pod.name)];
        if let Some(cpu) = own.cpu {
            let meaning = "Cumulative cpu time consumed by the container in core-seconds";
            let mut family = page.counter("container_cpu_usage_seconds_total", meaning);
            family.add(&labels, seconds(cpu.usage), millis(cpu.at));
        }
        if let Some((bytes, at)) = own.memory.and_then(|own| Some((own.working_set?, own.at))) {
            let meaning = "Current working set of the container in bytes";
            page.gauge("container_memory_working_set_bytes", meaning).add(&labels, bytes as f64, millis(at));
        }
        let meaning = "Start time of the container since unix epoch in seconds";
        let begun = own.created as f64 / 1e9;
        page.gauge("container_start_time_seconds", meaning).add(&labels, begun, None);
        if let Some(swap) = own.swap {
            let meaning =
                "Current amount of the container swap usage in bytes. Reported only on non-windows systems";
            page.gauge("container_swap_usage_bytes", meaning).add(
                &labels,
                swap.usage as f64,
                millis(sample.at),
            );
        }
        if let Some(limit) = own.cgroup.as_ref().and_then(|(_, own)| own.swap_limit) {
            let meaning =
                "Current amount of the container swap limit in bytes. Reported only on non-windows systems";
            page.gauge("container_swap_limit_bytes", meaning).add(&labels, limit as f64, millis(sample.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::sample;

    #[test]
    fn metrics_server_finds_what_it_reads() {
        let text = page(Some(&sample()));
        for line in [
            "node_cpu_usage_seconds_total 5 9000",
            "node_memory_working_set_bytes 100 9000",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"d\",pod=\"p\"} 2 8000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"d\",pod=\"p\"} 40 8000",
            "container_start_time_seconds{container=\"c\",namespace=\"d\",pod=\"p\"} 4",
            "pod_cpu_usage_seconds_total{namespace=\"d\",pod=\"p\"} 3 8000",
            "resource_scrape_error 0",
            "scrape_error 0",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
        assert!(page(None).contains("resource_scrape_error 1\n"));
    }
}
