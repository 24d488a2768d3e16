//! Which settings of a node a job of the cloud may change. What would hand the node to somebody else, have it run programs, or change who
//! it is, whom it lets in and where its files lie is for whoever has its machine; so is what nobody has decided about.

use serde_json::Value;

use crate::{FileSize, KubeletDuration, Threshold};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// 1%, in hundredths of a percent.
const PERCENT: u64 = 100;
/// What is left of memory and of the node's disk may be a half in all, which is held against the machine elsewhere (`capacity`).
const OF_MACHINE: u64 = u64::MAX;
/// Of what the machine's size says nothing: more would have all pods evicted of a small one. Bytes of the images' disk, inodes, processes.
const IMAGES_LEFT: u64 = 1 << 30;
const INODES_LEFT: u64 = 100_000;
const PIDS_LEFT: u64 = 10_000;

/// What a job may write for a value; [`crate::ChangedBy::Administrator`] may write what edgecore starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Whatever edgecore starts with.
    Any,
    /// A whole number.
    Number(u64, u64),
    /// The same, or 0 for none.
    NoneOrNumber(u64, u64),
    /// A time, in seconds.
    Seconds(u64, u64),
    /// The same, or 0s for none.
    NoneOrSeconds(u64, u64),
    /// A size; -1, which is no bound, is none.
    Bytes(u64, u64),
    /// What has to be left: at least 1 percent and a half at the most, or amounts from the first to the second.
    Left(u64, u64),
    /// The same of any of the signals, with no least.
    LeftOfSignals,
    /// Seconds of all groups together.
    Graces(u64),
}

use Within::{Any, Bytes, Graces, Left, LeftOfSignals, NoneOrNumber, NoneOrSeconds, Number, Seconds};

