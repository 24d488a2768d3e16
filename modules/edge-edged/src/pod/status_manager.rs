//! The status that a pod's worker reports: kubelet's status manager.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Context, Moment};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::PodStatus;

use crate::devices;
use crate::pod::action::Action;
use crate::pod::actions::{self, Outcome};
use crate::pod::conditions;
use crate::pod::container_status::NodeContext;
use crate::pod::message::PodWorkerMsg;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::{self, Intent};
use crate::pod::recorder::EventType;
use crate::pod::status;
use crate::pod::whole_resources;
use crate::pod::worker::PodWorker;

/// Why a pod has failed that was active for longer than it may be.
const OVERDUE: &str = "DeadlineExceeded";

impl PodWorker {
    /// What Edged wants, unless the pod has run out of its time; and when it will.
    pub(crate) fn effective_intent(&mut self, cx: &Context<PodWorkerMsg>) -> (Intent, Option<Moment>) {
        let pod = &self.update.pod;
        self.state.grace = self.entry.eviction().map(|eviction| eviction.grace);
        if let Some(eviction) = self.entry.eviction()
            && self.update.intent == Intent::Run
            && self.state.end(pod).is_none()
        {
            let (reason, message) = (eviction.reason.to_owned(), eviction.message);
            return (Intent::Fail { reason, message }, None);
        }
        let limit = pod.spec().active_deadline_seconds;
        let (Intent::Run, Some(limit)) = (&self.update.intent, limit) else {
            return (self.update.intent.clone(), None);
        };
        let overdue = || {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            (Intent::Fail { reason: OVERDUE.to_owned(), message }, None)
        };
        // Its containers end by that, and then it is done; its end is reported with the reason.
        if self.state.is_overdue && self.state.end(pod).is_none() {
            return overdue();
        }
        if plan::is_done(pod, &self.seen, &self.state) {
            return (Intent::Run, None);
        }
        let limit = Duration::from_secs(u64::try_from(limit).unwrap_or(0));
        let (now, active) = (self.deps.now(), &mut self.state.active);
        active.start(now);
        if let Some(so_far) = active.take_due(limit, now) {
            let (store, uid) = (self.deps.store.clone(), pod.id.uid.clone());
            cx.spawn(async move { store.keep_active(&uid, so_far).await });
        }
        if active.so_far(now) >= limit {
            self.state.is_overdue = true;
            return overdue();
        }
        (Intent::Run, Some(active.wake(limit, now)))
    }

    /// The report of the pod's status, when it differs from the one before.
    pub(crate) fn status_report(
        &mut self,
        intent: &Intent,
        now: Moment,
    ) -> Option<(Action, LocalBoxFuture<'static, Outcome>)> {
        self.report_at = None;
        let pod = self.update.pod.clone();
        // Of a pod that has ended the runtime may have lost everything: what was reported stays.
        let nothing_new = self.state.end(&pod).is_some() && self.seen.containers.is_empty();
        // Of a pod that is being removed the runtime knows less and less. After a restart of the worker, too.
        let removed = *intent == Intent::Terminate
            && self.seen.containers.is_empty()
            && self.seen.sandboxes.is_empty()
            && !(self.state.tells_end && self.state.end(&pod).is_none());
        if self.status_is_final
            || removed
            || !(self.update.in_cloud || pod.is_static)
            || nothing_new
            || self.state.is_busy(|action| *action == Action::Report)
        {
            return None;
        }
        self.record_unsupported_fields(&pod);
        self.record_rejection(&pod, intent);
        let node = self.deps.node.borrow().clone();
        let features = node.features.as_ref().map(|features| features.of("")).unwrap_or_default();
        let around = NodeContext {
            runtime: &node.runtime,
            host_ips: &node.host_ips,
            features,
            now,
            wall: self.deps.wall(),
        };
        self.state.taken_up.get_or_insert(around.wall);
        let mut status = status::compute(&pod, intent, &self.seen, &self.state, &around);
        if let Some(health) =
            self.deps.devices.borrow().as_ref().and_then(|told| told.health.get(&pod.id.uid))
        {
            devices::put_health(&mut status, health);
        }
        if self.has_reported && self.state.reported.as_deref() == Some(&status) {
            return None;
        }
        self.report_at = self.turn.quiet_until().filter(|at| *at > now && self.is_on_its_way(&status));
        if self.report_at.is_some() {
            return None;
        }
        let phase = status.phase.as_deref().unwrap_or_default();
        self.times.is_in(phase, now, &self.deps.counts);
        self.entry.set_phase(phase);
        let reader = self.update.cloud_uid().map(str::to_owned);
        self.reporting_to.clone_from(&reader);
        let newer = whole_resources::fields(&pod, &status);
        let report =
            actions::report_status(Rc::clone(&self.deps), pod.id.clone(), reader, Box::new(status), newer);
        Some((Action::Report, report.map(Outcome::Report).boxed_local()))
    }

    /// Whether a status tells of nothing but a start that goes on.
    fn is_on_its_way(&self, status: &PodStatus) -> bool {
        let is_pending = |status: &PodStatus| status.phase.as_deref() == Some("Pending");
        is_pending(status) && self.state.reported.as_deref().is_none_or(is_pending)
    }

    fn record_rejection(&mut self, pod: &ParsedPod, intent: &Intent) {
        if self.recorded_rejection.as_ref() == Some(intent) {
            return;
        }
        self.recorded_rejection = Some(intent.clone());
        match intent {
            Intent::Hold { reason, message } | Intent::Fail { reason, message } => {
                // The kubelet's event says why without saying that.
                let rejected = message.strip_prefix("Pod was rejected: ");
                let was_rejected = rejected.is_some();
                let message = rejected.unwrap_or(message);
                let kind = if reason == OVERDUE { EventType::Normal } else { EventType::Warning };
                self.deps.event(&pod.id, kind, reason, message);
                if was_rejected {
                    self.deps.counts.rejected(reason);
                }
            }
            Intent::Run | Intent::Terminate => {}
        }
    }

    fn record_unsupported_fields(&mut self, pod: &ParsedPod) {
        if self.recorded_unsupported_fields || pod.review.unhonoured.is_empty() {
            return;
        }
        self.recorded_unsupported_fields = true;
        // A restart of EdgeCore is no news of the pod.
        if conditions::has_told_of_fields(pod, self.state.reported.as_deref()) {
            return;
        }
        let text = format!("not honoured on this node: {}", pod.review.unhonoured.join(", "));
        self.deps.event(&pod.id, EventType::Warning, "FieldsNotHonoured", &text);
    }
}
