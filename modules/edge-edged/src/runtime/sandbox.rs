//! A pod's sandbox in the words of the runtime.

use std::collections::HashMap;
use std::path::Path;

use config::edge::CgroupDriver;
use cri::pods::{POD_NAME, POD_NAMESPACE, POD_UID};
use cri::v1::{LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use k8s_openapi::api::core::v1::{ContainerPort, PodSpec};

use crate::disk::layout;
use crate::error::StepError;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::runtime::bounds;
use crate::runtime::dns::{self, NodeDns};
use crate::runtime::hostname::{self, PodNames};
use crate::runtime::resources::Qos;
use crate::runtime::security;
use crate::runtime::sysctls;

/// Whose sandbox it is: several nodes may share one runtime.
pub(crate) const NODE: &str = "kubehive.io/node";

/// What a sandbox needs to know of its node.
#[derive(Debug, Clone)]
pub(crate) struct SandboxContext<'a> {
    pub(crate) node_name: &'a str,
    pub(crate) logs: &'a Path,
    pub(crate) dns: &'a NodeDns,
    pub(crate) cgroup_driver: CgroupDriver,
    pub(crate) cgroup_root: &'a str,
}

impl SandboxContext<'_> {
    /// What a pod is called here.
    pub(crate) fn names(&self, pod: &ParsedPod) -> PodNames {
        hostname::names(pod, self.node_name, &self.dns.cluster_domain)
    }
}

/// The labels by which everything of a pod is found again.
pub(crate) fn labels(id: &PodId, node: &str) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.to_owned(), id.name.clone()),
        (POD_NAMESPACE.to_owned(), id.namespace.clone()),
        (POD_UID.to_owned(), id.uid.clone()),
        (NODE.to_owned(), node.to_owned()),
    ])
}

pub(crate) fn config(
    pod: &ParsedPod,
    attempt: u32,
    place: &SandboxContext<'_>,
) -> Result<PodSandboxConfig, StepError> {
    let spec = pod.spec();
    let metadata = &pod.pod.metadata;
    let mut all_labels: HashMap<String, String> =
        metadata.labels.clone().unwrap_or_default().into_iter().collect();
    all_labels.extend(labels(&pod.id, place.node_name));
    let mut annotations: HashMap<String, String> =
        metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert("kubernetes.io/config.source".to_owned(), "api".to_owned());
    let sysctls = spec.security_context.as_ref().and_then(|own| own.sysctls.as_ref());
    let sysctls =
        sysctls.into_iter().flatten().map(|own| (sysctls::dotted(&own.name), own.value.clone())).collect();
    let (containers, overhead) = bounds::of_sandbox(spec);
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.id.name.clone(),
            uid: pod.id.uid.clone(),
            namespace: pod.id.namespace.clone(),
            attempt,
        }),
        hostname: hostname::of_kernel(pod, &place.names(pod))?,
        log_directory: place.logs.join(layout::pod_logs(&pod.id)).display().to_string(),
        dns_config: Some(dns::of_pod(&pod.id.namespace, spec, place.dns).0),
        port_mappings: ports(pod)?,
        labels: all_labels,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(&pod.id, pod.qos, place.cgroup_driver, place.cgroup_root),
            security_context: Some(security::of_sandbox(spec)),
            sysctls,
            overhead,
            resources: Some(containers),
        }),
    })
}

/// The ports of the containers that stay: those of an init container are gone before anybody asks.
pub(crate) fn lasting_ports(spec: &PodSpec) -> impl Iterator<Item = &ContainerPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten())
}

fn ports(pod: &ParsedPod) -> Result<Vec<PortMapping>, StepError> {
    let mut mappings = Vec::new();
    if pod.host_network() {
        return Ok(mappings);
    }
    for port in lasting_ports(pod.spec()) {
        let Some(host_port) = port.host_port.filter(|port| *port > 0) else { continue };
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => return Err(StepError::Config(format!("port protocol `{other}` is not known"))),
        };
        mappings.push(PortMapping {
            protocol: protocol.into(),
            container_port: port.container_port,
            host_port,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        });
    }
    Ok(mappings)
}

/// The pod's cgroup in the spelling of the driver; the class's cgroup lies between it and the root.
pub(crate) fn cgroup_parent(id: &PodId, qos: Qos, driver: CgroupDriver, root: &str) -> String {
    let parts = cgroup_parts(id, qos, root);
    match driver {
        CgroupDriver::Cgroupfs => format!("/{}", parts.join("/")),
        // systemd finds a slice's parents in its name, where `-` divides: inside a part it is written `_`.
        CgroupDriver::Systemd => {
            let parts: Vec<String> = parts.iter().map(|part| part.replace('-', "_")).collect();
            format!("{}.slice", parts.join("-"))
        }
    }
}

/// The cgroup's path in parts.
pub(crate) fn cgroup_parts(id: &PodId, qos: Qos, root: &str) -> Vec<String> {
    let mut parts: Vec<String> = root.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    match qos {
        Qos::Guaranteed => {}
        Qos::Burstable => parts.push("burstable".to_owned()),
        Qos::BestEffort => parts.push("besteffort".to_owned()),
    }
    parts.push(format!("pod{}", id.uid));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn place() -> SandboxContext<'static> {
        static DNS: std::sync::OnceLock<NodeDns> = std::sync::OnceLock::new();
        SandboxContext {
            node_name: "edge-1",
            logs: Path::new("/logs"),
            dns: DNS.get_or_init(NodeDns::default),
            cgroup_driver: CgroupDriver::Cgroupfs,
            cgroup_root: "/kubepods",
        }
    }

    #[test]
    fn a_sandbox_is_found_again_by_its_labels() {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x",
            "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}));
        let config = config(&pod, 2, &place()).unwrap();
        assert_eq!(config.labels[POD_UID], "u-1");
        assert_eq!(config.log_directory, "/logs/default_p_u-1");
        assert_eq!(config.hostname, "p");
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!(config.linux.unwrap().cgroup_parent, "/kubepods/besteffort/podu-1");
    }

    #[test]
    fn a_pod_on_the_nodes_network_gets_no_name_of_its_own() {
        let pod = pod(json!({"hostNetwork": true}));
        assert_eq!(config(&pod, 0, &place()).unwrap().hostname, "");
    }

    #[test]
    fn systemd_spells_the_cgroup_its_own_way() {
        let id = PodId { namespace: "n".into(), name: "p".into(), uid: "a-b".into() };
        let spelt = cgroup_parent(&id, Qos::Burstable, CgroupDriver::Systemd, "/kubepods");
        assert_eq!(spelt, "kubepods-burstable-poda_b.slice");
    }
}
