//! `/stats/summary` (k8s.io/kubelet/pkg/apis/stats/v1alpha1). What is not known is left out.

use contract::volume_stats::{VolumeStats, VolumesOfPods};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::stats::proc::{Disk, Interface};
use crate::stats::sample::{ContainerUse, Cpu, Memory, PodUse, Sample, Swap};

/// The interface that a pod's default route goes through, by convention.
const DEFAULT_INTERFACE: &str = "eth0";

/// The answer. `brief`: processors and memory alone.
pub(crate) fn summary(node: &str, sample: &Sample, volumes: &VolumesOfPods, brief: bool) -> Value {
    let machine = &sample.node.machine;
    let at = time(sample.at);
    let mut of_node = json!({
        "nodeName": node,
        "startTime": time(i64::try_from(machine.booted).unwrap_or(0).saturating_mul(1_000_000_000)),
        "cpu": sample.node.cpu.map(cpu),
        "memory": memory(sample.node.memory),
        "swap": sample.node.swap.map(|own| swap(own, sample.at)),
        "systemContainers": system_containers(sample),
    });
    let full = json!({
        "network": network(&sample.node.network, sample.at),
        "fs": disk(sample.node.disk, &at),
        "runtime": {"imageFs": disk(sample.images, &at), "containerFs": disk(sample.images, &at)},
        "rlimit": {"time": at, "maxpid": machine.threads_max, "curproc": machine.threads},
    });
    if !brief {
        join(&mut of_node, full);
    }
    let of_pod = |pod: &PodUse| of_pod(pod, sample, volumes.get(&pod.uid).map(Vec::as_slice), brief);
    let pods: Vec<Value> = sample.pods.iter().map(of_pod).collect();
    let mut summary = json!({ "node": of_node, "pods": pods });
    without_nulls(&mut summary);
    summary
}

fn of_pod(pod: &PodUse, sample: &Sample, volumes: Option<&[VolumeStats]>, brief: bool) -> Value {
    let containers: Vec<&ContainerUse> = sample.containers_of(&pod.uid).collect();
    let shown: Vec<Value> = containers.iter().map(|own| of_container(own, sample, brief)).collect();
    let mut of_pod = json!({
        "podRef": {"name": pod.pod.name, "namespace": pod.pod.namespace, "uid": pod.uid},
        "startTime": time(pod.created),
        "containers": shown,
        "cpu": pod.cpu.map(cpu),
        "memory": pod.memory.map(memory),
    });
    if brief {
        return of_pod;
    }
    let volumes = volumes.unwrap_or_default();
    let ephemeral = || volumes.iter().filter(|volume| volume.is_ephemeral).map(on_disk);
    let parts =
        || containers.iter().flat_map(|own| [own.rootfs, own.logs]).chain([pod.logs]).chain(ephemeral());
    let sum = |of: fn(Disk) -> Option<u64>| parts().filter_map(of).reduce(u64::saturating_add);
    let storage = Disk::part_of(sample.node.disk, sum(|disk| disk.used), sum(|disk| disk.inodes_used));
    let full = json!({
        "network": network(&pod.network, sample.at),
        "volume": (!volumes.is_empty())
            .then(|| volumes.iter().map(|own| of_volume(own, &pod.pod.namespace)).collect::<Vec<_>>()),
        "ephemeral-storage": disk(storage, &time(sample.at)),
        "process_stats": pod.processes.map(|count| json!({"process_count": count})),
    });
    join(&mut of_pod, full);
    of_pod
}

fn on_disk(volume: &VolumeStats) -> Disk {
    let usage = volume.usage;
    Disk {
        capacity: Some(usage.capacity),
        available: Some(usage.available),
        used: Some(usage.used),
        inodes: Some(usage.inodes),
        inodes_free: Some(usage.inodes_free),
        inodes_used: Some(usage.inodes_used),
    }
}

fn of_volume(volume: &VolumeStats, namespace: &str) -> Value {
    let mut shown = disk(on_disk(volume), &time(volume.usage.at));
    let claim = volume.claim.as_ref().map(|claim| json!({"name": claim, "namespace": namespace}));
    join(&mut shown, json!({"name": volume.name, "pvcRef": claim}));
    shown
}

fn of_container(own: &ContainerUse, sample: &Sample, brief: bool) -> Value {
    let mut shown = json!({
        "name": own.name,
        "startTime": time(own.created),
        "cpu": own.cpu.map(cpu),
        "memory": own.memory.map(memory),
        "swap": own.swap.map(|own| swap(own, sample.at)),
    });
    if !brief {
        let at = time(sample.at);
        join(&mut shown, json!({"rootfs": disk(own.rootfs, &at), "logs": disk(own.logs, &at)}));
    }
    shown
}

