//! What agents on the node are told: the answers of the pod resources API. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::containermanager::{ActivePod, PluginDevice};
use kubeletapi::podresources as pb;

use crate::plan::allocation::{ContainerAllocation, MemoryBlock, PodAllocation};
use crate::plan::cpus::CpuSet;

/// One pod and what its containers have.
pub(crate) fn pod(active: &ActivePod, has: Option<&PodAllocation>) -> pb::PodResources {
    let empty = ContainerAllocation::default();
    let containers = active.containers.iter().map(|name| {
        let has = has.and_then(|has| has.containers.get(name)).unwrap_or(&empty);
        pb::ContainerResources {
            name: name.clone(),
            devices: has
                .devices
                .iter()
                .flat_map(|(resource, allocation)| by_nodes(resource, allocation.devices.iter()))
                .collect(),
            cpu_ids: has.cpus.iter().map(|cpu| i64::from(*cpu)).collect(),
            memory: has.memory.iter().map(memory).collect(),
        }
    });
    pb::PodResources {
        name: active.name.clone(),
        namespace: active.namespace.clone(),
        containers: containers.collect(),
    }
}

/// All that could be given.
pub(crate) fn allocatable<'a>(
    devices: impl Iterator<Item = (&'a String, &'a String, &'a PluginDevice)>,
    cpus: &CpuSet,
    blocks: &[MemoryBlock],
) -> pb::AllocatableResourcesResponse {
    let mut by_resource: BTreeMap<&String, Vec<(&String, &BTreeSet<u32>)>> = BTreeMap::new();
    for (resource, id, device) in devices {
        by_resource.entry(resource).or_default().push((id, &device.nodes));
    }
    pb::AllocatableResourcesResponse {
        devices: by_resource
            .into_iter()
            .flat_map(|(resource, devices)| by_nodes(resource, devices.into_iter()))
            .collect(),
        cpu_ids: cpus.iter().map(|cpu| i64::from(*cpu)).collect(),
        memory: blocks.iter().map(memory).collect(),
    }
}

/// Devices of one resource, an entry for each that is near to other NUMA nodes.
fn by_nodes<'a>(
    resource: &str,
    devices: impl Iterator<Item = (&'a String, &'a BTreeSet<u32>)>,
) -> Vec<pb::ContainerDevices> {
    let mut groups: BTreeMap<&BTreeSet<u32>, Vec<String>> = BTreeMap::new();
    for (id, nodes) in devices {
        groups.entry(nodes).or_default().push(id.clone());
    }
    let entry = |(nodes, device_ids)| pb::ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids,
        topology: topology(nodes),
    };
    groups.into_iter().map(entry).collect()
}

fn memory(block: &MemoryBlock) -> pb::ContainerMemory {
    pb::ContainerMemory {
        memory_type: block.kind.clone(),
        size: block.bytes,
        topology: topology(&block.nodes),
    }
}

fn topology(nodes: &BTreeSet<u32>) -> Option<pb::TopologyInfo> {
    let node = |id: &u32| pb::NumaNode { id: i64::from(*id) };
    (!nodes.is_empty()).then(|| pb::TopologyInfo { nodes: nodes.iter().map(node).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::allocation::DeviceAllocation;

    #[test]
    fn a_pod_shows_its_containers_with_and_without_devices() {
        let devices = |list: &[(&str, &[u32])]| DeviceAllocation {
            devices: list
                .iter()
                .map(|(id, nodes)| ((*id).to_owned(), nodes.iter().copied().collect()))
                .collect(),
            ..DeviceAllocation::default()
        };
        let has = ContainerAllocation {
            devices: [("a.example/x".to_owned(), devices(&[("1", &[0]), ("2", &[0]), ("3", &[])]))].into(),
            cpus: [4, 5].into(),
            memory: vec![MemoryBlock { kind: "memory".into(), nodes: [1].into(), bytes: 7 }],
        };
        let allocation =
            PodAllocation { containers: [("main".to_owned(), has)].into(), ..Default::default() };
        let active = ActivePod {
            namespace: "default".into(),
            name: "p".into(),
            containers: vec!["main".into(), "plain".into()],
        };
        let shown = pod(&active, Some(&allocation));
        assert_eq!((shown.namespace.as_str(), shown.name.as_str()), ("default", "p"));
        let main = &shown.containers[0];
        assert_eq!(main.cpu_ids, [4, 5]);
        assert_eq!(main.memory[0].size, 7);
        let groups: Vec<_> = main
            .devices
            .iter()
            .map(|group| {
                (group.device_ids.join(","), group.topology.as_ref().map(|topology| topology.nodes[0].id))
            })
            .collect();
        assert_eq!(groups, [("3".to_owned(), None), ("1,2".to_owned(), Some(0))]);
        assert_eq!(
            shown.containers[1],
            pb::ContainerResources { name: "plain".into(), ..Default::default() }
        );
        assert_eq!(pod(&active, None).containers.len(), 2);
    }
}
