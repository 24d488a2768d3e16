//! The node as it is reported. Pure.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use apimachinery::node_label::EDGE_ROLES;
use contract::csi_node::CSI_DRIVERS_ANNOTATION;
use cri::RuntimeFeatures;
use cri::v1::Image;
use serde_json::{Value, json};

use crate::node::conditions::conditions;
use crate::node::findings::Findings;
use crate::node::machine::Machine;
use crate::runtime::huge_pages;
use crate::settings::Settings;

/// Images that are told, the largest first.
const IMAGES_MAX: usize = 50;
/// Names of one image that are told.
const NAMES_MAX: usize = 5;
/// Longer names of images are left out, and longer words of the runtime cut.
const IMAGE_NAME_MAX: usize = 512;
const WORD_MAX: usize = 128;

/// What pods may use: (CPU in thousandths, memory in bytes).
pub(crate) fn allocatable(settings: &Settings, machine: &Machine) -> (u64, u64) {
    let kept = settings.eviction.memory_available.of(machine.memory);
    let cpu = machine.cpus.saturating_mul(1000).saturating_sub(settings.reserved.cpu_milli);
    let huge_pages = machine.huge_pages.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let memory = machine.memory.saturating_sub(kept).saturating_sub(settings.reserved.memory);
    (cpu, memory.saturating_sub(huge_pages))
}

/// What pods may use of the disk, in bytes.
pub(crate) fn allocatable_disk(settings: &Settings, machine: &Machine) -> u64 {
    let kept = settings.eviction.nodefs_available.of(machine.disk);
    machine.disk.saturating_sub(kept).saturating_sub(settings.reserved.ephemeral_storage)
}

/// The node's labels: the usual ones, then those of the configuration.
pub(crate) fn labels(settings: &Settings) -> BTreeMap<String, String> {
    let arch = architecture();
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", settings.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .into_iter()
    .chain(EDGE_ROLES.map(|role| (role, "")))
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    labels.extend(settings.node_labels.clone());
    labels
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "riscv64" => "riscv64",
        other => other,
    }
}

/// What is declared, sorted: the scheduler places pods, and the API server takes changes of pods, that need these.
const DECLARED: [&str; 2] =
    ["InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits"];

/// The whole Node. `before` is the report before, for the times of its conditions.
pub(crate) fn report(settings: &Settings, findings: &Findings, before: Option<&Value>, wall: &str) -> Value {
    let machine = &findings.machine;
    let (cpu, memory) = allocatable(settings, machine);
    let taints: Vec<Value> =
        settings.taints.iter().filter_map(|taint| serde_json::to_value(taint).ok()).collect();
    let mut capacity = json!({
        "cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory / 1024),
        "ephemeral-storage": format!("{}Ki", machine.disk / 1024),
        "pods": settings.max_pods.to_string(),
    });
    let mut allocatable = json!({
        "cpu": format!("{cpu}m"),
        "memory": format!("{}Ki", memory / 1024),
        "ephemeral-storage": allocatable_disk(settings, machine).to_string(),
        "pods": settings.max_pods.to_string(),
    });
    for (size, bytes) in &machine.huge_pages {
        let (name, amount) = (huge_pages::resource(*size), Quantity::binary_text(*bytes));
        capacity[&name] = json!(amount);
        allocatable[&name] = json!(amount);
    }
    for (name, count) in &findings.devices {
        capacity[name] = json!(count.capacity.to_string());
        allocatable[name] = json!(count.allocatable.to_string());
    }
    let mut spec = json!({"taints": taints});
    if !settings.schedulable {
        spec["unschedulable"] = json!(true);
    }
    let mut metadata = json!({"name": settings.node_name, "labels": labels(settings)});
    let mut in_use = Value::Null;
    if let Some(csi) = &findings.csi {
        metadata["annotations"] = json!({ CSI_DRIVERS_ANNOTATION: json!(csi.drivers).to_string() });
        in_use = json!(csi.in_use);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": spec,
        "status": {
            "capacity": capacity,
            "allocatable": allocatable,
            "conditions": conditions(settings, findings, before, wall),
            "addresses": addresses(settings, machine),
            "nodeInfo": info(settings, findings),
            "declaredFeatures": DECLARED,
            "images": images(&findings.images),
            "volumesInUse": in_use,
            "runtimeHandlers": handlers(&findings.features),
            "features": features(&findings.features),
        },
    })
}

/// What the runtime's handlers can do, sorted by their names; nothing of a runtime that does not say.
fn handlers(features: &RuntimeFeatures) -> Value {
    let one = |(name, can): (&String, &cri::Features)| {
        json!({"name": name.chars().take(WORD_MAX).collect::<String>(), "features": {
            "recursiveReadOnlyMounts": can.recursive_read_only_mounts, "userNamespaces": can.user_namespaces}})
    };
    let all: Vec<Value> = features.handlers.iter().map(one).collect();
    if all.is_empty() { Value::Null } else { Value::Array(all) }
}

fn features(features: &RuntimeFeatures) -> Value {
    let strict = features.supplemental_groups_policy;
    strict.map_or(Value::Null, |can| json!({ "supplementalGroupsPolicy": can }))
}

fn addresses(settings: &Settings, machine: &Machine) -> Vec<Value> {
    let mut list: Vec<Value> =
        machine.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    list.push(json!({"type": "Hostname", "address": settings.node_name}));
    list
}

