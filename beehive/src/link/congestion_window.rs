//! How many bytes may be on their way. Pure.
//!
//! The queue in front of a slow link is of our own making: whatever was given to it beyond what it carries in a round
//! trip only waits there, and what is urgent waits behind it. So the other end echoes what has come and when, by its own
//! clock, and the budget is held where the queue costs no more than [`QUEUE_TARGET`] (LEDBAT, RFC 6817). What is measured is
//! the way there alone: an echo that waits behind what the other end sends says nothing of this end's queue.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Moment;

/// 300 ms: what a queue of ours may add to the way. A ping behind one in each direction has its answer well within 2 s.
const QUEUE_TARGET: Duration = Duration::from_millis(300);
/// 16 KiB: where it begins, half a second of a link of 256 kbit/s.
const FIRST: u64 = 16 << 10;
/// 2 KiB between measurements: what is small and rare is not measured, so that an idle link stays idle.
const MEASURE_EVERY: u64 = 2 << 10;
/// 4 KiB: when the receiving end echoes without being asked.
pub(super) const ECHO_EVERY: u64 = 4 << 10;
/// 2 ms: what is sent within them counts as sent at once.
const TOGETHER: Duration = Duration::from_millis(2);
/// A minute: the shortest delay of this and of the minute before counts as the way's own. No two clocks drift apart by a
/// hundredth of the target in that time.
const BASE_PERIOD: Duration = Duration::from_secs(60);

/// Milliseconds of an end's own clock, which begins anywhere and starts again from 0 after 49 days. Only differences count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u32);

impl Stamp {
    /// What the clock shows at `now`.
    pub(super) fn of(now: Moment) -> Self {
        // The remainder is what is wanted.
        Stamp(now.0.as_millis() as u32)
    }
}

/// What a byte needs to the other end, with the unknown difference of the two clocks in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Delay(u32);

impl Delay {
    fn between(sent: Moment, arrived: Stamp) -> Self {
        Delay(arrived.0.wrapping_sub(Stamp::of(sent).0))
    }

    /// How much longer it is than `base`, negative when it is shorter.
    fn beyond(self, base: Delay) -> i32 {
        self.0.wrapping_sub(base.0).cast_signed()
    }

    fn min(self, other: Delay) -> Delay {
        if self.beyond(other) < 0 { self } else { other }
    }

    fn max(self, other: Delay) -> Delay {
        if self.beyond(other) > 0 { self } else { other }
    }
}

pub(super) struct CongestionWindow {
    /// What it never goes below, and never above.
    least: u64,
    most: u64,
    limit: u64,
    sent: u64,
    arrived: u64,
    /// When what is on its way was sent: up to which byte, in order.
    sent_at: VecDeque<(u64, Moment)>,
    /// The bytes up to which one echo is awaited, since when, and how many had arrived then.
    measuring: Option<Measuring>,
    measured_at: u64,
    /// The shortest of this period and of the one before.
    base: (Option<Base>, Option<Base>),
    period_began: Moment,
    /// Nothing has queued so far: it may double with each round trip.
    opening: bool,
}

/// What the way needs without a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Base {
    delay: Delay,
    round_trip: Duration,
}

impl Base {
    fn min(self, other: Base) -> Base {
        Base { delay: self.delay.min(other.delay), round_trip: self.round_trip.min(other.round_trip) }
    }
}

