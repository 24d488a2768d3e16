//! The probes of a pod's containers: when they are made, and what their outcomes mean.

mod counters;
pub(crate) mod plan;
pub(crate) mod results;
pub(crate) mod task;

use std::collections::BTreeMap;
use std::rc::Rc;

use beehive::Context;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::watch;

use crate::dependencies::Dependencies;
use crate::pod::message::PodWorkerMsg;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::probes::plan::{ProbeKind, Target};
use crate::pod::probes::task::ProbeTask;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::{RuntimePod, RuntimeState};

/// A container's probe of a kind.
pub(crate) fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
    }
}

/// The containers that are probed: the regular ones and the sidecars.
fn probed(pod: &ParsedPod) -> impl Iterator<Item = &Container> {
    let sidecars = pod.init_containers().filter(|container| is_sidecar(container));
    sidecars.chain(&pod.spec().containers)
}

/// The probes of one pod: a task for each, which goes by what is known of its container.
#[derive(Default)]
pub(crate) struct Probes {
    has_begun: bool,
    /// By the container's name.
    targets: BTreeMap<String, watch::Sender<Target>>,
}

impl Probes {
    /// Starts the tasks, the first time.
    pub(crate) fn start(&mut self, pod: &ParsedPod, deps: &Rc<Dependencies>, cx: &Context<PodWorkerMsg>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        for container in probed(pod) {
            let kinds =
                ProbeKind::ALL.into_iter().filter_map(|kind| Some((kind, probe_of(container, kind)?)));
            let (sender, _) = watch::channel(Target::default());
            for (kind, probe) in kinds {
                let task = ProbeTask::new(pod, container, kind, probe, deps, cx.myself());
                cx.spawn(task.run(sender.subscribe()));
            }
            if sender.receiver_count() > 0 {
                self.targets.insert(container.name.clone(), sender);
            }
        }
    }

    /// Tells the tasks what is known of their containers now. `ips`: the pod's.
    pub(crate) fn update(
        &self,
        pod: &ParsedPod,
        seen: &RuntimePod,
        state: &SyncState,
        ips: &[String],
        ending: bool,
    ) {
        for (name, target) in &self.targets {
            let Some(container) = pod.container(name) else { continue };
            let new = target_of(container, seen, state, ips, ending);
            target.send_if_modified(|old| {
                let differs = *old != new;
                *old = new;
                differs
            });
        }
    }
}

fn target_of(
    container: &Container,
    seen: &RuntimePod,
    state: &SyncState,
    ips: &[String],
    ending: bool,
) -> Target {
    // A container that is being started is none yet: its postStart hook may not have ended.
    let instance = seen.newest(&container.name).filter(|instance| !state.is_held(instance));
    let Some(instance) = instance else { return Target::default() };
    let runs = instance.state == RuntimeState::Running;
    Target {
        id: instance.id.clone(),
        since: state.running.get(&instance.id).copied().filter(|_| runs),
        known_before: state.probes.is_known_before(&instance.id),
        started: state.is_started(container, instance),
        ready: state.is_ready(container, instance),
        ending,
        ip: ips.first().cloned().unwrap_or_default(),
    }
}
