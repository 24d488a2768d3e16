//! A reading on its way to a target.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apimachinery::NamespacedName;

use crate::value::Value;

/// What a reading costs beside its texts.
const OVERHEAD: usize = 160;

/// A value as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) device: NamespacedName,
    pub(crate) property: String,
    pub(crate) value: Value,
    pub(crate) at: SystemTime,
}

impl Reading {
    /// The bytes that it takes in memory, about.
    pub(crate) fn cost(&self) -> usize {
        let text = match &self.value {
            Value::Text(text) => text.len(),
            _ => 0,
        };
        OVERHEAD + self.device.namespace.len() + self.device.name.len() + self.property.len() + text
    }

    /// How long after 1970 it was read.
    pub(crate) fn since_1970(&self) -> Duration {
        self.at.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// When it was read, as KubeEdge's framework writes it: to the second. In UTC; KubeEdge takes its container's zone, which is that.
    pub(crate) fn seconds(&self) -> String {
        self.formatted("%Y-%m-%d %H:%M:%S")
    }

    /// When it was read, by `strftime`.
    pub(crate) fn formatted(&self, form: &str) -> String {
        jiff::Timestamp::try_from(self.at).unwrap_or_default().strftime(form).to_string()
    }
}

#[cfg(test)]
pub(crate) fn reading(property: &str, value: Value) -> Reading {
    Reading {
        device: NamespacedName::new("default", "pump"),
        property: property.to_owned(),
        value,
        // 2026-11-29T10:20:30.123Z
        at: UNIX_EPOCH + Duration::from_millis(1_795_947_630_123),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_to_the_second_in_utc() {
        assert_eq!(reading("p", Value::Int(1)).seconds(), "2026-11-29 10:20:30");
    }
}
