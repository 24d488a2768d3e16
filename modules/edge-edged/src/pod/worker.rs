//! A pod's worker: an actor that reads what the runtime has of its pod, plans, starts actions, and reports the status.
//!
//! Its handlers never wait: whatever may take long is an action, a task of the actor that tells it the outcome. A
//! panic in one is a fault of the worker, which is restarted, reads everything anew and goes on; containers that run
//! are not touched by that.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use beehive::trace::Span;
use beehive::{Actor, Capacity, Context, Fault, Moment, Policy};
use contract::ids::PODS;
use contract::pod_status::RESIZE_IN_PROGRESS;
use contract::{ObjectKey, traced};
use futures::future::AbortHandle;
use serde_json::{Value, json};

use crate::dependencies::Dependencies;
use crate::events;
use crate::images::pull_words::{self, is_failed_pull};
use crate::pod::action::Action;
use crate::pod::active_time::ActiveTime;
use crate::pod::backoff::{self, Failure};
use crate::pod::cgroup_state::PodCgroup;
use crate::pod::conditions;
use crate::pod::effects::Effects;
use crate::pod::end::{EDGED_RETRY, End, Stopped};
use crate::pod::entry::{PodEntry, PodUpdate};
use crate::pod::id::PodId;
use crate::pod::message::PodWorkerMsg;
use crate::pod::plan::{self, Intent};
use crate::pod::probes::Probes;
use crate::pod::recorder::EventType;
use crate::pod::restart_asked;
use crate::pod::runtime_status::{Reading, StatusReader};
use crate::pod::starting;
use crate::pod::sync_state::{ImageState, SyncState, VolumeState};
use crate::pod::sync_times::SyncTimes;
use crate::pod::turn::PodTurn;
use crate::runtime::pods::RuntimePod;

/// What a pod's worker is called among Edged's children.
pub const POD_WORKER: &str = "pod-worker";

/// After the runtime could not be asked, and after an end that could not be reported.
pub(crate) const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// After a step that has to succeed some day did not.
pub(crate) const STEP_RETRY: Duration = Duration::from_secs(5);
/// How long a failed pull shows as such before it shows as a pause.
const PULL_ERROR_SHOWS: Duration = Duration::from_secs(3);

/// The worker of one pod.
pub(crate) struct PodWorker {
    pub(crate) deps: Rc<Dependencies>,
    pub(crate) entry: Rc<PodEntry>,
    /// The update that is being worked on.
    pub(crate) update: PodUpdate,
    pub(crate) state: SyncState,
    /// As it was read last.
    pub(crate) seen: RuntimePod,
    pub(crate) effects: Effects,
    pub(crate) reading: Reading,
    pub(crate) has_read: bool,
    /// The runtime's status has to be read before anything is planned.
    pub(crate) stale: bool,
    /// It could not be read the last time: not before this time again.
    pub(crate) read_again_at: Option<Moment>,
    /// When to read again although the runtime tells of nothing.
    pub(crate) reread: Vec<Moment>,
    probes: Probes,
    /// Whether this incarnation has reported the status that `state` knows.
    pub(crate) has_reported: bool,
    /// Under which uid the report that is under way goes to the cloud.
    pub(crate) reporting_to: Option<String>,
    /// No status is reported any more: what is left of the pod is being removed.
    pub(crate) status_is_final: bool,
    /// Pulls and hooks that are under way: what they are for may go before they end.
    pub(crate) breakable: BTreeMap<Action, AbortHandle>,
    /// The pulls of images that are volumes, while volumes are being brought up to date.
    pub(crate) volume_pulls: Option<AbortHandle>,
    pub(crate) retries: Vec<(Moment, Action)>,
    pub(crate) times: SyncTimes,
    /// Whether the runtime may be set to work for the pod.
    pub(crate) turn: PodTurn,
    /// When the status is reported at the latest, if it waits for what a start comes to.
    pub(crate) report_at: Option<Moment>,
    wake: Option<(Moment, AbortHandle)>,
    pub(crate) end: End,
    /// Edged has to hear that the pod has left the runtime.
    pub(crate) stopped: Stopped,
    /// Edged has to hear that nothing of the pod runs any more, which makes room for another.
    pub(crate) says_quiet: bool,
    pub(crate) recorded_unsupported_fields: bool,
    pub(crate) recorded_rejection: Option<Intent>,
    /// Instances of which it was said that their restart waits.
    pub(crate) recorded_back_offs: BTreeSet<String>,
    /// The step of the pod's trace that is under way: from an update that is followed until there is nothing to do.
    pub(crate) span: Span,
    /// Which it was last: it begins once.
    traced: Option<[u8; 8]>,
}

