//! What a pod's worker notes when an action has ended.

use std::time::Duration;

use beehive::Moment;

use crate::error::StepError;
use crate::events;
use crate::pod::action::Action;
use crate::pod::actions::{Outcome, StartError, VolumesFailed};
use crate::pod::backoff::{self, Failure};
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::pod::restart_policy;
use crate::pod::starting;
use crate::pod::sync_state::{ImageState, VolumeState};
use crate::pod::worker::{PodWorker, STEP_RETRY};
use crate::volumes::PreparedVolumes;

/// 60 s: so often a kubelet looks again at a pod whose devices could not be prepared (`syncFrequency`).
const DEVICES_AGAIN: Duration = Duration::from_secs(60);

impl PodWorker {
    /// Notes the outcome of an action.
    pub(crate) fn action_ended(&mut self, action: Action, outcome: Outcome) {
        self.state.busy.remove(&action);
        self.breakable.remove(&action);
        let now = self.deps.now();
        let pod = self.update.pod.clone();
        match (outcome, &action) {
            (Outcome::Volumes(result), _) => self.volumes_ended(&pod, result, now),
            (Outcome::Sandbox(result), _) => self.sandbox_ended(&pod, result, now),
            // A pull that ended when the pod had another image already is no news of that one.
            (Outcome::Image(result), Action::Image { container, image })
                if starting::is_image_of(&pod, container, image) =>
            {
                let state = match result {
                    Ok(ready) => ImageState::Ready(ready),
                    Err(failure) => ImageState::Failed(failure),
                };
                self.state.images.insert(container.clone(), state);
            }
            (Outcome::Start(result), Action::Start { container, attempt }) => {
                self.start_ended(&pod, container, *attempt, result, now);
            }
            (Outcome::Done(result), _) => self.step_ended(&pod, action, result, now),
            (Outcome::Report(Ok(status)), _) => {
                self.deps.counts.containers_ended(self.state.reported.as_deref(), &status);
                self.state.reported = Some(std::sync::Arc::new(*status));
                self.state.is_unkept = false;
                // A static pod's mirror may have come while it was under way.
                self.has_reported = self.reporting_to.as_deref() == self.update.cloud_uid();
            }
            (Outcome::Report(Err(error)), _) => {
                events::report_not_kept(&self.deps.env, "status of a pod", &error);
                self.state.is_unkept = true;
                self.try_again(Action::Report, now);
            }
            (Outcome::Resize(result), Action::Resize { id }) => self.resize_ended(id, result, now),
            (Outcome::Bounded(wanted, result), _) => self.pod_bounded(wanted, result, now),
            (Outcome::Hook(result), Action::PostStart { id }) => self.post_start_ended(id, result, now),
            (Outcome::Hook(_), Action::PreStop { id, .. }) => {
                self.state.pre_stopped.insert(id.clone());
            }
            (Outcome::Image(_) | Outcome::Start(_) | Outcome::Hook(_) | Outcome::Resize(_), _) => {}
        }
    }

    /// After a while; it counts as under way until then.
    pub(crate) fn try_again(&mut self, action: Action, now: Moment) {
        self.state.busy.insert(action.clone());
        self.retries.push((now + STEP_RETRY, action));
    }

    fn volumes_ended(
        &mut self,
        pod: &ParsedPod,
        result: Result<(PreparedVolumes, Option<Moment>), VolumesFailed>,
        now: Moment,
    ) {
        match result {
            Ok((prepared, refresh_at)) => self.state.has_volumes(prepared, refresh_at),
            Err(VolumesFailed(errors)) => {
                let words: Vec<String> = errors.iter().map(StepError::to_string).collect();
                for words in &words {
                    // A device is mapped and not mounted; that its disk is another node's is said as of a mount.
                    let is_map =
                        words.starts_with("MapVolume.") && !words.starts_with("MapVolume.NodeAffinity");
                    let reason = if is_map { "FailedMapVolume" } else { "FailedMount" };
                    self.deps.event(&pod.id, EventType::Warning, reason, words);
                }
                let words = words.join("; ");
                // As long as one waits for a thing that may come, the others are looked at with it.
                let may_come = errors.iter().any(|error| matches!(error, StepError::Missing(_)));
                match &mut self.state.volumes {
                    // Containers go on with what they have.
                    VolumeState::Ready(_) => self.state.refresh_at = Some(now + backoff::FIRST),
                    VolumeState::NotYet => {
                        let failure = Failure::of_volume(None, words, may_come, now);
                        self.state.volumes = VolumeState::Failed(failure);
                    }
                    VolumeState::Failed(before) => {
                        *before = Failure::of_volume(Some(before), words, may_come, now)
                    }
                }
            }
        }
    }

