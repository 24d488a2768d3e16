//! How many bytes may be on their way. Pure.
//!
//! The queue in front of a slow link is of our own making: whatever was given to it beyond what it carries in a round
//! trip only waits there, and what is urgent waits behind it. So the other end echoes what has come, and the budget is
//! held where the queue costs no more than [`QUEUE_TARGET`] (the idea of LEDBAT, RFC 6817).

use std::time::Duration;

use crate::Moment;

/// 300 ms: what a queue of ours may add to the round trip. A ping behind it still has its answer well within 2 s.
const QUEUE_TARGET: Duration = Duration::from_millis(300);
/// 32 KiB: where it begins, a second of a link of 256 kbit/s.
const FIRST: u64 = 32 << 10;
/// 2 KiB between measurements: what is small and rare is not measured, so that an idle link stays idle.
const MEASURE_EVERY: u64 = 2 << 10;
/// 4 KiB: when the receiving end echoes without being asked.
pub(super) const ECHO_EVERY: u64 = 4 << 10;
/// A minute: the shortest round trip of this and of the minute before counts as the way's own.
const BASE_PERIOD: Duration = Duration::from_secs(60);

pub(super) struct CongestionWindow {
    /// What it never goes below, and never above.
    least: u64,
    most: u64,
    limit: u64,
    sent: u64,
    arrived: u64,
    /// The bytes up to which one echo is awaited, since when, and how many had arrived then.
    measuring: Option<Measuring>,
    measured_at: u64,
    /// Shortest round trips of this period and of the one before.
    base: (Option<Duration>, Option<Duration>),
    period_began: Moment,
    /// Nothing has queued so far: it may double with each round trip.
    opening: bool,
}

struct Measuring {
    mark: u64,
    since: Moment,
    arrived: u64,
    /// Whether the budget was what held the sender back.
    full: bool,
}

impl CongestionWindow {
    /// A window that stays between `least` and `most` bytes.
    pub(super) fn new(least: u64, most: u64) -> Self {
        CongestionWindow {
            least,
            most,
            limit: FIRST.clamp(least, most),
            sent: 0,
            arrived: 0,
            measuring: None,
            measured_at: 0,
            base: (None, None),
            period_began: Moment::default(),
            opening: true,
        }
    }

