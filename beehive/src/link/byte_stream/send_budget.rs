//! How many bytes of byte streams may be on their way to the other end of a link. Pure.
//!
//! s2n-quic serves all streams alike, so that what is urgent waits behind the bulk that was given to the connection before.
//! Little is given to it: what the way carries without a queue ([`CongestionWindow`]), and never more than the larger of
//! 64 KiB and what it has carried in a quarter of a second. Where the transport sends what is urgent first, as the one over
//! WebSocket does, that alone bounds it: the transport has a window of its own below, and two would starve each other.

use std::time::Duration;

use crate::Moment;
use crate::link::congestion_window::{CongestionWindow, ECHO_EVERY, Stamp};

/// 12 KiB: three eighths of a second at 256 kbit/s. It never falls below.
const LEAST: u64 = 12 << 10;
/// 64 KiB may always be reached.
const ALWAYS: u64 = 64 << 10;
/// 2 MiB: half of what a connection may have on its way, so that mailboxes find room beside it at any rate.
const MOST: u64 = 2 << 20;
/// 2 KiB to 16 KiB of one stream at a time: short turns on a slow way, few on a fast one.
const TURN: (u64, u64) = (2 << 10, 16 << 10);
/// 64 KiB to 2 KiB that a writer may leave with the link before it waits, and 1 MiB that all who wait for their turn leave.
const BUFFER: (usize, usize, usize) = (2 << 10, 64 << 10, 1 << 20);

/// What one link may send.
pub(super) struct SendBudget {
    window: CongestionWindow,
    rate: DeliveryRate,
    told: u64,
}

impl SendBudget {
    /// For a transport that knows what is urgent, or for one that does not.
    pub(super) fn new(knows_urgency: bool) -> Self {
        let least = if knows_urgency { ALWAYS } else { LEAST };
        SendBudget { window: CongestionWindow::new(least, ALWAYS), rate: DeliveryRate::default(), told: 0 }
    }

    /// Bytes of one stream that go in one turn.
    pub(super) fn turn(&self) -> usize {
        let (least, most) = TURN;
        usize::try_from((self.window.limit() / 8).clamp(least, most)).unwrap_or(usize::MAX)
    }

    /// Whether so many more may go. What is larger than the whole budget goes when nothing else is on its way, or so little
    /// that the other end need not have told of it.
    pub(super) fn has_room(&mut self, bytes: usize) -> bool {
        let in_flight = self.window.in_flight();
        let has_room = in_flight < ECHO_EVERY || in_flight + bytes as u64 <= self.window.limit();
        if !has_room {
            self.window.holds_back();
        }
        has_room
    }

    /// So many went. Answers whether to ask for an echo.
    pub(super) fn sent(&mut self, bytes: usize, now: Moment) -> bool {
        self.window.sent(bytes, now)
    }

    /// So many did not go after all.
    pub(super) fn withdraw(&mut self, bytes: usize) {
        self.window.withdraw(bytes);
    }

    /// The other end says how many have arrived in all, and when the last of them did by its clock.
    pub(super) fn arrived(&mut self, total: u64, at: Stamp, now: Moment) {
        self.rate.add(total.saturating_sub(self.told), now);
        self.told = self.told.max(total);
        self.window.cap((self.rate.per_second() / 4).clamp(ALWAYS, MOST));
        self.window.echoed(total, at, now);
    }
}

/// What a writer may leave with the link before it waits, when so many streams wait for their turn.
pub(super) fn send_buffer(waiting: usize) -> usize {
    let (least, most, together) = BUFFER;
    (together / waiting.max(1)).clamp(least, most)
}

/// The rate at which bytes arrive while they do: the highest of the last 5 to 10 s.
#[derive(Default)]
struct DeliveryRate {
    /// Since when is counted, and how many bytes.
    interval: Option<(Moment, u64)>,
    /// The highest rate of this period and of the one before, in bytes a second.
    highest: (u64, u64),
    period_began: Moment,
}

impl DeliveryRate {
    /// What is counted together: long enough that acknowledgements that come in one go do not count as a rate.
    const INTERVAL: Duration = Duration::from_millis(100);
    /// A pause as long as this is none of the way's.
    const PAUSE: Duration = Duration::from_secs(1);
    const PERIOD: Duration = Duration::from_secs(5);

