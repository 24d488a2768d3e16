//! What looks at each good reading of a property before anybody else does: `pushMethod.anomalyDetection` of a Device.
//!
//! A detector says whether a reading is an anomaly, and why. What follows is one rule for all detectors, the setting `action`. Which
//! detector there is, a protocol says; those that say nothing have [`Spread`].

mod spread;
mod watch;

use std::time::SystemTime;

use crate::value::Value;

pub use spread::Spread;

pub(crate) use watch::{AnomalyWatch, Judged, is_watched};

/// What a detector says of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Normal,
    /// It is none that one would expect, for this reason: a part of a sentence, as `93 is above 90`.
    Anomaly(String),
}

/// Looks at the readings of one property, in the order in which they come. It lives as long as the property is described as it
/// is, and is on the thread of all devices: it decides at once, and never blocks.
pub trait AnomalyDetector: 'static {
    /// Judges a reading, which came at that time.
    fn judge(&mut self, value: &Value, at: SystemTime) -> Verdict;
}
