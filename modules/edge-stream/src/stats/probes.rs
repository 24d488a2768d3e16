//! `/metrics/probes`: how often containers' probes were made and how long they took, as Edged counts them.

use beehive::Metrics;

use crate::stats::exposition::{Exposition, borrowed};

/// The page.
pub(crate) fn page(metrics: &Metrics) -> String {
    let mut page = Exposition::default();
    let total = "prober_probe_total";
    for (labels, count) in metrics.labelled(total) {
        let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
        page.counter(total, help).count(&borrowed(&labels), &count);
    }
    let duration = "prober_probe_duration_seconds";
    for (labels, count) in metrics.labelled(duration) {
        page.histogram(duration, "Duration in seconds for a probe response.")
            .count(&borrowed(&labels), &count);
    }
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_of_probes_is_shown_by_their_families() {
        let metrics = Metrics::default();
        assert_eq!(page(&metrics), "");
        let labels =
            |last: (&'static str, &str)| vec![("container", "c".to_owned()), (last.0, last.1.to_owned())];
        let total = metrics.counter("prober_probe_total", labels(("result", "failed")));
        total.count();
        let seconds =
            metrics.histogram("prober_probe_duration_seconds", &[1.0], labels(("probe_type", "Liveness")));
        seconds.observe(0.5);
        let text = page(&metrics);
        for line in [
            "# TYPE prober_probe_total counter",
            "prober_probe_total{container=\"c\",result=\"failed\"} 1",
            "# TYPE prober_probe_duration_seconds histogram",
            "prober_probe_duration_seconds_bucket{container=\"c\",probe_type=\"Liveness\",le=\"1\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
    }
}
