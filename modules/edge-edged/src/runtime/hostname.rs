//! What a pod is called in its own network. Pure.

use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;

/// A DNS label has no more: longer names are cut.
const LABEL_MAX: usize = 63;
/// Linux's own limit for a host name.
const HOSTNAME_MAX: usize = 64;

/// A pod's name and the domain in which it has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodNames {
    pub(crate) host: String,
    /// Empty: the pod is in none.
    pub(crate) domain: String,
}

impl PodNames {
    /// The name with its domain, if there is one.
    pub(crate) fn full(&self) -> Option<String> {
        (!self.domain.is_empty()).then(|| format!("{}.{}", self.host, self.domain))
    }
}

/// The names of a pod in a cluster of that domain: the kubelet's `GeneratePodHostNameAndDomain`.
pub(crate) fn names(pod: &ParsedPod, node_name: &str, cluster_domain: &str) -> PodNames {
    let spec = pod.spec();
    // On the node's network the name is the node's.
    if pod.host_network() {
        return PodNames { host: node_name.to_owned(), domain: String::new() };
    }
    if let Some(name) = pod.newer.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return PodNames { host: cut(name), domain: String::new() };
    }
    let given = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let domain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let domain = domain.map(|name| match cluster_domain {
        "" => format!("{name}.{}.svc", pod.id.namespace),
        cluster => format!("{name}.{}.svc.{cluster}", pod.id.namespace),
    });
    PodNames { host: cut(given.unwrap_or(&pod.id.name)), domain: domain.unwrap_or_default() }
}

fn cut(name: &str) -> String {
    let cut: String = name.chars().take(LABEL_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The name that the kernel gives the pod; empty on the node's network, where it is not the pod's to set.
///
/// # Errors
/// When the full name that the pod asks for is longer than the kernel takes.
pub(crate) fn of_kernel(pod: &ParsedPod, names: &PodNames) -> Result<String, StepError> {
    if pod.host_network() {
        return Ok(String::new());
    }
    let full = names.full().filter(|_| pod.spec().set_hostname_as_fqdn == Some(true));
    let name = full.unwrap_or_else(|| names.host.clone());
    if name.len() > HOSTNAME_MAX {
        return Err(StepError::Config(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({HOSTNAME_MAX} \
             characters is the max, {} characters requested)",
            name.len()
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn of(spec: Value) -> (PodNames, Result<String, StepError>) {
        let pod = pod(spec);
        let names = names(&pod, "edge-1", "cluster.local");
        let kernel = of_kernel(&pod, &names);
        (names, kernel)
    }

    #[test]
    fn a_pod_is_called_as_it_asks() {
        for (spec, host, domain, kernel) in [
            (json!({}), "p", "", "p"),
            (json!({"hostname": "h"}), "h", "", "h"),
            (json!({"hostname": "h", "subdomain": "s"}), "h", "s.default.svc.cluster.local", "h"),
            (
                json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
                "h",
                "s.default.svc.cluster.local",
                "h.s.default.svc.cluster.local",
            ),
            (json!({"setHostnameAsFQDN": true}), "p", "", "p"),
            (json!({"subdomain": "s", "hostnameOverride": "plc.example"}), "plc.example", "", "plc.example"),
            (json!({"hostNetwork": true, "hostname": "h"}), "edge-1", "", ""),
        ] {
            let (names, own) = of(spec.clone());
            assert_eq!((names.host.as_str(), names.domain.as_str()), (host, domain), "{spec}");
            assert_eq!(own.unwrap(), kernel, "{spec}");
        }
        let (names, _) = of(json!({"hostname": format!("{}-y", "x".repeat(62))}));
        assert_eq!(names.host, "x".repeat(62), "cut, without what cannot end a name");
    }

    #[test]
    fn a_full_name_that_the_kernel_does_not_take_is_refused() {
        let long = "x".repeat(40);
        let (_, own) = of(json!({"hostname": long, "subdomain": "peers", "setHostnameAsFQDN": true}));
        let words = own.unwrap_err().to_string();
        assert!(
            words.ends_with("is too long (64 characters is the max, 72 characters requested)"),
            "{words}"
        );
    }
}
