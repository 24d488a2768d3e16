//! What a pod asks for of what is given by the piece: devices of plugins and CPUs of its own. Pure.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use apimachinery::names::is_extended_resource;
use contract::containermanager::{ActivePod, ContainerDemand, ContainerKind, PodDemand};
use k8s_openapi::api::core::v1::Container;

use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::runtime::huge_pages;
use crate::runtime::resources::{self, Qos, quantity};

/// What a pod asks for. `with_memory`: the node gives memory by NUMA nodes.
pub(crate) fn of(pod: &ParsedPod, with_memory: bool) -> PodDemand {
    let of_container = |pod: &ParsedPod, container: &Container, kind: ContainerKind| {
        let memory = if with_memory { memory_of(pod, container) } else { BTreeMap::new() };
        ContainerDemand { memory, ..of_container(pod, container, kind) }
    };
    let inits = pod.init_containers().map(|container| {
        let kind = if is_sidecar(container) { ContainerKind::Sidecar } else { ContainerKind::Init };
        of_container(pod, container, kind)
    });
    let mains = pod.spec().containers.iter().map(|main| of_container(pod, main, ContainerKind::Main));
    PodDemand {
        uid: pod.id.uid.clone(),
        namespace: pod.id.namespace.clone(),
        name: pod.id.name.clone(),
        containers: inits.chain(mains).collect(),
    }
}

/// Whether it asks for anything.
pub(crate) fn is_none(demand: &PodDemand) -> bool {
    demand.containers.iter().all(|one| one.devices.is_empty() && one.cpus == 0 && one.memory.is_empty())
}

/// A pod as agents that ask for its resources are shown it.
pub(crate) fn active(pod: &ParsedPod) -> ActivePod {
    let stays = pod.init_containers().filter(|container| is_sidecar(container));
    let all = stays.chain(&pod.spec().containers);
    ActivePod {
        namespace: pod.id.namespace.clone(),
        name: pod.id.name.clone(),
        containers: all.map(|container| container.name.clone()).collect(),
    }
}

/// Of extended resources the limit counts, which is the request, too.
fn of_container(pod: &ParsedPod, container: &Container, kind: ContainerKind) -> ContainerDemand {
    let limits = container.resources.as_ref().and_then(|own| own.limits.as_ref());
    let extended = limits.into_iter().flatten().filter(|(name, _)| is_extended_resource(name));
    let devices = extended.filter_map(|(name, text)| {
        let amount = u64::try_from(Quantity::units(quantity(text)?)).ok()?;
        (amount > 0).then(|| (name.clone(), amount))
    });
    ContainerDemand {
        name: container.name.clone(),
        kind,
        devices: devices.collect(),
        cpus: whole_cpus(pod, container),
        memory: BTreeMap::new(),
    }
}

/// The memory and huge pages that a container of a guaranteed pod asks for.
fn memory_of(pod: &ParsedPod, container: &Container) -> BTreeMap<String, u64> {
    if pod.qos != Qos::Guaranteed || pod.spec().resources.is_some() {
        return BTreeMap::new();
    }
    let own = container.resources.as_ref();
    let maps = own.into_iter().flat_map(|own| own.limits.iter().chain(&own.requests)).flatten();
    let kinds = maps.filter(|(name, _)| *name == "memory" || name.starts_with(huge_pages::PREFIX));
    let amount = |text| u64::try_from(Quantity::units(quantity(text)?)).ok().filter(|bytes| *bytes > 0);
    kinds.filter_map(|(name, text)| Some((name.clone(), amount(text)?))).collect()
}

/// How many CPUs a container of a guaranteed pod asks for; 0 when they are no whole ones.
fn whole_cpus(pod: &ParsedPod, container: &Container) -> u32 {
    // What is said for the pod as a whole is nobody's by the piece.
    if pod.qos != Qos::Guaranteed || pod.spec().resources.is_some() {
        return 0;
    }
    let milli = resources::amounts(container.resources.as_ref()).cpu_request;
    if milli % 1000 == 0 { u32::try_from(milli / 1000).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn of_pod(pod: &ParsedPod) -> PodDemand {
        of(pod, false)
    }

    #[test]
    fn memory_counts_where_the_node_gives_it_and_of_guaranteed_pods_alone() {
        let asks = |limits: serde_json::Value| {
            let pod =
                pod(json!({"containers": [{"name": "c", "image": "x", "resources": {"limits": limits}}]}));
            of(&pod, true).containers[0].memory.clone()
        };
        let guaranteed = json!({"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "4Mi"});
        let wanted = [("hugepages-2Mi", 4 << 20), ("memory", 1 << 30)];
        assert_eq!(asks(guaranteed), wanted.map(|(kind, bytes)| (kind.to_owned(), bytes)).into());
        assert!(asks(json!({"memory": "1Gi"})).is_empty());
    }

    #[test]
    fn devices_count_by_limit_and_whole_cpus_of_guaranteed_pods_are_their_own() {
        let limits = |cpu: &str| json!({"limits": {"cpu": cpu, "memory": "1Mi", "example.com/x": 2}});
        let of_cpu = |first: &str, second: &str| {
            of_pod(&pod(json!({
                "initContainers": [
                    {"name": "i", "image": "x", "resources": limits(first)},
                    {"name": "s", "image": "x", "resources": limits(second), "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "x", "resources": limits("2")}]})))
        };
        let demand = of_cpu("1", "1500m");
        let shown: Vec<_> = demand
            .containers
            .iter()
            .map(|one| (one.name.as_str(), one.kind, one.cpus, one.devices["example.com/x"]))
            .collect();
        assert_eq!(
            shown,
            [
                ("i", ContainerKind::Init, 1, 2),
                ("s", ContainerKind::Sidecar, 0, 2),
                ("c", ContainerKind::Main, 2, 2)
            ]
        );
        let burstable = of_pod(&pod(json!({"containers": [
            {"name": "c", "image": "x", "resources": {"limits": {"cpu": "2"}}}]})));
        assert!(is_none(&burstable));
        let native =
            of_pod(&pod(json!({"containers": [{"name": "c", "image": "x", "resources": {"limits": {
            "hugepages-2Mi": "2Mi", "kubernetes.io/x": 1, "example.com/none": 0}}}]})));
        assert!(is_none(&native));
    }

    #[test]
    fn agents_see_what_stays() {
        let pod = pod(json!({
            "initContainers": [{"name": "i", "image": "x"}, {"name": "s", "image": "x", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "image": "x"}]}));
        assert_eq!(active(&pod).containers, ["s", "c"]);
    }
}