impl PodWorker {
    /// The name of a pod's worker among Edged's children. The uid tells two pods of one name apart, of which the older
    /// is still being removed.
    pub(crate) fn name(id: &PodId) -> (&'static str, String) {
        (POD_WORKER, format!("{}/{}/{}", id.namespace, id.name, id.uid))
    }

    /// A worker fails for its own pod alone: it is restarted for ever, after 1 s at first and after 5 min at the longest,
    /// as Kubernetes restarts a container that crashes. So the budget is never spent, and one pod that no worker survives
    /// doesn't take Edged and the other pods down; its events say so ([`PodWorker::started`]). The window is longer than
    /// the longest pause, else the back-off would begin anew.
    pub(crate) fn policy() -> Policy {
        Policy {
            backoff_min: Duration::from_secs(1),
            backoff_max: backoff::LONGEST,
            budget: usize::MAX,
            window: Duration::from_secs(3600),
            capacity: Capacity::new(
                16,
                "a message of each kind and the outcomes of a pod's usual actions; what finds no room is not lost",
            ),
            ..Policy::default()
        }
    }

    /// A worker that starts from the entry's update.
    pub(crate) fn new(deps: Rc<Dependencies>, entry: Rc<PodEntry>) -> Self {
        let update = entry.update();
        let kept = deps.store.reported.of(&update.pod.id.uid);
        let active = ActiveTime::after(kept.active);
        let (dead_kept, dead_min_age) = (deps.settings.dead_kept, deps.settings.dead_min_age);
        let state =
            SyncState { reported: kept.status, active, dead_kept, dead_min_age, ..SyncState::default() };
        let was_resizing = state.reported.as_deref().is_some_and(|status| {
            status.conditions.iter().flatten().any(|own| own.type_ == RESIZE_IN_PROGRESS)
        });
        // A run before may have ended between a container and its pod, or have been of a release that bound the pod wrongly.
        let state = SyncState {
            is_resizing: was_resizing,
            resize_pending: update.resize_pending.clone(),
            cgroup: PodCgroup::Unknown,
            ..state
        };
        let times = SyncTimes::new(state.reported.is_none(), deps.now());
        let effects = Effects::of(&deps.runtime, &update.pod.id.uid);
        PodWorker {
            deps,
            entry,
            update,
            state,
            seen: RuntimePod::default(),
            effects,
            reading: Reading::Idle(StatusReader::default()),
            has_read: false,
            stale: true,
            read_again_at: None,
            reread: Vec::new(),
            probes: Probes::default(),
            has_reported: false,
            reporting_to: None,
            status_is_final: false,
            breakable: BTreeMap::new(),
            volume_pulls: None,
            retries: Vec::new(),
            times,
            turn: PodTurn::default(),
            report_at: None,
            wake: None,
            end: End::NotYet,
            stopped: Stopped::NotYet,
            says_quiet: false,
            recorded_unsupported_fields: false,
            recorded_rejection: None,
            recorded_back_offs: BTreeSet::new(),
            span: Span::none(),
            traced: None,
        }
    }
}

impl Actor for PodWorker {
    type Message = PodWorkerMsg;

    async fn started(&mut self, cx: &mut Context<PodWorkerMsg>) -> Result<(), Fault> {
        let before = self.entry.count_start();
        if before > 0 {
            events::worker_restarted(&self.deps.env, &self.update.pod.id, before);
            let text = format!("the worker of the pod failed and was restarted, {before} times by now");
            self.deps.event(&self.update.pod.id, EventType::Warning, "FailedSync", &text);
        }
        self.follow_update();
        self.sync(cx);
        Ok(())
    }

