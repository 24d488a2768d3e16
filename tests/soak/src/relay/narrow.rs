//! A narrow line: how long a packet waits for those before it. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Half a second of the line may wait, as in a small modem; what comes beyond that is dropped.
const QUEUE: Duration = Duration::from_millis(500);

/// When the line will have sent what waits.
#[derive(Debug, Default)]
pub(super) struct Line(Option<Instant>);

impl Line {
    /// How long after `now` a packet of `length` bytes has left a line of `rate` bytes a second; none: it is dropped.
    pub(super) fn put(&mut self, now: Instant, length: usize, rate: u32) -> Option<Duration> {
        let free = self.0.filter(|free| *free > now).unwrap_or(now);
        if free - now > QUEUE {
            return None;
        }
        let done = free + Duration::from_secs_f64(length as f64 / f64::from(rate.max(1)));
        self.0 = Some(done);
        Some(done - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_wait_for_those_before_them_and_are_dropped_at_the_queues_end() {
        let (mut line, now) = (Line::default(), Instant::now());
        let waits = [100, 200, 300, 400, 500, 600];
        for millis in waits {
            assert_eq!(line.put(now, 100, 1000), Some(Duration::from_millis(millis)));
        }
        assert_eq!(line.put(now, 100, 1000), None);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            line.put(later, 100, 1000),
            Some(Duration::from_millis(100)),
            "an idle line saves nothing up"
        );
    }
}