    fn add(&mut self, bytes: u64, now: Moment) {
        if now.since(self.period_began) >= Self::PERIOD {
            self.highest = (0, self.highest.0);
            self.period_began = now;
        }
        let (since, counted) = match self.interval {
            Some((since, counted)) if now.since(since) < Self::PAUSE => (since, counted + bytes),
            // What has come before this moment came at a rate that nobody knows.
            Some(_) | None => (now, 0),
        };
        let took = now.since(since);
        self.interval = Some((since, counted));
        if took >= Self::INTERVAL {
            let per_second = u128::from(counted) * 1_000_000 / took.as_micros().max(1);
            self.highest.0 = self.highest.0.max(u64::try_from(per_second).unwrap_or(u64::MAX));
            self.interval = Some((now, 0));
        }
    }

    fn per_second(&self) -> u64 {
        self.highest.0.max(self.highest.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// What a run over a link showed in its last half.
    struct Run {
        /// The longest that a byte of bulk, and so a ping that went behind it, waited in the queue.
        queue: Duration,
        in_flight: u64,
        carried: u64,
    }

    /// A link with a deep queue, of so many bytes a second and of a round trip of `way` without load.
    fn saturate(per_second: u64, way: Duration, how_long: Duration) -> Run {
        let mut budget = SendBudget::new(false);
        let step = Duration::from_millis(1);
        let (mut now, mut free_at, mut sent) = (Moment::default(), Moment::default(), 0);
        let mut echoes: VecDeque<(Moment, Stamp, u64)> = VecDeque::new();
        let mut run = Run { queue: Duration::ZERO, in_flight: 0, carried: 0 };
        while now.0 < how_long {
            let late = now.0 > how_long / 2;
            while let Some((_, at, bytes)) = echoes.pop_front_if(|(at, ..)| *at <= now) {
                budget.arrived(bytes, at, now);
                run.carried = bytes;
            }
            while budget.has_room(budget.turn()) {
                let turn = budget.turn();
                budget.sent(turn, now);
                sent += turn as u64;
                let takes = Duration::from_secs_f64(turn as f64 / per_second as f64);
                free_at = free_at.max(now) + takes;
                echoes.push_back((free_at + way, Stamp::of(free_at + way / 2), sent));
                if late {
                    run.queue = run.queue.max(free_at.since(now));
                    run.in_flight = run.in_flight.max(budget.window.in_flight());
                }
            }
            now = now + step;
        }
        run
    }

    #[test]
    fn a_ping_behind_bulk_on_a_slow_way_is_in_time() {
        for millis in [1, 50, 300, 600] {
            let run = saturate(32_000, Duration::from_millis(millis), Duration::from_secs(60));
            assert!(run.queue < Duration::from_millis(1000), "{millis}: {:?}", run.queue);
            assert!(run.in_flight <= ALWAYS, "{millis}: {}", run.in_flight);
            assert!(run.carried > 60 * 32_000 * 7 / 10, "{millis}: {}", run.carried);
        }
    }

    #[test]
    fn no_more_is_on_its_way_than_a_quarter_of_a_second_carries() {
        for (per_second, millis) in [(1_000_000, 20), (10_000_000, 50), (10_000_000, 200)] {
            let run = saturate(per_second, Duration::from_millis(millis), Duration::from_secs(30));
            // A tenth for what the measurement is late.
            assert!(run.in_flight <= per_second / 4 * 11 / 10, "{per_second}, {millis}: {}", run.in_flight);
            assert!(run.carried > 30 * per_second * 6 / 10, "{per_second}, {millis}: {}", run.carried);
        }
    }

    #[test]
    fn the_rate_is_what_arrives_while_it_does() {
        let mut rate = DeliveryRate::default();
        let at = |millis| Moment(Duration::from_millis(millis));
        for step in 0..100 {
            rate.add(1000, at(step * 10));
        }
        assert!((95_000..=105_000).contains(&rate.per_second()), "{}", rate.per_second());
        // A pause is not a slow way, and a burst after it not a fast one.
        rate.add(50_000, at(4000));
        assert!(rate.per_second() <= 105_000, "{}", rate.per_second());
        // A slower way is believed after a while.
        for step in 0..120 {
            rate.add(1000, at(5000 + step * 100));
        }
        assert!(rate.per_second() <= 11_000, "{}", rate.per_second());
    }

    #[test]
    fn many_that_wait_leave_little_with_the_link() {
        assert_eq!([0, 1, 32, 1200].map(send_buffer), [64 << 10, 64 << 10, 32 << 10, 2 << 10]);
    }
}
