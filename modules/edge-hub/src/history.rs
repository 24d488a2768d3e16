//! What became of the link, for whoever looks at the node while it is cut off. Pure.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use beehive::Moment;
use contract::edgepage::{EventView, LinkFailure};

/// 16: a day of a link that breaks now and then; what is older stands in the log.
const EVENTS: usize = 16;
/// 512 bytes of what the other end or the system says.
const REASON_MAX: usize = 512;

/// What has happened since this hub began.
#[derive(Debug, Clone)]
pub(crate) struct LinkHistory {
    /// Since when there is a link, or none.
    changed: Moment,
    is_up: bool,
    failed_dials: u64,
    last_failure: Option<(String, Moment)>,
    /// The newest first.
    events: VecDeque<EventView>,
}

impl LinkHistory {
    /// There is no link at `now`.
    pub(crate) fn new(now: Moment) -> Self {
        LinkHistory {
            changed: now,
            is_up: false,
            failed_dials: 0,
            last_failure: None,
            events: VecDeque::new(),
        }
    }

    /// For how long there is a link, or none.
    pub(crate) fn since(&self, now: Moment) -> Duration {
        now.since(self.changed)
    }

    /// How many dials came to nothing since there was a link.
    pub(crate) fn failed_dials(&self) -> u64 {
        self.failed_dials
    }

    /// What went wrong last.
    pub(crate) fn last_failure(&self, now: Moment) -> Option<LinkFailure> {
        let (reason, at) = self.last_failure.as_ref()?;
        Some(LinkFailure { reason: reason.clone(), seconds_ago: now.since(*at).as_secs() })
    }

    /// The newest first.
    pub(crate) fn events(&self) -> impl Iterator<Item = &EventView> {
        self.events.iter()
    }

    /// There is a link, the first or in the place of another.
    pub(crate) fn linked(&mut self, server: &str, carrier: &str, now: Moment, wall: SystemTime) {
        self.change(true, now);
        self.failed_dials = 0;
        self.happened(false, "Linked", format!("linked to {server} over {carrier}"), wall);
    }

    /// The link that was in use is none any more.
    pub(crate) fn ended(&mut self, reason: &str, now: Moment, wall: SystemTime) {
        self.change(false, now);
        self.went_wrong("LinkEnded", reason, now, wall);
    }

    /// A dial came to nothing.
    pub(crate) fn dial_failed(&mut self, reason: &str, now: Moment, wall: SystemTime) {
        self.failed_dials = self.failed_dials.saturating_add(1);
        self.went_wrong("DialFailed", reason, now, wall);
    }

    fn change(&mut self, is_up: bool, now: Moment) {
        if self.is_up != is_up {
            (self.is_up, self.changed) = (is_up, now);
        }
    }

    fn went_wrong(&mut self, word: &str, reason: &str, now: Moment, wall: SystemTime) {
        let reason = reason[..reason.floor_char_boundary(REASON_MAX)].to_owned();
        self.last_failure = Some((reason.clone(), now));
        self.happened(true, word, reason, wall);
    }

    /// What happens again and again is one event, with its count: a node that is cut off for a week dials some 100,000 times.
    fn happened(&mut self, is_warning: bool, reason: &str, message: String, wall: SystemTime) {
        let unix = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let unix = i64::try_from(unix).unwrap_or(i64::MAX);
        if let Some(last) =
            self.events.front_mut().filter(|last| last.reason == reason && last.message == message)
        {
            (last.unix, last.count) = (unix, last.count.saturating_add(1));
            return;
        }
        let (about, reason) = ("Link".to_owned(), reason.to_owned());
        self.events.truncate(EVENTS - 1);
        self.events.push_front(EventView { unix, is_warning, about, reason, message, count: 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> (Moment, SystemTime) {
        let span = Duration::from_secs(seconds);
        (Moment(span), UNIX_EPOCH + span)
    }

    #[test]
    fn it_is_told_since_when_and_why_there_is_no_link() {
        let mut history = LinkHistory::new(at(0).0);
        let dial_failed = |history: &mut LinkHistory, seconds, reason| {
            let (now, wall) = at(seconds);
            history.dial_failed(reason, now, wall);
        };
        dial_failed(&mut history, 1, "no answer");
        history.linked("a:10001", "quic", at(5).0, at(5).1);
        assert_eq!((history.since(at(9).0), history.failed_dials()), (Duration::from_secs(4), 0));
        // One in its place is no new beginning.
        history.linked("b:10001", "quic", at(7).0, at(7).1);
        assert_eq!(history.since(at(9).0), Duration::from_secs(4));
        history.ended("idle timeout", at(10).0, at(10).1);
        for second in 11..1011 {
            dial_failed(&mut history, second, "no answer");
        }
        assert_eq!(history.since(at(1010).0), Duration::from_secs(1000));
        let last = LinkFailure { reason: "no answer".to_owned(), seconds_ago: 2 };
        assert_eq!((history.last_failure(at(1012).0), history.failed_dials()), (Some(last), 1000));
        let events: Vec<_> =
            history.events().map(|event| (event.reason.as_str(), event.count, event.unix)).collect();
        assert_eq!(
            events,
            [
                ("DialFailed", 1000, 1010),
                ("LinkEnded", 1, 10),
                ("Linked", 1, 7),
                ("Linked", 1, 5),
                ("DialFailed", 1, 1)
            ]
        );
    }

    #[test]
    fn it_stays_small_whatever_happens() {
        let mut history = LinkHistory::new(at(0).0);
        for number in 0..1000 {
            history.dial_failed(&format!("{number} {}", "é".repeat(4096)), at(1).0, at(1).1);
        }
        assert_eq!(history.events().count(), EVENTS);
        assert!(history.events().all(|event| event.message.len() <= REASON_MAX));
    }
}
