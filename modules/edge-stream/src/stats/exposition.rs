//! Prometheus' text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;

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
        let lines = &mut self.family.lines;
        lines.push_str(self.name);
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
}
