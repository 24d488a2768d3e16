//! What a pod's worker knows beside the pod and the runtime: what was tried, and what was reported. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use beehive::defect::{self, Defect};
use contract::pod_status::is_terminal;
use k8s_openapi::api::core::v1::{Container, PodStatus, ResourceRequirements};

use crate::error::StepError;
use crate::pod::action::Action;
use crate::pod::active_time::ActiveTime;
use crate::pod::backoff::{self, Failure};
use crate::pod::cgroup_state::{CgroupFault, PodCgroup};
use crate::pod::lost_container::counts_the_next;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::probes::plan::{ProbeKind, Verdict};
use crate::pod::probes::results::ProbeResults;
use crate::pod::resize_policy::Pending;
use crate::runtime::pods::{RuntimeContainer, RuntimePod, RuntimeState};
use crate::volumes::PreparedVolumes;

/// An image that is here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageReady {
    pub(crate) reference: String,
    pub(crate) image: cri::v1::Image,
}

/// How far a container's image is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ImageState {
    Ready(ImageReady),
    Failed(Failure),
}

impl ImageState {
    pub(crate) fn failure_mut(&mut self) -> Option<&mut Failure> {
        match self {
            ImageState::Ready(_) => None,
            ImageState::Failed(failure) => Some(failure),
        }
    }
}

/// How far the volumes are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum VolumeState {
    #[default]
    NotYet,
    Ready(PreparedVolumes),
    Failed(Failure),
}

/// What was tried before, which is lost when EdgeCore restarts and then tried again, and what was reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct SyncState {
    pub(crate) busy: BTreeSet<Action>,
    pub(crate) volumes: VolumeState,
    /// Objects changed or a token ages: bring the volumes up to date.
    pub(crate) refresh_volumes: bool,
    pub(crate) refresh_at: Option<Moment>,
    pub(crate) sandbox: Option<Failure>,
    pub(crate) images: BTreeMap<String, ImageState>,
    pub(crate) starts: BTreeMap<String, Failure>,
    /// The pause that the last restart of a container earned.
    pub(crate) crashes: BTreeMap<String, Duration>,
    /// When an instance was first seen running, by its id.
    pub(crate) running: BTreeMap<String, Moment>,
    /// When the end of an instance was first seen, by its id.
    pub(crate) ended: BTreeMap<String, Moment>,
    /// What was reported of the pod last, also before EdgeCore's last restart.
    pub(crate) reported: Option<Arc<PodStatus>>,
    /// The status could not be kept the last time, as where the disk is full.
    pub(crate) is_unkept: bool,
    /// When the node took the pod up, as far as this incarnation knows: a start is not told before it has come to something.
    pub(crate) taken_up: Option<jiff::Timestamp>,
    /// How long it has been active, for its deadline.
    pub(crate) active: ActiveTime,
    /// It was active for longer than it may be.
    pub(crate) is_overdue: bool,
    /// How long containers have to end, when that is not the pod's to say.
    pub(crate) grace: Option<Duration>,
    /// Dead instances of a container that are kept beside the newest, one if this is 0, and how long one stays at least.
    pub(crate) dead_kept: usize,
    pub(crate) dead_min_age: Duration,
    /// Sandboxes and containers that were told to stop, by their ids.
    pub(crate) stopped: BTreeSet<String>,
    /// How often the runtime has said that it removed something which it lists all the same, by its id.
    pub(crate) removed: BTreeMap<String, u8>,
    /// What the probes say.
    pub(crate) probes: ProbeResults,
    /// Containers whose postStart hook is to end before they count as started, by their ids.
    pub(crate) post_starts: BTreeSet<String>,
    /// Containers whose postStart hook has failed, by their ids.
    pub(crate) failed_hooks: BTreeSet<String>,
    /// Containers whose preStop hook has ended.
    pub(crate) pre_stopped: BTreeSet<String>,
    /// Somebody who has the pod removed waits to hear how it ended.
    pub(crate) tells_end: bool,
    /// Why instances that were made could not be started, by the containers' names. Nothing waits for it.
    pub(crate) run_failures: BTreeMap<String, String>,
    /// Since when containers are being stopped, by their ids and the grace of that.
    pub(crate) stopping: BTreeMap<(String, Duration), Moment>,
    /// Containers that somebody on the node has asked to begin again, by their ids.
    pub(crate) asked: BTreeSet<String>,
    /// Containers that were removed to start again with all others, by their names.
    pub(crate) reset: BTreeSet<String>,
    /// What containers that are being started are given, by their names.
    pub(crate) starting_with: BTreeMap<String, ResourceRequirements>,
    /// Containers that were started and not read of yet, by their ids.
    pub(crate) fresh: BTreeSet<String>,
    /// What containers were started with, or were given since, by their ids, as far as this worker did it.
    pub(crate) actuated: BTreeMap<String, ResourceRequirements>,
    /// Why a resize is not given.
    pub(crate) resize_pending: Option<Pending>,
    /// A resize that was given is being done.
    pub(crate) is_resizing: bool,
    /// Why it could not be done the last time.
    pub(crate) resize_error: Option<String>,
    /// What its cgroup is bound to.
    pub(crate) cgroup: PodCgroup,
    /// Why it could not be bound to what it is to be the last time.
    pub(crate) cgroup_fault: Option<CgroupFault>,
    /// Everything of the pod is gone.
    pub(crate) torn_down: bool,
    /// The volumes that it had of others are given back.
    pub(crate) unmounted: bool,
}

