//! What pods have, in the node's store, as JSON. Version 1 is frozen: the test below holds it byte by byte.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use edge_store::{Store, StoreError, Table, Write};
use serde::{Deserialize, Serialize};

use crate::plan::allocation::{ContainerAllocation, DeviceAllocation, MemoryBlock, PodAllocation};

/// The version that is written.
const VERSION: u32 = 1;
/// The first part of the key of a resource: no pod has an empty uid.
const RESOURCES: &str = "";

#[derive(Serialize, Deserialize)]
struct PodV1 {
    v: u32,
    namespace: String,
    name: String,
    containers: BTreeMap<String, ContainerV1>,
}

#[derive(Serialize, Deserialize)]
struct ContainerV1 {
    devices: BTreeMap<String, DevicesV1>,
    cpus: BTreeSet<u32>,
    memory: Vec<MemoryV1>,
}

#[derive(Serialize, Deserialize)]
struct DevicesV1 {
    /// With their NUMA nodes.
    ids: BTreeMap<String, BTreeSet<u32>>,
    /// The plugin's answer, in base64.
    response: String,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct MemoryV1 {
    kind: String,
    nodes: BTreeSet<u32>,
    bytes: u64,
}

/// The row of a pod. What its plugins have not answered yet is left out.
///
/// # Errors
/// JSON's own; there is none to be expected of these fields.
pub(crate) fn put(uid: &str, pod: &PodAllocation) -> serde_json::Result<Write> {
    let devices = |(resource, own): (&String, &DeviceAllocation)| {
        let response = BASE64_STANDARD.encode(own.response.as_ref()?);
        let row = DevicesV1 { ids: own.devices.clone(), response, boot: own.boot.clone() };
        Some((resource.clone(), row))
    };
    let memory = |block: &MemoryBlock| {
        let MemoryBlock { kind, nodes, bytes } = block.clone();
        MemoryV1 { kind, nodes, bytes }
    };
    let container = |(name, own): (&String, &ContainerAllocation)| {
        let row = ContainerV1 {
            devices: own.devices.iter().filter_map(devices).collect(),
            cpus: own.cpus.clone(),
            memory: own.memory.iter().map(memory).collect(),
        };
        (name.clone(), row)
    };
    let row = PodV1 {
        v: VERSION,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        containers: pod.containers.iter().map(container).collect(),
    };
    let value = serde_json::to_vec(&row)?;
    Ok(Write::PutRow { table: Table::Allocations, key1: uid.to_owned(), key2: String::new(), value })
}

/// A pod has nothing any more.
pub(crate) fn forget(uid: &str) -> Write {
    Write::DeleteRows { table: Table::Allocations, key1: uid.to_owned() }
}

/// A plugin has registered this resource.
pub(crate) fn put_resource(name: &str) -> Write {
    let (key1, key2) = (RESOURCES.to_owned(), name.to_owned());
    Write::PutRow { table: Table::Allocations, key1, key2, value: Vec::new() }
}

/// This resource is nobody's any more.
pub(crate) fn forget_resource(name: &str) -> Write {
    let (key1, key2) = (RESOURCES.to_owned(), name.to_owned());
    Write::DeleteRow { table: Table::Allocations, key1, key2 }
}

/// What was kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) pods: BTreeMap<String, PodAllocation>,
    pub(crate) resources: BTreeSet<String>,
}

/// Reads it. Blocks. A row that is not understood counts as none, with a word.
///
/// # Errors
/// When the store can't be read.
pub(crate) fn load(store: &Store) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    for row in store.list_rows(Table::Allocations, None)? {
        if row.key1 == RESOURCES {
            kept.resources.insert(row.key2);
        } else if let Some(pod) = decode(&row.value) {
            kept.pods.insert(row.key1, pod);
        } else {
            tracing::error!(uid = row.key1, "what a pod has is not understood: it is given anew");
        }
    }
    Ok(kept)
}

fn decode(value: &[u8]) -> Option<PodAllocation> {
    let PodV1 { v, namespace, name, containers } = serde_json::from_slice(value).ok()?;
    if v != VERSION {
        return None;
    }
    let devices = |(resource, row): (String, DevicesV1)| {
        let response = Some(BASE64_STANDARD.decode(row.response).ok()?);
        Some((resource, DeviceAllocation { devices: row.ids, response, boot: row.boot }))
    };
    let container = |(name, row): (String, ContainerV1)| {
        let devices = row.devices.into_iter().map(devices).collect::<Option<_>>()?;
        let memory = row.memory.into_iter();
        let memory =
            memory.map(|MemoryV1 { kind, nodes, bytes }| MemoryBlock { kind, nodes, bytes }).collect();
        Some((name, ContainerAllocation { devices, cpus: row.cpus, memory }))
    };
    let containers = containers.into_iter().map(container).collect::<Option<_>>()?;
    Some(PodAllocation { namespace, name, containers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodAllocation {
        let devices = DeviceAllocation {
            devices: [("d0".to_owned(), [0].into()), ("d1".to_owned(), BTreeSet::new())].into(),
            response: Some(vec![10, 3, 255]),
            boot: "b".to_owned(),
        };
        let container = ContainerAllocation {
            devices: [("example.com/x".to_owned(), devices)].into(),
            cpus: [2, 3].into(),
            memory: vec![MemoryBlock { kind: "memory".into(), nodes: [1].into(), bytes: 5 }],
        };
        PodAllocation {
            namespace: "ns".into(),
            name: "p".into(),
            containers: [("c".to_owned(), container)].into(),
        }
    }

    #[test]
    fn version_1_is_these_bytes() {
        let frozen = r#"{"v":1,"namespace":"ns","name":"p","containers":{"c":{"devices":{"example.com/x":{"ids":{"d0":[0],"d1":[]},"response":"CgP/","boot":"b"}},"cpus":[2,3],"memory":[{"kind":"memory","nodes":[1],"bytes":5}]}}}"#;
        let Write::PutRow { value, .. } = put("u", &pod()).unwrap() else { panic!() };
        assert_eq!(String::from_utf8(value.clone()).unwrap(), frozen);
        assert_eq!(decode(&value), Some(pod()));
        for bad in [&frozen.replace("\"v\":1", "\"v\":2"), &frozen.replace("CgP/", "?"), "", "{}"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_a_plugin_has_not_answered_is_not_kept() {
        let mut pod = pod();
        pod.containers.get_mut("c").unwrap().devices.get_mut("example.com/x").unwrap().response = None;
        let Write::PutRow { value, .. } = put("u", &pod).unwrap() else { panic!() };
        assert!(decode(&value).unwrap().containers["c"].devices.is_empty());
    }
}
