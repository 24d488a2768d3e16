//! Waiting for the pod's [`turn`](crate::pod::turn) with the runtime.

use beehive::{Context, Moment};

use crate::pod::action::Action;
use crate::pod::message::PodWorkerMsg;
use crate::pod::plan::Intent;
use crate::pod::turn::{Demand, PodTurn, TurnFor, needs_turn};
use crate::pod::worker::PodWorker;
use crate::runtime::pods::RuntimePod;

impl PodWorker {
    /// Those of a plan's actions that may begin now, and whether the stop of a container has to wait. What waits is planned again
    /// when the pod has its turn, if it is still wanted then.
    pub(crate) fn in_turn(
        &mut self,
        mut actions: Vec<Action>,
        intent: &Intent,
        now: Moment,
        cx: &Context<PodWorkerMsg>,
    ) -> (Vec<Action>, bool) {
        let demand = Demand::of(&actions, intent, &self.state);
        if let Some(what) = self.turn.follow(demand, now) {
            self.turn = self.queue(what, demand, now, cx);
        }
        let mut stop_waits = false;
        if self.turn.is_waiting() {
            actions.retain(|action| {
                let waits = needs_turn(action, intent, &self.state);
                stop_waits |= waits && matches!(action, Action::Stop { .. });
                !waits
            });
        }
        (actions, stop_waits)
    }

    /// Notes since when containers are being stopped. While a stop waits for the pod's turn no grace passes but that of a container
    /// whose hook runs.
    pub(crate) fn note_stopping(
        &mut self,
        stopping: Vec<(String, std::time::Duration)>,
        (begun, stop_waits): (&[Action], bool),
        now: Moment,
    ) {
        for (id, grace) in stopping {
            let hook = |action: &Action| matches!(action, Action::PreStop { id: of, .. } if *of == id);
            if !stop_waits || begun.iter().any(hook) || self.state.is_busy(hook) {
                self.state.stopping.entry((id, grace)).or_insert(now);
            }
        }
    }

    fn queue(&self, what: TurnFor, demand: Demand, now: Moment, cx: &Context<PodWorkerMsg>) -> PodTurn {
        let pod = &self.update.pod;
        let calls = 1 + pod.spec().containers.len() + pod.init_containers().count();
        let (turns, has_begun) = match what {
            TurnFor::Starting => (&self.deps.turns.starting, has_begun_to_start(&self.seen)),
            TurnFor::Ending => (&self.deps.turns.ending, !self.state.stopping.is_empty()),
        };
        match turns.take(pod.is_critical(), has_begun, calls) {
            Ok(turn) => PodTurn::held(what, turn, demand, now),
            Err(coming) => {
                let worker = cx.myself();
                let task = cx.spawn(async move {
                    // A worker that is gone leaves its turn to the next.
                    if let Ok(turn) = coming.await {
                        let _ = worker.tell(PodWorkerMsg::TurnCame(turn)).await;
                    }
                });
                PodTurn::Waiting { what, task }
            }
        }
    }
}

/// Whether a pod that starts has its sandbox, and no container of it has started twice. One that starts again and again has no place
/// before the others.
fn has_begun_to_start(seen: &RuntimePod) -> bool {
    seen.ready_sandbox().is_some() && seen.containers.iter().all(|container| container.attempt == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::pod::plan::tests::{instance, seen};
    use crate::runtime::pods::RuntimeState;
    use serde_json::json;

    #[test]
    fn a_pod_whose_sandbox_is_there_has_begun_and_one_that_crashes_again_and_again_has_not() {
        let pod = pod(json!({}));
        assert!(!has_begun_to_start(&RuntimePod::default()));
        assert!(has_begun_to_start(&seen(vec![])));
        assert!(has_begun_to_start(&seen(vec![instance(&pod, "c", "s", 0, RuntimeState::Exited)])));
        assert!(!has_begun_to_start(&seen(vec![instance(&pod, "c", "s", 1, RuntimeState::Exited)])));
    }
}
