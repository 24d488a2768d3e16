//! A pod's worker: an actor that reads what the runtime has of its pod, plans, starts actions, and reports the status.
//!
//! Its handlers never wait: whatever may take long is an action, a task of the actor that tells it the outcome. A
//! panic in one is a fault of the worker, which is restarted, reads everything anew and goes on; containers that run
//! are not touched by that.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Capacity, Context, Fault, Moment, Policy};
use futures::future::{AbortHandle, LocalBoxFuture};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::dependencies::Dependencies;
use crate::events;
use crate::images::pull_words::is_failed_pull;
use crate::pod::action::Action;
use crate::pod::actions::{self, ActionInput, Outcome, StartContext};
use crate::pod::active_time::ActiveTime;
use crate::pod::backoff::{self, Failure};
use crate::pod::conditions;
use crate::pod::effects::Effects;
use crate::pod::end::{EDGED_RETRY, End, Stopped};
use crate::pod::entry::{PodEntry, PodUpdate};
use crate::pod::id::PodId;
use crate::pod::message::{PodWorkerMsg, StatusRead};
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::{self, Intent};
use crate::pod::recorder::EventType;
use crate::pod::runtime_status::StatusReader;
use crate::pod::sync_state::{ImageState, SyncState, VolumeState};
use crate::runtime::pods::RuntimePod;

/// What a pod's worker is called among Edged's children.
pub const POD_WORKER: &str = "pod-worker";

/// After the runtime could not be asked, and after an end that could not be reported.
pub(crate) const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// After a step that has to succeed some day did not.
pub(crate) const STEP_RETRY: Duration = Duration::from_secs(5);
/// The runtime tells of an end before its own records show it: when to read it again.
const REREAD_AFTER: [Duration; 5] = [
    Duration::from_millis(15),
    Duration::from_millis(60),
    Duration::from_millis(250),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];
/// How long a failed pull shows as such before it shows as a pause.
const PULL_ERROR_SHOWS: Duration = Duration::from_secs(3);

/// How far the reading of the runtime's status is.
enum Reading {
    /// Nobody reads.
    Idle(StatusReader),
    /// A task has the reader.
    UnderWay,
}

/// The worker of one pod.
pub(crate) struct PodWorker {
    pub(crate) deps: Rc<Dependencies>,
    pub(crate) entry: Rc<PodEntry>,
    /// The update that is being worked on.
    pub(crate) update: PodUpdate,
    pub(crate) state: SyncState,
    /// As it was read last.
    pub(crate) seen: RuntimePod,
    effects: Effects,
    reading: Reading,
    has_read: bool,
    /// The runtime's status has to be read before anything is planned.
    pub(crate) stale: bool,
    /// It could not be read the last time: not before this time again.
    read_again_at: Option<Moment>,
    /// When to read again although the runtime tells of nothing.
    reread: Vec<Moment>,
    /// Whether this incarnation has reported the status that `state` knows.
    pub(crate) has_reported: bool,
    /// No status is reported any more: what is left of the pod is being removed.
    pub(crate) status_is_final: bool,
    pub(crate) pulls: BTreeMap<Action, AbortHandle>,
    pub(crate) retries: Vec<(Moment, Action)>,
    wake: Option<(Moment, AbortHandle)>,
    pub(crate) end: End,
    /// Edged has to hear that the pod has left the runtime.
    pub(crate) stopped: Stopped,
    pub(crate) recorded_unsupported_fields: bool,
    pub(crate) recorded_rejection: Option<Intent>,
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
            has_reported: false,
            status_is_final: false,
            pulls: BTreeMap::new(),
            retries: Vec::new(),
            wake: None,
            end: End::NotYet,
            stopped: Stopped::NotYet,
            recorded_unsupported_fields: false,
            recorded_rejection: None,
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
            PodWorkerMsg::EndReported(result) => self.end_reported(result),
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
        let in_cloud = newer.pod.cloud_status();
        let is_news = in_cloud != self.update.pod.cloud_status();
        if is_news && conditions::is_overruled(self.state.reported.as_deref(), in_cloud) {
            self.has_reported = false;
        }
        self.update = newer;
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