    async fn handle(&mut self, message: PodWorkerMsg, cx: &mut Context<PodWorkerMsg>) -> Result<(), Fault> {
        match message {
            PodWorkerMsg::Updated => self.take_update(),
            PodWorkerMsg::ObjectsChanged => self.objects_changed(),
            PodWorkerMsg::RuntimeChanged => self.runtime_changed(),
            PodWorkerMsg::StatusRead(read) => self.status_read(*read),
            PodWorkerMsg::ActionEnded { action, outcome } => self.action_ended(action, *outcome),
            PodWorkerMsg::ActionFailed(action) => {
                return Err(Fault::new(format!("{action:?} panicked")));
            }
            PodWorkerMsg::Probed { id, kind, verdict } => self.state.probes.set(&id, kind, verdict),
            PodWorkerMsg::EndReported(result) => self.end_reported(result),
            PodWorkerMsg::TurnCame(turn) => self.turn.came(turn, self.deps.now()),
            PodWorkerMsg::Wake => self.wake = None,
        }
        if self.entry.take_missed() {
            self.take_update();
            self.objects_changed();
            self.runtime_changed();
        }
        self.sync(cx);
        Ok(())
    }

    fn snapshot(&self) -> Value {
        let actions: Vec<String> = self.state.busy.iter().map(|action| format!("{action:?}")).collect();
        json!({"phase": self.entry.phase(), "actions": actions})
    }
}

impl PodWorker {
    fn take_update(&mut self) {
        let newer = self.entry.update();
        if self.update.volumes_may_differ(&newer) {
            self.objects_changed();
        }
        let in_cloud = newer.cloud_status();
        let is_news = in_cloud != self.update.cloud_status();
        let has_reader = newer.cloud_uid() != self.update.cloud_uid();
        if has_reader || (is_news && conditions::is_overruled(self.state.reported.as_deref(), in_cloud)) {
            self.has_reported = false;
        }
        self.take_resize(&newer);
        self.state.forget_changed(&self.update.pod, &newer.pod);
        self.times.updated();
        self.update = newer;
        self.follow_update();
    }

    /// Goes on with the trace of the update, if it is followed.
    fn follow_update(&mut self) {
        let (traces, id) = (self.deps.env.traces(), &self.update.pod.id);
        if !traces.is_on() {
            return;
        }
        let key = ObjectKey::new(PODS, &*id.namespace, &*id.name);
        let parent = traces.of(|| traced::held(&key));
        if parent.is_none() || parent.map(|parent| parent.span_id) == self.traced {
            return;
        }
        let span = traces.child("Edged pod worker", parent).with("k8s.pod.uid", || id.uid.as_str());
        let span = traced::named(span, &key);
        traces.follow(|| traced::held(&key), span.context());
        self.traced = span.context().map(|context| context.span_id);
        self.span = span;
    }

    /// What failed for want of an object is tried again at once.
    fn objects_changed(&mut self) {
        let now = self.deps.now();
        self.state.refresh_volumes = true;
        if let VolumeState::Failed(failure) = &mut self.state.volumes
            && failure.may_come
        {
            failure.until = now;
        }
        let images = self.state.images.values_mut().filter_map(ImageState::failure_mut);
        for failure in self.state.starts.values_mut().chain(images).filter(|failure| failure.may_come) {
            failure.until = now;
        }
    }

    /// Brings the pod closer to what it should be: kubelet's syncPod.
    fn sync(&mut self, cx: &Context<PodWorkerMsg>) {
        let now = self.deps.now();
        self.tell_edged(now, cx);
        if matches!(self.end, End::Reported | End::Over) {
            return;
        }
        let due = self.reread.iter().take_while(|at| **at <= now).count();
        if due > 0 {
            self.reread.drain(..due);
            self.stale = true;
        }
        self.read_status(now, cx);
        // What is not known is not acted upon. The reading ends in a message.
        if self.stale || self.is_reading() {
            self.wake_at(self.read_again_at, now, cx);
            return;
        }
        let (intent, deadline) = self.effective_intent(cx);
        self.age(&intent, now);
        self.tell_of_back_offs(&intent, now);
        self.follow_resize(&intent);
        let pod = self.update.pod.clone();
        if self.entry.take_restart() {
            self.state.asked.extend(restart_asked::running(&pod, &self.seen, &self.state));
        }
        self.tell_of_quiet();
        self.state.tells_end = intent == Intent::Terminate && self.update.in_cloud && !pod.is_static;
        let plan = plan::plan(&pod, &intent, &self.seen, &self.state, now);
        if plan.gone {
            self.report_end(now, cx);
        }
        let (actions, stop_waits) = self.in_turn(plan.actions, &intent, now, cx);
        self.note_stopping(plan.stopping, (&actions, stop_waits), now);
        for action in actions {
            self.begin(action, &pod, cx);
        }
        self.tell_probes(&intent, cx);
        if let Some((action, work)) = self.status_report(&intent, now) {
            self.state.busy.insert(action.clone());
            self.run(action, work, cx);
        }
        self.times.note(&self.state.busy, now, &self.deps.counts);
        if self.state.busy.is_empty() {
            self.span = Span::none();
        }
        let at = self.next_wake(plan.wake.into_iter().chain(deadline));
        self.wake_at(at, now, cx);
    }

