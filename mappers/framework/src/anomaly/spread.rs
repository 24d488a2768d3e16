//! The detector of protocols that bring none: limits, steps, and the distance from what was usual lately. Pure.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::anomaly::{AnomalyDetector, Verdict};
use crate::error::InvalidSetting;
use crate::protocol::Property;
use crate::settings::Settings;
use crate::value::{Kind, Value};

/// 30 readings, unless `window` says otherwise.
const WINDOW: i64 = 30;
/// 1000: the readings that are remembered for one property at most.
const WINDOW_MAX: i64 = 1000;

/// Finds a number that is out of its limits, too far from the one before it, or too many standard deviations from the mean of the
/// readings before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    low: Option<f64>,
    high: Option<f64>,
    /// How far a reading may be from the one before it.
    max_step: Option<f64>,
    /// How many standard deviations it may be from the mean.
    deviations: Option<f64>,
    /// How many readings the mean is of.
    window: usize,
    recent: VecDeque<f64>,
}

impl Spread {
    /// From `pushMethod.anomalyDetection`.
    ///
    /// # Errors
    /// With the key and the cure; when the property is no number.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let (low, high) = (settings.number("low")?, settings.number("high")?);
        let (max_step, deviations) = (settings.number("maxStep")?, settings.number("deviations")?);
        let window = settings.whole("window")?.unwrap_or(WINDOW);
        if matches!(property.kind, Kind::Text | Kind::Bool) {
            return Err(InvalidSetting::new("it is for INT, FLOAT and DOUBLE; leave it out"));
        }
        if low.or(high).or(max_step).or(deviations).is_none() {
            let sentence = "nothing says what an anomaly is; write `low`, `high`, `maxStep` or `deviations`";
            return Err(InvalidSetting::new(sentence));
        }
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            return Err(InvalidSetting::new(format!(
                "setting `low` is {low}, which is above `high`, {high}"
            )));
        }
        for (key, number) in [("maxStep", max_step), ("deviations", deviations)] {
            if number.is_some_and(|number| number <= 0.0) {
                return Err(InvalidSetting::new(format!("setting `{key}` is not above 0")));
            }
        }
        let window = usize::try_from(window).ok().filter(|_| (3..=WINDOW_MAX).contains(&window));
        let window = window.ok_or_else(|| {
            InvalidSetting::new(format!("setting `window` is a number of readings from 3 to {WINDOW_MAX}"))
        })?;
        Ok(Spread { low, high, max_step, deviations, window, recent: VecDeque::new() })
    }

    fn found(&self, number: f64) -> Option<String> {
        if let Some(low) = self.low.filter(|low| number < *low) {
            return Some(format!("{number} is below {low}"));
        }
        if let Some(high) = self.high.filter(|high| number > *high) {
            return Some(format!("{number} is above {high}"));
        }
        let before = self.recent.back();
        if let (Some(most), Some(before)) = (self.max_step, before)
            && (number - before).abs() > most
        {
            return Some(format!("{number} is more than {most} from {before} before it"));
        }
        let most = self.deviations.filter(|_| self.recent.len() == self.window)?;
        let (mean, deviation) = self.usual();
        let is_far = (number - mean).abs() > most * deviation;
        is_far.then(|| {
            let window = self.window;
            format!(
                "{number} is more than {most} standard deviations ({deviation:.3}) from {mean:.3}, the mean of {window} readings"
            )
        })
    }

    /// The mean of the window, and the standard deviation of it.
    fn usual(&self) -> (f64, f64) {
        #[allow(clippy::cast_precision_loss)]
        let count = self.recent.len().max(1) as f64;
        let mean = self.recent.iter().sum::<f64>() / count;
        let variance = self.recent.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
        (mean, variance.sqrt())
    }
}

impl AnomalyDetector for Spread {
    fn judge(&mut self, value: &Value, _: SystemTime) -> Verdict {
        let Some(number) = value.number() else { return Verdict::Normal };
        if !number.is_finite() {
            return Verdict::Anomaly(format!("{number} is no finite number"));
        }
        let found = self.found(number);
        // An anomaly counts, too: what lasts as long as the window is the usual, and is told no more.
        if self.recent.len() == self.window {
            self.recent.pop_front();
        }
        self.recent.push_back(number);
        found.map_or(Verdict::Normal, Verdict::Anomaly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    fn spread(kind: Kind, pairs: &[(&str, f64)]) -> Result<Spread, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Float(*value)));
        let read = Spread::read(&Property::new("p", kind), &Settings::from_pairs(pairs));
        read.map_err(|refusal| refusal.to_string())
    }

    fn judged(pairs: &[(&str, f64)], readings: &[f64]) -> Vec<bool> {
        let mut spread = spread(Kind::Double, pairs).unwrap();
        let mut judge = |number: &f64| spread.judge(&Value::Double(*number), SystemTime::UNIX_EPOCH);
        readings.iter().map(|number| judge(number) != Verdict::Normal).collect()
    }

    #[test]
    fn limits_steps_and_what_is_unusual_are_anomalies() {
        assert_eq!(
            judged(&[("low", 0.0), ("high", 10.0)], &[-0.1, 0.0, 10.0, 10.1]),
            [true, false, false, true]
        );
        // A step is one anomaly, and what comes after it is none.
        assert_eq!(judged(&[("maxStep", 5.0)], &[1.0, 6.0, 20.0, 21.0]), [false, false, true, false]);
        let swinging = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0];
        let found = judged(&[("deviations", 3.0), ("window", 6.0)], &[&swinging[..], &[4.0, 9.0]].concat());
        assert_eq!(found[6..], [false, true], "4 is within three deviations (0.82) of 2, 9 is not");
        assert!(!found[..6].contains(&true), "nothing is usual before the window is full");
        assert_eq!(judged(&[("high", 1.0)], &[f64::NAN, f64::INFINITY]), [true, true]);
    }

    #[test]
    fn what_lasts_becomes_usual() {
        let readings: Vec<f64> =
            [1.0, 1.1, 0.9].into_iter().cycle().take(9).chain([5.0, 5.1, 4.9, 5.0, 5.1, 4.9]).collect();
        let found = judged(&[("deviations", 3.0), ("window", 3.0)], &readings);
        assert!(found[9], "the first one is news");
        assert_eq!(found[12..], [false, false, false], "{found:?}");
    }

    #[test]
    fn wrong_settings_are_named() {
        for (kind, pairs, said) in [
            (Kind::Int, &[][..], "`maxStep`"),
            (Kind::Text, &[("high", 1.0)], "INT, FLOAT and DOUBLE"),
            (Kind::Int, &[("low", 2.0), ("high", 1.0)], "`low` is 2"),
            (Kind::Int, &[("maxStep", 0.0)], "`maxStep`"),
            (Kind::Int, &[("deviations", -1.0)], "`deviations`"),
            (Kind::Int, &[("deviations", 3.0), ("window", 2.0)], "`window`"),
            (Kind::Int, &[("deviations", 3.0), ("window", 1e6)], "`window`"),
        ] {
            let refusal = spread(kind, pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
