//! The node as it is reported. Pure.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::Quantity;
use apimachinery::node_label::EDGE_ROLES;
use contract::containermanager::DeviceCount;
use contract::eventbus::BrokerReport;
use contract::pod_status::MQTT_BROKER;
use cri::RuntimeFeatures;
use cri::v1::{CgroupDriver, Image, RuntimeCondition, RuntimeStatus, VersionResponse};
use serde_json::{Value, json};

use contract::csi_node::CSI_DRIVERS_ANNOTATION;

use crate::dependencies::CsiVolumes;
use crate::eviction::plan::short_now;
use crate::eviction::pressure::Pressure;
use crate::eviction::shortage::{self, Shortage};
use crate::eviction::signal::{Condition, Observed, Signal};
use crate::node::cgroup_driver;
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
const REASONS_MAX: usize = 1024;
/// Conditions of the runtime that are told beside the decisive ones.
const COMPLAINTS_MAX: usize = 16;
/// The conditions of the runtime by which a node is ready, as a kubelet takes them (`updateRuntimeUp`); whatever else it tells is no
/// matter of the node's.
const DECISIVE: [&str; 2] = ["RuntimeReady", "NetworkReady"];

/// What was found out for one report.
#[derive(Debug, Clone)]
pub(crate) struct Findings {
    pub(crate) machine: Machine,
    /// The runtime's answers, or why there are none.
    pub(crate) runtime: Result<(VersionResponse, RuntimeStatus), String>,
    /// What it can do, as far as it has said.
    pub(crate) features: RuntimeFeatures,
    /// Who makes its cgroups, as far as it has said.
    pub(crate) cgroup_driver: Option<CgroupDriver>,
    pub(crate) images: Vec<Image>,
    /// What the node is short of, or was a while ago, once that was measured.
    pub(crate) shortages: Option<Vec<Shortage>>,
    /// The machine is about to end.
    pub(crate) shutting_down: bool,
    /// The extended resources that plugins have.
    pub(crate) devices: BTreeMap<String, DeviceCount>,
    /// What is known of CSI drivers and their volumes.
    pub(crate) csi: Option<CsiVolumes>,
    /// What EventBus said of the MQTT brokers.
    pub(crate) mqtt_broker: Option<BrokerReport>,
}

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

fn conditions(settings: &Settings, findings: &Findings, before: Option<&Value>, wall: &str) -> Vec<Value> {
    let at_once = || short_now(&settings.eviction_rules.bounds, &observed(&findings.machine));
    let shortages = findings.shortages.clone().unwrap_or_else(at_once);
    let Pressure { memory, disk, pid } = Pressure::of(&shortages);
    // A kubelet's words with edged's name, and by which signal that is: "disk pressure" alone does not say whether it is room or
    // inodes, nor of which disk.
    let with_signals = |words: String, condition: Condition| {
        let of = shortage::words(shortages.iter().filter(|own| own.signal.condition() == condition));
        if of.is_empty() { words } else { format!("{words}: {of}") }
    };
    // Of the disk it says otherwise than of memory and process IDs.
    let shortage = |kind: &str, short: bool, short_of: &str, of: &str, condition: Condition| {
        let how = if short { "Insufficient" } else { "Sufficient" };
        let message = format!("edged has {} {short_of} available", how.to_ascii_lowercase());
        (kind.to_owned(), short, format!("EdgedHas{how}{of}"), with_signals(message, condition))
    };
    let (disk_reason, disk_message) = if disk {
        ("EdgedHasDiskPressure", "edged has disk pressure")
    } else {
        ("EdgedHasNoDiskPressure", "edged has no disk pressure")
    };
    let disk_message = with_signals(disk_message.to_owned(), Condition::Disk);
    let (ready, reason, message) = readiness(settings, findings);
    let mut list = vec![
        shortage("MemoryPressure", memory, "memory", "Memory", Condition::Memory),
        ("DiskPressure".to_owned(), disk, disk_reason.to_owned(), disk_message),
        shortage("PIDPressure", pid, "PID", "PID", Condition::Pid),
    ];
    list.push(("Ready".to_owned(), ready, reason, message));
    list.extend(mqtt_broker(findings.mqtt_broker.as_ref(), before));
    list.into_iter()
        .map(|(kind, truth, reason, message)| {
            let status = if truth { "True" } else { "False" };
            let since = before.and_then(|before| since(before, &kind, status)).unwrap_or(wall);
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": wall, "lastTransitionTime": since,
            })
        })
        .collect()
}