    fn runtime_changed(&mut self) {
        let now = self.deps.now();
        self.stale = true;
        self.reread = REREAD_AFTER.iter().map(|pause| now + *pause).collect();
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
        if self.stale || matches!(self.reading, Reading::UnderWay) {
            self.wake_at(self.read_again_at, now, cx);
            return;
        }
        let (intent, deadline) = self.effective_intent(cx);
        self.age(&intent, now);
        let pod = self.update.pod.clone();
        let plan = plan::plan(&pod, &intent, &self.seen, &self.state, now);
        if plan.gone {
            self.report_end(now, cx);
        }
        for action in plan.actions {
            self.begin(action, &pod, cx);
        }
        if let Some((action, work)) = self.status_report(&intent, now) {
            self.state.busy.insert(action.clone());
            self.run(action, work, cx);
        }
        let at = self.next_wake(plan.wake.into_iter().chain(deadline));
        self.wake_at(at, now, cx);
    }

    /// Reads the runtime's status when it may have changed and nobody reads it.
    fn read_status(&mut self, now: Moment, cx: &Context<PodWorkerMsg>) {
        if !self.stale || self.read_again_at.is_some_and(|at| at > now) {
            return;
        }
        let mut reader = match std::mem::replace(&mut self.reading, Reading::UnderWay) {
            Reading::Idle(reader) => reader,
            Reading::UnderWay => return,
        };
        // What changes while it is read makes it stale again.
        self.stale = false;
        self.read_again_at = None;
        let (deps, id, worker) = (Rc::clone(&self.deps), self.update.pod.id.clone(), cx.myself());
        // Only the first reading of an incarnation finds some.
        let settled = self.effects.settled();
        let is_first = !std::mem::replace(&mut self.has_read, true);
        cx.spawn(async move {
            if is_first {
                settled.await;
            }
            let result = reader.read(&deps, &id).await;
            let read = Box::new(StatusRead { reader, result });
            // A worker that is gone needs no answer.
            let _ = worker.tell(PodWorkerMsg::StatusRead(read)).await;
        });
    }

