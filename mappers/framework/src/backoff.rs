//! Waiting longer after every failure.

use std::time::Duration;

/// Delays that double up to a cap; the caller adds the jitter.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Backoff { first, cap, next: first }
    }

    /// How long to wait before the next try.
    pub(crate) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.cap);
        delay
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_their_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for millis in [100, 200, 400, 400] {
            assert_eq!(backoff.delay(), Duration::from_millis(millis));
        }
        backoff.reset();
        assert_eq!(backoff.delay(), Duration::from_millis(100));
    }
}
