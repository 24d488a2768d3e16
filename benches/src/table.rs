//! What is printed: one line a measurement, ours beside its reference, and the bar if there is one.

use std::io::Write as _;

use crate::stats::Summary;

/// Prints a line.
pub(crate) fn say(line: &str) {
    // Nobody reads any more: the exit code still tells.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// What a measurement is held to. Less is better everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// The median may be this many times the reference's.
    Times(f64),
    /// The value may be this much, in the row's unit.
    AtMost(f64),
    /// For information.
    None,
}

/// One measurement.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Summary,
    /// What it is measured beside, and how that did.
    pub(crate) reference: Option<(&'static str, Summary)>,
    pub(crate) bar: Bar,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().and_then(|(_, reference)| self.ours.ratio(reference))
    }

    /// Whether the bar is held; what could not be compared misses its bar.
    fn holds(&self) -> bool {
        match self.bar {
            Bar::Times(most) => self.ratio().is_some_and(|ratio| ratio <= most),
            Bar::AtMost(most) => self.ours.median <= most,
            Bar::None => true,
        }
    }

    fn cells(&self) -> [String; 9] {
        let none = || "–".to_owned();
        let (name, median, p95) = match &self.reference {
            Some((name, reference)) => ((*name).to_owned(), number(reference.median), number(reference.p95)),
            None => (none(), none(), none()),
        };
        let bar = match self.bar {
            Bar::Times(most) => format!("≤ {} × {}", number(most), self.verdict()),
            Bar::AtMost(most) => format!("≤ {} {}", number(most), self.verdict()),
            Bar::None => none(),
        };
        [
            self.what.clone(),
            self.unit.to_owned(),
            number(self.ours.median),
            number(self.ours.p95),
            name,
            median,
            p95,
            self.ratio().map_or_else(none, |ratio| format!("{ratio:.2} ×")),
            bar,
        ]
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "held" } else { "MISSED" }
    }
}

/// The measurements of one bench.
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Table {
        Table { title, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether every bar is held.
    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(Row::holds)
    }

    pub(crate) fn print(&self) {
        const HEAD: [&str; 9] =
            ["", "unit", "ours", "p95", "reference", "its median", "its p95", "ratio", "bar"];
        let mut lines = vec![HEAD.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        say(&format!("\n{}", self.title));
        for line in &lines {
            let mut text = String::new();
            for (column, cell) in line.iter().enumerate() {
                // Words to the left, numbers to the right.
                let width = widths[column];
                if matches!(column, 0 | 1 | 4 | 8) {
                    text.push_str(&format!("{cell:<width$}  "));
                } else {
                    text.push_str(&format!("{cell:>width$}  "));
                }
            }
            say(text.trim_end());
        }
        let counts: Vec<usize> = self.rows.iter().map(|row| row.ours.count).collect();
        if let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max()) {
            say(&format!("samples a row: {least} to {most}; the ratio is of the medians"));
        }
    }
}

/// Three digits that count, and no more than three behind the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, reference: Option<f64>, bar: Bar) -> Row {
        Row {
            what: "x".to_owned(),
            unit: "ms",
            ours: Summary::single(ours),
            reference: reference.map(|value| ("y", Summary::single(value))),
            bar,
        }
    }

    #[test]
    fn a_bar_holds_up_to_its_figure_and_not_without_a_reference() {
        assert!(row(2.0, Some(1.0), Bar::Times(2.0)).holds());
        assert!(!row(2.1, Some(1.0), Bar::Times(2.0)).holds());
        assert!(!row(2.0, None, Bar::Times(2.0)).holds());
        assert!(!row(2.0, Some(0.0), Bar::Times(2.0)).holds());
        assert!(row(15.0, None, Bar::AtMost(15.0)).holds());
        assert!(!row(15.1, None, Bar::AtMost(15.0)).holds());
    }

    #[test]
    fn one_missed_bar_is_a_missed_table() {
        let mut table = Table::new("t");
        table.add(row(1.0, None, Bar::None));
        assert!(table.holds());
        table.add(row(3.0, Some(1.0), Bar::Times(2.0)));
        table.add(row(1.0, Some(1.0), Bar::Times(2.0)));
        assert!(!table.holds());
    }

    #[test]
    fn numbers_show_what_counts() {
        assert_eq!([123.4, 12.34, 1.234, 0.1234].map(number), ["123", "12.3", "1.23", "0.123"]);
    }
}