impl SyncState {
    pub(crate) fn is_busy(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.busy.iter().any(wanted)
    }

    /// Notes that the runtime has removed something.
    ///
    /// # Errors
    /// When it has said so twice before, of what it goes on listing: it has lost it, and asking it at once again would never end.
    pub(crate) fn note_removal(&mut self, action: &Action) -> Result<(), StepError> {
        let (Action::RemoveSandbox { id } | Action::RemoveContainer { id }) = action else { return Ok(()) };
        let times = self.removed.entry(id.clone()).or_default();
        *times = times.saturating_add(1);
        if *times <= 2 {
            return Ok(());
        }
        Err(StepError::Missing(format!(
            "the container runtime says that {id} has gone, and lists it all the same: restart the runtime"
        )))
    }

    /// The pod has its volumes, which are to be given back when it ends.
    pub(crate) fn has_volumes(&mut self, volumes: PreparedVolumes, refresh_at: Option<Moment>) {
        self.volumes = VolumeState::Ready(volumes);
        self.refresh_at = refresh_at;
        self.unmounted = false;
    }

    /// What the pod has of others is being given back. One that begins again mounts it anew: without that it would write to the
    /// node's own disk.
    pub(crate) fn gives_volumes_back(&mut self) {
        self.volumes = VolumeState::NotYet;
    }

    pub(crate) fn is_starting(&self, container: &str) -> bool {
        self.is_busy(|action| matches!(action, Action::Start { container: name, .. } if name == container))
    }

    /// Whether an instance runs, or may: the runtime has lost it, and was not told to stop it.
    pub(crate) fn may_run(&self, instance: &RuntimeContainer) -> bool {
        match instance.state {
            RuntimeState::Running => true,
            RuntimeState::Unknown => !self.stopped.contains(&instance.id),
            RuntimeState::Created | RuntimeState::Exited => false,
        }
    }

    /// Forgets what was tried with a container that is to be made of something else from now on: what came of another image or
    /// other resources says nothing of these (kubelet's `GetBackoffKey`).
    pub(crate) fn forget_changed(&mut self, old: &ParsedPod, new: &ParsedPod) {
        for container in all_of(new.spec()) {
            let Some(before) = old.container(&container.name) else { continue };
            let has_other_image = before.image != container.image;
            if has_other_image {
                self.images.remove(&container.name);
            }
            if has_other_image || before.resources != container.resources {
                self.starts.remove(&container.name);
                self.run_failures.remove(&container.name);
                self.crashes.remove(&container.name);
            }
        }
    }

    /// Notes what of `seen` is new at `now`. How long something ran or has been over is measured here, by the clock that
    /// nobody sets: that of the runtime may jump.
    pub(crate) fn observe(&mut self, seen: &RuntimePod, now: Moment) {
        let has = |id: &String| seen.containers.iter().any(|container| container.id == *id);
        self.running.retain(|id, _| has(id));
        self.ended.retain(|id, _| has(id));
        self.failed_hooks.retain(has);
        self.pre_stopped.retain(has);
        self.asked.retain(has);
        self.stopping.retain(|(id, _), _| has(id));
        self.stopped.retain(|id| has(id) || seen.sandboxes.iter().any(|sandbox| sandbox.id == *id));
        self.removed.retain(|id, _| has(id) || seen.sandboxes.iter().any(|sandbox| sandbox.id == *id));
        // One that was started a moment ago may not be in what was read.
        self.actuated.retain(|id, _| has(id) || self.fresh.contains(id));
        self.fresh.retain(|id| !has(id));
        // One that was started a moment ago may not be in what was read.
        let ended = seen.containers.iter().filter(|container| container.state.has_ended());
        ended.for_each(|container| {
            self.post_starts.remove(&container.id);
        });
        for container in &seen.containers {
            let first_seen = match container.state {
                RuntimeState::Running => &mut self.running,
                RuntimeState::Exited | RuntimeState::Unknown => &mut self.ended,
                RuntimeState::Created => continue,
            };
            first_seen.entry(container.id.clone()).or_insert(now);
        }
    }