    /// Bytes that may be on their way.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are on their way.
    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.arrived
    }

    /// From now on it stays below `most`.
    pub(super) fn cap(&mut self, most: u64) {
        self.most = most.max(self.least);
        self.limit = self.limit.min(self.most);
    }

    /// The window holds its sender back: it may grow when all goes well.
    pub(super) fn holds_back(&mut self) {
        if let Some(measuring) = &mut self.measuring {
            measuring.full = true;
        }
    }

    /// Bytes that were counted as sent were not, and never will be.
    pub(super) fn withdraw(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_sub(bytes as u64).max(self.arrived);
        if let Some(measuring) = &mut self.measuring {
            measuring.mark = measuring.mark.min(self.sent);
        }
    }

    /// Bytes of a stream went into the pipe. Answers whether to ask for their echo.
    pub(super) fn sent(&mut self, bytes: usize, now: Moment) -> bool {
        self.sent += bytes as u64;
        let due = self.sent - self.measured_at >= MEASURE_EVERY || self.base == (None, None);
        if self.measuring.is_some() || !due {
            return false;
        }
        self.measured_at = self.sent;
        self.measuring = Some(Measuring { mark: self.sent, since: now, arrived: self.arrived, full: false });
        true
    }

    /// The other end says how many bytes have come in all. What it cannot have received is not believed.
    pub(super) fn echoed(&mut self, arrived: u64, now: Moment) {
        self.arrived = self.arrived.max(arrived.min(self.sent));
        let Some(done) = self.measuring.take_if(|measuring| measuring.mark <= self.arrived) else { return };
        let round_trip = now.since(done.since);
        self.adapt(round_trip, self.arrived - done.arrived, done.full, now);
    }

    fn adapt(&mut self, round_trip: Duration, carried: u64, full: bool, now: Moment) {
        if now.since(self.period_began) >= BASE_PERIOD {
            self.base = (None, self.base.0);
            self.period_began = now;
        }
        let this = self.base.0.map_or(round_trip, |base| base.min(round_trip));
        self.base.0 = Some(this);
        let base = self.base.1.map_or(this, |last| last.min(this));
        let queued = round_trip.saturating_sub(base);
        if queued > QUEUE_TARGET {
            self.opening = false;
            let part = (base + QUEUE_TARGET).as_secs_f64() / round_trip.as_secs_f64();
            // Truncation is harmless: the result is clamped.
            self.limit = ((self.limit as f64 * part) as u64).max(self.least);
        } else if full {
            // Near the edge in small steps: a sixteenth, and a quarter of the least at the least.
            let step = (self.limit / 16).max(self.least / 4);
            let far = self.opening && queued < QUEUE_TARGET / 4;
            let more = if far { carried.max(self.least) } else { step };
            self.limit = (self.limit + more).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent at a time.
    const PIECE: usize = 8 << 10;

    fn window() -> CongestionWindow {
        CongestionWindow::new(16 << 10, 4 << 20)
    }

    fn has_room(window: &mut CongestionWindow) -> bool {
        let has_room = window.in_flight() < window.limit();
        if !has_room {
            window.holds_back();
        }
        has_room
    }

    /// A link with a deep queue: sends whenever there is room, for so long; answers the longest stay in the last half of
    /// the time and the bytes that were carried.
    fn saturate(rate: u64, way: Duration, how_long: Duration) -> (Duration, u64) {
        let mut budget = window();
        let step = Duration::from_millis(1);
        let (mut now, mut free_at) = (Moment::default(), Moment::default());
        let mut echoes: std::collections::VecDeque<(Moment, u64)> = Default::default();
        let (mut sent, mut arrived, mut longest) = (0, 0, Duration::ZERO);
        while now.0 < how_long {
            while let Some((_, bytes)) = echoes.pop_front_if(|(at, _)| *at <= now) {
                arrived = bytes;
                budget.echoed(bytes, now);
            }
            while has_room(&mut budget) {
                budget.sent(PIECE, now);
                sent += PIECE as u64;
                let takes = Duration::from_secs_f64(PIECE as f64 / rate as f64);
                free_at = free_at.max(now) + takes;
                if now.0 > how_long / 2 {
                    longest = longest.max(free_at.since(now));
                }
                echoes.push_back((free_at + way, sent));
            }
            now = now + step;
        }
        (longest, arrived)
    }

    #[test]
    fn a_slow_link_is_not_given_what_it_cannot_carry() {
        // 256 kbit/s, 600 ms: scene 20 of a bad link.
        let (queue, carried) = saturate(32_000, Duration::from_millis(600), Duration::from_secs(120));
        assert!(queue < Duration::from_millis(1500), "{queue:?}");
        assert!(carried > 120 * 32_000 * 7 / 10, "{carried}");
    }

    #[test]
    fn a_fast_link_is_filled() {
        // 100 Mbit/s, 40 ms: 500 kB fit in a round trip.
        let (queue, carried) = saturate(12_500_000, Duration::from_millis(40), Duration::from_secs(20));
        assert!(queue < Duration::from_millis(600), "{queue:?}");
        assert!(carried > 20 * 12_500_000 * 7 / 10, "{carried}");
    }

    #[test]
    fn an_echo_of_what_was_never_sent_makes_no_room() {
        let mut budget = window();
        budget.echoed(u64::MAX, Moment::default());
        while has_room(&mut budget) {
            budget.sent(PIECE, Moment::default());
        }
        assert_eq!(budget.sent, FIRST);
    }

    #[test]
    fn small_talk_is_not_measured() {
        let mut budget = window();
        assert!(budget.sent(30, Moment::default()));
        budget.echoed(30, Moment::default());
        let asked = (0..60).filter(|_| budget.sent(20, Moment::default())).count();
        assert_eq!(asked, 0);
    }
}
