//! Giving a container that runs other resources.

use std::rc::Rc;
use std::sync::Arc;

use cri::v1::{ContainerStatsFilter, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

use crate::dependencies::{Dependencies, blocking};
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::resource_demand;
use crate::runtime::bounds;
use crate::runtime::cgroup::{self, Bounds};
use crate::runtime::grant;
use crate::runtime::oom_score;
use crate::runtime::pods::RuntimeContainer;
use crate::runtime::resources::{self, Amounts};
use crate::runtime::slices::{self, Slices};

/// Gives a container what the pod has for it. The plan has seen to the pod's own bounds.
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
    let wanted = as_placed(&deps, &pod, spec, bounds::of_update(&pod, spec, &deps.node.borrow().limits));
    let updated = deps.runtime.update_resources(&instance.id, wanted).await;
    updated.map_err(|error| error.grpc_text())?;
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

/// Gives the pod's cgroup its bounds, but for that of its CPUs where a container has its own.
///
/// # Errors
/// What could not be set and why.
pub(crate) async fn bound_pod(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    wanted: Bounds,
) -> Result<(), String> {
    let may_have_cpus = resource_demand::of(&pod, false).containers.iter().any(|own| own.cpus > 0);
    if may_have_cpus && deps.containers.is_some() && deps.devices.borrow().is_none() {
        return Err("ContainerManager has not told yet whether containers have CPUs of their own".to_owned());
    }
    let has_cpus =
        may_have_cpus && deps.devices.borrow().as_ref().is_some_and(|devices| devices.manages_cpus);
    let wanted = if has_cpus { Bounds { quota: None, ..wanted } } else { wanted };
    let (sys, driver) = (deps.settings.cgroups.clone(), deps.settings.cgroup_driver);
    let root = deps.settings.cgroup_root.clone();
    let slices = Slices::of(&deps.settings);
    let set = move || {
        let of = (&pod.id, pod.qos);
        let set = || cgroup::set(&sys, of, (driver, &root), wanted);
        let done = set();
        // systemd is told of no more than the kernel takes; what it writes then is rounded.
        if let (Some(slices), Ok(())) = (slices, &done) {
            slices::say(&pod.id.name, slices.set(of, wanted));
            return Ok(set());
        }
        Ok(done)
    };
    let begun = deps.now();
    let done = blocking(&deps.env, "change the bounds of a pod in", set).await;
    deps.counts.cgroups_changed("update", deps.now().since(begun));
    done.unwrap_or_else(|error| Err(error.to_string()))
}
