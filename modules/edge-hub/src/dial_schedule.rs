//! When the dials of one attempt begin. Pure: the time and the jitter are arguments.
//!
//! A dial that began while the way was cut finds out late that it is whole again: its packets wait longer and longer
//! before they are sent once more. So further ones begin beside it, and whichever is answered first is used. None begins
//! while somebody there answers: in a storm each dial costs the cloud a handshake, and on a narrow way its packets count.

use std::time::Duration;

use beehive::Moment;

use crate::plan::{ATTEMPT_LIMIT, Carrier, SHORT_PATIENCE};

/// 1 s: the shortest time between two dials over one carrier.
pub const PERIOD: Duration = Duration::from_secs(1);
/// 400 ms: jitter adds up to this.
pub const SPREAD: Duration = Duration::from_millis(400);
/// 3: dials over one carrier at once. Each ends by itself after 3 s without a packet from there.
pub const AT_ONCE: usize = 3;
/// 3 s: a dial that has lasted longer has had an answer, by what dialers promise, and is only slow. Of QUIC's it is known besides when the last
/// packet came: whoever has answered one and says no more is gone.
const ANSWERED_AFTER: Duration = Duration::from_secs(3);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialStep {
    /// One more dial over this carrier.
    Dial(Carrier),
    /// Nothing, for so long at most, or until a dial comes to an end.
    Wait(Duration),
    /// The server is silent.
    Over,
}

/// The dials over one carrier.
#[derive(Debug, Default)]
struct CarrierDials {
    /// When the next one begins; `None`: the server is not reached this way.
    due: Option<Moment>,
    /// When those that go on began.
    under_way: Vec<Moment>,
}

impl CarrierDials {
    fn waits(&self, now: Moment) -> Option<Duration> {
        let due = self.due?;
        match self.under_way.first() {
            // The oldest makes room, at its limit at the latest.
            Some(oldest) if self.under_way.len() >= AT_ONCE => {
                Some((*oldest + ATTEMPT_LIMIT).max(due).since(now).max(Duration::from_millis(1)))
            }
            Some(_) | None => Some(due.since(now)),
        }
    }
}

/// The dials of one attempt at one server.
#[derive(Debug)]
pub struct DialSchedule {
    ends: Moment,
    /// It ends on time; else with the next dial that would be due.
    ends_on_time: bool,
    quic: CarrierDials,
    websocket: CarrierDials,
}

impl DialSchedule {
    /// The dials from `now` on. WebSocket joins in after `head_start` where there is QUIC, too. With `patience` the end comes
    /// after so long and to the moment, since another server is next; without, only so that the silence is told now and then.
    pub fn new(now: Moment, head_start: Duration, carriers: &[Carrier], patience: Option<Duration>) -> Self {
        let dials = |carrier, due| CarrierDials {
            due: carriers.contains(&carrier).then_some(due),
            under_way: Vec::new(),
        };
        let joins = if carriers.contains(&Carrier::Quic) { now + head_start } else { now };
        DialSchedule {
            ends: now + patience.unwrap_or(ATTEMPT_LIMIT),
            ends_on_time: patience.is_some(),
            quic: dials(Carrier::Quic, now),
            websocket: dials(Carrier::WebSocket, joins),
        }
    }

    fn dials(&mut self, carrier: Carrier) -> &mut CarrierDials {
        match carrier {
            Carrier::Quic => &mut self.quic,
            Carrier::WebSocket => &mut self.websocket,
        }
    }

    /// What to do at `now`. A dial that is named has begun. `answered`: packets of a dial that is under way have come back a
    /// moment ago.
    pub fn step(&mut self, now: Moment, answered: bool, jitter: impl Fn(Duration) -> Duration) -> DialStep {
        if answered && !self.quic.under_way.is_empty() {
            return DialStep::Wait(PERIOD);
        }
        let mut pause: Option<Duration> = None;
        let mut due = None;
        for carrier in [Carrier::Quic, Carrier::WebSocket] {
            match self.dials(carrier).waits(now) {
                Some(Duration::ZERO) => due = due.or(Some(carrier)),
                Some(wait) => pause = Some(pause.map_or(wait, |least| least.min(wait))),
                None => {}
            }
        }
        if self.is_over(now, due) {
            return DialStep::Over;
        }
        match (due, pause) {
            (Some(carrier), _) => {
                // Jitter makes half of a pause to all of it.
                let next = now + PERIOD + jitter(2 * SPREAD).saturating_sub(SPREAD);
                let dials = self.dials(carrier);
                dials.due = Some(next);
                dials.under_way.push(now);
                DialStep::Dial(carrier)
            }
            (None, Some(pause)) => DialStep::Wait(if self.ends_on_time && now < self.ends {
                pause.min(self.ends.since(now))
            } else {
                pause
            }),
            (None, None) => DialStep::Over,
        }
    }

