//! Keepalive and idle timeout of a link. Pure: what was heard when, and what to do now.

use std::time::Duration;

use crate::Moment;

/// Silence after which the other end is asked. An end that says something every 5.7 s, and is answered, is never asked: on an
/// idle link that one exchange is all there is.
pub const KEEPALIVE_AFTER: Duration = Duration::from_millis(5900);
/// How long the first ping may go unanswered before they come every second, and the other end counts as silent. More than a round
/// trip of the worst link that is used.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The pause between pings after that.
const PING_PERIOD: Duration = Duration::from_secs(1);
/// Silence after which the link is dead. QUIC itself would notice much later, or not at all after a rebinding.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do about a silent link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing until then.
    Wait(Duration),
    /// Ask, and look again after this.
    Ping(Duration),
    /// Give it up.
    Dead,
}

/// Decides at `now`, when something was last heard at `heard` and a ping went out at `pinged` last.
pub(crate) fn decide(now: Moment, heard: Moment, pinged: Option<Moment>) -> Action {
    let silence = now.since(heard);
    if silence >= IDLE_TIMEOUT {
        return Action::Dead;
    }
    if silence < KEEPALIVE_AFTER {
        return Action::Wait(KEEPALIVE_AFTER - silence);
    }
    let until_dead = IDLE_TIMEOUT - silence;
    match pinged.filter(|at| *at > heard) {
        None => Action::Ping(ANSWER_WITHIN.min(until_dead)),
        Some(at) => {
            let first = silence < KEEPALIVE_AFTER + ANSWER_WITHIN;
            let due = if first { ANSWER_WITHIN } else { PING_PERIOD };
            let waited = now.since(at);
            if waited >= due {
                Action::Ping(PING_PERIOD.min(until_dead))
            } else {
                Action::Wait((due - waited).min(until_dead))
            }
        }
    }
}

/// How long the other end may have heard nothing before what it says of that is taken as a sign: the answer to its first
/// ping is late by then.
const UNHEARD: Duration = KEEPALIVE_AFTER.saturating_add(ANSWER_WITHIN);

/// Whether the other end has left the first ping unanswered for as long as it may.
pub(crate) fn is_silent(now: Moment, heard: Moment) -> bool {
    now.since(heard) >= UNHEARD
}

/// What the other end says of its own ear: a ping says how long its sender has heard nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerSilence {
    at: Moment,
    unheard: Duration,
    /// From when on this end counts as silent.
    since: Moment,
}

impl PeerSilence {
    /// A ping came `at` that moment, after `before`.
    pub(crate) fn told(at: Moment, unheard: Duration, before: Option<PeerSilence>) -> Self {
        // A first word of it leaves this end time for an answer to its own ping, whatever it says.
        let since = Moment(at.0.saturating_sub(unheard.min(UNHEARD)));
        // Where the silence has grown, nothing was heard in between: it is the same one.
        let same = before.filter(|before| unheard > before.unheard && before.unheard >= UNHEARD);
        PeerSilence { at, unheard, since: same.map_or(since, |before| since.min(before.since)) }
    }
}

/// When something was heard last, for [`decide`]. Where the other end has heard nothing for long, the way there may be closed while the
/// way back is not. Then this end counts as silent for just as long, until it hears something after that word: both ends give up
/// together, even when the other's last word is lost.
pub(crate) fn heard(last: Moment, told: Option<PeerSilence>) -> Moment {
    match told {
        Some(told) if told.unheard >= UNHEARD && last <= told.at => told.since,
        Some(_) | None => last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    #[test]
    fn a_silent_link_is_pinged_and_times_out_at_ten_seconds() {
        let (mut now, mut pinged, mut pings) = (at(0), None, Vec::new());
        loop {
            match decide(now, at(0), pinged) {
                Action::Wait(pause) => now = now + pause,
                Action::Ping(pause) => {
                    pings.push(now.0.as_millis());
                    pinged = Some(now);
                    now = now + pause;
                }
                Action::Dead => break,
            }
        }
        assert_eq!(pings, [5900, 6900, 7900, 8900, 9900]);
        assert_eq!(now, at(10_000));
    }

    #[test]
    fn any_frame_resets_the_idle_timeout() {
        assert_eq!(decide(at(9000), at(8500), Some(at(8000))), Action::Wait(Duration::from_millis(5400)));
        assert_eq!(decide(at(14_400), at(8500), Some(at(8000))), Action::Ping(ANSWER_WITHIN));
    }

    #[test]
    fn an_end_that_is_not_heard_pings_and_times_out_with_the_other() {
        let first = PeerSilence::told(at(20_000), UNHEARD, None);
        let silent = heard(at(20_000), Some(first));
        assert_eq!(silent, at(13_100));
        assert_eq!(decide(at(20_000), silent, None), Action::Ping(ANSWER_WITHIN));
        assert_eq!(decide(at(23_100), silent, Some(at(23_000))), Action::Dead);
        // Its next pings are words of the same silence.
        let third = [7900, 8900].into_iter().zip([21_000, 22_000]).fold(first, |before, (unheard, now)| {
            PeerSilence::told(at(now), Duration::from_millis(unheard), Some(before))
        });
        assert_eq!(heard(at(22_000), Some(third)), at(13_100));
        // Anything heard after that shows that it was late only.
        assert_eq!(heard(at(22_500), Some(third)), at(22_500));
        // A first ping says nothing: nobody has had a reason to speak.
        let idle = PeerSilence::told(at(30_000), KEEPALIVE_AFTER, Some(third));
        assert_eq!(heard(at(30_000), Some(idle)), at(30_000));
        // What follows is another silence, and however long the first word says it is, there is time for an answer.
        let other = PeerSilence::told(at(40_000), Duration::from_secs(9000), Some(idle));
        assert_eq!(heard(at(40_000), Some(other)), at(33_100));
    }
}
