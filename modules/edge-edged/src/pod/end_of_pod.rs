//! The end of a pod of which nothing is left: what the cloud and Edged are told.

use std::rc::Rc;

use beehive::{Context, Moment, Refusal};
use contract::UpReport;
use contract::edged::EdgedMsg;

use crate::events;
use crate::pod::action::Action;
use crate::pod::end::{EDGED_RETRY, End, Stopped};
use crate::pod::id::PodId;
use crate::pod::message::PodWorkerMsg;
use crate::pod::plan::Intent;
use crate::pod::preemption::PREEMPTED;
use crate::pod::worker::{PodWorker, RUNTIME_RETRY};

impl PodWorker {
    /// Nothing of the pod is left: says so to the cloud and to Edged, and ends.
    pub(crate) fn report_end(&mut self, now: Moment, cx: &Context<PodWorkerMsg>) {
        let waits = match self.end {
            End::NotYet => false,
            End::RetryAt(at) => at > now,
            End::Reporting | End::Reported | End::Over => true,
        };
        if waits || self.state.is_busy(|action| *action == Action::Report) {
            return;
        }
        self.end = End::Reporting;
        let id = self.update.pod.id.clone();
        let (deps, worker, in_cloud) = (Rc::clone(&self.deps), cx.myself(), self.update.in_cloud);
        cx.spawn(async move {
            let result = if in_cloud {
                let PodId { namespace, name, uid } = id;
                deps.report(&UpReport::PodGone { namespace, name, uid }).await
            } else {
                deps.store.forget_status(&id.uid).await
            };
            let _ = worker.tell(PodWorkerMsg::EndReported(result)).await;
        });
    }

    /// What Edged has to hear is said until its mailbox had room for it. Edged is never waited for.
    pub(crate) fn tell_edged(&mut self, now: Moment, cx: &Context<PodWorkerMsg>) {
        let uid = &self.update.pod.id.uid;
        let taken = |message| !matches!(self.deps.edged.try_tell(message), Err(Refusal::Full));
        if self.stopped == Stopped::Unsaid && taken(EdgedMsg::PodStopped { uid: uid.clone() }) {
            self.stopped = Stopped::Said;
        }
        if self.says_quiet && taken(EdgedMsg::Reconcile) {
            self.says_quiet = false;
        }
        if self.end != End::Reported {
            return;
        }
        if taken(EdgedMsg::PodRemoved { uid: uid.clone() }) {
            self.end = End::Over;
            cx.stop();
        } else {
            self.wake_at(Some(now + EDGED_RETRY), now, cx);
        }
    }

    /// Whether anything of the pod runs. A critical pod waits for one that makes room for it.
    pub(crate) fn tell_of_quiet(&mut self) {
        let starting =
            self.state.is_busy(|action| matches!(action, Action::Start { .. } | Action::Sandbox { .. }));
        let is_quiet =
            !starting && !self.seen.containers.iter().any(|container| self.state.may_run(container));
        if self.entry.set_quiet(is_quiet) && is_quiet {
            self.says_quiet |=
                matches!(&self.update.intent, Intent::Fail { reason, .. } if reason == PREEMPTED);
        }
    }

    pub(crate) fn end_reported(&mut self, result: Result<(), String>) {
        let id = &self.update.pod.id;
        match result {
            Ok(()) => {
                events::pod_removed(&self.deps.env, id);
                self.deps.ids.forget(&id.uid);
                self.end = End::Reported;
            }
            Err(error) => {
                events::report_not_kept(&self.deps.env, "end of a pod", &error);
                self.end = End::RetryAt(self.deps.now() + RUNTIME_RETRY);
            }
        }
    }
}