    /// Tells the probes what is known of their containers. They begin when the pod does, and end with the worker.
    fn tell_probes(&mut self, intent: &Intent, cx: &Context<PodWorkerMsg>) {
        let pod = &self.update.pod;
        match intent {
            Intent::Run => self.probes.start(pod, &self.deps, cx),
            Intent::Fail { .. } | Intent::Hold { .. } | Intent::Terminate => {}
        }
        let node = self.deps.node.borrow();
        let ips = if pod.host_network() { &node.host_ips } else { &self.seen.ips };
        let ending = *intent != Intent::Run || pod.is_terminating();
        self.probes.update(pod, &self.seen, &self.state, ips, ending);
    }

    /// What time alone changes.
    fn age(&mut self, intent: &Intent, now: Moment) {
        self.retries.retain(|(at, action)| {
            let waits = *at > now;
            if !waits {
                self.state.busy.remove(action);
            }
            waits
        });
        for (name, image) in &mut self.state.images {
            if let Some(failure) = image.failure_mut()
                && is_failed_pull(failure.reason)
                && now >= shown_until(failure)
            {
                let image = self.update.pod.container(name).and_then(|container| container.image.clone());
                let text = pull_words::back_off(&image.unwrap_or_default());
                failure.message = format!("{text}: {}: {}", failure.reason, failure.message);
                failure.reason = "ImagePullBackOff";
                let (deps, pod) = (&self.deps, &self.update.pod);
                deps.container_event(pod, name, EventType::Normal, "BackOff", &text);
                deps.container_event(pod, name, EventType::Warning, "Failed", "Error: ImagePullBackOff");
            }
        }
        if *intent != Intent::Run
            && let Some(pulls) = self.volume_pulls.take()
        {
            pulls.abort();
        }
        // A pull is given up, and a hook whose container has gone; what changes the disk or the runtime is seen to its end.
        let runs =
            |id: &String| self.seen.containers.iter().any(|seen| seen.id == *id && !seen.state.has_ended());
        let needless: Vec<Action> = self
            .breakable
            .keys()
            .filter(|action| match action {
                Action::PostStart { id } | Action::PreStop { id, .. } => !runs(id),
                Action::Image { container, image } => {
                    *intent != Intent::Run || !starting::is_image_of(&self.update.pod, container, image)
                }
                _ => *intent != Intent::Run,
            })
            .cloned()
            .collect();
        for action in needless {
            if let Some(task) = self.breakable.remove(&action) {
                task.abort();
            }
            self.state.busy.remove(&action);
        }
    }

    /// The earliest of everything that the worker waits for.
    fn next_wake(&self, others: impl Iterator<Item = Moment>) -> Option<Moment> {
        let pulls = self.state.images.values().filter_map(|state| match state {
            ImageState::Failed(failure) if is_failed_pull(failure.reason) => Some(shown_until(failure)),
            ImageState::Failed(_) | ImageState::Ready(_) => None,
        });
        let retries = self.retries.iter().map(|(at, _)| *at);
        let end = match self.end {
            End::RetryAt(at) => Some(at),
            End::NotYet | End::Reporting | End::Reported | End::Over => None,
        };
        let edged =
            (self.stopped == Stopped::Unsaid || self.says_quiet).then(|| self.deps.now() + EDGED_RETRY);
        let reread = self.reread.first().copied();
        others
            .chain(pulls)
            .chain(retries)
            .chain(reread)
            .chain(end)
            .chain(edged)
            .chain(self.turn.due())
            .chain(self.report_at)
            .min()
    }

    pub(crate) fn wake_at(&mut self, at: Option<Moment>, now: Moment, cx: &Context<PodWorkerMsg>) {
        if self.wake.as_ref().map(|(old, _)| *old) == at {
            return;
        }
        if let Some((_, timer)) = self.wake.take() {
            timer.abort();
        }
        self.wake = at.map(|at| (at, cx.after(at.since(now), PodWorkerMsg::Wake)));
    }
}

fn shown_until(failure: &Failure) -> Moment {
    Moment(failure.until.0.saturating_sub(failure.pause)) + PULL_ERROR_SHOWS
}
