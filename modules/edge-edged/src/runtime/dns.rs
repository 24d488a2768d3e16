//! What a pod's resolver is told.

use std::collections::BTreeSet;
use std::path::Path;

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::PodSpec;

/// The resolver's own limits (glibc and Kubernetes).
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// All search domains together, with a blank between them, and one of them.
const SEARCH_LINE_MAX: usize = 2048;
const SEARCH_MAX: usize = 253;
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

/// The node's own resolver file, as the runtime wants it: the kubelet's `parseResolvConf`. Servers and options add up, of
/// search lines the last one counts, and `domain` is not read.
fn host(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let plain = |word: &str| word.strip_suffix('.').unwrap_or(word).to_owned();
                config.searches = words.filter(|word| *word != ".").map(plain).collect();
            }
            Some("options") => words.for_each(|option| merge_option(&mut config.options, option.to_owned())),
            _ => {}
        }
    }
    config
}

/// An option takes the place of another one of its name.
fn merge_option(options: &mut Vec<String>, option: String) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let own = name(&option);
    options.retain(|old| name(old) != own);
    options.push(option);
}

/// The pod's resolver, by its policy, and what of it finds no room, in the kubelet's words. Cluster-first without a cluster
/// DNS falls back to the node's.
pub(crate) fn of_pod(namespace: &str, spec: &PodSpec, node: &NodeDns) -> (DnsConfig, Vec<String>) {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut config = if policy == "None" { DnsConfig::default() } else { host(&node.resolv_conf) };
    if wants_cluster_dns(spec) && !node.cluster_servers.is_empty() {
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
            merge_option(
                &mut config.options,
                match &option.value {
                    Some(value) => format!("{name}:{value}"),
                    None => name.to_owned(),
                },
            );
        }
    }
    let left_out = bound(&mut config);
    (config, left_out)
}

/// Leaves out what the resolver would not read.
fn bound(config: &mut DnsConfig) -> Vec<String> {
    dedup(&mut config.servers);
    dedup(&mut config.searches);
    let mut left_out = Vec::new();
    if config.servers.len() > SERVERS_MAX {
        config.servers.truncate(SERVERS_MAX);
        left_out.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        ));
    }
    let all = config.searches.len();
    let mut length = 0;
    let mut kept: Vec<String> = Vec::new();
    for search in config.searches.drain(..).filter(|search| search.len() <= SEARCH_MAX) {
        let after = length + search.len() + usize::from(!kept.is_empty());
        if kept.len() == SEARCHES_MAX || after > SEARCH_LINE_MAX {
            break;
        }
        length = after;
        kept.push(search);
    }
    config.searches = kept;
    if config.searches.len() < all {
        left_out.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        ));
    }
    left_out
}

fn wants_cluster_dns(spec: &PodSpec) -> bool {
    match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" => !spec.host_network.unwrap_or(false),
        policy => policy == "ClusterFirstWithHostNet",
    }
}

/// Whether the pod wanted the cluster's DNS and there is none.
pub(crate) fn misses_cluster_dns(spec: &PodSpec, node: &NodeDns) -> bool {
    wants_cluster_dns(spec) && node.cluster_servers.is_empty()
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
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
        let (cluster, left_out) = of_pod("ns", &spec(json!({})), &node(&["10.0.0.10"]));
        assert_eq!((cluster.servers, left_out), (vec!["10.0.0.10".to_owned()], vec![]));
        assert_eq!(cluster.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(cluster.options, ["ndots:5"]);
        let (edge, _) = of_pod("ns", &spec(json!({})), &node(&[]));
        assert_eq!((edge.servers, edge.searches), (vec!["192.0.2.1".to_owned()], vec!["lan".to_owned()]));
        let (on_host, _) = of_pod("ns", &spec(json!({"hostNetwork": true})), &node(&["10.0.0.10"]));
        assert_eq!(on_host.servers, ["192.0.2.1"]);
        let (none, _) = of_pod(
            "ns",
            &spec(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "options": [{"name": "ndots", "value": "2"}]}})),
            &node(&["10.0.0.10"]),
        );
        assert_eq!((none.servers, none.options), (vec!["1.1.1.1".to_owned()], vec!["ndots:2".to_owned()]));
    }
    #[test]
    fn the_nodes_file_is_read_as_the_kubelet_reads_it() {
        let text = "; x\n# y\ndomain lan\nnameserver 192.0.2.1 # here\n nameserver 192.0.2.2\nsearch old\n\
                    search a.example. . b\noptions ndots:1 rotate\noptions ndots:2\n";
        let read = host(text);
        assert_eq!(read.servers, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(read.searches, ["a.example", "b"]);
        assert_eq!(read.options, ["rotate", "ndots:2"]);
    }

    #[test]
    fn what_finds_no_room_is_told() {
        let searches: Vec<String> = (0..40).map(|at| format!("s{at}.example")).collect();
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"searches": searches,
            "nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.1", "1.1.1.3", "1.1.1.4"]}});
        let (config, left_out) = of_pod("ns", &spec(own), &node(&[]));
        assert_eq!(config.servers, ["1.1.1.1", "1.1.1.2", "1.1.1.3"]);
        assert_eq!(config.searches.len(), 32);
        assert!(
            left_out[0].ends_with("the applied nameserver line is: 1.1.1.1 1.1.1.2 1.1.1.3"),
            "{left_out:?}"
        );
        assert!(left_out[1].starts_with("Search Line limits were exceeded"), "{left_out:?}");
        let long = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "searches": ["x".repeat(254), "y".repeat(253), "a"]}});
        let (config, left_out) = of_pod("ns", &spec(long), &node(&[]));
        assert_eq!((config.searches.len(), left_out.len()), (2, 1));
        let many: Vec<String> = (0..9).map(|at| format!("{at}{}", "z".repeat(250))).collect();
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"searches": many}});
        assert_eq!(of_pod("ns", &spec(own), &node(&[])).0.searches.len(), 8, "2048 characters in all");
    }
}
