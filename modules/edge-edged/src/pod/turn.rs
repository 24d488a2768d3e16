//! A worker's turn with the runtime: see [`turns`](crate::pod::turns). Pure.

use std::time::Duration;

use beehive::Moment;
use futures::future::AbortHandle;

use crate::pod::action::{Action, StopReason};
use crate::pod::plan::Intent;
use crate::pod::sync_state::SyncState;
use crate::pod::turns::Turn;

/// 10 s: a pod whose calls take longer waits for something else than a processor, a network plugin maybe, which another pod may
/// have to bring. It goes on without a turn.
const LONGEST: Duration = Duration::from_secs(10);
/// 1 s: a stop that goes on for longer waits for its container, and the runtime only for its end. The turn is another pod's then.
const STOP_LONGEST: Duration = Duration::from_secs(1);
/// 1 s: as long as a start goes on, what it has come to is not worth a report; a second is what nobody misses.
const QUIET: Duration = Duration::from_secs(1);

/// What a turn is for. Starts and ends stand in queues of their own: neither waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnFor {
    /// From the sandbox to the start of the last container.
    Starting,
    /// From the stop of the first container to the removal of the sandbox.
    Ending,
}

/// What a pod wants of its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    what: Option<TurnFor>,
    /// Something begins that needs a turn.
    begins: bool,
    /// Something begins or goes on for which the runtime works with all it has: not the stop of a container alone.
    works: bool,
}

/// How a pod stands in the queue.
#[derive(Debug, Default)]
pub(crate) enum PodTurn {
    /// It needs none.
    #[default]
    None,
    /// It will be told.
    Waiting { what: TurnFor, task: AbortHandle },
    /// It has one since then. It is given back when it took too long, and the pod goes on without. Unless it `works`, nothing goes on
    /// than the stop of a container.
    Held { what: TurnFor, since: Moment, turn: Option<Turn>, works: bool },
}

/// Whether the runtime works for this with all it has.
fn is_work(action: &Action) -> bool {
    is_start(action) || matches!(action, Action::StopSandbox { .. } | Action::RemoveSandbox { .. })
}

fn is_start(action: &Action) -> bool {
    matches!(action, Action::Sandbox { .. } | Action::Start { .. })
}

/// Whether an action begins in the pod's turn only. What waits for a container, an image or a disk needs none; and the stop of a
/// container needs one only where nothing presses: the pod ends because it is to be removed, and neither its grace runs already, by a
/// hook or an earlier stop, nor does the node need the room or the time.
pub(crate) fn needs_turn(action: &Action, intent: &Intent, state: &SyncState) -> bool {
    match action {
        Action::Stop { id, why, .. } => {
            let is_counting = state.stopping.keys().any(|(of, _)| of == id);
            *intent == Intent::Terminate
                && *why == StopReason::Ending
                && !is_counting
                && state.grace.is_none()
        }
        _ => is_work(action),
    }
}

impl Demand {
    /// Of what is to begin, and what goes on.
    pub(crate) fn of(actions: &[Action], intent: &Intent, state: &SyncState) -> Demand {
        let begins = actions.iter().any(|action| needs_turn(action, intent, state));
        let works = actions.iter().any(is_work) || state.is_busy(is_work);
        let starts = actions.iter().any(is_start) || state.is_busy(is_start);
        let stops = state.is_busy(|action| matches!(action, Action::Stop { .. }));
        let what = match (starts, begins || works || stops) {
            (true, _) => Some(TurnFor::Starting),
            (false, true) => Some(TurnFor::Ending),
            (false, false) => None,
        };
        Demand { what, begins, works }
    }
}

impl PodTurn {
    fn what(&self) -> Option<TurnFor> {
        match self {
            PodTurn::None => None,
            PodTurn::Waiting { what, .. } | PodTurn::Held { what, .. } => Some(*what),
        }
    }

    /// Follows what the pod wants now. Answers what it has to queue for, if it has to.
    pub(crate) fn follow(&mut self, demand: Demand, now: Moment) -> Option<TurnFor> {
        if self.what() != demand.what {
            self.give_back();
        }
        if let PodTurn::Held { works, .. } = self {
            *works = demand.works;
        }
        if self.due().is_some_and(|at| at <= now) {
            match self {
                // When the container has ended the pod queues for the rest.
                PodTurn::Held { works: false, .. } => self.give_back(),
                PodTurn::Held { turn, .. } => *turn = None,
                PodTurn::None | PodTurn::Waiting { .. } => {}
            }
        }
        demand.what.filter(|_| demand.begins && matches!(self, PodTurn::None))
    }

    /// The turn came. One that is not waited for any more goes to the next.
    pub(crate) fn came(&mut self, turn: Turn, now: Moment) {
        if let PodTurn::Waiting { what, .. } = self {
            // What it works for is known when it begins.
            *self = PodTurn::Held { what: *what, since: now, turn: Some(turn), works: false };
        }
    }

