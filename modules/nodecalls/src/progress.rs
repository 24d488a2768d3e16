//! Whether anything passes in a call, and that it is to end because nothing does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::Moment;
use tokio::sync::Notify;

/// What is known of a call whose bytes go both ways. One of any other kind is never stalled.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The writes that wait: one for each way at the most.
    writes: usize,
    /// When something passed last, or the first of them began to wait.
    since: Moment,
    has_ended: bool,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write begins.
    pub(crate) fn waits(&self, now: Moment) {
        let mut state = self.state();
        if state.writes == 0 {
            state.since = now;
        }
        state.writes += 1;
    }

    /// It has ended.
    pub(crate) fn passed(&self, now: Moment) {
        let mut state = self.state();
        state.writes = state.writes.saturating_sub(1);
        state.since = now;
    }

    /// For how long a write has waited while nothing passed either way; `None`: none waits.
    pub(crate) fn stalled(&self, now: Moment) -> Option<Duration> {
        let state = self.state();
        (state.writes > 0).then(|| now.since(state.since))
    }

    /// The call is to end: another one needs its place.
    pub(crate) fn end(&self) {
        self.state().has_ended = true;
        self.ended.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn has_ended(&self) -> bool {
        self.state().has_ended
    }

    /// Completes when the call is to end. One waits.
    pub(crate) async fn to_end(&self) {
        self.ended.notified().await;
    }
}
