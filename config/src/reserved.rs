//! What pods may not have of the node, and how they have the rest.

use std::collections::BTreeMap;
use std::path::Path;

use apimachinery::Quantity;

use crate::edge::{CpuManagerPolicy, Edged, MemoryManagerPolicy, TailoredKubeletConfig};
use crate::error::{Defect, kubelet_key as key};
use crate::{KubeletDuration, Threshold};

/// What can be reserved.
const RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// The options of the static policy that Kubernetes calls stable.
const CPU_OPTIONS: [&str; 3] =
    ["full-pcpus-only", "strict-cpu-reservation", "prefer-align-cpus-by-uncorecache"];

impl TailoredKubeletConfig {
    /// Of `cpu`, in thousandths: where CPUs are named, those, whatever else is said of `cpu`, as by a kubelet.
    pub fn reserved_milli_cpu(&self) -> u64 {
        match cpus_named(&self.reserved_system_cpus) {
            0 => self.reserved("cpu", Quantity::millis),
            named => named.saturating_mul(1000),
        }
    }

    /// Of `memory` or `ephemeral-storage`, in bytes.
    pub fn reserved_bytes(&self, resource: &str) -> u64 {
        self.reserved(resource, Quantity::units)
    }

    /// What is reserved of each NUMA node, in bytes by `memory` and sizes of huge pages.
    pub fn reserved_memory_by_node(&self) -> BTreeMap<u32, BTreeMap<String, u64>> {
        let mut reserved: BTreeMap<u32, BTreeMap<String, u64>> = BTreeMap::new();
        for reservation in &self.reserved_memory {
            let own = reserved.entry(reservation.numa_node).or_default();
            for (kind, amount) in &reservation.limits {
                let bytes = amount.parse::<Quantity>().map(Quantity::units).unwrap_or_default();
                own.insert(kind.clone(), u64::try_from(bytes).unwrap_or(0));
            }
        }
        reserved
    }

    fn reserved(&self, resource: &str, unit: impl Fn(Quantity) -> i64) -> u64 {
        let all = [&self.system_reserved, &self.kube_reserved];
        let amounts = all.into_iter().filter_map(|reserved| reserved.get(resource)?.parse::<Quantity>().ok());
        amounts.map(|amount| u64::try_from(unit(amount)).unwrap_or(0)).fold(0, u64::saturating_add)
    }
}

/// What is wrong there.
pub(crate) fn defects(edged: &Edged, defects: &mut Vec<Defect>) {
    let kubelet = &edged.tailored_kubelet_config;
    paths(edged, defects);
    amounts("systemReserved", &kubelet.system_reserved, defects);
    amounts("kubeReserved", &kubelet.kube_reserved, defects);
    cpus(kubelet, defects);
    memory(kubelet, defects);
}

