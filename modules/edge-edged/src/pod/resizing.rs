//! Giving a container that runs other resources, and what a pod's worker makes of it.

use std::rc::Rc;
use std::sync::Arc;

use beehive::Moment;
use cri::v1::ContainerStatsFilter;
use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::dependencies::{CGROUPS, Dependencies, blocking};
use crate::pod::action::Action;
use crate::pod::entry::PodUpdate;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::pod::recorder::EventType;
use crate::pod::resize;
use crate::pod::worker::PodWorker;
use crate::runtime::cgroup;
use crate::runtime::pods::RuntimeContainer;
use crate::runtime::resources::{self, Amounts};

/// Gives a container what the pod has for it. The pod's own bounds are raised before the container's, and lowered after them.
///
/// # Errors
/// In the kubelet's words, or the runtime's.
pub(crate) async fn resize(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    instance: RuntimeContainer,
    before: Amounts,
) -> Result<Box<ResourceRequirements>, String> {
    let spec = pod.container(&instance.name).ok_or_else(|| format!("no container `{}`", instance.name))?;
    let given = spec.resources.clone().unwrap_or_default();
    let after = resources::amounts(Some(&given));
    if after.memory_limit > 0 && (before.memory_limit == 0 || after.memory_limit < before.memory_limit) {
        check_usage(&deps, &instance, after.memory_limit).await?;
    }
    let node_memory = deps.node.borrow().memory;
    let wanted = resources::of_update(pod.qos, spec, node_memory);
    let grows = after.cpu_limit > before.cpu_limit
        || after.memory_limit > before.memory_limit
        || after.cpu_request > before.cpu_request;
    if grows {
        bound_pod(&deps, &pod).await;
    }
    let updated = deps.runtime.update_resources(&instance.id, wanted).await;
    updated.map_err(|error| error.grpc_text())?;
    if !grows {
        bound_pod(&deps, &pod).await;
    }
    Ok(Box::new(given))
}

/// What it uses would be more than it may: the kernel would end it.
async fn check_usage(deps: &Rc<Dependencies>, instance: &RuntimeContainer, limit: i64) -> Result<(), String> {
    let filter = ContainerStatsFilter { id: instance.id.clone(), ..ContainerStatsFilter::default() };
    let stats = deps.runtime.container_stats(filter).await.map_err(|error| error.grpc_text())?;
    let memory = stats.first().and_then(|stats| stats.memory.as_ref());
    let used = memory.and_then(|memory| Some(memory.usage_bytes.as_ref()?.value)).unwrap_or(0);
    if used <= u64::try_from(limit).unwrap_or(u64::MAX) {
        return Ok(());
    }
    Err(format!(
        "cannot decrease memory limits: attempting to set container {:?} memory limit ({limit}) below current usage ({used})",
        instance.name
    ))
}

/// The containers keep their own bounds without the pod's.
async fn bound_pod(deps: &Rc<Dependencies>, pod: &Arc<ParsedPod>) {
    let (own, driver) = (Arc::clone(pod), deps.settings.cgroup_driver);
    let root = deps.settings.cgroup_root.clone();
    let make = move || {
        if let Err(error) = cgroup::make(CGROUPS.as_ref(), &own, driver, &root) {
            tracing::warn!(pod = %own.id.name, %error, "bounds of a pod could not be changed");
        }
        Ok(())
    };
    // It has said what went wrong.
    let _ = blocking(&deps.env, "change the bounds of a pod in", make).await;
}

impl PodWorker {
    /// A newer update may give the pod other resources, or have it wait for them.
    pub(crate) fn take_resize(&mut self, newer: &PodUpdate) {
        let (old, new) = (resize::resources_of(&self.update.pod), resize::resources_of(&newer.pod));
        let is_given = new
            .iter()
            .any(|(name, given)| old.get(name).is_some_and(|old| resize::differ(Some(old), Some(given))));
        if is_given {
            self.state.is_resizing = true;
            self.state.resize_error = None;
            let text = format!("Pod resize started: {}", resize::described(&newer.pod, None));
            self.deps.event(&newer.pod.id, EventType::Normal, "ResizeStarted", &text);
        }
        self.take_pending(newer);
    }

    pub(crate) fn take_pending(&mut self, newer: &PodUpdate) {
        if self.state.resize_pending == newer.resize_pending {
            return;
        }
        if let Some(pending) = &newer.resize_pending {
            let text = format!(
                "Pod resize {}: {}",
                pending.reason,
                resize::described(&newer.pod, Some(&pending.message))
            );
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
