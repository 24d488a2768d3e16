//! Which containers should run now, in which order, and what each needs. Pure.

use beehive::Moment;
use k8s_openapi::api::core::v1::Container;

use crate::pod::action::{Action, StopReason};
use crate::pod::actuated;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::planned::Plan;
use crate::pod::probes::plan::{ProbeKind, Verdict};
use crate::pod::restart_policy::{changed, has_failed, restarts};
use crate::pod::stopping::stop;
use crate::pod::sync_state::{ImageState, SyncState, VolumeState};
use crate::runtime::pods::{RuntimeContainer, RuntimePod, RuntimeState};

/// What one look at a pod's containers has at hand.
struct Look<'a, 'p> {
    pod: &'a ParsedPod,
    seen: &'a RuntimePod,
    state: &'a SyncState,
    now: Moment,
    plan: &'p mut Plan,
    /// The containers that should start, with their attempt.
    found: Vec<(&'a Container, u32)>,
}

/// The containers that should start now, with their attempt, but for pauses and what they need.
pub(crate) fn candidates<'a>(
    pod: &'a ParsedPod,
    seen: &'a RuntimePod,
    state: &'a SyncState,
    now: Moment,
    plan: &mut Plan,
) -> Vec<(&'a Container, u32)> {
    let mut look = Look { pod, seen, state, now, plan, found: Vec::new() };
    look.ephemeral_containers();
    if look.init_containers() {
        look.main_containers();
    }
    look.found
}

impl<'a> Look<'a, '_> {
    /// The instance in the sandbox that counts.
    fn here(&self, container: &Container) -> Option<&'a RuntimeContainer> {
        let sandbox = self.seen.ready_sandbox().map_or("", |sandbox| sandbox.id.as_str());
        self.seen.newest_in(&container.name, sandbox)
    }

    /// Ephemeral containers start whatever else there is, in the sandbox that is there, and once.
    fn ephemeral_containers(&mut self) {
        if self.seen.ready_sandbox().is_none() {
            return;
        }
        for container in self.pod.ephemeral.iter().map(|one| &one.container) {
            match self.seen.newest(&container.name) {
                None => self.consider(container, None),
                Some(made) if made.state == RuntimeState::Created => self.consider(container, Some(made)),
                Some(_) => {}
            }
        }
    }

    /// Looks at the init containers, in order. True when all have done their part.
    fn init_containers(&mut self) -> bool {
        let inits: Vec<&'a Container> = self.pod.init_containers().collect();
        let mains = &self.pod.spec().containers;
        let initialized = mains.iter().any(|container| self.here(container).is_some());
        // The furthest that was begun decides: those before it have done their part, also where nothing of them is left.
        let furthest = if initialized {
            inits.len()
        } else {
            inits.iter().rposition(|container| self.here(container).is_some()).unwrap_or(0)
        };
        for container in inits[..furthest].iter().filter(|container| is_sidecar(container)) {
            self.consider(container, self.here(container));
        }
        for container in &inits[furthest..] {
            let instance = self.here(container);
            let passed = instance.is_some_and(|instance| self.has_passed(container, instance));
            // A sidecar that has passed is looked at all the same: its liveness probe may have failed.
            if !passed || is_sidecar(container) {
                self.consider(container, instance);
            }
            if !passed {
                return false;
            }
        }
        true
    }

    fn has_passed(&self, container: &Container, instance: &RuntimeContainer) -> bool {
        match instance.state {
            RuntimeState::Running => is_sidecar(container) && self.state.is_started(container, instance),
            RuntimeState::Exited => !is_sidecar(container) && !has_failed(instance),
            RuntimeState::Created | RuntimeState::Unknown => false,
        }
    }

    /// Looks at the main containers, in order. Those behind one whose postStart hook runs wait for it, but for those that run already and, once that one
    /// has ended, those that were not made yet: a kubelet that has killed it makes them before it begins it again.
    fn main_containers(&mut self) {
        let (mut is_held, mut has_to_wait) = (false, false);
        // Where the first one that begins again and has such a hook stands among those that were found.
        let mut again = None;
        for container in &self.pod.spec().containers {
            let instance = self.here(container);
            let is_running = instance.is_some_and(|instance| instance.state == RuntimeState::Running);
            let is_overdue = instance.is_none() && !has_to_wait;
            let found = self.found.len();
            if !is_held || is_running || is_overdue {
                self.consider(container, instance);
            }
            let is_found = self.found.len() > found;
            if let Some(place) = again.filter(|_| is_found && is_overdue)
                && let Some(rest) = self.found.get_mut(place..)
            {
                rest.rotate_right(1);
                again = Some(place + 1);
            }
            if !has_post_start(container) {
                continue;
            }
            let has_ended = self.has_ended_here(container);
            let starts = instance.is_some_and(|instance| self.state.is_held(instance))
                || self.state.is_starting(&container.name);
            is_held |= starts;
            has_to_wait |= !has_ended && (starts || is_found);
            if is_found && has_ended {
                again = again.or(Some(found));
            }
        }
    }

    /// Whether an instance of a container has ended in the sandbox that counts.
    fn has_ended_here(&self, container: &Container) -> bool {
        let Some(sandbox) = self.seen.ready_sandbox() else { return false };
        let mut own = self.seen.containers.iter().filter(|instance| instance.name == container.name);
        own.any(|instance| instance.sandbox == sandbox.id && instance.state.has_ended())
    }

    fn consider(&mut self, container: &'a Container, instance: Option<&'a RuntimeContainer>) {
        let (pod, state) = (self.pod, self.state);
        if state.is_starting(&container.name) {
            return;
        }
        let newest = self.seen.newest(&container.name);
        let attempt = state.next_attempt(pod, &container.name, newest);
        let Some(instance) = instance else {
            // One that ended with the sandbox before counts by the policy, init containers run again.
            let again = newest.is_none_or(|newest| {
                let main = pod.spec().containers.iter().any(|c| c.name == container.name);
                !main || !newest.state.has_ended() || restarts(pod, container, newest)
            });
            if again {
                self.found.push((container, attempt));
            }
            return;
        };
        match instance.state {
            RuntimeState::Running => self.keep(container, instance),
            // Made but never started: a start that was cut short. It makes room for a whole one.
            RuntimeState::Created => {
                self.plan.actions.push(Action::RemoveContainer { id: instance.id.clone() });
            }
            // Nobody knows whether it runs: two of it at once may be worse than none.
            RuntimeState::Unknown if state.may_run(instance) => {
                if restarts(pod, container, instance) {
                    stop(pod, instance, StopReason::Unknown, state, self.now, self.plan);
                }
            }
            RuntimeState::Exited | RuntimeState::Unknown => {
                if restarts(pod, container, instance) {
                    self.found.push((container, attempt));
                }
            }
        }
    }

    /// A container that runs: its hook is run, and it is stopped when it is not as it should be.
    fn keep(&mut self, container: &Container, instance: &RuntimeContainer) {
        let state = self.state;
        let failed = |kind| state.probes.get(&instance.id, kind) == Some(Verdict::Failure);
        let why = if state.failed_hooks.contains(&instance.id) {
            StopReason::PostStart
        } else if changed(self.pod, Some(instance)) {
            if actuated::is_due(self.pod, container, instance, state) {
                StopReason::Resize
            } else {
                StopReason::Changed
            }
        } else if container.liveness_probe.is_some() && failed(ProbeKind::Liveness) {
            StopReason::Liveness
        } else if container.startup_probe.is_some() && failed(ProbeKind::Startup) {
            StopReason::Startup
        } else {
            if actuated::is_due(self.pod, container, instance, state) {
                self.plan.actions.push(Action::Resize { id: instance.id.clone() });
            }
            if state.post_starts.contains(&instance.id) {
                self.plan.actions.push(Action::PostStart { id: instance.id.clone() });
            }
            return;
        };
        stop(self.pod, instance, why, state, self.now, self.plan);
    }
}