    fn status_read(&mut self, read: StatusRead) {
        let StatusRead { reader, result } = read;
        self.reading = Reading::Idle(reader);
        let now = self.deps.now();
        let id = &self.update.pod.id;
        let seen = match result {
            Ok(seen) => seen,
            Err(error) => {
                self.stale = true;
                self.read_again_at = Some(now + RUNTIME_RETRY);
                // The PLEG warns of it, once for all pods.
                tracing::debug!(pod = %id.name, %error, "runtime cannot be asked about a pod");
                return;
            }
        };
        // What the runtime told of has arrived in its records.
        if ended_of(&seen) != ended_of(&self.seen) {
            self.reread.clear();
        }
        self.state.observe(&seen, now);
        let sandboxes = seen.sandboxes.iter().map(|sandbox| sandbox.id.clone());
        let ids = sandboxes.chain(seen.containers.iter().map(|container| container.id.clone()));
        self.deps.ids.set(&id.uid, ids.collect());
        self.seen = seen;
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
                let text = format!("Back-off pulling image \"{}\"", image.unwrap_or_default());
                failure.message = format!("{text}: {}: {}", failure.reason, failure.message);
                failure.reason = "ImagePullBackOff";
                self.deps.event(&self.update.pod.id, EventType::Normal, "BackOff", &text);
                self.deps.event(&self.update.pod.id, EventType::Warning, "Failed", "Error: ImagePullBackOff");
            }
        }
        if *intent != Intent::Run {
            // A pull is given up; what changes the disk or the runtime is seen to its end.
            for (action, pull) in std::mem::take(&mut self.pulls) {
                pull.abort();
                self.state.busy.remove(&action);
            }
        }
    }

    fn begin(&mut self, action: Action, pod: &Arc<ParsedPod>, cx: &Context<PodWorkerMsg>) {
        let Some(work) = self.work(&action, pod) else { return };
        self.state.busy.insert(action.clone());
        if matches!(action, Action::RemoveSandbox { .. }) && self.update.intent == Intent::Terminate {
            self.status_is_final = true;
        }
        if action == Action::Teardown && self.stopped == Stopped::NotYet {
            self.stopped = Stopped::Unsaid;
        }
        let is_pull = matches!(action, Action::Image { .. });
        let task = self.run(action.clone(), work, cx);
        if is_pull {
            self.pulls.insert(action, task);
        }
    }

    /// Runs an action beside the worker, which is told the outcome.
    fn run(
        &self,
        action: Action,
        work: LocalBoxFuture<'static, Outcome>,
        cx: &Context<PodWorkerMsg>,
    ) -> AbortHandle {
        let (worker, (said, heard)) = (cx.myself(), oneshot::channel());
        let work = async move {
            // A worker that is gone needs no answer.
            let _ = said.send(work.await);
        };
        let beside = if action.may_be_cut_short() {
            futures::future::Either::Left(work)
        } else {
            let effect = self.effects.begin();
            self.deps.env.spawn(async move {
                work.await;
                drop(effect);
            });
            futures::future::Either::Right(futures::future::ready(()))
        };
        cx.spawn(async move {
            beside.await;
            let message = match heard.await {
                Ok(outcome) => PodWorkerMsg::ActionEnded { action, outcome: Box::new(outcome) },
                Err(_) => PodWorkerMsg::ActionFailed(action),
            };
            let _ = worker.tell(message).await;
        })
    }

    fn work(&mut self, action: &Action, pod: &Arc<ParsedPod>) -> Option<LocalBoxFuture<'static, Outcome>> {
        let request = match action {
            Action::Volumes => {
                self.state.refresh_volumes = false;
                ActionInput::None
            }
            Action::Image { container } => {
                let before = match self.state.images.get(container) {
                    Some(ImageState::Failed(failure)) => Some(failure.clone()),
                    Some(ImageState::Ready(_)) | None => None,
                };
                let hash = Some(pod.hash(container));
                let ran_before = self.seen.newest(container).is_some_and(|instance| instance.hash == hash);
                ActionInput::Image { before, ran_before }
            }
            Action::Start { container, .. } => ActionInput::Start(Box::new(self.start_context(container)?)),
            Action::Stop { id, .. } | Action::RemoveContainer { id } => {
                ActionInput::Container(self.seen.containers.iter().find(|seen| seen.id == *id)?.clone())
            }
            // Begun by `sync`, which knows the status.
            Action::Report => return None,
            Action::Sandbox { .. }
            | Action::StopSandbox { .. }
            | Action::RemoveSandbox { .. }
            | Action::Teardown => ActionInput::None,
        };
        Some(actions::perform(Rc::clone(&self.deps), pod.clone(), action.clone(), request))
    }

    fn start_context(&self, container: &str) -> Option<StartContext> {
        let sandbox = self.seen.ready_sandbox()?;
        let VolumeState::Ready(volumes) = &self.state.volumes else { return None };
        let Some(ImageState::Ready(image)) = self.state.images.get(container) else { return None };
        Some(StartContext {
            sandbox: sandbox.id.clone(),
            sandbox_attempt: sandbox.attempt,
            ips: self.seen.ips.clone(),
            image: image.clone(),
            volumes: volumes.clone(),
        })
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
        let edged = (self.stopped == Stopped::Unsaid).then(|| self.deps.now() + EDGED_RETRY);
        let reread = self.reread.first().copied();
        others.chain(pulls).chain(retries).chain(reread).chain(end).chain(edged).min()
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

/// What has come to its end.
fn ended_of(seen: &RuntimePod) -> BTreeSet<&str> {
    let containers = seen.containers.iter().filter(|container| container.state.has_ended());
    let sandboxes = seen.sandboxes.iter().filter(|sandbox| !sandbox.ready);
    containers
        .map(|container| container.id.as_str())
        .chain(sandboxes.map(|sandbox| sandbox.id.as_str()))
        .collect()
}

fn shown_until(failure: &Failure) -> Moment {
    Moment(failure.until.0.saturating_sub(failure.pause)) + PULL_ERROR_SHOWS
}