    /// Whether a container that runs is still being started: its postStart hook has not ended, or has failed, so that it is about to end. One
    /// that has ended holds up nobody: a kubelet goes on with the next one while it waits to begin again.
    pub(crate) fn is_held(&self, instance: &RuntimeContainer) -> bool {
        let is_running = instance.state == RuntimeState::Running;
        self.post_starts.contains(&instance.id)
            || (is_running && (self.failed_hooks.contains(&instance.id) || self.is_starting(&instance.name)))
    }

    /// Whether a container has started: it runs, its postStart hook has ended, and its startup probe was once successful.
    pub(crate) fn is_started(&self, container: &Container, instance: &RuntimeContainer) -> bool {
        instance.state == RuntimeState::Running
            && !self.is_held(instance)
            && (container.startup_probe.is_none()
                || self.probes.get(&instance.id, ProbeKind::Startup) == Some(Verdict::Success))
    }

    /// Whether a container that is no plain init container is ready: it has started, and its readiness probe is successful.
    pub(crate) fn is_ready(&self, container: &Container, instance: &RuntimeContainer) -> bool {
        self.is_started(container, instance)
            && (container.readiness_probe.is_none()
                || self.probes.get(&instance.id, ProbeKind::Readiness) == Some(Verdict::Success))
    }

    /// Since when a container is being stopped with a grace.
    pub(crate) fn stopping_since(&self, id: &str, grace: Duration, now: Moment) -> Moment {
        self.stopping.get(&(id.to_owned(), grace)).copied().unwrap_or(now)
    }

    /// Whether an instance ran so long that its crashes before are forgotten.
    pub(crate) fn ran_long(&self, instance: &RuntimeContainer) -> bool {
        let times = (self.running.get(&instance.id), self.ended.get(&instance.id));
        matches!(times, (Some(since), Some(ended)) if ended.since(*since) >= backoff::FORGIVEN_AFTER)
    }

    /// When a container that has ended may start again, if that is later than now.
    pub(crate) fn crash_until(&self, instance: &RuntimeContainer) -> Option<(Duration, Moment)> {
        let pause = self.crashes.get(&instance.name)?;
        if self.ran_long(instance) {
            return None;
        }
        self.ended.get(&instance.id).map(|ended| (*pause, *ended + *pause))
    }

    /// The status in which the pod has ended for good, as the cloud has it or as it was reported.
    pub(crate) fn end<'a>(&'a self, pod: &'a ParsedPod) -> Option<&'a PodStatus> {
        let known = [pod.cloud_status(), self.reported.as_deref()];
        let known = known.into_iter().filter(|_| !defect::is_planted(Defect::EndForgotten));
        let has_ended = |status: &&PodStatus| {
            status.phase.as_deref().is_some_and(is_terminal) && !pod.begins_again(status)
        };
        known.flatten().find(has_ended)
    }

    /// What is known of the status from before: what was reported, or what a node that has lost its store was told.
    pub(crate) fn known_status<'a>(&'a self, pod: &'a ParsedPod) -> Option<&'a PodStatus> {
        self.reported.as_deref().or(pod.cloud_status())
    }

    /// The attempt after the latest that is known of: that of the runtime, or one that was reported before the runtime lost
    /// it. An attempt is used once, so that names never collide and counts go on.
    pub(crate) fn next_attempt(&self, pod: &ParsedPod, name: &str, newest: Option<&RuntimeContainer>) -> u32 {
        let known = [pod.cloud_status(), self.reported.as_deref()].into_iter().flatten();
        let statuses = known.flat_map(|status| {
            status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
        });
        let made = statuses.filter(|status| status.name == name && status.container_id.is_some());
        let reported = made.map(|status| {
            let latest = u32::try_from(status.restart_count).unwrap_or(0);
            if counts_the_next(status) { latest } else { latest.saturating_add(1) }
        });
        let seen = newest.map(|newest| newest.attempt.saturating_add(1));
        reported.chain(seen).max().unwrap_or(0)
    }
}
