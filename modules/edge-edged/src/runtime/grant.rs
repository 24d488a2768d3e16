//! What a container is made with for its devices and CPUs.

use std::rc::Rc;
use std::time::Duration;

use beehive::AskError;
use contract::containermanager::{ContainerGrant, ContainerManagerMsg, GrantRefusal};
use cri::v1::{CdiDevice, ContainerConfig, Device, Mount};

use crate::dependencies::{Dependencies, blocking};
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::resource_demand;
use crate::runtime::slices::{self, Slices};
use crate::runtime::{cdi, cgroup};

/// 2 min: a plugin may take half a minute to prepare each kind of device.
const GRANT_WITHIN: Duration = Duration::from_secs(120);

/// Asks ContainerManager; nothing for a container that asks for nothing on a node that manages no CPUs.
pub(crate) async fn of_container(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    container: &str,
) -> Result<ContainerGrant, StepError> {
    let Some(containers) = &deps.containers else { return Ok(ContainerGrant::default()) };
    let (manages_cpus, manages_memory) = deps
        .devices
        .borrow()
        .as_ref()
        .map(|devices| (devices.manages_cpus, devices.manages_memory))
        .unwrap_or_default();
    let demand = resource_demand::of(pod, manages_memory);
    if resource_demand::is_none(&demand) && !manages_cpus {
        return Ok(ContainerGrant::default());
    }
    let name = container.to_owned();
    let answer = containers
        .ask(GRANT_WITHIN, |reply| ContainerManagerMsg::Grant { pod: demand, container: name, reply })
        .await;
    let grant = match answer {
        Ok(Ok(grant)) => grant,
        Ok(Err(GrantRefusal::NotYet(reason))) => return Err(StepError::Missing(reason)),
        Ok(Err(GrantRefusal::Failed(reason))) => return Err(StepError::Config(reason)),
        Err(error @ (AskError::Crashed | AskError::Deadline)) => {
            return Err(StepError::Missing(format!("the container manager: {error}")));
        }
        Err(error) => return Err(StepError::Config(format!("the container manager: {error}"))),
    };
    if !grant.cdi_devices.is_empty() {
        let runtime = deps.node.borrow().runtime.clone();
        let info = deps.runtime.status_info().await.unwrap_or_default();
        if !cdi::is_supported(&runtime, &info) {
            return Err(StepError::Config(format!(
                "the device plugin names CDI devices ({}), and the runtime {runtime} does not have them enabled",
                grant.cdi_devices.join(", ")
            )));
        }
    }
    if grant.exclusive {
        lift_quota(deps, pod).await;
    }
    Ok(grant)
}

/// Whether a container has CPUs of its own.
pub(crate) fn has_own_cpus(deps: &Dependencies, pod: &ParsedPod, container: &str) -> bool {
    deps.devices.borrow().as_ref().is_some_and(|devices| devices.manages_cpus)
        && resource_demand::of(pod, false).containers.iter().any(|own| own.name == container && own.cpus > 0)
}

/// Takes the bound of its CPUs off a pod of which a container has its own. What fails is said; the pod is slower for it.
pub(crate) async fn lift_quota(deps: &Dependencies, pod: &ParsedPod) {
    let (id, class, driver) = (pod.id.clone(), pod.qos, deps.settings.cgroup_driver);
    let (root, cgroups) = (deps.settings.cgroup_root.clone(), deps.settings.cgroups.clone());
    let slices = Slices::of(&deps.settings);
    let lift = move || {
        if let Some(slices) = slices {
            slices::say(&id.name, slices.lift_quota(&id, class));
        }
        if let Err(error) = cgroup::lift_quota(&cgroups, &id, class, driver, &root) {
            tracing::warn!(pod = %id.name, %error, "the bound of a pod's CPUs stays although it has its own");
        }
        Ok(())
    };
    // It has said what went wrong.
    let _ = blocking(&deps.env, "take the bound of CPUs off a pod in", lift).await;
}

/// Variables of the devices, and then the pod's own, of which the later one counts.
pub(crate) fn env(grant: &ContainerGrant, own: Vec<(String, String)>) -> Vec<(String, String)> {
    grant.envs.iter().cloned().chain(own).collect()
}

/// Puts the rest into what the runtime is told.
pub(crate) fn apply(grant: ContainerGrant, config: &mut ContainerConfig) {
    let mounts = grant.mounts.into_iter().map(|mount| Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.read_only,
        ..Mount::default()
    });
    config.mounts = mounts.chain(std::mem::take(&mut config.mounts)).collect();
    let devices = grant.devices.into_iter().map(|device| Device {
        container_path: device.container_path,
        host_path: device.host_path,
        permissions: device.permissions,
    });
    config.devices.extend(devices);
    // The kubelet's own come over a plugin's.
    for (name, value) in grant.annotations {
        config.annotations.entry(name).or_insert(value);
    }
    config.cdi_devices.extend(grant.cdi_devices.into_iter().map(|name| CdiDevice { name }));
    if let Some(resources) = config.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
        resources.cpuset_cpus = grant.cpus;
        resources.cpuset_mems = grant.memory_nodes;
        if grant.exclusive {
            // Nothing holds it back on CPUs of its own.
            resources.cpu_quota = -1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::containermanager::{DeviceMount, DeviceNode};
    use cri::v1::{LinuxContainerConfig, LinuxContainerResources};

    #[test]
    fn a_grant_becomes_words_of_the_runtime() {
        let grant = ContainerGrant {
            envs: vec![("A".into(), "plugin".into())],
            mounts: vec![DeviceMount {
                container_path: "/d".into(),
                host_path: "/h".into(),
                read_only: true,
            }],
            devices: vec![DeviceNode {
                container_path: "/dev/a".into(),
                host_path: "/dev/b".into(),
                permissions: "rw".into(),
            }],
            annotations: [("own".to_owned(), "plugin".to_owned()), ("new".to_owned(), "x".to_owned())].into(),
            cdi_devices: vec!["v/c=1".into()],
            cpus: "2-3".into(),
            memory_nodes: "0".into(),
            exclusive: true,
        };
        assert_eq!(
            env(&grant, vec![("A".into(), "pod".into())]),
            [("A".to_owned(), "plugin".to_owned()), ("A".to_owned(), "pod".to_owned())]
        );
        let own = Mount { container_path: "/v".into(), ..Mount::default() };
        let resources = LinuxContainerResources { cpu_quota: 200_000, ..Default::default() };
        let mut config = ContainerConfig {
            mounts: vec![own],
            annotations: [("own".to_owned(), "kubelet".to_owned())].into(),
            linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
            ..ContainerConfig::default()
        };
        apply(grant, &mut config);
        let paths: Vec<_> = config.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
        assert_eq!(paths, ["/d", "/v"]);
        assert_eq!(
            (config.annotations["own"].as_str(), config.annotations["new"].as_str()),
            ("kubelet", "x")
        );
        assert_eq!(config.devices[0].host_path, "/dev/b");
        assert_eq!(config.cdi_devices[0].name, "v/c=1");
        let resources = config.linux.unwrap().resources.unwrap();
        assert_eq!((resources.cpuset_cpus.as_str(), resources.cpuset_mems.as_str()), ("2-3", "0"));
        assert_eq!(resources.cpu_quota, -1);
    }
}
