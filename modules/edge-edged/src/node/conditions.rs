//! The node's conditions as they are reported. Pure.

use std::collections::BTreeSet;

use contract::eventbus::BrokerReport;
use contract::pod_status::{CHECKS, MQTT_BROKER};
use cri::v1::{RuntimeCondition, RuntimeStatus};
use nodechecks::Finding;
use serde_json::{Value, json};

use crate::eviction::plan::short_now;
use crate::eviction::pressure::Pressure;
use crate::eviction::shortage;
use crate::eviction::signal::{Condition, Observed, Signal};
use crate::node::findings::Findings;
use crate::node::machine::Machine;
use crate::settings::Settings;

/// Longer words of the runtime are cut.
const REASONS_MAX: usize = 1024;
/// Conditions of the runtime that are told beside the decisive ones.
const COMPLAINTS_MAX: usize = 16;
/// A condition: type, whether it is True, reason, message.
type ReportedCondition = (String, bool, String, String);

/// The conditions of the runtime by which a node is ready, as a kubelet takes them (`updateRuntimeUp`); whatever else it tells is no
/// matter of the node's.
const DECISIVE: [&str; 2] = ["RuntimeReady", "NetworkReady"];

/// The reason of Ready while the runtime makes cgroups in another way than `cgroupDriver` says.
const CGROUP_DRIVER_MISMATCH: &str = "CgroupDriverMismatch";

/// The reason of [`CHECKS`] until the first look of a run whose predecessor told of it.
const NOT_LOOKED_AT: &str = "NotLookedAt";

/// All of them. `before` is the report before, for their times.
pub(crate) fn conditions(
    settings: &Settings,
    findings: &Findings,
    before: Option<&Value>,
    wall: &str,
) -> Vec<Value> {
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
    list.extend(checks(findings.checks.as_deref(), before));
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
fn mqtt_broker(now: Option<&BrokerReport>, before: Option<&Value>) -> Option<ReportedCondition> {
    let said = said(before, MQTT_BROKER);
    match now {
        Some(now) if now.is_external || !now.is_usable || said.is_some() => {
            Some((MQTT_BROKER.to_owned(), now.is_usable, now.reason.to_owned(), now.message.clone()))
        }
        Some(_) => None,
        None => said,
    }
}

/// As [`mqtt_broker`]: a machine on which no check has failed yet has no such condition, and until its checks were looked at the node repeats
/// what it said last. Whatever it says, Ready is another matter: a check knows no pods.
fn checks(now: Option<&[Finding]>, before: Option<&Value>) -> Option<ReportedCondition> {
    let said = said(before, CHECKS);
    let Some(failing) = now else {
        // Of the run before the store has kept no words.
        let words = || (NOT_LOOKED_AT.to_owned(), "not looked at yet since edgecore began".to_owned());
        return said.map(|(kind, is_well, reason, message)| {
            let (reason, message) = if reason.is_empty() { words() } else { (reason, message) };
            (kind, is_well, reason, message)
        });
    };
    if failing.is_empty() && said.is_none() {
        return None;
    }
    let nodechecks::Summary { is_well, reason, message } = nodechecks::summary(failing);
    Some((CHECKS.to_owned(), is_well, reason.to_owned(), message))
}

/// What the report before says of a condition.
fn said(before: Option<&Value>, kind: &str) -> Option<ReportedCondition> {
    let list = before?.pointer("/status/conditions")?.as_array()?;
    let old = list.iter().find(|old| old["type"] == kind)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((kind.to_owned(), old["status"] == "True", text(&old["reason"]), text(&old["message"])))
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
    if let Some(what) = nodechecks::cgroup_driver_mismatch(settings.cgroup_driver, findings.cgroup_driver) {
        return (false, CGROUP_DRIVER_MISMATCH.to_owned(), what);
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

#[cfg(test)]
mod tests {
    use cri::v1::CgroupDriver;

    use super::*;
    use crate::eviction::shortage::Shortage;
    use crate::node::findings::tests::{condition, findings, settings};
    use crate::node::status::{report, same};

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
    fn checks_are_told_of_once_one_fails_and_turn_when_it_is_mended_and_leave_ready_alone() {
        let node = |checks, before: Option<&Value>, wall: &str| {
            report(&settings(), &Findings { checks, ..findings(true) }, before, wall)
        };
        let told = |node: &Value| {
            let list = node["status"]["conditions"].as_array().unwrap().clone();
            let found = list.into_iter().find(|condition| condition["type"] == CHECKS);
            found.map(|found| {
                ["status", "reason", "message", "lastTransitionTime"]
                    .map(|key| found[key].as_str().unwrap().to_owned())
            })
        };
        let words = |words: [&str; 4]| Some(words.map(str::to_owned));
        assert_eq!(told(&node(None, None, "T1")), None);
        assert_eq!(
            told(&node(Some(Vec::new()), None, "T1")),
            None,
            "a machine that is well has no such condition"
        );
        let off = vec![Finding::failed("MemoryCgroup", "off: reboot")];
        let failing = node(Some(off.clone()), None, "T1");
        assert_eq!(told(&failing), words(["False", "MemoryCgroup", "MemoryCgroup: off: reboot", "T1"]));
        assert_eq!(condition(&failing, "Ready")["status"], "True");
        assert_eq!(told(&node(None, Some(&failing), "T2")), told(&failing), "nobody has looked yet");
        assert!(same(&failing, &node(Some(off), Some(&failing), "T2")));
        let kept = json!({"status": {"conditions": [{"type": CHECKS, "status": "False", "lastTransitionTime": "T0"}]}});
        let begun = words(["False", "NotLookedAt", "not looked at yet since edgecore began", "T0"]);
        assert_eq!(told(&node(None, Some(&kept), "T2")), begun);
        let mended = node(Some(Vec::new()), Some(&failing), "T3");
        assert_eq!(told(&mended), words(["True", "ChecksPassed", "no check of this machine fails", "T3"]));
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
