//! A worker's turn with the runtime: see [`turns`](crate::pod::turns).

use std::time::Duration;

use beehive::Moment;
use futures::future::AbortHandle;

use crate::pod::turns::Turn;

/// 10 s: a pod whose calls take longer waits for something else than a processor, a network plugin maybe, which another pod may
/// have to bring. It goes on without a turn.
const LONGEST: Duration = Duration::from_secs(10);
/// 1 s: as long as a start goes on, what it has come to is not worth a report; a second is what nobody misses.
const QUIET: Duration = Duration::from_secs(1);

/// How a pod stands in the queue.
#[derive(Default)]
pub(crate) enum PodTurn {
    /// It needs none.
    #[default]
    None,
    /// It will be told.
    Waiting(AbortHandle),
    /// It has one since then. It is given back when it took too long, and the pod goes on without.
    Held { since: Moment, turn: Option<Turn> },
}

impl PodTurn {
    /// The turn came. One that is not waited for any more goes to the next.
    pub(crate) fn came(&mut self, turn: Turn, now: Moment) {
        if let PodTurn::Waiting(_) = self {
            *self = PodTurn::Held { since: now, turn: Some(turn) };
        }
    }

    /// Until when what a start has come to is not reported.
    pub(crate) fn quiet_until(&self) -> Option<Moment> {
        match self {
            PodTurn::Held { since, .. } => Some(*since + QUIET),
            PodTurn::None | PodTurn::Waiting(_) => None,
        }
    }

    /// When it has to be given back.
    pub(crate) fn due(&self) -> Option<Moment> {
        match self {
            PodTurn::Held { since, turn: Some(_) } => Some(*since + LONGEST),
            PodTurn::Held { turn: None, .. } | PodTurn::None | PodTurn::Waiting(_) => None,
        }
    }

    pub(crate) fn give_back(&mut self) {
        if let PodTurn::Waiting(task) = std::mem::take(self) {
            task.abort();
        }
    }
}
