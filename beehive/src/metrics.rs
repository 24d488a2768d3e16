//! Counters of named events, gauges, and series with labels: what `/metrics` reads.

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
    labelled: BTreeMap<Key, Labelled>,
}

/// The name of a series and its labels, in the order in which they are shown.
type Key = (&'static str, Labels);
/// Label and value.
type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Labelled {
    value: Count,
    owners: usize,
}

/// What a series with labels has counted.
#[derive(Debug, Clone, PartialEq)]
pub enum Count {
    /// How often something was.
    Times(u64),
    /// How large it was each time.
    Sizes {
        /// The upper bounds that are counted for, in rising order.
        bounds: &'static [f64],
        /// How many were not above each bound, and above the one before.
        within: Vec<u64>,
        /// How many there were.
        count: u64,
        /// All together.
        sum: f64,
    },
}

/// A series with labels. It is there as long as somebody holds it.
#[derive(Debug)]
pub struct Counter {
    metrics: Metrics,
    key: Key,
}

impl Counter {
    /// It was once more.
    pub fn count(&self) {
        self.change(|value| {
            if let Count::Times(times) = value {
                *times = times.saturating_add(1);
            }
        });
    }

    /// It was once more, and so large.
    pub fn observe(&self, size: f64) {
        self.change(|value| {
            if let Count::Sizes { bounds, within, count, sum } = value {
                *count = count.saturating_add(1);
                *sum += size;
                let bound = bounds.iter().position(|bound| size <= *bound);
                if let Some(within) = bound.and_then(|bound| within.get_mut(bound)) {
                    *within = within.saturating_add(1);
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        if let Some(own) = self.metrics.series().labelled.get_mut(&self.key) {
            change(&mut own.value);
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let mut series = self.metrics.series();
        let Some(own) = series.labelled.get_mut(&self.key) else { return };
        own.owners = own.owners.saturating_sub(1);
        if own.owners == 0 {
            series.labelled.remove(&self.key);
        }
    }
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

    /// A series that counts how often something was. Who asks for one that is there shares it.
    #[must_use]
    pub fn counter(&self, name: &'static str, labels: Vec<(&'static str, String)>) -> Counter {
        self.labelled_series((name, labels), || Count::Times(0))
    }

    /// A series that counts how large something was, by `bounds` in rising order. Who asks for one that is there shares it.
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        bounds: &'static [f64],
        labels: Vec<(&'static str, String)>,
    ) -> Counter {
        let none = || Count::Sizes { bounds, within: vec![0; bounds.len()], count: 0, sum: 0.0 };
        self.labelled_series((name, labels), none)
    }

    fn labelled_series(&self, key: Key, none: impl FnOnce() -> Count) -> Counter {
        let mut series = self.series();
        let own = series.labelled.entry(key.clone());
        own.or_insert_with(|| Labelled { value: none(), owners: 0 }).owners += 1;
        drop(series);
        Counter { metrics: self.clone(), key }
    }

    /// Every series of this name that somebody holds: its labels, and what it has counted.
    pub fn labelled(&self, name: &str) -> Vec<(Vec<(&'static str, String)>, Count)> {
        let series = self.series();
        let own = series.labelled.iter().filter(|((own, _), _)| *own == name);
        own.map(|((_, labels), own)| (labels.clone(), own.value.clone())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_with_labels_is_there_while_somebody_holds_it() {
        let metrics = Metrics::default();
        let labels = |who: &str| vec![("who", who.to_owned())];
        let (one, other) = (metrics.counter("calls", labels("a")), metrics.counter("calls", labels("b")));
        let same = metrics.counter("calls", labels("a"));
        one.count();
        same.count();
        other.count();
        let both = [(labels("a"), Count::Times(2)), (labels("b"), Count::Times(1))];
        assert_eq!(metrics.labelled("calls"), both);
        drop(one);
        drop(other);
        assert_eq!(metrics.labelled("calls"), [(labels("a"), Count::Times(2))]);
        drop(same);
        assert!(metrics.labelled("calls").is_empty());
    }

    #[test]
    fn sizes_are_counted_by_their_bounds() {
        let metrics = Metrics::default();
        let sizes = metrics.histogram("seconds", &[0.5, 1.0], Vec::new());
        for size in [0.25, 0.5, 0.75, 2.0] {
            sizes.observe(size);
        }
        // Not what it counts.
        sizes.count();
        let expected = Count::Sizes { bounds: &[0.5, 1.0], within: vec![2, 1], count: 4, sum: 3.5 };
        assert_eq!(metrics.labelled("seconds"), [(Vec::new(), expected)]);
    }
}