/// What a report itself knows of what is left: the first one may be made before the node is measured.
fn observed(machine: &Machine) -> Vec<Observed> {
    let pids_left = machine.pids_max.saturating_sub(machine.pids);
    [
        (Signal::Memory, machine.memory_available, machine.memory),
        (Signal::NodefsAvailable, machine.disk_available, machine.disk),
        (Signal::NodefsInodesFree, machine.inodes_free, machine.inodes),
        (Signal::PidAvailable, pids_left, machine.pids_max),
    ]
    .into_iter()
    .filter(|(_, _, capacity)| *capacity > 0)
    .map(|(signal, available, capacity)| Observed { signal, available, capacity })
    .collect()
}

/// A node that has its own broker alone has this condition only once there was something wrong: a condition that was reported does
/// not go away by silence. Until EventBus has spoken the node repeats what it said last.
fn mqtt_broker(now: Option<&BrokerReport>, before: Option<&Value>) -> Option<(String, bool, String, String)> {
    let list = before.and_then(|before| before.pointer("/status/conditions")).and_then(Value::as_array);
    let said = list.into_iter().flatten().find(|old| old["type"] == MQTT_BROKER);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match now {
        Some(now) if now.is_external || !now.is_usable || said.is_some() => {
            Some((MQTT_BROKER.to_owned(), now.is_usable, now.reason.to_owned(), now.message.clone()))
        }
        Some(_) => None,
        None => said.map(|old| {
            (MQTT_BROKER.to_owned(), old["status"] == "True", text(&old["reason"]), text(&old["message"]))
        }),
    }
}

fn since<'a>(before: &'a Value, kind: &str, status: &str) -> Option<&'a str> {
    let list = before.pointer("/status/conditions")?.as_array()?;
    let old = list.iter().find(|old| old["type"] == kind && old["status"] == status)?;
    old["lastTransitionTime"].as_str()
}

fn readiness(settings: &Settings, findings: &Findings) -> (bool, String, String) {
    let not = |message: String| (false, "EdgedNotReady".to_owned(), message);
    if findings.shutting_down {
        return not("node is shutting down".to_owned());
    }
    let status = match &findings.runtime {
        Ok((_, status)) => status,
        Err(reason) => return not(format!("container runtime is down: {reason}")),
    };
    let down: Vec<String> = DECISIVE
        .into_iter()
        .filter_map(|kind| match status.conditions.iter().find(|condition| condition.r#type == kind) {
            None => Some(format!("{kind}: the runtime does not say")),
            Some(condition) => (!condition.status).then(|| shown(condition)),
        })
        .collect();
    if !down.is_empty() {
        let down: String = down.join("; ").chars().take(REASONS_MAX).collect();
        return not(format!("container runtime is not ready: {down}"));
    }
    if let Some(what) = cgroup_driver::mismatch(settings.cgroup_driver, findings.cgroup_driver) {
        return (false, cgroup_driver::MISMATCH.to_owned(), what);
    }
    (true, "EdgedReady".to_owned(), "edged is posting ready status".to_owned())
}