/// The pods as a whole.
fn system_containers(sample: &Sample) -> Value {
    let pods =
        sample.node.cgroups.iter().find(|(path, _)| matches!(path.as_str(), "/kubepods" | "/kubepods.slice"));
    let Some((_, pods)) = pods else { return json!([]) };
    let of = |usage: u64| Cpu { at: sample.at, usage, rate: None };
    let memory_of = Memory {
        at: sample.at,
        usage: pods.memory,
        working_set: pods.working_set(),
        available: pods.memory_limit.zip(pods.working_set()).map(|(limit, used)| limit.saturating_sub(used)),
        rss: pods.rss,
        page_faults: pods.page_faults,
        major_page_faults: pods.major_page_faults,
    };
    json!([{"name": "pods", "startTime": time(sample.at), "cpu": pods.cpu.map(of).map(cpu), "memory": memory(memory_of)}])
}

fn time(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default().to_string()
}

fn cpu(own: Cpu) -> Value {
    json!({"time": time(own.at), "usageNanoCores": own.rate, "usageCoreNanoSeconds": own.usage})
}

fn memory(own: Memory) -> Value {
    json!({
        "time": time(own.at),
        "availableBytes": own.available,
        "usageBytes": own.usage,
        "workingSetBytes": own.working_set,
        "rssBytes": own.rss,
        "pageFaults": own.page_faults,
        "majorPageFaults": own.major_page_faults,
    })
}

fn swap(own: Swap, at: i64) -> Value {
    json!({"time": time(at), "swapAvailableBytes": own.available, "swapUsageBytes": own.usage})
}

fn disk(own: Disk, at: &str) -> Value {
    json!({
        "time": at,
        "availableBytes": own.available,
        "capacityBytes": own.capacity,
        "usedBytes": own.used,
        "inodesFree": own.inodes_free,
        "inodes": own.inodes,
        "inodesUsed": own.inodes_used,
    })
}

fn network(interfaces: &[Interface], at: i64) -> Option<Value> {
    let shown = |own: &Interface| {
        json!({"name": own.name, "rxBytes": own.rx_bytes, "rxErrors": own.rx_errors,
            "txBytes": own.tx_bytes, "txErrors": own.tx_errors})
    };
    if interfaces.is_empty() {
        return None;
    }
    let all: Vec<Value> = interfaces.iter().map(shown).collect();
    let mut network = json!({"time": time(at), "interfaces": all});
    if let Some(default) = interfaces.iter().find(|own| own.name == DEFAULT_INTERFACE) {
        join(&mut network, shown(default));
    }
    Some(network)
}

fn join(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(parts) => {
            parts.retain(|_, part| !part.is_null());
            parts.values_mut().for_each(without_nulls);
        }
        Value::Array(parts) => parts.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::{sample, volumes};

    #[test]
    fn what_is_not_known_is_left_out() {
        let full = summary("n", &sample(), &volumes(), false);
        assert_eq!(full["node"]["nodeName"], "n");
        assert_eq!(full["node"]["cpu"]["usageCoreNanoSeconds"], 5_000_000_000_u64);
        assert!(full["node"]["cpu"].get("usageNanoCores").is_none());
        let pod = &full["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "d", "uid": "u"}));
        assert_eq!(pod["network"]["name"], "eth0");
        assert_eq!(pod["network"]["rxBytes"], 7);
        assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 40);
        assert_eq!(pod["containers"][0]["rootfs"]["usedBytes"], 11);
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 116, "with what lies in its emptyDir");
        let claimed = json!({"name": "v", "pvcRef": {"name": "data", "namespace": "d"}, "time": "1970-01-01T00:00:09Z",
            "availableBytes": 900, "capacityBytes": 1000, "usedBytes": 100,
            "inodesFree": 7, "inodes": 10, "inodesUsed": 3});
        assert_eq!(pod["volume"][1], claimed);
        assert!(pod["volume"][0].get("pvcRef").is_none() && pod["volume"][2].is_null());
        assert!(pod["containers"][0].get("swap").is_none());
        assert_eq!(pod["startTime"], "1970-01-01T00:00:03Z");
        let brief = summary("n", &sample(), &VolumesOfPods::new(), true);
        assert!(brief["pods"][0].get("network").is_none() && brief["node"].get("fs").is_none());
        assert!(brief["pods"][0]["containers"][0].get("rootfs").is_none());
        assert_eq!(brief["pods"][0]["containers"][0]["cpu"]["usageNanoCores"], 250);
    }
}
