//! Running the actions of a plan beside the pod's worker, with what each takes from what the worker knows.

use std::rc::Rc;
use std::sync::Arc;

use beehive::Context;
use beehive::trace::{self, Span};
use futures::future::{AbortHandle, LocalBoxFuture};
use tokio::sync::oneshot;

use crate::pod::action::Action;
use crate::pod::actions::{self, ActionInput, Outcome, StartContext};
use crate::pod::actuated;
use crate::pod::cgroup_state::PodCgroup;
use crate::pod::end::Stopped;
use crate::pod::message::PodWorkerMsg;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::pod::pod_cgroup;
use crate::pod::restart_policy;
use crate::pod::stopping;
use crate::pod::sync_state::{ImageState, VolumeState};
use crate::pod::worker::PodWorker;
use crate::runtime::pods::{RuntimeContainer, RuntimeState};
use crate::runtime::resources;

impl PodWorker {
    /// Begins an action.
    pub(crate) fn begin(&mut self, action: Action, pod: &Arc<ParsedPod>, cx: &Context<PodWorkerMsg>) {
        let Some(work) = self.work(&action, pod) else { return };
        self.tell_of_sandbox(&action, pod);
        self.state.busy.insert(action.clone());
        if matches!(action, Action::RemoveSandbox { .. }) && self.update.intent == Intent::Terminate {
            self.status_is_final = true;
        }
        if action == Action::Teardown && self.stopped == Stopped::NotYet {
            self.stopped = Stopped::Unsaid;
        }
        if action == Action::Unmount {
            self.state.gives_volumes_back();
        }
        let task = self.run(action.clone(), work, cx);
        if matches!(action, Action::Image { .. } | Action::PostStart { .. } | Action::PreStop { .. }) {
            self.breakable.insert(action, task);
        }
    }

