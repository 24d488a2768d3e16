//! One pod's actor: looks at the runtime, plans, starts jobs, tells the status, and waits for the next thing to happen.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use contract::UpReport;
use contract::edged::EdgedMsg;
use futures::FutureExt as _;
use futures::future::{AbortHandle, Abortable, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::PodStatus;

use crate::disk::layout;
use crate::images::credentials::{self, PullPolicy};
use crate::images::pull;
use crate::pod::actions::{self, Ground, Outcome, StartError};
use crate::pod::backoff::{self, Failure};
use crate::pod::inbox::{Inbox, PodUpdate};
use crate::pod::parsed_pod::{ParsedPod, PodId};
use crate::pod::plan::{self, Action, ImageState, Intent, Plan, SyncState, VolumeState, ran_long};
use crate::pod::recorder::Kind;
use crate::pod::status::{self, NodeContext};
use crate::runtime::pods::{self, RuntimeContainer, RuntimePod, StatusCache};
use crate::runtime::termination_message;
use crate::tools::{Tools, blocking};

/// After the runtime could not be asked.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// After a step that has to succeed some day did not.
const STEP_RETRY: Duration = Duration::from_secs(5);
/// The runtime tells of an end before its own books show it: when to look again.
const SETTLING: [Duration; 5] = [
    Duration::from_millis(15),
    Duration::from_millis(60),
    Duration::from_millis(250),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];
/// How long a failed pull shows as such before it shows as a pause.
pub(crate) const PULL_ERROR_SHOWS: Duration = Duration::from_secs(3);

/// The state of one pod's actor.
pub(crate) struct Worker {
    tools: Rc<Tools>,
    inbox: Rc<Inbox>,
    memory: SyncState,
    known: StatusCache,
    seen: RuntimePod,
    /// The runtime has to be looked at before planning.
    stale: bool,
    /// It could not be looked at the last time.
    runtime_lost: bool,
    settling: Vec<Moment>,
    told: Option<PodStatus>,
    /// Nothing more is told: the pod's remains are being removed.
    frozen: bool,
    messages: BTreeMap<String, String>,
    jobs: FuturesUnordered<LocalBoxFuture<'static, (Action, Option<Outcome>)>>,
    aborts: BTreeMap<Action, AbortHandle>,
    retries: Vec<(Moment, Action)>,
    named_unhonoured: bool,
    named_refusal: Option<Intent>,
}

impl Worker {
    pub(crate) fn new(tools: Rc<Tools>, inbox: Rc<Inbox>) -> Self {
        Worker {
            tools,
            inbox,
            memory: SyncState::default(),
            known: StatusCache::default(),
            seen: RuntimePod::default(),
            stale: true,
            runtime_lost: false,
            settling: Vec::new(),
            told: None,
            frozen: false,
            messages: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            aborts: BTreeMap::new(),
            retries: Vec::new(),
            named_unhonoured: false,
            named_refusal: None,
        }
    }

    /// Runs until nothing of the pod is left.
    pub(crate) async fn run(mut self) {
        loop {
            let assignment = self.inbox.assignment();
            if self.stale && !self.look(&assignment).await {
                continue;
            }
            let now = self.tools.now();
            let (intent, deadline) = self.intent(&assignment);
            self.age(&assignment.pod, &intent, now);
            let mut plan = plan::plan(&assignment.pod, &intent, &self.seen, &self.memory, now);
            if plan.gone && !self.memory.is_busy(|job| *job == Action::Report) {
                if self.finish(&assignment).await {
                    return;
                }
                plan.wake = Some(now + RUNTIME_RETRY);
            }
            for job in std::mem::take(&mut plan.actions) {
                self.begin(job, &assignment.pod);
            }
            self.tell(&assignment, &intent, now);
            self.wait(&plan, deadline).await;
        }
    }

    /// Looks at the runtime. False when it could not be asked and the worker has waited a little.
    async fn look(&mut self, assignment: &PodUpdate) -> bool {
        let uid = assignment.pod.id.uid.clone();
        let mut seen = match pods::get_pod(&self.tools.runtime, &uid, &mut self.known).await {
            Ok(seen) => seen,
            Err(error) => {
                if !std::mem::replace(&mut self.runtime_lost, true) {
                    tracing::warn!(pod = %assignment.pod.id.name, %error, "runtime cannot be asked about a pod");
                }
                // Jobs under way go on meanwhile.
                let pause = self.tools.env.sleep(RUNTIME_RETRY);
                tokio::select! {
                    // A job that has ended is not passed over.
                    biased;
                    Some((job, outcome)) = self.jobs.next(), if !self.jobs.is_empty() => self.ended(job, outcome),
                    () = pause => {}
                }
                return false;
            }
        };
        self.stale = false;
        self.runtime_lost = false;
        self.read_last_words(&assignment.pod.id, &mut seen).await;
        for container in &mut seen.containers {
            if let Some(message) = self.messages.get(&container.id).filter(|text| !text.is_empty()) {
                container.message.clone_from(message);
            }
        }
        // What the runtime told of has arrived in its books.
        if over_of(&seen) != over_of(&self.seen) {
            self.settling.clear();
        }
        let now = self.tools.now();
        let ended: BTreeSet<String> =
            seen.containers.iter().filter(|c| c.life.is_over()).map(|c| c.id.clone()).collect();
        self.memory.ended.retain(|id, _| ended.contains(id));
        for id in ended {
            self.memory.ended.entry(id).or_insert(now);
        }
        let ids =
            seen.sandboxes.iter().map(|s| s.id.clone()).chain(seen.containers.iter().map(|c| c.id.clone()));
        self.inbox.set_ids(ids.collect());
        self.seen = seen;
        true
    }

    async fn read_last_words(&mut self, id: &PodId, seen: &mut RuntimePod) {
        self.messages.retain(|id, _| seen.containers.iter().any(|container| container.id == *id));
        let unread: Vec<_> = seen
            .containers
            .iter()
            .filter(|container| container.life.is_over() && !self.messages.contains_key(&container.id))
            .cloned()
            .collect();
        if unread.is_empty() {
            return;
        }
        let (root, logs) = (self.tools.settings.root.clone(), self.tools.settings.logs.clone());
        let id = id.clone();
        let read = blocking(&self.tools.env, "read in", move || {
            let words =
                |c: &RuntimeContainer| (c.id.clone(), termination_message::read(&root, &logs, &id, c));
            Ok(unread.iter().map(words).collect::<Vec<_>>())
        });
        if let Ok(read) = read.await {
            self.messages.extend(read);
        }
    }

    /// What Edged wants, unless the pod has run out of its time; and when it will.
    fn intent(&self, assignment: &PodUpdate) -> (Intent, Option<Moment>) {
        let limit = assignment.pod.spec().active_deadline_seconds;
        let (Intent::Run, Some(limit)) = (&assignment.intent, limit) else {
            return (assignment.intent.clone(), None);
        };
        let started =
            self.told.as_ref().or(assignment.pod.cloud_status()).and_then(|told| told.start_time.clone());
        let Some(started) = started else { return (Intent::Run, None) };
        let left = started.0.as_second().saturating_add(limit).saturating_sub(self.tools.wall().as_second());
        if left <= 0 && !plan::is_done(&assignment.pod, &self.seen) {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            return (Intent::Fail { reason: "DeadlineExceeded".to_owned(), message }, None);
        }
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1));
        (Intent::Run, Some(self.tools.now() + left))
    }

    /// What time alone changes.
    fn age(&mut self, pod: &ParsedPod, intent: &Intent, now: Moment) {
        self.retries.retain(|(at, job)| {
            let waits = *at > now;
            if !waits {
                self.memory.busy.remove(job);
            }
            waits
        });
        for (name, state) in &mut self.memory.images {
            if let ImageState::Failed(fault) = state
                && fault.reason == "ErrImagePull"
                && now >= shown_until(fault)
            {
                fault.reason = "ImagePullBackOff";
                let image = pod.container(name).map(credentials::name).unwrap_or_default();
                fault.message = format!("Back-off pulling image \"{image}\": {}", fault.message);
            }
        }
        if *intent != Intent::Run {
            // A pull is given up; what changes the disk or the runtime is seen to its end.
            for (_, abort) in self.aborts.iter().filter(|(job, _)| matches!(job, Action::Image { .. })) {
                abort.abort();
            }
        }
    }

    fn begin(&mut self, job: Action, pod: &Arc<ParsedPod>) {
        let Some(work) = self.work(&job, pod) else { return };
        self.memory.busy.insert(job.clone());
        if matches!(job, Action::RemoveSandbox { .. }) && self.inbox.assignment().intent == Intent::Terminate
        {
            self.frozen = true;
        }
        if job == Action::Teardown && !self.inbox.has_left_runtime() {
            self.inbox.set_left_runtime();
            // Another pod of this name may start. A full mailbox: the end of this one says it.
            let _ = self.tools.edged.try_tell(EdgedMsg::Look);
        }
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(job.clone(), abort);
        self.jobs.push(async move { (job, Abortable::new(work, registration).await.ok()) }.boxed_local());
    }

    fn work(&mut self, job: &Action, pod: &Arc<ParsedPod>) -> Option<LocalBoxFuture<'static, Outcome>> {
        let (tools, pod, id) = (Rc::clone(&self.tools), Arc::clone(pod), pod.id.clone());
        Some(match job.clone() {
            Action::Volumes => {
                self.memory.refresh_volumes = false;
                actions::prepare_volumes(tools, pod).map(Outcome::Volumes).boxed_local()
            }
            Action::Sandbox { attempt } => {
                actions::run_sandbox(tools, pod, attempt).map(Outcome::Sandbox).boxed_local()
            }
            Action::Image { container } => {
                let before = match self.memory.images.get(&container) {
                    Some(ImageState::Failed(fault)) => Some(fault.clone()),
                    Some(ImageState::Ready(_)) | None => None,
                };
                let hash = Some(pod.hash(&container));
                let ran_before = self.seen.newest(&container).is_some_and(|instance| instance.hash == hash);
                pull::ensure_image(tools, pod, container, before, ran_before)
                    .map(Outcome::Image)
                    .boxed_local()
            }
            Action::Start { container, attempt } => {
                let ground = self.ground(&container)?;
                let inbox = Rc::clone(&self.inbox);
                let made = move |id: &str| inbox.learn(id);
                actions::start(tools, pod, container, attempt, ground, made).map(Outcome::Start).boxed_local()
            }
            Action::Stop { id: container, why, grace } => {
                let seen = self.seen.containers.iter().find(|seen| seen.id == container);
                let name = seen.map(|seen| seen.name.clone()).unwrap_or_default();
                actions::stop(tools, id, container, name, why, grace).map(Outcome::Done).boxed_local()
            }
            Action::StopSandbox { id: sandbox } => {
                async move { Outcome::Done(tools.runtime.stop_sandbox(&sandbox).await.map_err(Into::into)) }
                    .boxed_local()
            }
            Action::RemoveSandbox { id: sandbox } => {
                async move { Outcome::Done(tools.runtime.remove_sandbox(&sandbox).await.map_err(Into::into)) }
                    .boxed_local()
            }
            Action::RemoveContainer { id: container } => {
                let seen = self.seen.containers.iter().find(|seen| seen.id == container)?;
                let log = layout::pod_logs(&id).join(layout::log(&seen.name, seen.attempt));
                actions::remove_container(tools, container, log).map(Outcome::Done).boxed_local()
            }
            Action::Teardown => actions::teardown(tools, id).map(Outcome::Done).boxed_local(),
            // Begun by `tell`, which knows the status.
            Action::Report => return None,
        })
    }

    fn ground(&self, container: &str) -> Option<Ground> {
        let sandbox = self.seen.ready_sandbox()?;
        let VolumeState::Ready(volumes) = &self.memory.volumes else { return None };
        let Some(ImageState::Ready(image)) = self.memory.images.get(container) else { return None };
        Some(Ground {
            sandbox: sandbox.id.clone(),
            sandbox_attempt: sandbox.attempt,
            ips: self.seen.ips.clone(),
            image: image.clone(),
            volumes: volumes.clone(),
        })
    }

    /// Works out the status and leaves it for the cloud when it differs from what was told.
    fn tell(&mut self, assignment: &PodUpdate, intent: &Intent, now: Moment) {
        let pod = &assignment.pod;
        let nothing_new = pod.is_done_in_cloud() && self.seen.containers.is_empty();
        if self.frozen
            || !assignment.in_cloud
            || nothing_new
            || self.memory.is_busy(|job| *job == Action::Report)
        {
            return;
        }
        self.name_unhonoured(pod);
        self.name_refusal(pod, intent);
        let node = self.tools.node.borrow().clone();
        let around =
            NodeContext { runtime: &node.runtime, host_ips: &node.host_ips, now, wall: self.tools.wall() };
        let previous = self.told.as_ref().or(pod.cloud_status());
        let status = status::compute(pod, intent, &self.seen, &self.memory, previous, &around);
        if self.told.as_ref() == Some(&status) {
            return;
        }
        self.inbox.set_phase(status.phase.as_deref().unwrap_or_default());
        self.memory.busy.insert(Action::Report);
        let work = actions::report(Rc::clone(&self.tools), pod.id.clone(), Box::new(status));
        self.jobs.push(async move { (Action::Report, Some(Outcome::Report(work.await))) }.boxed_local());
    }

    fn name_refusal(&mut self, pod: &ParsedPod, intent: &Intent) {
        if self.named_refusal.as_ref() == Some(intent) {
            return;
        }
        self.named_refusal = Some(intent.clone());
        match intent {
            Intent::Hold { reason, message } | Intent::Fail { reason, message } => {
                // The kubelet's event says why without saying that.
                let message = message.strip_prefix("Pod was rejected: ").unwrap_or(message);
                self.tools.event(&pod.id, Kind::Warning, reason, message);
            }
            Intent::Run | Intent::Terminate => {}
        }
    }

    fn name_unhonoured(&mut self, pod: &ParsedPod) {
        if self.named_unhonoured || pod.review.unhonoured.is_empty() {
            return;
        }
        self.named_unhonoured = true;
        let text = format!("not honoured on this node: {}", pod.review.unhonoured.join(", "));
        self.tools.event(&pod.id, Kind::Warning, "FieldsNotHonoured", &text);
    }

    /// Waits until a job ends, somebody rings, or it is time.
    async fn wait(&mut self, plan: &Plan, deadline: Option<Moment>) {
        let now = self.tools.now();
        let pulls = self.memory.images.values().filter_map(|state| match state {
            ImageState::Failed(fault) if fault.reason == "ErrImagePull" => Some(shown_until(fault)),
            ImageState::Failed(_) | ImageState::Ready(_) => None,
        });
        let retries = self.retries.iter().map(|(at, _)| *at);
        let settling = self.settling.first().copied();
        let wake = plan.wake.into_iter().chain(deadline).chain(pulls).chain(retries).chain(settling).min();
        let pause = async {
            match wake {
                Some(at) => self.tools.env.sleep(at.since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Whatever was first, the others are taken along below.
            biased;
            Some((job, outcome)) = self.jobs.next(), if !self.jobs.is_empty() => self.ended(job, outcome),
            () = self.inbox.rung() => {}
            () = pause => {}
        }
        // Whatever else is ready now is taken along, so that one look serves all of it.
        while let Some(Some((job, outcome))) = self.jobs.next().now_or_never() {
            self.ended(job, outcome);
        }
        self.take_news();
    }

    fn take_news(&mut self) {
        let now = self.tools.now();
        if self.inbox.take_objects_changed() {
            self.memory.refresh_volumes = true;
            if let VolumeState::Failed(fault) = &mut self.memory.volumes
                && fault.may_come
            {
                fault.until = now;
            }
            for fault in self.memory.starts.values_mut().filter(|fault| fault.may_come) {
                fault.until = now;
            }
        }
        if self.inbox.take_runtime_changed() {
            self.stale = true;
            self.settling = SETTLING.iter().map(|pause| now + *pause).collect();
        }
        let due = self.settling.iter().take_while(|at| **at <= now).count();
        if due > 0 {
            self.settling.drain(..due);
            self.stale = true;
        }
    }

    /// Notes what became of a job. `None`: it was given up.
    fn ended(&mut self, job: Action, outcome: Option<Outcome>) {
        self.memory.busy.remove(&job);
        self.aborts.remove(&job);
        let Some(outcome) = outcome else { return };
        let now = self.tools.now();
        let pod = self.inbox.assignment().pod;
        match (outcome, &job) {
            (Outcome::Volumes(result), _) => self.volumes_ended(&pod, result, now),
            (Outcome::Sandbox(result), _) => self.sandbox_ended(&pod, result, now),
            (Outcome::Image(result), Action::Image { container }) => {
                let state = match result {
                    Ok(ready) => ImageState::Ready(ready),
                    Err(fault) => ImageState::Failed(fault),
                };
                self.memory.images.insert(container.clone(), state);
            }
            (Outcome::Start(result), Action::Start { container, attempt }) => {
                self.start_ended(&pod, container, *attempt, result, now);
            }
            (Outcome::Done(result), _) => self.step_ended(&pod, job, result, now),
            (Outcome::Report(Ok(status)), _) => self.told = Some(*status),
            (Outcome::Report(Err(error)), _) => {
                tracing::error!(pod = %pod.id.name, %error, "status of a pod could not be kept");
                self.memory.busy.insert(Action::Report);
                self.retries.push((now + STEP_RETRY, Action::Report));
            }
            (Outcome::Image(_) | Outcome::Start(_), _) => {}
        }
    }

    fn volumes_ended(
        &mut self,
        pod: &ParsedPod,
        result: Result<(crate::volumes::Prepared, Option<Moment>), crate::error::StepError>,
        now: Moment,
    ) {
        match result {
            Ok((prepared, refresh_at)) => {
                self.memory.volumes = VolumeState::Ready(prepared);
                self.memory.refresh_at = refresh_at;
            }
            Err(error) => {
                self.tools.event(&pod.id, Kind::Warning, "FailedMount", &error.to_string());
                let may_come = matches!(error, crate::error::StepError::Missing(_));
                match &mut self.memory.volumes {
                    // Containers go on with what they have.
                    VolumeState::Ready(_) => self.memory.refresh_at = Some(now + backoff::FIRST),
                    VolumeState::NotYet | VolumeState::Failed(_) => {
                        let fault = Failure::steady("FailedMount", error.to_string(), may_come, now);
                        self.memory.volumes = VolumeState::Failed(fault);
                    }
                }
            }
        }
    }

    fn sandbox_ended(
        &mut self,
        pod: &ParsedPod,
        result: Result<String, crate::error::StepError>,
        now: Moment,
    ) {
        self.stale = true;
        match result {
            Ok(_) => self.memory.sandbox = None,
            Err(error) => {
                let text = format!("Failed to create pod sandbox: {error}");
                self.tools.event(&pod.id, Kind::Warning, "FailedCreatePodSandBox", &text);
                let before = self.memory.sandbox.take();
                let mut fault = Failure::after(before.as_ref(), "FailedCreatePodSandBox", text, now);
                // A sandbox needs nothing from afar, so it is tried sooner than an image.
                fault.until = now + (fault.pause / 10);
                self.memory.sandbox = Some(fault);
            }
        }
    }

    fn start_ended(
        &mut self,
        pod: &ParsedPod,
        container: &str,
        attempt: u32,
        result: Result<String, StartError>,
        now: Moment,
    ) {
        self.stale = true;
        let ended = result.as_ref().err().is_none_or(|fault| fault.ended);
        if ended {
            self.memory.starts.remove(container);
            self.note_restart(container, attempt);
        }
        match result {
            Ok(_) => {
                self.tools.event(&pod.id, Kind::Normal, "Started", &format!("Started container {container}"));
                // Fetched anew before the next start.
                if pod.container(container).map(credentials::policy) == Some(PullPolicy::Always) {
                    self.memory.images.remove(container);
                }
            }
            Err(fault) if !fault.ended => {
                let fault = if fault.reason == "CreateContainerError" {
                    // The image may have gone meanwhile.
                    self.memory.images.remove(container);
                    let before = self.memory.starts.get(container);
                    Failure::after(before, fault.reason, fault.message, now)
                } else {
                    Failure::steady(fault.reason, fault.message, fault.may_come, now)
                };
                self.memory.starts.insert(container.to_owned(), fault);
            }
            Err(_) => {}
        }
    }

    /// A container that was started again has earned a pause for the next time.
    fn note_restart(&mut self, container: &str, attempt: u32) {
        // The instance that was just started may have been seen already.
        let Some(before) = self.seen.before(container, attempt).filter(|instance| instance.life.is_over())
        else {
            return;
        };
        let earned = self.memory.crashes.get(container).copied().filter(|_| !ran_long(before));
        self.memory.crashes.insert(container.to_owned(), backoff::next(earned));
    }

    fn step_ended(
        &mut self,
        pod: &ParsedPod,
        job: Action,
        result: Result<(), crate::error::StepError>,
        now: Moment,
    ) {
        self.stale = true;
        match (result, &job) {
            (Ok(()), Action::StopSandbox { id }) => {
                self.memory.stopped.insert(id.clone());
            }
            (Ok(()), Action::Teardown) => self.memory.torn_down = true,
            (Ok(()), _) => {}
            (Err(error), _) => {
                tracing::warn!(pod = %pod.id.name, ?job, %error, "step failed and is tried again");
                self.tools.event(&pod.id, Kind::Warning, "FailedKillPod", &error.to_string());
                self.memory.busy.insert(job.clone());
                self.retries.push((now + STEP_RETRY, job));
            }
        }
    }

    /// Says that nothing is left. False when that could not be kept, and has to be said again.
    async fn finish(&mut self, assignment: &PodUpdate) -> bool {
        let id = &assignment.pod.id;
        if assignment.in_cloud {
            let gone = UpReport::PodGone {
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                uid: id.uid.clone(),
            };
            if let Err(error) = self.tools.report(&gone).await {
                tracing::error!(pod = %id.name, %error, "end of a pod could not be kept");
                return false;
            }
        }
        tracing::info!(pod = %id.name, namespace = %id.namespace, uid = %id.uid, "pod is gone");
        self.inbox.set_ended();
        true
    }
}

/// What has come to its end.
fn over_of(seen: &RuntimePod) -> BTreeSet<&str> {
    let containers = seen.containers.iter().filter(|container| container.life.is_over());
    let sandboxes = seen.sandboxes.iter().filter(|sandbox| !sandbox.ready);
    containers
        .map(|container| container.id.as_str())
        .chain(sandboxes.map(|sandbox| sandbox.id.as_str()))
        .collect()
}

fn shown_until(fault: &Failure) -> Moment {
    Moment(fault.until.0.saturating_sub(fault.pause)) + PULL_ERROR_SHOWS
}