/// The kubelet's rules. Where eviction keeps a part of the memory free, whether it is as much as is reserved in all depends on the machine
/// (`edge_containermanager::fits`).
fn memory(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let is_static = kubelet.memory_manager_policy == MemoryManagerPolicy::Static;
    let at = key("reservedMemory");
    let list = &kubelet.reserved_memory;
    if is_static && list.is_empty() {
        defects.push(Defect::new(
            &key("memoryManagerPolicy"),
            "is Static, which needs reservedMemory: for NUMA nodes together as much memory as systemReserved, kubeReserved and \
             evictionHard.memory.available",
        ));
    }
    if !is_static && !list.is_empty() {
        defects.push(Defect::new(&at, "has an effect with memoryManagerPolicy Static only"));
    }
    let by_node = kubelet.reserved_memory_by_node();
    let named: u64 = by_node
        .values()
        .filter_map(|kinds| kinds.get("memory"))
        .fold(0, |sum, more| sum.saturating_add(*more));
    let kept_free = kubelet.eviction_hard.memory_available;
    if let (true, false, Threshold::Amount(kept)) = (is_static, list.is_empty(), kept_free) {
        let all = kubelet.reserved_bytes("memory").saturating_add(kept);
        if named != all {
            let what = format!(
                "names {named} bytes of memory in all; it has to be {all}, as much as systemReserved, kubeReserved and \
                 evictionHard.memory.available together"
            );
            defects.push(Defect::new(&at, what));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for reservation in list {
        let node = reservation.numa_node;
        for (kind, amount) in &reservation.limits {
            if kind != "memory" && !kind.starts_with("hugepages-") {
                let what =
                    format!("has {kind:?} for NUMA node {node}; memory and hugepages-<size> can be reserved");
                defects.push(Defect::new(&at, what));
            }
            if !amount.parse::<Quantity>().is_ok_and(|amount| amount.units() > 0) {
                defects.push(Defect::new(
                    &at,
                    format!("has `{amount}` of {kind} for NUMA node {node}, no amount"),
                ));
            }
            if !seen.insert((node, kind)) {
                defects.push(Defect::new(&at, format!("has {kind} for NUMA node {node} twice")));
            }
        }
    }
}

fn paths(edged: &Edged, defects: &mut Vec<Defect>) {
    let folders =
        [("devicePluginPath", &edged.device_plugin_path), ("podResourcesPath", &edged.pod_resources_path)];
    for (name, folder) in folders {
        let is_none = folder.as_os_str().is_empty();
        if !is_none && (!folder.is_absolute() || folder.as_path() == Path::new("/")) {
            let what =
                format!("is `{}`; it must be the absolute path of a folder, or empty", folder.display());
            defects.push(Defect::new(&format!("modules.edged.{name}"), what));
        }
    }
    if edged.device_plugin_path == edged.pod_resources_path
        && !edged.device_plugin_path.as_os_str().is_empty()
    {
        let what = "is the same as devicePluginPath; both have a kubelet.sock";
        defects.push(Defect::new("modules.edged.podResourcesPath", what));
    }
}

fn amounts(name: &str, reserved: &BTreeMap<String, String>, defects: &mut Vec<Defect>) {
    for (resource, amount) in reserved {
        let at = key(&format!("{name}.{resource}"));
        if !RESOURCES.contains(&resource.as_str()) {
            defects.push(Defect::new(&at, format!("can't be reserved; {} can", RESOURCES.join(", "))));
        } else if !amount.parse::<Quantity>().is_ok_and(|amount| amount.millis() >= 0) {
            defects.push(Defect::new(&at, format!("is `{amount}`, no amount: write 500m or 1Gi")));
        }
    }
}

fn cpus(kubelet: &TailoredKubeletConfig, defects: &mut Vec<Defect>) {
    let is_static = kubelet.cpu_manager_policy == CpuManagerPolicy::Static;
    for (option, value) in &kubelet.cpu_manager_policy_options {
        let at = key(&format!("cpuManagerPolicyOptions.{option}"));
        if !CPU_OPTIONS.contains(&option.as_str()) {
            defects.push(Defect::new(
                &at,
                format!("is no option that is honoured; {} are", CPU_OPTIONS.join(", ")),
            ));
        } else if !matches!(value.as_str(), "true" | "false") {
            defects.push(Defect::new(&at, format!("is `{value}`; write true or false, in quotes")));
        } else if !is_static {
            defects.push(Defect::new(&at, "has an effect with cpuManagerPolicy static only"));
        }
    }
    let list = &kubelet.reserved_system_cpus;
    if !list.is_empty() && !is_cpu_list(list) {
        defects
            .push(Defect::new(&key("reservedSystemCPUs"), format!("is `{list}`, no list of CPUs as 0-1,8")));
    }
    if is_static && list.is_empty() && kubelet.reserved_milli_cpu() == 0 {
        defects.push(Defect::new(
            &key("cpuManagerPolicy"),
            "is static, which needs reservedSystemCPUs, or more than no cpu in systemReserved and kubeReserved: \
             somebody has to run what is no pod",
        ));
    }
    if kubelet.cpu_manager_reconcile_period < KubeletDuration::from_secs(1) {
        let what = format!("is {}; it must be at least 1s", kubelet.cpu_manager_reconcile_period);
        defects.push(Defect::new(&key("cpuManagerReconcilePeriod"), what));
    }
}

/// How many CPUs a list names; 0 where it is none.
fn cpus_named(text: &str) -> u64 {
    if !is_cpu_list(text) {
        return 0;
    }
    let ranges = text.split(',').map(|part| part.split_once('-').unwrap_or((part, part)));
    let bounds = ranges.filter_map(|(from, to)| Some((from.parse::<u32>().ok()?, to.parse::<u32>().ok()?)));
    let all: std::collections::BTreeSet<u32> = bounds.flat_map(|(from, to)| from..=to).collect();
    all.len() as u64
}

fn is_cpu_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        matches!((from.parse::<u32>(), to.parse::<u32>()), (Ok(from), Ok(to)) if from <= to && to < 4096)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::EdgeCore;

    fn keys(change: impl Fn(&mut Edged)) -> Vec<String> {
        let mut config = EdgeCore::default();
        change(&mut config.modules.edged);
        config.defects().into_iter().map(|defect| defect.key).collect()
    }

    #[test]
    fn what_is_reserved_adds_up() {
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect()
        };
        let kubelet = TailoredKubeletConfig {
            system_reserved: of(&[("cpu", "500m"), ("memory", "1Gi")]),
            kube_reserved: of(&[("cpu", "1"), ("ephemeral-storage", "10")]),
            ..TailoredKubeletConfig::default()
        };
        assert_eq!(kubelet.reserved_milli_cpu(), 1500);
        let named = TailoredKubeletConfig { reserved_system_cpus: "0-1,1,8".to_owned(), ..kubelet.clone() };
        assert_eq!(named.reserved_milli_cpu(), 3000);
        assert_eq!(
            (kubelet.reserved_bytes("memory"), kubelet.reserved_bytes("ephemeral-storage")),
            (1 << 30, 10)
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let prefix = "modules.edged.tailoredKubeletConfig";
        let bad = keys(|edged| {
            edged.tailored_kubelet_config.system_reserved =
                BTreeMap::from([("cpu".into(), "x".into()), ("pid".into(), "1".into())]);
        });
        assert_eq!(bad, [format!("{prefix}.systemReserved.cpu"), format!("{prefix}.systemReserved.pid")]);
        let bad = keys(|edged| edged.tailored_kubelet_config.cpu_manager_policy = CpuManagerPolicy::Static);
        assert_eq!(bad, [format!("{prefix}.cpuManagerPolicy")]);
        let good = keys(|edged| {
            let kubelet = &mut edged.tailored_kubelet_config;
            kubelet.cpu_manager_policy = CpuManagerPolicy::Static;
            kubelet.reserved_system_cpus = "0-1,8".to_owned();
            kubelet.cpu_manager_policy_options = BTreeMap::from([("full-pcpus-only".into(), "true".into())]);
        });
        assert_eq!(good, [] as [String; 0]);
        let bad = keys(|edged| {
            let kubelet = &mut edged.tailored_kubelet_config;
            kubelet.reserved_system_cpus = "1-0".to_owned();
            kubelet.cpu_manager_policy_options = BTreeMap::from([
                ("full-pcpus-only".into(), "true".into()),
                ("align-by-socket".into(), "true".into()),
            ]);
        });
        assert_eq!(
            bad,
            [
                format!("{prefix}.cpuManagerPolicyOptions.align-by-socket"),
                format!("{prefix}.cpuManagerPolicyOptions.full-pcpus-only"),
                format!("{prefix}.reservedSystemCPUs"),
            ]
        );
        let bad = keys(|edged| {
            edged.device_plugin_path = "plugins".into();
            edged.pod_resources_path = "/".into();
        });
        assert_eq!(bad, ["modules.edged.devicePluginPath", "modules.edged.podResourcesPath"]);
        assert_eq!(keys(|edged| edged.device_plugin_path = "".into()), [] as [String; 0]);
    }

    #[test]
    fn memory_of_numa_nodes_is_reserved_once_each_and_with_its_policy() {
        let of = |policy: MemoryManagerPolicy, list: &[(u32, &str, &str)]| {
            let mut config = EdgeCore::default();
            let kubelet = &mut config.modules.edged.tailored_kubelet_config;
            kubelet.memory_manager_policy = policy;
            kubelet.system_reserved = [("memory".to_owned(), "924Mi".to_owned())].into();
            kubelet.reserved_memory = list
                .iter()
                .map(|(numa_node, kind, amount)| crate::edge::MemoryReservation {
                    numa_node: *numa_node,
                    limits: [((*kind).to_owned(), (*amount).to_owned())].into(),
                })
                .collect();
            let by_node = kubelet.reserved_memory_by_node();
            (config.defects().len(), by_node)
        };
        let fixed = MemoryManagerPolicy::Static;
        let (defects, by_node) = of(fixed, &[(0, "memory", "1Gi"), (1, "hugepages-2Mi", "4Mi")]);
        assert_eq!((defects, by_node[&0]["memory"], by_node[&1]["hugepages-2Mi"]), (0, 1 << 30, 4 << 20));
        assert_eq!(of(fixed, &[]).0, 1);
        assert_eq!(of(MemoryManagerPolicy::None, &[(0, "memory", "1Gi")]).0, 1);
        for bad in [(1, "cpu", "1"), (1, "memory", "0"), (1, "memory", "much")] {
            assert_eq!(of(fixed, &[(0, "memory", "1Gi"), bad]).0, 1, "{bad:?}");
        }
        assert_eq!(of(fixed, &[(0, "memory", "2Gi"), (0, "memory", "1Gi")]).0, 1);
        // More or less than is reserved in all: a kubelet would not start.
        for odd in ["1Mi", "24Gi", "1073741825"] {
            assert_eq!(of(fixed, &[(0, "memory", odd)]).0, 1, "{odd}");
        }
        assert_eq!(of(fixed, &[(0, "memory", "1000Mi"), (1, "memory", "24Mi")]).0, 0);
    }
}
