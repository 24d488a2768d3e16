//! Which of a plan's actions wait for the pod's [`turn`](crate::pod::turn) with the runtime.

use beehive::{Context, Moment};

use crate::pod::action::Action;
use crate::pod::message::PodWorkerMsg;
use crate::pod::turn::PodTurn;
use crate::pod::worker::PodWorker;

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
