//! Keepalive and idle timeout of a link. Pure: what was heard when, and what to do now.

use std::time::Duration;

use crate::Moment;

/// Silence after which the other end is asked. An end that says something every 6.5 s, and is answered, is never asked: on an
/// idle link that one exchange is all there is.
pub const KEEPALIVE_AFTER: Duration = Duration::from_millis(6750);
/// How long the first ping may go unanswered before they come every second.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
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
const UNHEARD: Duration = Duration::from_millis(8250);

/// When something was heard last, for [`decide`]. A ping says how long its sender has heard nothing (`unheard`); where that
/// is long, the way there may be closed while the way back is not. Then this end counts as silent for just as long, until
/// it hears something after `told`: both ends give up together, even when the other's last word is lost.
pub(crate) fn heard(last: Moment, told: Option<(Moment, Duration)>) -> Moment {
    match told {
        Some((at, unheard)) if unheard >= UNHEARD && last <= at => {
            Moment(at.0.saturating_sub(unheard.min(UNHEARD)))
        }
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
        assert_eq!(pings, [6750, 8250, 9250]);
        assert_eq!(now, at(10_000));
    }

    #[test]
    fn any_frame_resets_the_idle_timeout() {
        assert_eq!(decide(at(9000), at(8500), Some(at(8000))), Action::Wait(Duration::from_millis(6250)));
        assert_eq!(decide(at(16_000), at(8500), Some(at(8000))), Action::Ping(ANSWER_WITHIN));
    }

    #[test]
    fn an_end_that_is_not_heard_pings_and_times_out_with_the_other() {
        let told = Some((at(20_000), UNHEARD));
        let silent = heard(at(20_000), told);
        assert_eq!(silent, at(11_750));
        assert_eq!(decide(at(20_000), silent, None), Action::Ping(ANSWER_WITHIN));
        assert_eq!(decide(at(21_750), silent, Some(at(21_000))), Action::Dead);
        // Anything heard after that shows that it was late only.
        assert_eq!(heard(at(20_500), told), at(20_500));
        // A first ping says nothing: nobody has had a reason to speak.
        assert_eq!(heard(at(20_000), Some((at(20_000), KEEPALIVE_AFTER))), at(20_000));
    }
}