/// What a job may change: how often, how much and how long; within which bounds, and what a value beyond them would do. With any value
/// within them the node has its link to the cloud, its broker has room for applications, and its own programs have disk and memory. The
/// worst of them still has pods evicted, or new ones not taken (bounds of eviction, numbers of pods, reservations, policies of CPUs and
/// NUMA nodes), and images, logs and containers that have ended go sooner or stay longer: SECURITY.md says so.
const OPEN: [(&str, Within, &str); 48] = [
    ("modules.edged.maxPerPodContainerCount", Any, ""),
    ("modules.edged.minimumGCAge", Seconds(0, DAY), "containers that have ended would fill the disk"),
    (
        "modules.edged.tailoredKubeletConfig.fileCheckFrequency",
        Seconds(1, HOUR),
        "static pods would not follow their files",
    ),
    ("modules.edged.tailoredKubeletConfig.memorySwap", Any, ""),
    (
        "modules.edged.tailoredKubeletConfig.maxPods",
        Number(10, 1000),
        "the node would take no pods, or more than it can look after",
    ),
    (
        "modules.edged.tailoredKubeletConfig.containerLogMaxSize",
        Bytes(64 << 10, 1 << 30),
        "logs would be gone at once, or fill the disk",
    ),
    ("modules.edged.tailoredKubeletConfig.containerLogMaxFiles", Number(2, 100), "logs would fill the disk"),
    (
        "modules.edged.tailoredKubeletConfig.containerLogMonitorInterval",
        Seconds(3, 10 * MINUTE),
        "logs would fill the disk",
    ),
    (
        "modules.edged.tailoredKubeletConfig.imageGCHighThresholdPercent",
        Number(50, 95),
        "images would go that the node needs when it is cut off, or fill the disk",
    ),
    (
        "modules.edged.tailoredKubeletConfig.imageGCLowThresholdPercent",
        Number(40, 94),
        "images would go that the node needs when it is cut off, or fill the disk",
    ),
    ("modules.edged.tailoredKubeletConfig.imageMinimumGCAge", Seconds(0, DAY), "images would fill the disk"),
    (
        "modules.edged.tailoredKubeletConfig.imageMaximumGCAge",
        NoneOrSeconds(HOUR, 3650 * DAY),
        "images would go that the node needs when it is cut off",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionHard.memory.available",
        Left(32 << 20, OF_MACHINE),
        "the machine would run out of it before a pod has to go",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionHard.nodefs.available",
        Left(64 << 20, OF_MACHINE),
        "edgecore's own store would find no room",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionHard.nodefs.inodesFree",
        Left(1000, INODES_LEFT),
        "edgecore's own store would find no room",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionHard.imagefs.available",
        Left(64 << 20, IMAGES_LEFT),
        "the runtime would find no room",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionHard.imagefs.inodesFree",
        Left(1000, INODES_LEFT),
        "the runtime would find no room",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionHard.pid.available",
        Left(100, PIDS_LEFT),
        "the machine would run out of it before a pod has to go",
    ),
    ("modules.edged.tailoredKubeletConfig.evictionSoft", LeftOfSignals, "pods would be evicted all the time"),
    ("modules.edged.tailoredKubeletConfig.evictionSoftGracePeriod", Any, ""),
    (
        "modules.edged.tailoredKubeletConfig.evictionMinimumReclaim",
        LeftOfSignals,
        "once one pod has to go all would have to",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionPressureTransitionPeriod",
        Seconds(0, HOUR),
        "the node would go on to say that it is pressed, and take no pods",
    ),
    (
        "modules.edged.tailoredKubeletConfig.evictionMaxPodGracePeriod",
        Number(0, HOUR),
        "a node that is pressed would wait for its pods",
    ),
    (
        "modules.edged.tailoredKubeletConfig.shutdownGracePeriod",
        Seconds(0, 10 * MINUTE),
        "the machine would not go down",
    ),
    (
        "modules.edged.tailoredKubeletConfig.shutdownGracePeriodCriticalPods",
        Seconds(0, 10 * MINUTE),
        "the machine would not go down",
    ),
    (
        "modules.edged.tailoredKubeletConfig.shutdownGracePeriodByPodPriority",
        Graces(10 * MINUTE),
        "the machine would not go down",
    ),
    ("modules.edged.tailoredKubeletConfig.systemReserved", Any, ""),
    ("modules.edged.tailoredKubeletConfig.kubeReserved", Any, ""),
    ("modules.edged.tailoredKubeletConfig.cpuManagerPolicy", Any, ""),
    ("modules.edged.tailoredKubeletConfig.cpuManagerPolicyOptions", Any, ""),
    (
        "modules.edged.tailoredKubeletConfig.cpuManagerReconcilePeriod",
        Seconds(1, HOUR),
        "containers would not be kept off CPUs that others have for themselves",
    ),
    ("modules.edged.tailoredKubeletConfig.reservedSystemCPUs", Any, ""),
    ("modules.edged.tailoredKubeletConfig.memoryManagerPolicy", Any, ""),
    ("modules.edged.tailoredKubeletConfig.reservedMemory", Any, ""),
    (
        "modules.edged.tailoredKubeletConfig.volumeStatsAggPeriod",
        NoneOrSeconds(10, DAY),
        "edgecore would read all files of pods again and again",
    ),
    ("modules.edged.tailoredKubeletConfig.topologyManagerPolicy", Any, ""),
    ("modules.edged.tailoredKubeletConfig.topologyManagerScope", Any, ""),
    ("modules.edgeHub.heartbeat", Number(1, MINUTE), "nobody would see how the node is"),
    ("modules.eventBus.mqttQOS", Any, ""),
    ("modules.eventBus.mqttRetain", Any, ""),
    (
        "modules.eventBus.mqttSessionQueueSize",
        Number(20, 1000),
        "applications would lose what comes together, or be cut off",
    ),
    (
        "modules.eventBus.maxConnections",
        Number(64, 1024),
        "applications and devices would find no place at the broker",
    ),
    (
        "modules.eventBus.maxConnectionsPerAddress",
        Number(16, 1024),
        "applications and devices would find no place at the broker",
    ),
    (
        "modules.eventBus.maxMessagesPerSecond",
        Number(500, 10_000),
        "applications would be held up, or one of them hold up edgecore",
    ),
    (
        "modules.eventBus.maxKeepAlive",
        NoneOrNumber(MINUTE, u16::MAX as u64),
        "clients that are well would be cut off",
    ),
    (
        "modules.eventBus.maxMessageBytes",
        Number(1 << 20, 16 << 20),
        "applications would be cut off, or the machine's memory be theirs",
    ),
    (
        "modules.eventBus.maxRetainedBytes",
        Number(4 << 20, 64 << 20),
        "retained messages would be refused, or the machine's memory be theirs",
    ),
    (
        "modules.serviceBus.timeout",
        Number(10, 600),
        "calls of applications would end before their answers come",
    ),
];