    fn sandbox_ended(&mut self, pod: &ParsedPod, result: Result<String, StepError>, now: Moment) {
        self.stale = true;
        match result {
            Ok(_) => self.state.sandbox = None,
            Err(error @ StepError::DynamicResources(_)) => {
                let (reason, text) = (
                    "FailedPrepareDynamicResources",
                    format!("Failed to prepare dynamic resources: {error}"),
                );
                self.deps.event(&pod.id, EventType::Warning, reason, &text);
                let failure = Failure::steady(reason, text, true, now);
                self.state.sandbox = Some(Failure { until: now + DEVICES_AGAIN, ..failure });
            }
            Err(error) => {
                let text = format!("Failed to create pod sandbox: {error}");
                self.deps.event(&pod.id, EventType::Warning, "FailedCreatePodSandBox", &text);
                let before = self.state.sandbox.take();
                let mut failure = Failure::after(before.as_ref(), "FailedCreatePodSandBox", text, now);
                // A sandbox needs nothing from afar, so it is tried sooner than an image.
                failure.until = now + (failure.pause / 10);
                self.state.sandbox = Some(failure);
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
        let ended = result.as_ref().err().is_none_or(|error| error.ended);
        if ended {
            self.state.starts.remove(container);
            self.state.run_failures.remove(container);
            self.state.reset.remove(container);
            self.note_restart(container, attempt);
        }
        match result {
            Ok(id) => {
                if let Some(given) = self.state.starting_with.remove(container) {
                    self.state.actuated.insert(id.clone(), given);
                    self.state.fresh.insert(id.clone());
                }
                if pod.container(container).is_some_and(starting::has_post_start) {
                    self.state.post_starts.insert(id);
                }
                let text = "Container started";
                self.deps.container_event(pod, container, EventType::Normal, "Started", text);
                // Looked for anew before the next start, as a kubelet does: another image may have its name by then.
                self.state.images.remove(container);
            }
            Err(error) if !error.ended => {
                let failure = if error.reason == "CreateContainerError" {
                    // The image may have gone meanwhile.
                    self.state.images.remove(container);
                    let before = self.state.starts.get(container);
                    Failure::after(before, error.reason, error.message, now)
                } else {
                    Failure::steady(error.reason, error.message, error.may_come, now)
                };
                self.state.starts.insert(container.to_owned(), failure);
            }
            // It has ended: its restart waits as after any end, and for nothing else.
            Err(error) => {
                self.state.run_failures.insert(container.to_owned(), error.message);
            }
        }
    }

    /// A container whose postStart hook has failed is stopped, and started again as after any end.
    fn post_start_ended(&mut self, id: &str, result: Result<(), String>, now: Moment) {
        self.state.post_starts.remove(id);
        let Err(why) = result else { return };
        let Some(instance) = self.seen.containers.iter().find(|container| container.id == *id) else {
            return;
        };
        let failure = Failure::steady("PostStartHookError", why, false, now);
        self.state.starts.insert(instance.name.clone(), failure);
        self.state.failed_hooks.insert(id.to_owned());
    }

    /// A container that was started again has earned a pause for the next time.
    fn note_restart(&mut self, container: &str, attempt: u32) {
        // The instance that was just started may have been seen already.
        let Some(before) = self.seen.before(container, attempt).filter(|instance| instance.state.has_ended())
        else {
            return;
        };
        let earned = self.state.crashes.get(container).copied().filter(|_| !self.state.ran_long(before));
        self.state.crashes.insert(container.to_owned(), backoff::next(earned));
    }

    /// A container was removed to start again with all others; the one that ended so has earned a pause for the next time.
    fn note_reset(&mut self, pod: &ParsedPod, id: &str) {
        let Some(instance) = self.seen.containers.iter().find(|own| own.id == *id) else { return };
        if restart_policy::restarts_all(pod, instance) {
            let earned = self.state.crashes.get(&instance.name).copied();
            let earned = earned.filter(|_| !self.state.ran_long(instance));
            self.state.crashes.insert(instance.name.clone(), backoff::next(earned));
        }
        self.state.reset.insert(instance.name.clone());
    }

    fn step_ended(&mut self, pod: &ParsedPod, action: Action, result: Result<(), StepError>, now: Moment) {
        self.stale = true;
        let result = result.and_then(|()| self.state.note_removal(&action));
        match (result, &action) {
            (Ok(()), Action::StopSandbox { id } | Action::Stop { id, .. }) => {
                self.state.stopped.insert(id.clone());
            }
            (Ok(()), Action::Teardown) => self.state.torn_down = true,
            (Ok(()), Action::Reset { id }) => self.note_reset(pod, id),
            (Ok(()), Action::Unmount) => self.state.unmounted = true,
            (Ok(()), _) => {}
            (Err(error), _) => {
                events::step_failed(&self.deps.env, &pod.id, &action, &error);
                let text = format!("error killing pod: {error}");
                self.deps.event(&pod.id, EventType::Warning, "FailedKillPod", &text);
                self.try_again(action, now);
            }
        }
    }
}
