//! Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use beehive::Count;

/// What `content-type` says of it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of families, each with its samples.
#[derive(Debug, Default)]
pub(crate) struct Exposition(BTreeMap<&'static str, Family>);

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: &'static str,
    lines: String,
}

impl Exposition {
    /// A counter with this name and meaning, if there is nothing to count yet.
    pub(crate) fn counter(&mut self, name: &'static str, help: &'static str) -> Samples<'_> {
        self.family(name, help, "counter")
    }

    /// A gauge with this name and meaning.
    pub(crate) fn gauge(&mut self, name: &'static str, help: &'static str) -> Samples<'_> {
        self.family(name, help, "gauge")
    }

    /// A histogram with this name and meaning.
    pub(crate) fn histogram(&mut self, name: &'static str, help: &'static str) -> Samples<'_> {
        self.family(name, help, "histogram")
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: &'static str) -> Samples<'_> {
        let family = self.0.entry(name).or_insert_with(|| Family { help, kind, lines: String::new() });
        Samples { name, family }
    }

    /// The page.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            let _ = write!(
                text,
                "# HELP {name} {}\n# TYPE {name} {}\n{}",
                family.help, family.kind, family.lines
            );
        }
        text
    }
}

/// The samples of one family.
pub(crate) struct Samples<'a> {
    name: &'static str,
    family: &'a mut Family,
}

impl Samples<'_> {
    /// A value with its labels and, if it is of another moment, the milliseconds since 1970.
    pub(crate) fn add(&mut self, labels: &[(&str, &str)], value: f64, at: Option<i64>) {
        self.line("", labels, value, at);
    }

    /// What a series has counted, with its labels.
    pub(crate) fn count(&mut self, labels: &[(&str, &str)], count: &Count) {
        match count {
            Count::Times(times) => self.line("", labels, *times as f64, None),
            Count::Sizes { bounds, within, count, sum } => {
                // A bucket counts all that are below its bound.
                let mut below = 0_u64;
                for (bound, within) in bounds.iter().zip(within) {
                    below = below.saturating_add(*within);
                    let bound = bound.to_string();
                    let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
                    self.line("_bucket", &labels, below as f64, None);
                }
                let all: Vec<_> = labels.iter().copied().chain([("le", "+Inf")]).collect();
                self.line("_bucket", &all, *count as f64, None);
                self.line("_sum", labels, *sum, None);
                self.line("_count", labels, *count as f64, None);
            }
        }
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64, at: Option<i64>) {
        let lines = &mut self.family.lines;
        lines.push_str(self.name);
        lines.push_str(suffix);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(lines, "{before}{label}=\"{}\"", escaped(value));
        }
        if !labels.is_empty() {
            lines.push('}');
        }
        let _ = write!(lines, " {value}");
        if let Some(at) = at {
            let _ = write!(lines, " {at}");
        }
        lines.push('\n');
    }
}

/// Labels as a series has them.
pub(crate) fn borrowed<'a>(labels: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    labels.iter().map(|(label, value)| (*label, value.as_str())).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_in_order_and_labels_are_escaped() {
        let mut page = Exposition::default();
        page.gauge("b", "Second.").add(&[], 1.5, None);
        page.counter("a_total", "First.").add(&[("x", "q\"\\\n"), ("y", "")], 2e10, Some(7));
        page.counter("a_total", "First.").add(&[("x", "z")], 0.0, None);
        let expected = "# HELP a_total First.\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n\",y=\"\"} 20000000000 7\n\
                        a_total{x=\"z\"} 0\n# HELP b Second.\n# TYPE b gauge\nb 1.5\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn a_bucket_counts_all_below_its_bound() {
        let mut page = Exposition::default();
        let sizes = Count::Sizes { bounds: &[0.5, 1.0], within: vec![2, 1], count: 4, sum: 3.5 };
        page.histogram("a_seconds", "How long.").count(&[("x", "y")], &sizes);
        let expected = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n\
                        a_seconds_bucket{x=\"y\",le=\"0.5\"} 2\na_seconds_bucket{x=\"y\",le=\"1\"} 3\n\
                        a_seconds_bucket{x=\"y\",le=\"+Inf\"} 4\na_seconds_sum{x=\"y\"} 3.5\na_seconds_count{x=\"y\"} 4\n";
        assert_eq!(page.text(), expected);
    }
}