/// What keeps something from pods: of a job at most a half of what the machine has, all together.
const RESERVING: [&str; 4] = [
    "modules.edged.tailoredKubeletConfig.reservedSystemCPUs",
    "modules.edged.tailoredKubeletConfig.systemReserved",
    "modules.edged.tailoredKubeletConfig.kubeReserved",
    "modules.edged.tailoredKubeletConfig.evictionHard",
];

const OF_THE_CLOUD: &str = "it decides to which cloud the node belongs";
const REACHES: &str = "it decides whether the node reaches its cloud where UDP is blocked";
const IDENTITY: &str = "it is who the node is";
const FORM: &str = "it is the form of the file";
const PATH: &str = "it is where files of the node's machine lie";
const PROGRAMS: &str = "it would have the machine run programs";
const RUNTIME: &str = "it goes with the runtime of this machine";
const LISTENER: &str = "it decides where the node listens";
const ACCESS: &str = "it decides who may do what on the node";
const PODS: &str = "it decides what pods may do, and whose answers they believe";
const DATA: &str = "it decides to whom the data of devices go";
const TRACES: &str = "it decides to whom traces of what the node does go";
const REGISTERS: &str = "it counts only when the node registers: change its Node";
const CONSENT: &str = "it is this machine's own consent";
const SEEN_BY: &str = "it is where it is seen whether edgecore is well";
const NOTHING: &str = "it has no effect";

/// What no job may change, and why.
const CLOSED: [(&str, &str); 61] = [
    ("apiVersion", FORM),
    ("kind", FORM),
    ("database.dataSource", PATH),
    ("modules.edged.hostnameOverride", IDENTITY),
    ("modules.edged.nodeIP", IDENTITY),
    ("modules.edged.nodeLabels", REGISTERS),
    ("modules.edged.registerSchedulable", REGISTERS),
    ("modules.edged.rootDirectory", PATH),
    ("modules.edged.podSandboxImage", NOTHING),
    ("modules.edged.devicePluginPath", PATH),
    ("modules.edged.podResourcesPath", PATH),
    ("modules.edged.bootIDFile", PATH),
    ("modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint", RUNTIME),
    ("modules.edged.tailoredKubeletConfig.address", LISTENER),
    ("modules.edged.tailoredKubeletConfig.readOnlyPort", LISTENER),
    ("modules.edged.tailoredKubeletConfig.staticPodPath", PROGRAMS),
    ("modules.edged.tailoredKubeletConfig.podLogsDir", PATH),
    ("modules.edged.tailoredKubeletConfig.cgroupDriver", RUNTIME),
    ("modules.edged.tailoredKubeletConfig.clusterDomain", PODS),
    ("modules.edged.tailoredKubeletConfig.clusterDNS", PODS),
    ("modules.edged.tailoredKubeletConfig.resolvConf", PATH),
    ("modules.edged.tailoredKubeletConfig.allowedUnsafeSysctls", PODS),
    ("modules.edged.tailoredKubeletConfig.imagePullCredentialsVerificationPolicy", ACCESS),
    ("modules.edged.tailoredKubeletConfig.preloadedImagesVerificationAllowlist", ACCESS),
    ("modules.edged.tailoredKubeletConfig.registerWithTaints", REGISTERS),
    ("modules.edged.tailoredKubeletConfig.tracing", TRACES),
    ("modules.edgeHub.httpServer", OF_THE_CLOUD),
    ("modules.edgeHub.tlsCaFile", OF_THE_CLOUD),
    ("modules.edgeHub.tlsCertFile", IDENTITY),
    ("modules.edgeHub.tlsPrivateKeyFile", IDENTITY),
    ("modules.edgeHub.rotateCertificates", IDENTITY),
    ("modules.edgeHub.quic.server", OF_THE_CLOUD),
    ("modules.edgeHub.websocket.enable", REACHES),
    ("modules.edgeHub.websocket.server", OF_THE_CLOUD),
    ("modules.eventBus.mqttMode", DATA),
    ("modules.eventBus.mqttServerExternal", DATA),
    ("modules.eventBus.mqttUsername", IDENTITY),
    ("modules.eventBus.mqttPassword", IDENTITY),
    ("modules.eventBus.mqttSubClientID", IDENTITY),
    ("modules.eventBus.mqttPubClientID", IDENTITY),
    ("modules.eventBus.eventBusTLS", DATA),
    ("modules.eventBus.mqttServerInternal", LISTENER),
    ("modules.eventBus.unixSocket", LISTENER),
    ("modules.eventBus.tls", LISTENER),
    ("modules.eventBus.webSocket", LISTENER),
    ("modules.eventBus.allowAnonymous", ACCESS),
    ("modules.eventBus.passwordFile", ACCESS),
    ("modules.eventBus.aclFile", ACCESS),
    ("modules.deviceTwin.dmiSockPath", PATH),
    ("modules.deviceTwin.dmiSockGroup", ACCESS),
    ("modules.deviceTwin.mappers", ACCESS),
    ("modules.deviceTwin.mapperPorts", ACCESS),
    ("modules.deviceTwin.ruleCalls", ACCESS),
    ("modules.edgeStream", SEEN_BY),
    ("modules.edgePage", ACCESS),
    ("modules.serviceBus.enable", ACCESS),
    ("modules.serviceBus.server", LISTENER),
    ("modules.serviceBus.port", LISTENER),
    ("modules.serviceBus.tlsCertFile", PATH),
    ("modules.serviceBus.tlsPrivateKeyFile", PATH),
    ("modules.taskManager.enable", CONSENT),
];

