//! Giving a container that runs other resources.

use std::rc::Rc;
use std::sync::Arc;

use cri::v1::{ContainerStatsFilter, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

use crate::dependencies::{CGROUPS, Dependencies, blocking};
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::resource_demand;
use crate::runtime::bounds;
use crate::runtime::cgroup;
use crate::runtime::grant;
use crate::runtime::oom_score;
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
    let wanted = bounds::of_update(&pod, spec, &deps.node.borrow().limits);
    let grows = after.cpu_limit > before.cpu_limit
        || after.memory_limit > before.memory_limit
        || after.cpu_request > before.cpu_request;
    if grows {
        bound_pod(&deps, &pod).await;
    }
    let wanted = as_placed(&deps, &pod, spec, wanted);
    let updated = deps.runtime.update_resources(&instance.id, wanted).await;
    updated.map_err(|error| error.grpc_text())?;
    if !grows {
        bound_pod(&deps, &pod).await;
    }
    if resource_demand::of(&pod, false)
        .containers
        .iter()
        .any(|own| grant::has_own_cpus(&deps, &pod, &own.name))
    {
        grant::lift_quota(&deps, &pod).await;
    }
    Ok(Box::new(given))
}

/// With the score that goes with its memory, and no quota where it has CPUs of its own.
fn as_placed(
    deps: &Dependencies,
    pod: &ParsedPod,
    spec: &Container,
    wanted: LinuxContainerResources,
) -> LinuxContainerResources {
    let oom_score_adj = oom_score::of(pod, spec, deps.node.borrow().memory);
    let quota = if grant::has_own_cpus(deps, pod, &spec.name) { -1 } else { wanted.cpu_quota };
    LinuxContainerResources { oom_score_adj, cpu_quota: quota, ..wanted }
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
    let sizes = deps.node.borrow().limits.huge_page_sizes.clone();
    let make = move || {
        if let Err(error) = cgroup::make(CGROUPS.as_ref(), &own, (driver, &root), &sizes) {
            tracing::warn!(pod = %own.id.name, %error, "bounds of a pod could not be changed");
        }
        Ok(())
    };
    let begun = deps.now();
    // It has said what went wrong.
    let _ = blocking(&deps.env, "change the bounds of a pod in", make).await;
    deps.counts.cgroups_changed("update", deps.now().since(begun));
}
