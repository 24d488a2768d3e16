//! How much of a core something uses: the runtime's own word is the difference to anybody's last question, so it is reckoned here.

use std::collections::HashMap;

use crate::stats::sample::Cpu;

/// 10 s: a rate over less says little.
const LEAST: i64 = 10_000_000_000;
/// 10 min without a look: the rate says nothing any more.
const MOST: i64 = 600_000_000_000;

/// The last look at each, by its name.
#[derive(Debug, Default)]
pub(crate) struct Rates(HashMap<String, Cpu>);

impl Rates {
    /// Gives `now` its rate.
    pub(crate) fn of(&mut self, name: &str, now: Cpu) -> Cpu {
        let Some(before) = self.0.get_mut(name) else {
            self.0.insert(name.to_owned(), now);
            return now;
        };
        let passed = now.at.saturating_sub(before.at);
        // Less than before: it was made anew, or the clock was set.
        if !(0..=MOST).contains(&passed) || now.usage < before.usage {
            *before = now;
            return now;
        }
        if passed < LEAST {
            return Cpu { rate: before.rate, ..now };
        }
        let used =
            u128::from(now.usage - before.usage) * 1_000_000_000 / passed.unsigned_abs().max(1) as u128;
        let now = Cpu { rate: u64::try_from(used).ok(), ..now };
        *before = now;
        now
    }

    /// Forgets all that were not looked at since `at`, in nanoseconds since 1970.
    pub(crate) fn forget_before(&mut self, at: i64) {
        self.0.retain(|_, last| at.saturating_sub(last.at) <= MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_ten_seconds_at_the_least() {
        let mut rates = Rates::default();
        let at = |seconds: i64, usage: u64| Cpu { at: seconds * 1_000_000_000, usage, rate: None };
        assert_eq!(rates.of("a", at(0, 0)).rate, None);
        assert_eq!(rates.of("a", at(5, 5_000_000_000)).rate, None, "too soon");
        assert_eq!(rates.of("a", at(10, 5_000_000_000)).rate, Some(500_000_000));
        assert_eq!(rates.of("a", at(12, 7_000_000_000)).rate, Some(500_000_000), "the last one stays");
        assert_eq!(rates.of("b", at(12, 1)).rate, None);
        assert_eq!(rates.of("a", at(30, 1)).rate, None, "begun anew");
        assert_eq!(rates.of("a", at(1000, 9)).rate, None, "too long ago");
        rates.forget_before(1_700_000_000_000);
        assert!(rates.0.is_empty());
    }
}