fn covers(rule: &str, key: &str) -> bool {
    key.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether what stands at this path keeps something from pods.
pub(crate) fn is_reserving(path: &[String]) -> bool {
    let key = path.join(".");
    RESERVING.iter().any(|rule| covers(rule, &key))
}

/// Why no job may write this value at this path; `None`: it may, as far as the value is of its type.
pub(crate) fn refusal(path: &[String], value: &Value) -> Option<String> {
    let key = path.join(".");
    if let Some((_, why)) = CLOSED.iter().find(|(rule, _)| covers(rule, &key)) {
        return Some(format!("may be changed by no job: {why}"));
    }
    match OPEN.iter().find(|(rule, ..)| covers(rule, &key)) {
        None => Some("may be changed by no job: nobody has said that one may".to_owned()),
        Some((rule, within, why)) => {
            let signal = key.strip_prefix(rule).unwrap_or_default().trim_start_matches('.');
            within.excludes(signal, value).map(|may| format!("may be {may} by a job; beyond that {why}"))
        }
    }
}

impl Within {
    /// What a job may write, where this value is none of that. What is of another type is told elsewhere. `below`: what stands in the key
    /// behind the rule's.
    fn excludes(self, below: &str, value: &Value) -> Option<String> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let is_number = |least, most| value.as_u64().is_none_or(|own| (least..=most).contains(&own));
        let time = text.parse::<KubeletDuration>().ok();
        let of_seconds = KubeletDuration::from_secs;
        let is_time =
            |least, most| time.is_none_or(|time| (of_seconds(least)..=of_seconds(most)).contains(&time));
        let (fits, may) = match self {
            Any => (true, String::new()),
            Number(least, most) => (is_number(least, most), format!("{least} to {most}")),
            NoneOrNumber(least, most) => {
                let fits = value.as_u64() == Some(0) || is_number(least, most);
                (fits, format!("0 for none, or {least} to {most}"))
            }
            Seconds(least, most) => {
                (is_time(least, most), format!("{} to {}", of_seconds(least), of_seconds(most)))
            }
            NoneOrSeconds(least, most) => {
                let fits = time == Some(KubeletDuration::default()) || is_time(least, most);
                (fits, format!("0s for none, or {} to {}", of_seconds(least), of_seconds(most)))
            }
            Bytes(least, most) => {
                let is_in = |size: FileSize| size.0.is_some_and(|own| (least..=most).contains(&own));
                let shown = |bytes| FileSize(Some(bytes));
                (text.parse().ok().is_none_or(is_in), format!("{} to {}", shown(least), shown(most)))
            }
            Left(least, most) => {
                let is_right = |left| match left {
                    Threshold::Part(part) => (PERCENT..=50 * PERCENT).contains(&part),
                    Threshold::Amount(amount) => (least..=most).contains(&amount),
                };
                (text.parse().ok().is_none_or(is_right), left(least, most))
            }
            LeftOfSignals => {
                let one = |signal: &str, value: &Value| {
                    let most = most_left(signal);
                    let is_right = |left| match left {
                        Threshold::Part(part) => part <= 50 * PERCENT,
                        Threshold::Amount(amount) => amount <= most,
                    };
                    let wrong =
                        value.as_str().is_some_and(|text| text.parse().is_ok_and(|own| !is_right(own)));
                    wrong.then(|| left(0, most))
                };
                let wrong = match value.as_object() {
                    Some(signals) => signals.iter().find_map(|(signal, value)| one(signal, value)),
                    None => one(below, value),
                };
                (wrong.is_none(), wrong.unwrap_or_default())
            }
            Graces(most) => {
                let seconds = |group: &Value| group.get("shutdownGracePeriodSeconds").and_then(Value::as_u64);
                let groups = value.as_array().into_iter().flatten();
                let all = groups.filter_map(seconds).fold(0, u64::saturating_add);
                (all <= most, format!("no more than {} in all", of_seconds(most)))
            }
        };
        (!fits).then_some(may)
    }
}

