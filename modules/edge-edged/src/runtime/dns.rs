//! What a pod's resolver is told.

use std::path::Path;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::PodSpec;

/// The resolver's own limits (glibc and Kubernetes).
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// More of a resolv.conf is not read.
const FILE_MAX: u64 = 64 << 10;

/// What the node says about name resolution.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeDns {
    pub(crate) cluster_servers: Vec<String>,
    pub(crate) cluster_domain: String,
    /// The node's own resolver file.
    pub(crate) resolv_conf: String,
}

/// Reads the node's own resolver file; empty when it cannot be read or is too large. Blocks.
pub(crate) fn read_resolv_conf(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() <= FILE_MAX => std::fs::read_to_string(path).unwrap_or_default(),
        Ok(_) | Err(_) => String::new(),
    }
}

/// The node's own resolver file, as the runtime wants it.
fn host(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => config.searches = words.map(str::to_owned).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The pod's resolver, by its policy. Cluster-first without a cluster DNS falls back to the node's.
pub(crate) fn of_pod(namespace: &str, spec: &PodSpec, node: &NodeDns) -> DnsConfig {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let on_host = spec.host_network.unwrap_or(false);
    let cluster = match policy {
        "ClusterFirst" => !on_host,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = if policy == "None" { DnsConfig::default() } else { host(&node.resolv_conf) };
    if cluster && !node.cluster_servers.is_empty() {
        config.servers.clone_from(&node.cluster_servers);
        let domain = &node.cluster_domain;
        if !domain.is_empty() {
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.append(&mut config.searches);
            config.searches = searches;
        }
        config.options = vec!["ndots:5".to_owned()];
    }
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            config.options.retain(|old| old.split(':').next() != Some(name));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }
    dedup(&mut config.servers);
    dedup(&mut config.searches);
    config.servers.truncate(SERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    config
}

/// Whether the pod wanted the cluster's DNS and there is none.
pub(crate) fn misses_cluster_dns(spec: &PodSpec, node: &NodeDns) -> bool {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let wanted = policy == "ClusterFirstWithHostNet"
        || (policy == "ClusterFirst" && !spec.host_network.unwrap_or(false));
    wanted && node.cluster_servers.is_empty()
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(json: serde_json::Value) -> PodSpec {
        let mut json = json;
        json["containers"] = json!([]);
        serde_json::from_value(json).unwrap()
    }

    fn node(servers: &[&str]) -> NodeDns {
        NodeDns {
            cluster_servers: servers.iter().map(|s| (*s).to_owned()).collect(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "# node\nnameserver 192.0.2.1\nsearch lan\noptions edns0\n".into(),
        }
    }

    #[test]
    fn the_policy_decides() {
        let cluster = of_pod("ns", &spec(json!({})), &node(&["10.0.0.10"]));
        assert_eq!(cluster.servers, ["10.0.0.10"]);
        assert_eq!(cluster.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(cluster.options, ["ndots:5"]);
        let edge = of_pod("ns", &spec(json!({})), &node(&[]));
        assert_eq!((edge.servers, edge.searches), (vec!["192.0.2.1".to_owned()], vec!["lan".to_owned()]));
        let on_host = of_pod("ns", &spec(json!({"hostNetwork": true})), &node(&["10.0.0.10"]));
        assert_eq!(on_host.servers, ["192.0.2.1"]);
        let none = of_pod(
            "ns",
            &spec(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "options": [{"name": "ndots", "value": "2"}]}})),
            &node(&["10.0.0.10"]),
        );
        assert_eq!((none.servers, none.options), (vec!["1.1.1.1".to_owned()], vec!["ndots:2".to_owned()]));
    }
}
