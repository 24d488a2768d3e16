//! Which settings of a node a job of the cloud may change. What would hand the node to somebody else, have it run programs, or change who
//! it is, whom it lets in and where its files lie is for whoever has its machine; so is what nobody has decided about.

/// What a job may change: how often, how much and how long.
const OPEN: [&str; 44] = [
    "modules.edged.maxPerPodContainerCount",
    "modules.edged.minimumGCAge",
    "modules.edged.tailoredKubeletConfig.fileCheckFrequency",
    "modules.edged.tailoredKubeletConfig.memorySwap",
    "modules.edged.tailoredKubeletConfig.maxPods",
    "modules.edged.tailoredKubeletConfig.containerLogMaxSize",
    "modules.edged.tailoredKubeletConfig.containerLogMaxFiles",
    "modules.edged.tailoredKubeletConfig.containerLogMonitorInterval",
    "modules.edged.tailoredKubeletConfig.imageGCHighThresholdPercent",
    "modules.edged.tailoredKubeletConfig.imageGCLowThresholdPercent",
    "modules.edged.tailoredKubeletConfig.imageMinimumGCAge",
    "modules.edged.tailoredKubeletConfig.imageMaximumGCAge",
    "modules.edged.tailoredKubeletConfig.evictionHard",
    "modules.edged.tailoredKubeletConfig.evictionSoft",
    "modules.edged.tailoredKubeletConfig.evictionSoftGracePeriod",
    "modules.edged.tailoredKubeletConfig.evictionMinimumReclaim",
    "modules.edged.tailoredKubeletConfig.evictionPressureTransitionPeriod",
    "modules.edged.tailoredKubeletConfig.evictionMaxPodGracePeriod",
    "modules.edged.tailoredKubeletConfig.shutdownGracePeriod",
    "modules.edged.tailoredKubeletConfig.shutdownGracePeriodCriticalPods",
    "modules.edged.tailoredKubeletConfig.shutdownGracePeriodByPodPriority",
    "modules.edged.tailoredKubeletConfig.systemReserved",
    "modules.edged.tailoredKubeletConfig.kubeReserved",
    "modules.edged.tailoredKubeletConfig.cpuManagerPolicy",
    "modules.edged.tailoredKubeletConfig.cpuManagerPolicyOptions",
    "modules.edged.tailoredKubeletConfig.cpuManagerReconcilePeriod",
    "modules.edged.tailoredKubeletConfig.reservedSystemCPUs",
    "modules.edged.tailoredKubeletConfig.memoryManagerPolicy",
    "modules.edged.tailoredKubeletConfig.reservedMemory",
    "modules.edged.tailoredKubeletConfig.volumeStatsAggPeriod",
    "modules.edged.tailoredKubeletConfig.topologyManagerPolicy",
    "modules.edged.tailoredKubeletConfig.topologyManagerScope",
    "modules.edgeHub.heartbeat",
    "modules.edgeHub.websocket.enable",
    "modules.eventBus.mqttQOS",
    "modules.eventBus.mqttRetain",
    "modules.eventBus.mqttSessionQueueSize",
    "modules.eventBus.maxConnections",
    "modules.eventBus.maxConnectionsPerAddress",
    "modules.eventBus.maxMessagesPerSecond",
    "modules.eventBus.maxKeepAlive",
    "modules.eventBus.maxMessageBytes",
    "modules.eventBus.maxRetainedBytes",
    "modules.serviceBus.timeout",
];

const OF_THE_CLOUD: &str = "it decides to which cloud the node belongs";
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
const CLOSED: [(&str, &str); 60] = [
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

/// Why no job may change what stands at this path; `None`: it may.
pub(crate) fn refusal(path: &[String]) -> Option<&'static str> {
    let key = path.join(".");
    let covers =
        |rule: &str| key.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if let Some((_, why)) = CLOSED.iter().find(|(rule, _)| covers(rule)) {
        return Some(why);
    }
    match OPEN.iter().any(|rule| covers(rule)) {
        true => None,
        false => Some("nobody has said that one may"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::EdgeCore;
    use serde_json::Value;

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
        let rules: Vec<&str> = OPEN.iter().copied().chain(CLOSED.iter().map(|(rule, _)| *rule)).collect();
        let covers = |rule: &str, path: &[String]| {
            let key = path.join(".");
            key == rule || key.starts_with(&format!("{rule}."))
        };
        for path in &found {
            let of_it: Vec<&&str> = rules.iter().filter(|rule| covers(rule, path)).collect();
            assert_eq!(of_it.len(), 1, "{path:?}: {of_it:?}");
        }
        for rule in &rules {
            assert!(found.iter().any(|path| covers(rule, path)), "{rule} is no setting");
        }
    }

    #[test]
    fn what_hands_the_node_over_is_closed_and_so_is_what_nobody_knows() {
        let refusal = |key: &str| refusal(&key.split('.').map(str::to_owned).collect::<Vec<_>>());
        for (key, why) in [
            ("modules.edgeHub.quic.server", OF_THE_CLOUD),
            ("modules.edgeHub.tlsCaFile", OF_THE_CLOUD),
            ("modules.edged.tailoredKubeletConfig.staticPodPath", PROGRAMS),
            ("modules.eventBus.tls.certFile", LISTENER),
            ("modules.edgeStream.enable", SEEN_BY),
            ("modules.taskManager.enable", CONSENT),
        ] {
            assert_eq!(refusal(key), Some(why), "{key}");
        }
        for key in ["modules.edgeHub.heartbeatX", "modules", "modules.edgeHub", ""] {
            assert!(refusal(key).is_some(), "{key}");
        }
        for key in ["modules.edgeHub.heartbeat", "modules.edged.tailoredKubeletConfig.systemReserved.cpu"] {
            assert_eq!(refusal(key), None, "{key}");
        }
    }
}