struct Measuring {
    mark: u64,
    since: Moment,
    arrived: u64,
    /// Whether the budget was what held the sender back.
    full: bool,
    /// The longest that a byte took meanwhile: what was sent first finds no queue yet.
    longest: Option<Delay>,
    shortest: Option<Delay>,
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
            sent_at: VecDeque::new(),
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
        for (up_to, _) in self.sent_at.iter_mut().rev().take_while(|(up_to, _)| *up_to > self.sent) {
            *up_to = self.sent;
        }
        self.measured_at = self.measured_at.min(self.sent);
        if let Some(measuring) = &mut self.measuring {
            measuring.mark = measuring.mark.min(self.sent);
        }
    }

    /// Bytes of a stream went into the pipe. Answers whether to ask for their echo.
    pub(super) fn sent(&mut self, bytes: usize, now: Moment) -> bool {
        self.sent += bytes as u64;
        match self.sent_at.back_mut().filter(|(_, at)| now.since(*at) < TOGETHER) {
            Some((up_to, _)) => *up_to = self.sent,
            None => self.sent_at.push_back((self.sent, now)),
        }
        let due = self.sent - self.measured_at >= MEASURE_EVERY || self.base == (None, None);
        if self.measuring.is_some() || !due {
            return false;
        }
        self.measured_at = self.sent;
        self.measuring = Some(Measuring {
            mark: self.sent,
            since: now,
            arrived: self.arrived,
            full: false,
            longest: None,
            shortest: None,
        });
        true
    }

    /// The other end says how many bytes have come in all, and when the last of them came. What it cannot have received is not
    /// believed.
    pub(super) fn echoed(&mut self, arrived: u64, at: Stamp, now: Moment) {
        self.arrived = self.arrived.max(arrived.min(self.sent));
        let mut sent_at = None;
        while let Some((_, at)) = self.sent_at.pop_front_if(|(up_to, _)| *up_to <= self.arrived) {
            sent_at = Some(at);
        }
        let delay = sent_at.map(|sent| Delay::between(sent, at));
        if let Some(measuring) = &mut self.measuring {
            measuring.longest = measuring.longest.into_iter().chain(delay).reduce(Delay::max);
            measuring.shortest = measuring.shortest.into_iter().chain(delay).reduce(Delay::min);
        }
        let Some(done) = self.measuring.take_if(|measuring| measuring.mark <= self.arrived) else { return };
        if let Some((shortest, longest)) = done.shortest.zip(done.longest) {
            self.adapt(&done, Base { delay: shortest, round_trip: now.since(done.since) }, longest, now);
        }
    }

    fn adapt(&mut self, done: &Measuring, measured: Base, longest: Delay, now: Moment) {
        if now.since(self.period_began) >= BASE_PERIOD {
            self.base = (None, self.base.0);
            self.period_began = now;
        }
        let this = self.base.0.map_or(measured, |base| base.min(measured));
        self.base.0 = Some(this);
        let base = self.base.1.map_or(this, |last| last.min(this));
        let queued = u64::try_from(longest.beyond(base.delay)).unwrap_or(0);
        let queued = Duration::from_millis(queued);
        if queued > QUEUE_TARGET {
            self.opening = false;
            let with_queue = |queue: Duration| (base.round_trip + queue).as_secs_f64();
            let part = with_queue(QUEUE_TARGET) / with_queue(queued);
            // Truncation is harmless: the result is clamped.
            self.limit = ((self.limit as f64 * part) as u64).max(self.least);
        } else if done.full {
            // Near the edge in small steps: a sixteenth, and a quarter of the least at the least.
            let step = (self.limit / 16).max(self.least / 4);
            let far = self.opening && queued < QUEUE_TARGET / 4;
            let more = if far { (self.arrived - done.arrived).max(step) } else { step };
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

    #[test]
    fn what_is_withdrawn_was_not_measured_either() {
        let mut window = window();
        assert!(window.sent(PIECE, Moment::default()), "the first is measured");
        window.withdraw(PIECE);
        window.sent(1, Moment(Duration::from_secs(1)));
        assert_eq!(window.in_flight(), 1);
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
        let mut echoes: std::collections::VecDeque<(Moment, Stamp, u64)> = Default::default();
        let (mut sent, mut arrived, mut longest) = (0, 0, Duration::ZERO);
        while now.0 < how_long {
            while let Some((_, at, bytes)) = echoes.pop_front_if(|(at, ..)| *at <= now) {
                arrived = bytes;
                budget.echoed(bytes, at, now);
            }
            while has_room(&mut budget) {
                budget.sent(PIECE, now);
                sent += PIECE as u64;
                let takes = Duration::from_secs_f64(PIECE as f64 / rate as f64);
                free_at = free_at.max(now) + takes;
                if now.0 > how_long / 2 {
                    longest = longest.max(free_at.since(now));
                }
                echoes.push_back((free_at + way, Stamp::of(free_at + way / 2), sent));
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
        budget.echoed(u64::MAX, Stamp(0), Moment::default());
        while has_room(&mut budget) {
            budget.sent(PIECE, Moment::default());
        }
        assert_eq!(budget.sent, FIRST);
    }

    #[test]
    fn clocks_that_differ_and_start_again_are_no_delay() {
        let apart = Moment(Duration::from_secs(5));
        for start in [0, 1, u32::MAX - 20, u32::MAX] {
            let at = |millis: u32| Stamp(start.wrapping_add(millis));
            let (short, long) = (Delay::between(apart, at(0)), Delay::between(apart, at(40)));
            assert_eq!((long.beyond(short), short.beyond(long)), (40, -40));
            assert_eq!((long.min(short), short.min(long)), (short, short));
        }
    }

    #[test]
    fn an_echo_that_waits_behind_what_comes_the_other_way_narrows_nothing() {
        let mut budget = window();
        let at = |millis| Moment(Duration::from_millis(millis));
        for round in 0..20 {
            let sent = at(round * 1000);
            while has_room(&mut budget) {
                budget.sent(PIECE, sent);
            }
            // There in 20 ms; the echo takes 900.
            let (before, all) = (budget.limit(), budget.sent);
            budget.echoed(all, Stamp::of(at(round * 1000 + 20)), at(round * 1000 + 920));
            assert!(budget.limit() >= before);
        }
        assert!(budget.limit() > 10 * FIRST, "{}", budget.limit());
    }

    #[test]
    fn small_talk_is_not_measured() {
        let mut budget = window();
        assert!(budget.sent(30, Moment::default()));
        budget.echoed(30, Stamp(7), Moment::default());
        let asked = (0..60).filter(|_| budget.sent(20, Moment::default())).count();
        assert_eq!(asked, 0);
    }
}