/// How much a job may want left of a signal.
fn most_left(signal: &str) -> u64 {
    match signal {
        "memory.available" | "nodefs.available" | "imagefs.available" => IMAGES_LEFT,
        "pid.available" => PIDS_LEFT,
        _ => INODES_LEFT,
    }
}

fn left(least: u64, most: u64) -> String {
    let amount = |amount| Threshold::Amount(amount);
    match (least, most) {
        (0, most) => format!("no more than 50% or {}", amount(most)),
        (least, OF_MACHINE) => format!("no less than 1% or {}, and no more than 50%", amount(least)),
        (least, most) => format!("1% to 50%, or {} to {}", amount(least), amount(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::EdgeCore;
    use serde_json::json;

    fn leaves(at: &[String], tree: &Value, found: &mut Vec<Vec<String>>) {
        match tree.as_object().filter(|section| !section.is_empty()) {
            None => found.push(at.to_owned()),
            Some(section) => {
                for (key, value) in section {
                    leaves(&[at, std::slice::from_ref(key)].concat(), value, found);
                }
            }
        }
    }

    /// Whoever adds a setting decides whether a job may change it.
    #[test]
    fn each_setting_is_open_or_closed_and_no_rule_is_of_none() {
        let mut found = Vec::new();
        leaves(&[], &serde_json::to_value(EdgeCore::default()).unwrap(), &mut found);
        let open = OPEN.iter().map(|(rule, ..)| *rule);
        let rules: Vec<&str> = open.chain(CLOSED.iter().map(|(rule, _)| *rule)).collect();
        for path in &found {
            let of_it: Vec<&&str> = rules.iter().filter(|rule| covers(rule, &path.join("."))).collect();
            assert_eq!(of_it.len(), 1, "{path:?}: {of_it:?}");
        }
        for rule in rules.iter().chain(&RESERVING) {
            assert!(found.iter().any(|path| covers(rule, &path.join("."))), "{rule} is no setting");
        }
    }

    /// A bound that leaves the default out, or that is of another kind of value than the setting is, would be a slip.
    #[test]
    fn a_job_may_write_each_default_and_each_bound_excludes_something() {
        let mut found = Vec::new();
        let defaults = serde_json::to_value(EdgeCore::default()).unwrap();
        leaves(&[], &defaults, &mut found);
        for path in found {
            let key = path.join(".");
            let Some((_, within, why)) = OPEN.iter().find(|(rule, ..)| covers(rule, &key)) else { continue };
            let default = crate::values::at(&defaults, &path).unwrap();
            assert_eq!(within.excludes("", default), None, "{key}: {default}");
            let worst = match (default, within) {
                (Value::String(_), Left(..)) => json!("0%"),
                (_, LeftOfSignals) => json!({"pid.available": "51%"}),
                (Value::String(_), Bytes(..)) => json!("-1"),
                (Value::String(_), _) => json!("99999h"),
                (Value::Array(_), _) => json!([{"priority": 1, "shutdownGracePeriodSeconds": 99_999}]),
                _ => json!(u64::MAX),
            };
            assert_eq!(within.excludes("", &worst).is_some(), *within != Any, "{key}");
            assert_eq!(why.is_empty(), *within == Any, "{key}");
        }
    }

    fn refused(key: &str, value: &Value) -> Option<String> {
        refusal(&key.split('.').map(str::to_owned).collect::<Vec<_>>(), value)
    }

    #[test]
    fn no_value_of_a_job_shuts_out_the_cloud_or_the_applications_of_the_node() {
        let of_kubelet = |key: &str| format!("modules.edged.tailoredKubeletConfig.{key}");
        for (key, value, said) in [
            ("edgeHub.websocket.enable", json!(false), "by no job: it decides whether the node reaches"),
            ("edgeHub.heartbeat", json!(3600), "may be 1 to 60 by a job"),
            ("eventBus.maxConnections", json!(1), "may be 64 to 1024 by a job"),
            ("eventBus.maxConnectionsPerAddress", json!(1), "may be 16 to 1024"),
            ("eventBus.maxMessagesPerSecond", json!(10), "may be 500 to 10000"),
            ("eventBus.maxMessagesPerSecond", json!(0), "may be 500 to 10000"),
            ("eventBus.maxKeepAlive", json!(1), "may be 0 for none, or 60 to 65535"),
            ("eventBus.mqttSessionQueueSize", json!(1), "may be 20 to 1000"),
        ] {
            let why = refused(&format!("modules.{key}"), &value).unwrap_or_default();
            assert!(why.contains(said), "{key}: {why}");
        }
        for (key, value, said) in [
            ("maxPods", "0", "the node would take no pods"),
            ("evictionHard.nodefs.available", "\"0%\"", "may be no less than 1% or 64Mi"),
            ("evictionHard.memory.available", "\"1\"", "may be no less than 1% or 32Mi"),
            ("evictionHard.imagefs.inodesFree", "\"1e15\"", "may be 1% to 50%, or 1000 to 100000"),
            ("evictionHard.pid.available", "\"100%\"", "may be 1% to 50%"),
            ("evictionSoft.memory.available", "\"100%\"", "may be no more than 50% or 1024Mi"),
            ("evictionSoft", "{\"nodefs.inodesFree\": \"1e15\"}", "may be no more than 50% or 100000"),
            ("evictionMinimumReclaim.memory.available", "\"1e18\"", "may be no more than 50% or 1024Mi"),
            ("containerLogMaxSize", "\"-1\"", "may be 64Ki to 1024Mi"),
            ("imageMaximumGCAge", "\"1ns\"", "may be 0s for none, or 1h to 87600h"),
            ("shutdownGracePeriod", "\"11m\"", "may be 0s to 10m by a job"),
        ] {
            let why = refused(&of_kubelet(key), &serde_json::from_str(value).unwrap()).unwrap_or_default();
            assert!(why.contains(said), "{key}: {why}");
        }
        for (key, value) in [
            ("modules.eventBus.maxConnections".to_owned(), json!(64)),
            ("modules.eventBus.maxKeepAlive".to_owned(), json!(0)),
            ("modules.edgeHub.heartbeat".to_owned(), json!(60)),
            (of_kubelet("evictionHard.memory.available"), json!("5%")),
            (of_kubelet("imageMaximumGCAge"), json!("0s")),
        ] {
            assert_eq!(refused(&key, &value), None, "{key}");
        }
    }

    #[test]
    fn what_hands_the_node_over_is_closed_and_so_is_what_nobody_knows() {
        for (key, why) in [
            ("modules.edgeHub.quic.server", OF_THE_CLOUD),
            ("modules.edgeHub.tlsCaFile", OF_THE_CLOUD),
            ("modules.edged.tailoredKubeletConfig.staticPodPath", PROGRAMS),
            ("modules.eventBus.tls.certFile", LISTENER),
            ("modules.edgeStream.enable", SEEN_BY),
            ("modules.taskManager.enable", CONSENT),
        ] {
            let said = format!("may be changed by no job: {why}");
            assert_eq!(refused(key, &Value::Null), Some(said), "{key}");
        }
        for key in ["modules.edgeHub.heartbeatX", "modules", "modules.edgeHub", ""] {
            assert!(refused(key, &Value::Null).is_some(), "{key}");
        }
        for key in ["modules.edgeHub.heartbeat", "modules.edged.tailoredKubeletConfig.systemReserved.cpu"] {
            assert_eq!(refused(key, &Value::Null), None, "{key}");
        }
    }
}