fn info(settings: &Settings, findings: &Findings) -> Value {
    let machine = &findings.machine;
    let runtime = match &findings.runtime {
        Ok((version, _)) => {
            let cut = |text: &str| text.chars().take(WORD_MAX).collect::<String>();
            format!("{}://{}", cut(&version.runtime_name), cut(&version.runtime_version))
        }
        Err(_) => String::new(),
    };
    json!({
        "machineID": machine.machine_id,
        "systemUUID": machine.system_uuid,
        "bootID": machine.boot_id,
        "kernelVersion": machine.kernel,
        "osImage": machine.os_image,
        "containerRuntimeVersion": runtime,
        "kubeletVersion": settings.version,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture(),
        "swap": (machine.swap > 0).then(|| json!({ "capacity": machine.swap })),
    })
}

/// The largest images, as the kubelet tells them.
fn images(all: &[Image]) -> Vec<Value> {
    let mut all: Vec<&Image> = all.iter().collect();
    all.sort_by(|a, b| (b.size, &a.id).cmp(&(a.size, &b.id)));
    let short = |name: &&String| name.len() <= IMAGE_NAME_MAX;
    all.into_iter()
        .take(IMAGES_MAX)
        .map(|image| {
            let names: Vec<&String> =
                image.repo_digests.iter().chain(&image.repo_tags).filter(short).take(NAMES_MAX).collect();
            json!({"names": names, "sizeBytes": image.size})
        })
        .collect()
}

/// Whether two reports say the same, the heartbeats apart.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    let still = |value: &Value| {
        let mut value = value.clone();
        let list = value.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
        for condition in list.into_iter().flatten() {
            condition["lastHeartbeatTime"] = Value::Null;
        }
        value
    };
    still(a) == still(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dependencies::CsiVolumes;
    use crate::node::findings::tests::{condition, findings, settings};

    #[test]
    fn a_node_says_its_drivers_and_volumes_once_they_are_known() {
        let node = report(&settings(), &findings(true), None, "T1");
        assert!(node.pointer("/metadata/annotations").is_none() && node["status"]["volumesInUse"].is_null());
        let csi =
            Some(CsiVolumes { drivers: Vec::new(), in_use: ["kubernetes.io/csi/d^h".to_owned()].into() });
        let node = report(&settings(), &Findings { csi, ..findings(true) }, None, "T1");
        assert_eq!(node["metadata"]["annotations"][CSI_DRIVERS_ANNOTATION], "[]");
        assert_eq!(node["status"]["volumesInUse"], json!(["kubernetes.io/csi/d^h"]));
    }

    #[test]
    fn a_node_says_what_it_is() {
        let node = report(&settings(), &findings(true), None, "T1");
        assert_eq!(node["metadata"]["labels"]["node-role.kubernetes.io/edge"], "");
        assert_eq!(node["metadata"]["labels"]["zone"], "a");
        assert_eq!(node["status"]["capacity"]["cpu"], "2");
        assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "containerd://1.6.20");
        assert_eq!(node["status"]["addresses"][0]["address"], "192.0.2.1");
        assert_eq!(condition(&node, "Ready")["status"], "True");
        assert_eq!(condition(&node, "DiskPressure")["status"], "False");
        let typed: k8s_openapi::api::core::v1::Node = {
            let mut node = node.clone();
            for condition in node["status"]["conditions"].as_array_mut().unwrap() {
                condition["lastHeartbeatTime"] = json!("2026-11-21T00:00:00Z");
                condition["lastTransitionTime"] = json!("2026-11-21T00:00:00Z");
            }
            serde_json::from_value(node).unwrap()
        };
        assert_eq!(typed.metadata.name.as_deref(), Some("edge-1"));
    }

    #[test]
    fn huge_pages_and_swap_are_told_and_what_the_runtime_can_do() {
        let mut found = findings(true);
        let before = allocatable(&settings(), &found.machine).1;
        found.machine.huge_pages = [(2 << 20, 64 << 20), (1 << 30, 0)].into();
        found.machine.swap = 1 << 30;
        assert_eq!(allocatable(&settings(), &found.machine).1, before - (64 << 20));
        let can = cri::Features { user_namespaces: true, ..cri::Features::default() };
        found.features = RuntimeFeatures {
            handlers: [(String::new(), can), ("runc".to_owned(), can)].into(),
            supplemental_groups_policy: Some(true),
        };
        let status = &report(&settings(), &found, None, "T1")["status"];
        assert_eq!(status["capacity"]["hugepages-2Mi"], "64Mi");
        assert_eq!(status["allocatable"]["hugepages-1Gi"], "0");
        assert_eq!(status["nodeInfo"]["swap"]["capacity"], 1_i64 << 30);
        let features = json!({"recursiveReadOnlyMounts": false, "userNamespaces": true});
        assert_eq!(
            status["runtimeHandlers"],
            json!([{"name": "", "features": features}, {"name": "runc", "features": features}])
        );
        assert_eq!(status["features"], json!({"supplementalGroupsPolicy": true}));
        let status = &report(&settings(), &findings(true), None, "T1")["status"];
        assert!(status["features"].is_null() && status["runtimeHandlers"].is_null());
    }
}