    /// One that was free.
    pub(crate) fn held(what: TurnFor, turn: Turn, demand: Demand, now: Moment) -> PodTurn {
        PodTurn::Held { what, since: now, turn: Some(turn), works: demand.works }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, PodTurn::Waiting { .. })
    }

    /// Until when what a start has come to is not reported.
    pub(crate) fn quiet_until(&self) -> Option<Moment> {
        match self {
            PodTurn::Held { since, .. } => Some(*since + QUIET),
            PodTurn::None | PodTurn::Waiting { .. } => None,
        }
    }

    /// When it has to be given back.
    pub(crate) fn due(&self) -> Option<Moment> {
        match self {
            PodTurn::Held { since, turn: Some(_), works, .. } => {
                Some(*since + if *works { LONGEST } else { STOP_LONGEST })
            }
            PodTurn::Held { turn: None, .. } | PodTurn::None | PodTurn::Waiting { .. } => None,
        }
    }

    pub(crate) fn give_back(&mut self) {
        if let PodTurn::Waiting { task, .. } = std::mem::take(self) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::turns::Turns;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn stop(id: &str, why: StopReason) -> Action {
        Action::Stop { id: id.to_owned(), why, grace: Duration::from_secs(30) }
    }

    fn busy(actions: &[Action]) -> SyncState {
        SyncState { busy: actions.iter().cloned().collect(), ..SyncState::default() }
    }

    #[test]
    fn the_stop_of_a_container_waits_for_a_turn_where_nothing_presses() {
        let (mut state, ending) = (SyncState::default(), stop("c", StopReason::Ending));
        let evicted = Intent::Fail { reason: "Evicted".to_owned(), message: String::new() };
        assert!(needs_turn(&ending, &Intent::Terminate, &state));
        assert!(!needs_turn(&ending, &evicted, &state), "the node needs its room");
        assert!(!needs_turn(&stop("c", StopReason::Liveness), &Intent::Run, &state));
        // Its hook has taken of the grace, or a longer one is overtaken.
        state.stopping.insert(("c".to_owned(), Duration::from_secs(30)), at(1));
        assert!(!needs_turn(&ending, &Intent::Terminate, &state));
        assert!(needs_turn(&stop("d", StopReason::Ending), &Intent::Terminate, &state));
        // The machine ends.
        state.grace = Some(Duration::from_secs(5));
        assert!(!needs_turn(&stop("d", StopReason::Ending), &Intent::Terminate, &state));
    }

    #[test]
    fn an_end_has_its_turn_from_the_first_stop_on_and_a_grace_that_is_waited_out_holds_none() {
        let turns = Turns::new(1);
        let mut turn = PodTurn::default();
        let ending = stop("c", StopReason::Ending);
        let demand = Demand::of(std::slice::from_ref(&ending), &Intent::Terminate, &SyncState::default());
        assert_eq!(turn.follow(demand, at(10)), Some(TurnFor::Ending));
        turn = PodTurn::held(TurnFor::Ending, turns.take(false, false, 2).unwrap(), demand, at(10));
        assert_eq!(turn.due(), Some(at(11)));
        // One whose container ends at once goes on with it.
        let stops = Demand::of(&[], &Intent::Terminate, &busy(std::slice::from_ref(&ending)));
        assert_eq!(turn.follow(stops, at(10)), None);
        assert_eq!(turn.due(), Some(at(11)));
        let sandbox = [Action::StopSandbox { id: "s".to_owned() }];
        let rest = Demand::of(&sandbox, &Intent::Terminate, &SyncState::default());
        let mut quick = std::mem::take(&mut turn);
        assert_eq!(quick.follow(rest, at(10)), None);
        assert_eq!(quick.due(), Some(at(20)), "the runtime works for it");
        assert!(turns.take(false, false, 2).is_err());
        // One whose container takes its time leaves it to others meanwhile.
        turn = quick;
        assert_eq!(turn.follow(stops, at(10)), None);
        assert_eq!(turn.follow(stops, at(11)), None);
        assert!(matches!(turn, PodTurn::None), "{turn:?}");
        let other = turns.take(false, false, 2).expect("it was given back");
        assert_eq!(turn.follow(stops, at(30)), None, "it waits for nothing but its container");
        assert_eq!(turn.follow(rest, at(40)), Some(TurnFor::Ending));
        drop(other);
    }

    #[test]
    fn a_turn_is_for_a_start_or_for_an_end_and_ends_with_what_it_was_for() {
        let turns = Turns::new(1);
        let start = [Action::Start { container: "c".to_owned(), attempt: 0 }];
        let starts = Demand::of(&[], &Intent::Run, &busy(&start));
        let mut turn = PodTurn::held(TurnFor::Starting, turns.take(false, false, 2).unwrap(), starts, at(1));
        assert_eq!(turn.follow(starts, at(2)), None);
        assert_eq!(turn.due(), Some(at(11)));
        // It takes too long: others have the turn, and the pod goes on without.
        assert_eq!(turn.follow(starts, at(11)), None);
        assert!(matches!(turn, PodTurn::Held { turn: None, .. }), "{turn:?}");
        assert!(turns.take(false, false, 2).is_ok());
        // What it waits for is not the runtime's work.
        let image = [Action::Image { container: "c".to_owned(), image: "x".to_owned() }];
        turn.follow(Demand::of(&image, &Intent::Run, &SyncState::default()), at(12));
        assert!(matches!(turn, PodTurn::None), "{turn:?}");
        turn = PodTurn::held(TurnFor::Starting, turns.take(false, false, 2).unwrap(), starts, at(13));
        let ends = Demand::of(&[stop("c", StopReason::Ending)], &Intent::Terminate, &SyncState::default());
        assert_eq!(turn.follow(ends, at(14)), Some(TurnFor::Ending));
        assert!(turns.take(false, false, 2).is_ok());
    }
}
