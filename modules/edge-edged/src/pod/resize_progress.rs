//! What a pod's worker notes and tells of a resize.

use beehive::Moment;
use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::pod::action::Action;
use crate::pod::actuated;
use crate::pod::cgroup_state::{CgroupFault, PodCgroup};
use crate::pod::entry::PodUpdate;
use crate::pod::plan::Intent;
use crate::pod::pod_cgroup;
use crate::pod::recorder::EventType;
use crate::pod::resize;
use crate::pod::resize_policy::Pending;
use crate::pod::worker::{PodWorker, STEP_RETRY};
use crate::runtime::cgroup::Bounds;

impl PodWorker {
    /// A newer update may give the pod other resources, or have it wait for them.
    pub(crate) fn take_resize(&mut self, newer: &PodUpdate) {
        let (old, new) = (resize::resources_of(&self.update.pod), resize::resources_of(&newer.pod));
        let is_given = new
            .iter()
            .any(|(name, given)| old.get(name).is_some_and(|old| actuated::differ(Some(old), Some(given))));
        pod_cgroup::note_change(&mut self.state, &self.update.pod, &newer.pod);
        if is_given {
            self.state.is_resizing = true;
            self.state.resize_error = None;
            self.state.cgroup_fault = None;
            let text = format!("Pod resize started: {}", resize::described(&newer.pod, None));
            self.deps.event(&newer.pod.id, EventType::Normal, "ResizeStarted", &text);
        }
        self.take_pending(newer);
    }

    pub(crate) fn take_pending(&mut self, newer: &PodUpdate) {
        if self.state.resize_pending == newer.resize_pending {
            return;
        }
        // What hinders it now may be another thing than a while ago: that alone is no news.
        let of = |pending: &Pending| (pending.reason, pending.generation);
        let told = self.state.resize_pending.as_ref().map(of);
        if let Some(pending) = newer.resize_pending.as_ref().filter(|pending| Some(of(pending)) != told) {
            let text = format!("Pod resize {}: {}", pending.reason, pending.asked);
            self.deps.event(&newer.pod.id, EventType::Warning, &format!("Resize{}", pending.reason), &text);
        }
        self.state.resize_pending.clone_from(&newer.resize_pending);
    }

    /// Notes what became of giving a container other resources.
    pub(crate) fn resize_ended(
        &mut self,
        id: &str,
        result: Result<Box<ResourceRequirements>, String>,
        now: Moment,
    ) {
        match result {
            Ok(given) => {
                self.state.actuated.insert(id.to_owned(), *given);
                self.state.resize_error = None;
            }
            Err(error) => {
                if self.state.resize_error.as_ref() != Some(&error) {
                    let pod = &self.update.pod;
                    let text = format!("Pod resize error: {}", resize::described(pod, Some(&error)));
                    self.deps.event(&pod.id, EventType::Warning, "ResizeError", &text);
                }
                self.state.resize_error = Some(error);
                self.try_again(Action::Resize { id: id.to_owned() }, now);
            }
        }
    }

    /// Notes what became of giving the pod's cgroup other bounds. Outside of a resize nobody asked for it, and the containers keep
    /// their own without the pod's.
    pub(crate) fn pod_bounded(&mut self, wanted: Bounds, result: Result<(), String>, now: Moment) {
        let Err(message) = result else {
            (self.state.cgroup, self.state.cgroup_fault) = (PodCgroup::Bound(wanted), None);
            return;
        };
        let is_news = self.state.cgroup_fault.as_ref().is_none_or(|fault| fault.message != message);
        let pod = &self.update.pod;
        if is_news && self.state.is_resizing {
            let text = format!("Pod resize error: {}", resize::described(pod, Some(&message)));
            self.deps.event(&pod.id, EventType::Warning, "ResizeError", &text);
        } else if is_news {
            tracing::warn!(pod = %pod.id.name, message, "bounds of a pod could not be changed");
        }
        self.state.cgroup_fault = Some(CgroupFault { wanted, message, until: now + STEP_RETRY });
    }

    /// Notes whether a resize is under way, and tells of its end.
    pub(crate) fn follow_resize(&mut self, intent: &Intent) {
        let pod = &self.update.pod;
        let is_under_way = *intent == Intent::Run && resize::is_under_way(pod, &self.seen, &self.state);
        let was = std::mem::replace(&mut self.state.is_resizing, is_under_way);
        if was && !is_under_way {
            self.state.resize_error = None;
            if *intent == Intent::Run {
                let text = format!("Pod resize completed: {}", resize::described(pod, None));
                self.deps.event(&pod.id, EventType::Normal, "ResizeCompleted", &text);
            }
        }
    }
}