/// What a container needs to start, one thing after another. False when it waits for something that may never come: others
/// don't wait for it.
pub(crate) fn start(
    container: &Container,
    attempt: u32,
    sandbox_ready: bool,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
    seen: &RuntimePod,
) -> bool {
    let name = &container.name;
    let ended = seen.newest(name).filter(|instance| instance.state.has_ended());
    let crashed = ended.and_then(|instance| state.crash_until(instance)).map(|(_, until)| until);
    let failed = state.starts.get(name).map(|fault| fault.until);
    if let Some(until) = crashed.filter(|until| *until > now).or(failed.filter(|until| *until > now)) {
        plan.wake_at(until);
        return false;
    }
    let volumes_ready = matches!(state.volumes, VolumeState::Ready(_));
    match state.images.get(name) {
        Some(ImageState::Failed(fault)) if fault.until > now => {
            plan.wake_at(fault.until);
            return false;
        }
        // A kubelet pulls nothing for a pod that has not got its volumes, which may never come (`WaitForAttachAndMount` in its SyncPod).
        None | Some(ImageState::Failed(_)) if volumes_ready => plan.actions.push(image_of(container)),
        Some(ImageState::Ready(_)) if volumes_ready && sandbox_ready => {
            plan.actions.push(Action::Start { container: name.clone(), attempt });
        }
        None | Some(ImageState::Failed(_) | ImageState::Ready(_)) => {}
    }
    true
}

fn image_of(container: &Container) -> Action {
    Action::Image { container: container.name.clone(), image: container.image.clone().unwrap_or_default() }
}

/// Whether a container is to be made of this image.
pub(crate) fn is_image_of(pod: &ParsedPod, container: &str, image: &str) -> bool {
    pod.container(container).is_some_and(|own| own.image.as_deref().unwrap_or_default() == image)
}

/// Whether a container has a hook that the containers after it wait for.
pub(crate) fn has_post_start(container: &Container) -> bool {
    container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
}

#[cfg(test)]
#[path = "starting_tests.rs"]
mod tests;
