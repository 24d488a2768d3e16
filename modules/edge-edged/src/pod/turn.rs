//! A worker's turn with the runtime: see [`turns`](crate::pod::turns).

use std::time::Duration;

use beehive::{Context, Moment};
use futures::future::AbortHandle;

use crate::pod::action::Action;
use crate::pod::message::PodWorkerMsg;
use crate::pod::turns::Turn;
use crate::pod::worker::PodWorker;

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

    fn give_back(&mut self) {
        if let PodTurn::Waiting(task) = std::mem::take(self) {
            task.abort();
        }
    }
}

/// Whether the runtime works for this with all it has. What waits for a container, an image or a disk needs no turn.
fn needs_turn(action: &Action) -> bool {
    match action {
        Action::Sandbox { .. }
        | Action::Start { .. }
        | Action::StopSandbox { .. }
        | Action::RemoveSandbox { .. } => true,
        Action::Volumes
        | Action::Image { .. }
        | Action::PostStart { .. }
        | Action::PreStop { .. }
        | Action::Stop { .. }
        | Action::Resize { .. }
        | Action::Reset { .. }
        | Action::RemoveContainer { .. }
        | Action::Unmount
        | Action::Teardown
        | Action::Report => false,
    }
}

impl PodWorker {
    /// Those of a plan's actions that may begin now. The others are planned again when the pod has its turn, if they are still
    /// wanted then.
    pub(crate) fn in_turn(
        &mut self,
        mut actions: Vec<Action>,
        now: Moment,
        cx: &Context<PodWorkerMsg>,
    ) -> Vec<Action> {
        if !actions.iter().any(needs_turn) && !self.state.is_busy(needs_turn) {
            self.turn.give_back();
            return actions;
        }
        if self.turn.due().is_some_and(|at| at <= now)
            && let PodTurn::Held { turn, .. } = &mut self.turn
        {
            *turn = None;
        }
        if let PodTurn::None = self.turn {
            self.turn = self.queue(now, cx);
        }
        if let PodTurn::Waiting(_) = self.turn {
            actions.retain(|action| !needs_turn(action));
        }
        actions
    }

    fn queue(&self, now: Moment, cx: &Context<PodWorkerMsg>) -> PodTurn {
        let pod = &self.update.pod;
        let calls = 1 + pod.spec().containers.len() + pod.init_containers().count();
        match self.deps.turns.take(pod.is_critical(), calls) {
            Ok(turn) => PodTurn::Held { since: now, turn: Some(turn) },
            Err(coming) => {
                let worker = cx.myself();
                PodTurn::Waiting(cx.spawn(async move {
                    // A worker that is gone leaves its turn to the next.
                    if let Ok(turn) = coming.await {
                        let _ = worker.tell(PodWorkerMsg::TurnCame(turn)).await;
                    }
                }))
            }
        }
    }
}
