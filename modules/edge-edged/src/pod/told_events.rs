//! What a pod's worker tells of its own accord, once each.

use beehive::Moment;

use crate::pod::action::Action;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::{self, Intent};
use crate::pod::recorder::EventType;
use crate::pod::restart_policy;
use crate::pod::worker::PodWorker;

impl PodWorker {
    /// A container that has ended starts again only after a pause.
    pub(crate) fn tell_of_back_offs(&mut self, intent: &Intent, now: Moment) {
        let pod = &self.update.pod;
        let (seen, state) = (&self.seen, &self.state);
        self.recorded_back_offs.retain(|id| seen.containers.iter().any(|own| own.id == *id));
        if *intent != Intent::Run || plan::is_done(pod, seen, state) {
            return;
        }
        let all = pod.init_containers().chain(&pod.spec().containers);
        for container in all {
            let Some(ended) = seen.newest(&container.name).filter(|own| own.state.has_ended()) else {
                continue;
            };
            let waits = state.crash_until(ended).is_some_and(|(_, until)| until > now);
            if !waits || !restart_policy::restarts(pod, container, ended) {
                continue;
            }
            if self.recorded_back_offs.insert(ended.id.clone()) {
                let (name, id) = (&container.name, &pod.id);
                let text = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    id.name, id.namespace, id.uid
                );
                self.deps.container_event(pod, name, EventType::Warning, "BackOff", &text);
            }
        }
    }

    /// A sandbox takes the place of one that was lost.
    pub(crate) fn tell_of_sandbox(&self, action: &Action, pod: &ParsedPod) {
        let is_anew = matches!(action, Action::Sandbox { attempt } if *attempt > 0);
        if is_anew && self.state.sandbox.is_none() {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.deps.event(&pod.id, EventType::Normal, "SandboxChanged", text);
        }
    }
}
