//! What a container is made with. Pure.

use std::collections::BTreeSet;

use contract::containermanager::{ContainerGrant, DeviceMount, DeviceNode};
use kubeletapi::deviceplugin::ContainerAllocateResponse;
use prost::Message as _;

use crate::plan::allocation::ContainerAllocation;
use crate::plan::cpus;

/// The plugins' answers as one: of two with the same variable, path or annotation the first counts, and of two with the same
/// name of the Container Device Interface there is one (a kubelet's rule).
///
/// # Errors
/// When an answer is missing or not understood.
pub(crate) fn of_container(allocation: &ContainerAllocation) -> Result<ContainerGrant, String> {
    let mut grant = ContainerGrant::default();
    for (resource, devices) in &allocation.devices {
        let bytes = devices
            .response
            .as_ref()
            .ok_or_else(|| format!("no answer of the plugin of {resource} is kept"))?;
        let answer = ContainerAllocateResponse::decode(bytes.as_slice())
            .map_err(|error| format!("the answer of the plugin of {resource} is not understood: {error}"))?;
        add(&mut grant, answer);
    }
    grant.cpus = cpus::list(&allocation.cpus);
    grant.exclusive = !allocation.cpus.is_empty();
    let nodes: BTreeSet<u32> =
        allocation.memory.iter().flat_map(|block| block.nodes.iter().copied()).collect();
    grant.memory_nodes = cpus::list(&nodes);
    Ok(grant)
}

fn add(grant: &mut ContainerGrant, answer: ContainerAllocateResponse) {
    for (name, value) in answer.envs {
        if !grant.envs.iter().any(|(known, _)| *known == name) {
            grant.envs.push((name, value));
        }
    }
    for mount in answer.mounts {
        let known = grant.mounts.iter().any(|known| known.container_path == mount.container_path);
        if !known {
            grant.mounts.push(DeviceMount {
                container_path: mount.container_path,
                host_path: mount.host_path,
                read_only: mount.read_only,
            });
        }
    }
    for device in answer.devices {
        let known = grant.devices.iter().any(|known| known.container_path == device.container_path);
        if !known {
            grant.devices.push(DeviceNode {
                container_path: device.container_path,
                host_path: device.host_path,
                permissions: device.permissions,
            });
        }
    }
    for (name, value) in answer.annotations {
        grant.annotations.entry(name).or_insert(value);
    }
    for device in answer.cdi_devices {
        if !grant.cdi_devices.contains(&device.name) {
            grant.cdi_devices.push(device.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::allocation::DeviceAllocation;
    use kubeletapi::deviceplugin::{CdiDevice, DeviceSpec, Mount};

    fn answer(number: &str) -> DeviceAllocation {
        let answer = ContainerAllocateResponse {
            envs: [("SAME".to_owned(), number.to_owned()), (format!("OWN_{number}"), "x".to_owned())].into(),
            mounts: vec![
                Mount {
                    container_path: "/same".into(),
                    host_path: format!("/host/{number}"),
                    read_only: true,
                },
                Mount { container_path: format!("/own/{number}"), host_path: "/h".into(), read_only: false },
            ],
            devices: vec![DeviceSpec {
                container_path: "/dev/same".into(),
                host_path: format!("/dev/{number}"),
                permissions: "rw".into(),
            }],
            annotations: [("same".to_owned(), number.to_owned())].into(),
            cdi_devices: vec![
                CdiDevice { name: "v.example/c=same".into() },
                CdiDevice { name: format!("v.example/c={number}") },
            ],
        };
        DeviceAllocation { response: Some(answer.encode_to_vec()), ..DeviceAllocation::default() }
    }

    #[test]
    fn the_first_of_two_counts() {
        let allocation = ContainerAllocation {
            devices: [("a.example/x".to_owned(), answer("1")), ("b.example/x".to_owned(), answer("2"))]
                .into(),
            cpus: [2, 3, 8].into(),
            ..ContainerAllocation::default()
        };
        let grant = of_container(&allocation).unwrap();
        assert_eq!(grant.envs.iter().find(|(name, _)| name == "SAME").unwrap().1, "1");
        assert_eq!(grant.envs.len(), 3);
        let mounts: Vec<_> = grant.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
        assert_eq!(mounts, ["/same", "/own/1", "/own/2"]);
        assert_eq!(grant.mounts[0].host_path, "/host/1");
        assert_eq!(grant.devices.len(), 1);
        assert_eq!(grant.devices[0].host_path, "/dev/1");
        assert_eq!(grant.annotations["same"], "1");
        assert_eq!(grant.cdi_devices, ["v.example/c=same", "v.example/c=1", "v.example/c=2"]);
        assert_eq!((grant.cpus.as_str(), grant.exclusive), ("2-3,8", true));
    }

    #[test]
    fn an_answer_that_is_not_there_is_an_error() {
        let without = DeviceAllocation::default();
        let broken = DeviceAllocation { response: Some(vec![0xff]), ..DeviceAllocation::default() };
        for devices in [without, broken] {
            let devices = [("a.example/x".to_owned(), devices)].into();
            let error = of_container(&ContainerAllocation { devices, ..Default::default() }).unwrap_err();
            assert!(error.contains("a.example/x"), "{error}");
        }
    }
}
