//! Servers that end a session for what they were to send by themselves: how often, and how long they are spared.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// 10 minutes after which a session that was ended says nothing of the next one.
const DROPS_WITHIN: Duration = Duration::from_secs(600);
/// 2 sessions that a server may end for what it is to send by itself.
const DROPS_MAX: u32 = 2;
/// A minute in which it is not asked for that any more.
const SPARED_FOR: Duration = Duration::from_secs(60);

/// How often a server has ended a session for what it was to send by itself, and when it did so last. Each such session is one of few.
#[derive(Debug, Default)]
pub(crate) struct Dropped(Mutex<(u32, Option<Instant>)>);

impl Dropped {
    /// Again.
    pub(crate) fn note(&self, now: Instant) {
        let mut dropped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = if is_within(dropped.1, now, DROPS_WITHIN) { dropped.0.saturating_add(1) } else { 1 };
        *dropped = (times, Some(now));
    }

    /// Whether it is not to be asked for that now: once may be a server that was started anew.
    pub(crate) fn is_to_be_spared(&self, now: Instant) -> bool {
        let (times, last) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times >= DROPS_MAX && is_within(last, now, SPARED_FOR)
    }

    /// Whether it says anything of the next session.
    pub(crate) fn is_of_use(&self, now: Instant) -> bool {
        is_within(self.0.lock().unwrap_or_else(PoisonError::into_inner).1, now, DROPS_WITHIN)
    }
}

fn is_within(last: Option<Instant>, now: Instant, within: Duration) -> bool {
    last.is_some_and(|last| now.saturating_duration_since(last) < within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_drops_sessions_is_spared_for_a_minute() {
        let (dropped, begin) = (Dropped::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        dropped.note(at(0));
        assert!(!dropped.is_to_be_spared(at(1)), "once may be a restart");
        dropped.note(at(600));
        assert!(!dropped.is_to_be_spared(at(601)), "that is long ago");
        dropped.note(at(1100));
        assert!(dropped.is_to_be_spared(at(1159)) && !dropped.is_to_be_spared(at(1160)));
        assert!(dropped.is_of_use(at(1699)) && !dropped.is_of_use(at(1700)));
    }
}