    fn is_over(&self, now: Moment, due: Option<Carrier>) -> bool {
        let slow = |began: &Moment| now.since(*began) >= ANSWERED_AFTER;
        // While one of QUIC's is answered nobody asks. Where there is no other server it is waited for in any case.
        let answered = self.websocket.under_way.iter().any(slow)
            || (!self.ends_on_time && self.quic.under_way.iter().any(slow));
        now >= self.ends && !answered && (self.ends_on_time || due.is_some())
    }

    /// The server was there, and is gone or about to go. Where there is another one it has no more than a moment: behind one address there may be
    /// several, and another carrier may lead to one that stays.
    pub fn gone(&mut self, now: Moment) {
        if self.ends_on_time {
            self.ends = self.ends.min(now + SHORT_PATIENCE);
        }
    }

    /// The dial over `carrier` that began then came to nothing.
    pub fn failed(&mut self, carrier: Carrier, began: Moment, now: Moment) {
        self.dials(carrier).under_way.retain(|other| *other != began);
        // QUIC has had its chance.
        if carrier == Carrier::Quic
            && let Some(due) = &mut self.websocket.due
        {
            *due = (*due).min(now);
        }
    }

    /// Somebody took a connection: the other dials are given up.
    pub fn taken(&mut self) {
        self.quic.under_way.clear();
        self.websocket.under_way.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::HEAD_START;
    use crate::plan::PATIENCE;

    const STEP: Duration = Duration::from_millis(10);
    const BOTH: [Carrier; 2] = [Carrier::Quic, Carrier::WebSocket];

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    fn longest(pause: Duration) -> Duration {
        pause
    }

    fn shortest(pause: Duration) -> Duration {
        pause / 2
    }

    /// Begins of dials while nobody answers, each giving up after 3 s, until the schedule is over or the time is.
    fn silence(
        mut schedule: DialSchedule,
        from: Moment,
        to: Moment,
        jitter: fn(Duration) -> Duration,
    ) -> (Vec<(Moment, Carrier)>, Option<Moment>) {
        let (mut now, mut begun, mut going) = (from, Vec::new(), Vec::new());
        while now < to {
            going.retain(|(began, carrier)| {
                let gone = now.since(*began) >= ANSWERED_AFTER;
                if gone {
                    schedule.failed(*carrier, *began, now);
                }
                !gone
            });
            loop {
                match schedule.step(now, false, jitter) {
                    DialStep::Dial(carrier) => {
                        begun.push((now, carrier));
                        going.push((now, carrier));
                    }
                    DialStep::Wait(pause) => {
                        assert!(pause > Duration::ZERO);
                        break;
                    }
                    DialStep::Over => return (begun, Some(now)),
                }
            }
            for carrier in BOTH {
                assert!(going.iter().filter(|dial| dial.1 == carrier).count() <= AT_ONCE);
            }
            now = now + STEP;
        }
        (begun, None)
    }

    fn pauses(begun: &[Moment]) -> Vec<Duration> {
        begun.windows(2).map(|pair| pair[1].since(pair[0])).collect()
    }

    #[test]
    fn whenever_the_way_is_whole_again_a_dial_that_can_succeed_begins_within_a_second_and_a_half() {
        for jitter in [shortest, longest] {
            // Attempt after attempt, as the hub makes them.
            let (mut begun, mut from, to) = (Vec::new(), at(0), at(100_000));
            while from < to {
                let schedule = DialSchedule::new(from, HEAD_START, &[Carrier::Quic], None);
                let (dials, over) = silence(schedule, from, to, jitter);
                begun.extend(dials.into_iter().map(|(began, _)| began));
                from = over.unwrap_or(to);
            }
            // 1 to 2 s between any two, with a margin, at the seams of attempts as well.
            for pause in pauses(&begun) {
                assert!((PERIOD..=PERIOD + SPREAD + STEP).contains(&pause), "{pause:?}");
            }
            for back in (0..90_000).step_by(10).map(at) {
                let next = begun.iter().find(|began| **began >= back).unwrap();
                assert!(next.since(back) <= Duration::from_millis(1500), "{back:?}: {next:?}");
            }
        }
    }

    #[test]
    fn a_silent_server_is_left_after_six_seconds_if_there_is_another() {
        for jitter in [shortest, longest] {
            let (begun, over) = silence(
                DialSchedule::new(at(0), HEAD_START, &BOTH, Some(PATIENCE)),
                at(0),
                at(60_000),
                jitter,
            );
            assert_eq!(over, Some(Moment(PATIENCE)));
            let first = |wanted| begun.iter().find(|(_, carrier)| *carrier == wanted).unwrap().0;
            assert_eq!((first(Carrier::Quic), first(Carrier::WebSocket)), (at(0), Moment(HEAD_START)));
        }
    }

    #[test]
    fn who_has_answered_and_is_slow_is_waited_for() {
        for (carrier, patience) in [(Carrier::WebSocket, Some(PATIENCE)), (Carrier::Quic, None)] {
            let mut schedule = DialSchedule::new(at(0), HEAD_START, &[carrier], patience);
            assert_eq!(schedule.step(at(0), false, longest), DialStep::Dial(carrier));
            let later = |millis| if patience.is_some() { at(millis) } else { at(9000 + millis) };
            assert!(matches!(schedule.step(later(6000), false, longest), DialStep::Dial(_)));
            assert!(matches!(schedule.step(later(8000), false, longest), DialStep::Dial(_)));
            // Three at once are enough.
            assert!(matches!(schedule.step(later(8900), false, longest), DialStep::Wait(_)));
            assert!(matches!(schedule.step(later(9900), false, longest), DialStep::Wait(_)));
            schedule.failed(carrier, at(0), later(10_000));
            schedule.failed(carrier, later(6000), later(10_000));
            assert_eq!(schedule.step(later(10_000), false, longest), DialStep::Over);
        }
    }

    /// A CloudCore that ends in the middle of a handshake: QUIC itself would give it up after 10 s.
    #[test]
    fn who_has_answered_and_says_no_more_is_left_if_there_is_another() {
        let mut schedule = DialSchedule::new(at(0), HEAD_START, &[Carrier::Quic], Some(SHORT_PATIENCE));
        assert_eq!(schedule.step(at(0), false, longest), DialStep::Dial(Carrier::Quic));
        for millis in [100, 1100, 2100] {
            assert_eq!(schedule.step(at(millis), true, longest), DialStep::Wait(PERIOD));
        }
        assert_eq!(schedule.step(at(3100), false, longest), DialStep::Over);
    }

    #[test]
    fn who_ends_a_connection_before_the_hello_is_answered_has_a_moment_if_there_is_another() {
        for (patience, over) in [(Some(PATIENCE), true), (None, false)] {
            let mut schedule = DialSchedule::new(at(0), HEAD_START, &BOTH, patience);
            assert_eq!(schedule.step(at(0), false, longest), DialStep::Dial(Carrier::Quic));
            schedule.taken();
            schedule.failed(Carrier::Quic, at(0), at(100));
            schedule.gone(at(100));
            assert_eq!(
                schedule.step(at(100), false, longest),
                DialStep::Dial(Carrier::WebSocket),
                "another way"
            );
            schedule.failed(Carrier::WebSocket, at(100), at(110));
            let after = at(100) + SHORT_PATIENCE;
            assert_eq!(schedule.step(after, false, longest) == DialStep::Over, over);
        }
    }

    #[test]
    fn nothing_begins_beside_a_dial_that_is_being_answered() {
        let mut schedule = DialSchedule::new(at(0), HEAD_START, &BOTH, None);
        assert_eq!(
            schedule.step(at(0), true, longest),
            DialStep::Dial(Carrier::Quic),
            "an answer to an earlier attempt"
        );
        for millis in (1000..6000).step_by(500) {
            assert_eq!(schedule.step(at(millis), true, longest), DialStep::Wait(PERIOD));
        }
        // It says no more, or has come to nothing.
        assert_eq!(schedule.step(at(6000), false, longest), DialStep::Dial(Carrier::Quic));
        assert_eq!(schedule.step(at(6000), false, longest), DialStep::Dial(Carrier::WebSocket));
        schedule.failed(Carrier::Quic, at(0), at(7000));
        schedule.failed(Carrier::Quic, at(6000), at(7000));
        assert_eq!(schedule.step(at(7500), true, longest), DialStep::Dial(Carrier::Quic));
    }

    #[test]
    fn websocket_joins_in_as_soon_as_quic_has_failed() {
        let mut schedule = DialSchedule::new(at(0), HEAD_START, &BOTH, None);
        assert_eq!(schedule.step(at(0), false, longest), DialStep::Dial(Carrier::Quic));
        assert_eq!(schedule.step(at(0), false, longest), DialStep::Wait(PERIOD + SPREAD));
        schedule.failed(Carrier::Quic, at(0), at(20));
        assert_eq!(schedule.step(at(20), false, longest), DialStep::Dial(Carrier::WebSocket));
        assert_eq!(
            schedule.step(at(20), false, longest),
            DialStep::Wait(PERIOD + SPREAD - Duration::from_millis(20))
        );
    }

    #[test]
    fn a_server_that_is_reached_one_way_only_is_dialled_that_way_at_once() {
        let mut schedule = DialSchedule::new(at(0), HEAD_START, &[Carrier::WebSocket], None);
        assert_eq!(schedule.step(at(0), false, longest), DialStep::Dial(Carrier::WebSocket));
        assert_eq!(
            DialSchedule::new(at(0), HEAD_START, &[], None).step(at(0), false, longest),
            DialStep::Over
        );
    }
}
