//! What a scenario found: figures, and what must not have been.

use std::time::Duration;

use anyhow::Result;

use crate::Console;

/// 20 violations are told in full; the rest is counted.
const TOLD: usize = 20;

/// Times or counts of one kind.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a time, in seconds.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// Adds all of another.
    pub fn join(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The one that so many of all do not exceed, `part` from 0 to 1; `None` of none.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let place = (sorted.len() as f64 * part) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).copied()
    }

    /// `median 1.20 s, p99 3.10 s, largest 3.40 s`.
    pub fn shown_with_tail(&self) -> String {
        match (self.quantile(0.5), self.quantile(0.99), self.quantile(1.0)) {
            (Some(median), Some(tail), Some(largest)) => {
                format!("median {median:.2} s, p99 {tail:.2} s, largest {largest:.2} s")
            }
            _ => "none".to_owned(),
        }
    }

    /// `median 1.2 s, largest 3.4 s`.
    pub fn shown(&self) -> String {
        match (self.quantile(0.5), self.quantile(1.0)) {
            (Some(median), Some(largest)) => format!("median {median:.2} s, largest {largest:.2} s"),
            _ => "none".to_owned(),
        }
    }
}

/// What a scenario found.
#[derive(Debug, Default)]
pub struct Outcome {
    title: String,
    rows: Vec<(String, String)>,
    violations: Vec<String>,
}

impl Outcome {
    pub(crate) fn new(title: &str) -> Self {
        Outcome { title: title.to_owned(), ..Outcome::default() }
    }

    /// What a scenario found that tells all of it in `story`. What goes wrong for good ends it and is a violation.
    pub(crate) async fn of(title: &str, story: impl AsyncFnOnce(&mut Outcome) -> Result<()>) -> Self {
        let mut outcome = Outcome::new(title);
        if let Err(error) = story(&mut outcome).await {
            outcome.violation(format!("{error:#}"));
        }
        outcome
    }

    pub(crate) fn row(&mut self, what: &str, value: impl Into<String>) {
        self.rows.push((what.to_owned(), value.into()));
    }

    pub(crate) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// What must not have been.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Prints the table.
    pub fn print(&self, console: &Console) {
        let width = self.rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        console.line(&format!("\n{}", self.title));
        for (what, value) in &self.rows {
            console.line(&format!("  {what:width$}  {value}"));
        }
        console.line(&format!("  {:width$}  {}", "violations", self.violations.len()));
        for violation in self.violations.iter().take(TOLD) {
            console.line(&format!("    {violation}"));
        }
        if self.violations.len() > TOLD {
            console.line(&format!("    and {} more", self.violations.len() - TOLD));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_show_their_median_and_their_largest() {
        let mut samples = Samples::default();
        assert_eq!(samples.shown(), "none");
        for millis in [3000, 1000, 2000] {
            samples.add(Duration::from_millis(millis));
        }
        assert_eq!(samples.shown(), "median 2.00 s, largest 3.00 s");
        assert_eq!(samples.shown_with_tail(), "median 2.00 s, p99 3.00 s, largest 3.00 s");
        assert_eq!((samples.quantile(0.0), Samples::default().quantile(0.5)), (Some(1.0), None));
    }
}
