//! Counters of named events and gauges: what `/metrics` reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// The counters and gauges of one environment. Cheap to clone; may go to other threads.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Series>>);

#[derive(Debug, Default)]
struct Series {
    counters: BTreeMap<&'static str, u64>,
    gauges: BTreeMap<&'static str, f64>,
}

/// One value of one series, with its labels, as Prometheus calls them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The series, as `/metrics` shows it.
    pub name: &'static str,
    /// Label and value, in the order in which they are shown.
    pub labels: Vec<(&'static str, String)>,
    /// The value, in the unit that the name says.
    pub value: f64,
}

impl Sample {
    /// A value without labels.
    pub fn new(name: &'static str, value: f64) -> Self {
        Sample { name, labels: Vec::new(), value }
    }

    /// The same with one more label.
    #[must_use]
    pub fn of(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

impl Metrics {
    fn series(&self) -> std::sync::MutexGuard<'_, Series> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `more` to the counter of `event`.
    pub fn add(&self, event: &'static str, more: u64) {
        let mut series = self.series();
        let counter = series.counters.entry(event).or_default();
        *counter = counter.saturating_add(more);
    }

    /// Sets the gauge `name`.
    pub fn set(&self, name: &'static str, value: f64) {
        self.series().gauges.insert(name, value);
    }

    /// How often `event` was counted.
    pub fn count_of(&self, event: &str) -> u64 {
        self.series().counters.get(event).copied().unwrap_or_default()
    }

    /// Every event and how often it was counted.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.series().counters.clone()
    }

    pub(crate) fn gauges(&self) -> Vec<Sample> {
        self.series().gauges.iter().map(|(name, value)| Sample::new(name, *value)).collect()
    }
}