fn shown(condition: &RuntimeCondition) -> String {
    format!("{}: {} {}", condition.r#type, condition.reason, condition.message)
}

/// What else the runtime has to say against itself, as of what is deprecated of its configuration: the node works all the same.
pub(crate) fn complaints(status: &RuntimeStatus) -> BTreeSet<String> {
    let others = status.conditions.iter().filter(|one| !one.status && !DECISIVE.contains(&&*one.r#type));
    others.take(COMPLAINTS_MAX).map(|one| shown(one).chars().take(REASONS_MAX).collect()).collect()
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

    fn settings() -> Settings {
        let mut settings = Settings::new("edge-1", &config::edge::Edged::default());
        settings.node_labels.insert("zone".into(), "a".into());
        settings
    }

    fn findings(network: bool) -> Findings {
        let condition = |kind: &str, status: bool| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { String::new() } else { "NetworkPluginNotReady".into() },
            message: if status { String::new() } else { "cni plugin not initialized".into() },
        };
        let version = VersionResponse {
            runtime_name: "containerd".into(),
            runtime_version: "1.6.20".into(),
            ..VersionResponse::default()
        };
        let status = RuntimeStatus {
            conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", network)],
        };
        let machine = Machine {
            cpus: 2,
            memory: 1 << 30,
            memory_available: 1 << 29,
            disk: 100 << 30,
            disk_available: 50 << 30,
            ips: vec!["192.0.2.1".into()],
            ..Machine::default()
        };
        Findings {
            machine,
            runtime: Ok((version, status)),
            features: RuntimeFeatures::default(),
            cgroup_driver: None,
            images: Vec::new(),
            shortages: None,
            shutting_down: false,
            devices: BTreeMap::new(),
            csi: None,
            mqtt_broker: None,
        }
    }

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

    fn condition<'a>(node: &'a Value, kind: &str) -> &'a Value {
        node["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
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
    fn a_runtime_that_makes_cgroups_in_another_way_is_named() {
        let differs = Findings { cgroup_driver: Some(CgroupDriver::Systemd), ..findings(true) };
        let node = report(&settings(), &differs, None, "T1");
        let ready = condition(&node, "Ready");
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("CgroupDriverMismatch")));
        assert!(ready["message"].as_str().unwrap().contains("cgroupDriver to systemd"));
        let same = Findings { cgroup_driver: Some(CgroupDriver::Cgroupfs), ..findings(true) };
        let node = report(&settings(), &same, None, "T1");
        assert_eq!(condition(&node, "Ready")["status"], "True");
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

    /// containerd tells in a third condition that something deprecated is used, as `registry.mirrors` in its configuration.
    #[test]
    fn what_is_deprecated_of_the_runtime_takes_no_node_down_and_what_it_does_not_say_does() {
        let deprecated = RuntimeCondition {
            r#type: "ContainerdHasNoDeprecationWarnings".into(),
            status: false,
            reason: "ContainerdHasDeprecationWarnings".into(),
            message: r#"{"io.containerd.deprecation/cri-registry-mirrors":"use config_path"}"#.into(),
        };
        let of = |change: &dyn Fn(&mut Vec<RuntimeCondition>)| {
            let mut found = findings(true);
            let (_, status) = found.runtime.as_mut().unwrap();
            change(&mut status.conditions);
            let complaints = complaints(status);
            (condition(&report(&settings(), &found, None, "T1"), "Ready").clone(), complaints)
        };
        let (ready, complaints) = of(&|all| all.push(deprecated.clone()));
        assert_eq!(ready["status"], "True", "{ready}");
        assert!(complaints.len() == 1 && complaints.first().unwrap().contains("registry-mirrors"));
        for kind in ["RuntimeReady", "NetworkReady"] {
            let (ready, complaints) = of(&|all| all.retain(|one| one.r#type != kind));
            let words = format!("container runtime is not ready: {kind}: the runtime does not say");
            assert_eq!((&ready["status"], &ready["message"]), (&json!("False"), &json!(words)));
            assert!(complaints.is_empty());
        }
    }

    #[test]
    fn a_node_that_is_about_to_end_says_so() {
        let node = report(&settings(), &Findings { shutting_down: true, ..findings(true) }, None, "T1");
        let ready = condition(&node, "Ready");
        assert_eq!((&ready["status"], &ready["message"]), (&json!("False"), &json!("node is shutting down")));
    }

    fn short_of(signals: &[Signal]) -> Option<Vec<Shortage>> {
        let of = |signal: &Signal| Shortage { signal: *signal, available: 1 << 30, threshold: 3 << 29 };
        Some(signals.iter().map(of).collect())
    }

    #[test]
    fn what_the_node_was_short_of_a_while_ago_is_still_told() {
        let shortages = short_of(&[Signal::NodefsAvailable]);
        let node = report(&settings(), &Findings { shortages, ..findings(true) }, None, "T1");
        let told = |kind: &str| condition(&node, kind)["status"].as_str().unwrap().to_owned();
        assert_eq!(
            [told("DiskPressure"), told("MemoryPressure"), told("PIDPressure")],
            ["True", "False", "False"]
        );
    }

    #[test]
    fn a_report_before_the_first_measurement_looks_itself_and_one_after_it_does_not() {
        let mut full = findings(true);
        full.machine.disk_available = 1 << 30;
        let disk = |findings: &Findings| {
            condition(&report(&settings(), findings, None, "T1"), "DiskPressure")["message"].clone()
        };
        let short = "edged has disk pressure: nodefs.available fell to 1Gi, threshold 10Gi";
        assert_eq!(disk(&full), short);
        // The condition would end and begin with each report near the threshold.
        full.shortages = Some(Vec::new());
        assert_eq!(disk(&full), "edged has no disk pressure");
    }

    /// Whoever watches nodes for these knows them from a kubelet.
    #[test]
    fn what_a_node_is_short_of_is_said_as_a_kubelet_says_it_and_by_which_signal() {
        let told = |shortages: Option<Vec<Shortage>>| {
            let node = report(&settings(), &Findings { shortages, ..findings(true) }, None, "T1");
            ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| {
                let of = condition(&node, kind);
                format!("{} `{}`", of["reason"].as_str().unwrap(), of["message"].as_str().unwrap())
            })
        };
        let all = [Signal::Memory, Signal::ImagefsAvailable, Signal::NodefsInodesFree, Signal::PidAvailable];
        assert_eq!(
            told(short_of(&all)),
            [
                "EdgedHasInsufficientMemory `edged has insufficient memory available: memory.available fell to 1Gi, threshold 1.5Gi`",
                "EdgedHasDiskPressure `edged has disk pressure: imagefs.available fell to 1Gi, threshold 1.5Gi; nodefs.inodesFree fell \
                 to 1073741824, threshold 1610612736`",
                "EdgedHasInsufficientPID `edged has insufficient PID available: pid.available fell to 1073741824, threshold 1610612736`",
            ]
        );
        assert_eq!(
            told(short_of(&[])),
            [
                "EdgedHasSufficientMemory `edged has sufficient memory available`",
                "EdgedHasNoDiskPressure `edged has no disk pressure`",
                "EdgedHasSufficientPID `edged has sufficient PID available`",
            ]
        );
    }

    #[test]
    fn the_mqtt_broker_is_told_of_while_it_matters_and_until_it_is_known_again() {
        let said = |is_usable: bool, is_external: bool| {
            let (reason, message) =
                if is_usable { ("Usable", "fine") } else { ("NothingListens", "tcp://b:1883") };
            Some(BrokerReport { is_usable, is_external, reason, message: message.to_owned() })
        };
        let node = |mqtt_broker, before: Option<&Value>| {
            report(&settings(), &Findings { mqtt_broker, ..findings(true) }, before, "T1")
        };
        let told = |node: &Value| {
            let list = node["status"]["conditions"].as_array().unwrap();
            let found = list.iter().find(|condition| condition["type"] == MQTT_BROKER);
            found.map(|found| {
                [&found["status"], &found["reason"], &found["message"]]
                    .map(|it| it.as_str().unwrap().to_owned())
            })
        };
        let words = |words: [&str; 3]| Some(words.map(str::to_owned));
        assert_eq!((told(&node(None, None)), told(&node(said(true, false), None))), (None, None));
        let away = node(said(false, true), None);
        assert_eq!(told(&away), words(["False", "NothingListens", "tcp://b:1883"]));
        assert_eq!(told(&node(None, Some(&away))), told(&away), "EventBus has not spoken yet");
        assert_eq!(told(&node(said(true, false), Some(&away))), words(["True", "Usable", "fine"]));
        assert_eq!(told(&node(said(true, true), None)), words(["True", "Usable", "fine"]));
    }

    #[test]
    fn a_network_that_is_not_ready_is_told_and_its_time_kept() {
        let first = report(&settings(), &findings(false), None, "T1");
        let ready = condition(&first, "Ready");
        assert_eq!(ready["status"], "False");
        assert!(ready["message"].as_str().unwrap().contains("cni plugin not initialized"));
        let second = report(&settings(), &findings(false), Some(&first), "T2");
        assert!(same(&first, &second));
        assert_eq!(condition(&second, "Ready")["lastTransitionTime"], "T1");
        let third = report(&settings(), &findings(true), Some(&second), "T3");
        assert!(!same(&second, &third));
        assert_eq!(condition(&third, "Ready")["lastTransitionTime"], "T3");
    }
}
