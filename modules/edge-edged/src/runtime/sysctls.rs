//! Which sysctls a pod may set: the kubelet's safe ones, what the administrator allows beside them, and neither where
//! the pod shares the namespace that they belong to with the node. Pure.
//!
//! The rules are those of Kubernetes 1.36 (pkg/kubelet/sysctl: safe_sysctls.go, allowlist.go, namespace.go).

use k8s_openapi::api::core::v1::PodSpec;

/// Names and the kernel from which on each is the pod's own.
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// The namespaces that sysctls belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

fn namespace(name: &str) -> Option<Namespace> {
    match name {
        "kernel.sem" => Some(Namespace::Ipc),
        _ if ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start)) => {
            Some(Namespace::Ipc)
        }
        _ if name.starts_with("net.") => Some(Namespace::Net),
        _ => None,
    }
}

/// A name as the kernel's tools have it. Where slashes part it, a dot is part of a name (`net/ipv4/conf/eth0.1/x`).
pub(crate) fn dotted(name: &str) -> String {
    match name.find(['.', '/']).and_then(|first| name.as_bytes().get(first)) {
        Some(b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// What pods may set on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sysctls {
    names: Vec<String>,
    starts: Vec<String>,
}

impl Sysctls {
    /// The safe ones of `kernel` (as `uname -r` has it), and those that the administrator allows.
    pub(crate) fn new(allowed: &[String], kernel: &str) -> Sysctls {
        let mut numbers = kernel.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let safe = SAFE.iter().filter(|(_, since)| kernel >= *since).map(|(name, _)| (*name).to_owned());
        let mut sysctls = Sysctls { names: safe.collect(), starts: Vec::new() };
        for pattern in allowed {
            let name = dotted(pattern);
            match name.strip_suffix('*') {
                Some(start) => sysctls.starts.push(start.to_owned()),
                None => sysctls.names.push(name),
            }
        }
        sysctls
    }

    /// Why the pod must not run, in the kubelet's words.
    pub(crate) fn refusal(&self, spec: &PodSpec) -> Option<String> {
        let wanted = spec.security_context.iter().filter_map(|own| own.sysctls.as_ref()).flatten();
        let (net, ipc) = (spec.host_network.unwrap_or(false), spec.host_ipc.unwrap_or(false));
        wanted.map(|sysctl| dotted(&sysctl.name)).find_map(|name| self.refuse(&name, net, ipc))
    }

    fn refuse(&self, name: &str, host_network: bool, host_ipc: bool) -> Option<String> {
        let shown: String = name.chars().take(64).collect();
        let known = self.names.iter().any(|own| own == name)
            || self.starts.iter().any(|start| name.starts_with(start.as_str()));
        let what = match namespace(name) {
            _ if !known => "not allowlisted",
            Some(Namespace::Net) if host_network => "not allowed with host Net enabled",
            Some(Namespace::Ipc) if host_ipc => "not allowed with host IPC enabled",
            Some(_) => return None,
            // A pattern that is too wide does not give away what is the whole machine's.
            None => "not allowlisted",
        };
        Some(format!("forbidden sysctl: {shown:?} {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::{Value, json};

    fn refusal(sysctls: &Sysctls, name: &str, more: Value) -> Option<String> {
        let mut spec = json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        sysctls.refusal(pod(spec).spec())
    }

    #[test]
    fn the_safe_ones_need_no_word_and_others_do() {
        let plain = Sysctls::new(&[], "6.1.0-18-amd64");
        let none = json!({});
        for name in ["kernel.shm_rmid_forced", "net.ipv4.tcp_rmem", "net/ipv4/tcp_syncookies"] {
            assert_eq!(refusal(&plain, name, none.clone()), None, "{name}");
        }
        for name in ["kernel.shmmax", "net.core.somaxconn", "vm.swappiness", "kernel.panic", ""] {
            assert_eq!(
                refusal(&plain, name, none.clone()),
                Some(format!("forbidden sysctl: {name:?} not allowlisted"))
            );
        }
        let old = Sysctls::new(&[], "4.4.0");
        assert!(refusal(&old, "net.ipv4.tcp_keepalive_time", none.clone()).is_some());
        assert_eq!(refusal(&old, "net.ipv4.ip_local_reserved_ports", none), None);
    }

    #[test]
    fn names_and_beginnings_are_allowed_and_never_what_is_the_machines() {
        let list = ["kernel.msg*", "net.*", "kernel/shmmax", "*"].map(str::to_owned);
        let wide = Sysctls::new(&list, "6.1.0");
        for name in ["kernel.msgmax", "net.core.somaxconn", "kernel.shmmax"] {
            assert_eq!(refusal(&wide, name, json!({})), None, "{name}");
        }
        assert!(refusal(&wide, "kernel.shmall2", json!({})).is_none());
        assert!(refusal(&wide, "vm.swappiness", json!({})).is_some());
        assert!(refusal(&wide, "kernel.core_pattern", json!({})).is_some());
    }

    #[test]
    fn what_the_pod_shares_with_the_node_is_not_its_own() {
        let list = ["kernel.msg*".to_owned()];
        let sysctls = Sysctls::new(&list, "6.1.0");
        assert_eq!(
            refusal(&sysctls, "net.ipv4.tcp_syncookies", json!({"hostNetwork": true})).unwrap(),
            "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled"
        );
        assert_eq!(
            refusal(&sysctls, "kernel.msgmax", json!({"hostIPC": true})).unwrap(),
            "forbidden sysctl: \"kernel.msgmax\" not allowed with host IPC enabled"
        );
        assert_eq!(refusal(&sysctls, "kernel.msgmax", json!({"hostNetwork": true})), None);
    }

    #[test]
    fn slashes_part_a_name_as_dots_do() {
        assert_eq!(dotted("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
        assert_eq!(dotted("net.ipv4.conf.eth0/1.x"), "net.ipv4.conf.eth0/1.x");
    }
}
