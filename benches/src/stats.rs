//! Medians, percentiles and ratios of a handful of samples.

/// What many samples come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// 95 of 100 samples are not above it.
    pub(crate) p95: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// Of `samples`; `None` if there are none or one is no number.
    pub(crate) fn of(samples: &[f64]) -> Option<Summary> {
        if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Summary { median: median(&sorted), p95: nearest_rank(&sorted, 95), count: sorted.len() })
    }

    /// Of one sample.
    pub(crate) fn single(sample: f64) -> Summary {
        Summary { median: sample, p95: sample, count: 1 }
    }

    /// How many times `reference` this is, by the medians.
    pub(crate) fn ratio(&self, reference: &Summary) -> Option<f64> {
        let ratio = self.median / reference.median;
        ratio.is_finite().then_some(ratio)
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// The smallest sample that `percent` of all are not above.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_middles() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of(&[7.0]).unwrap(), Summary::single(7.0));
    }

    #[test]
    fn one_slow_sample_in_twenty_is_above_the_95th() {
        let mut samples: Vec<f64> = (1..=19).map(f64::from).collect();
        samples.push(1000.0);
        let summary = Summary::of(&samples).unwrap();
        assert_eq!((summary.p95, summary.count), (19.0, 20));
        // With fewer than twenty the slowest is within it.
        assert_eq!(Summary::of(&samples[10..]).unwrap().p95, 1000.0);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Summary::of(&hundred).unwrap().p95, 95.0);
    }

    #[test]
    fn nothing_measured_is_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
        assert_eq!(Summary::of(&[f64::INFINITY]), None);
    }

    #[test]
    fn a_ratio_is_of_the_medians_and_needs_a_reference() {
        let ours = Summary { median: 3.0, p95: 100.0, count: 3 };
        let reference = Summary { median: 2.0, p95: 2.0, count: 3 };
        assert_eq!(ours.ratio(&reference), Some(1.5));
        assert_eq!(ours.ratio(&Summary::single(0.0)), None);
    }
}