    /// Runs an action beside the worker, which is told the outcome.
    pub(crate) fn run(
        &self,
        action: Action,
        work: LocalBoxFuture<'static, Outcome>,
        cx: &Context<PodWorkerMsg>,
    ) -> AbortHandle {
        let (worker, (said, heard)) = (cx.myself(), oneshot::channel());
        let span = self.step(&action);
        let work = async move {
            let outcome = trace::with_context(span.context(), work).await;
            drop(span);
            // A worker that is gone needs no answer.
            let _ = said.send(outcome);
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

    /// The step of the pod's trace that an action is. That of a report begins where it is put into the outbox.
    fn step(&self, action: &Action) -> Span {
        let name = match action {
            Action::Volumes => "Edged mount volumes",
            Action::Sandbox { .. } => "Edged create sandbox",
            Action::Image { .. } => "Edged pull image",
            Action::Start { .. } => "Edged start container",
            Action::PostStart { .. } => "Edged postStart hook",
            Action::PreStop { .. } => "Edged preStop hook",
            Action::Stop { .. } => "Edged stop container",
            Action::Resize { .. } => "Edged resize container",
            Action::BoundPod => "Edged bound pod",
            Action::StopSandbox { .. } => "Edged stop sandbox",
            Action::RemoveSandbox { .. } => "Edged remove sandbox",
            Action::RemoveContainer { .. } | Action::Reset { .. } => "Edged remove container",
            Action::Teardown | Action::Unmount => "Edged unmount volumes",
            Action::Report => return Span::none(),
        };
        let span = self.deps.env.traces().child(name, self.span.context());
        match action {
            Action::Image { container, image } => span
                .with("k8s.container.name", || container.as_str())
                .with("container.image.name", || image.as_str()),
            Action::Start { container, .. } => span.with("k8s.container.name", || container.as_str()),
            Action::PostStart { id }
            | Action::PreStop { id, .. }
            | Action::Stop { id, .. }
            | Action::Resize { id }
            | Action::RemoveContainer { id }
            | Action::Reset { id } => span.with("container.id", || id.as_str()),
            _ => span,
        }
    }

    fn work(&mut self, action: &Action, pod: &Arc<ParsedPod>) -> Option<LocalBoxFuture<'static, Outcome>> {
        let request = match action {
            Action::Volumes => {
                self.state.refresh_volumes = false;
                let before = match &self.state.volumes {
                    VolumeState::Ready(volumes) => Some(volumes.clone()),
                    VolumeState::NotYet | VolumeState::Failed(_) => None,
                };
                let (handle, pulls) = AbortHandle::new_pair();
                self.volume_pulls = Some(handle);
                ActionInput::Volumes { before, has_run: !self.seen.containers.is_empty(), pulls }
            }
            Action::Image { container, .. } => {
                let before = match self.state.images.get(container) {
                    Some(ImageState::Failed(failure)) => Some(failure.clone()),
                    Some(ImageState::Ready(_)) | None => None,
                };
                // With the definition that it has now.
                let ran = |instance: &RuntimeContainer| {
                    instance.hash.is_some() && !restart_policy::changed(pod, Some(instance))
                };
                let ran_before = self.seen.newest(container).is_some_and(ran);
                ActionInput::Image { before, ran_before }
            }
            Action::Start { container, .. } => {
                let context = self.start_context(container)?;
                let given = pod.container(container).and_then(|own| own.resources.clone());
                self.state.starting_with.insert(container.clone(), given.unwrap_or_default());
                ActionInput::Start(Box::new(context))
            }
            Action::Stop { id, why, grace } => {
                let now = self.deps.now();
                let seen = self.instance(id)?;
                let grace = stopping::left(*grace, self.state.stopping_since(id, *grace, now), now);
                // A hook that was run before the stop has said why.
                let said =
                    self.state.is_busy(|busy| matches!(busy, Action::PreStop { id: of, .. } if of == id))
                        || self.state.pre_stopped.contains(id);
                let event = (!said).then(|| stopping::killing_text(pod, &seen.name, *why));
                ActionInput::Stop { name: seen.name, grace, event }
            }
            Action::Resize { id } => {
                let container = self.instance(id)?;
                let spec = pod.container(&container.name)?;
                let before = resources::amounts(actuated::actuated(pod, spec, &container, &self.state));
                ActionInput::Resize { container, before }
            }
            Action::BoundPod => {
                // Until it has ended, nobody knows.
                self.state.cgroup = PodCgroup::Unknown;
                ActionInput::Bounds(pod_cgroup::wanted(pod, &self.seen, &self.state))
            }
            Action::Sandbox { .. } => {
                (self.state.cgroup, self.state.cgroup_fault) = (PodCgroup::AsMade, None);
                ActionInput::None
            }
            Action::PostStart { id } => {
                ActionInput::Hook { container: self.instance(id)?, ip: self.pod_ip(), event: None }
            }
            Action::PreStop { id, why } => {
                let container = self.instance(id)?;
                let event = Some(stopping::killing_text(pod, &container.name, *why));
                ActionInput::Hook { container, ip: self.pod_ip(), event }
            }
            Action::RemoveContainer { id } => ActionInput::Container(self.instance(id)?),
            // Begun by `sync`, which knows the status.
            Action::Report => return None,
            Action::StopSandbox { .. }
            | Action::RemoveSandbox { .. }
            | Action::Reset { .. }
            | Action::Unmount
            | Action::Teardown => ActionInput::None,
        };
        Some(actions::perform(Rc::clone(&self.deps), pod.clone(), action.clone(), request))
    }

    fn instance(&self, id: &str) -> Option<RuntimeContainer> {
        self.seen.containers.iter().find(|seen| seen.id == *id).cloned()
    }

    /// The pod's first address, as its hooks are asked at.
    fn pod_ip(&self) -> String {
        let node = self.deps.node.borrow();
        let ips = if self.update.pod.host_network() { &node.host_ips } else { &self.seen.ips };
        ips.first().cloned().unwrap_or_default()
    }

    fn start_context(&self, container: &str) -> Option<StartContext> {
        let sandbox = self.seen.ready_sandbox()?;
        let VolumeState::Ready(volumes) = &self.state.volumes else { return None };
        let Some(ImageState::Ready(image)) = self.state.images.get(container) else { return None };
        let ephemeral = self.update.pod.ephemeral(container);
        let target = ephemeral.and_then(|one| self.seen.newest(one.target.as_deref()?));
        let target = target.filter(|target| target.state == RuntimeState::Running);
        Some(StartContext {
            target: target.map(|target| target.id.clone()),
            sandbox: sandbox.id.clone(),
            sandbox_attempt: sandbox.attempt,
            handler: sandbox.handler.clone(),
            ips: self.seen.ips.clone(),
            image: image.clone(),
            volumes: volumes.clone(),
        })
    }
}
