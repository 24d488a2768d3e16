//! Ports of the node that pods take. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodSpec;

use crate::runtime::sandbox::lasting_ports;

/// Every address of the node.
const ANY: &str = "0.0.0.0";

/// The ports that are taken: (port, protocol, address).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostPorts(BTreeSet<(i32, String, String)>);

impl HostPorts {
    /// Those that a pod wants.
    pub(crate) fn of_pod(spec: &PodSpec) -> HostPorts {
        let wanted = lasting_ports(spec).filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY.to_owned());
            Some((number, protocol, ip))
        });
        HostPorts(wanted.collect())
    }

    /// Whether one of `other` is taken: the same port of the same protocol, at the same address or at any.
    pub(crate) fn clash_with(&self, other: &HostPorts) -> bool {
        let clash = |(port, protocol, ip): &(i32, String, String)| {
            let same = |taken: &&(i32, String, String)| taken.0 == *port && taken.1 == *protocol;
            self.0.iter().filter(same).any(|taken| taken.2 == *ip || taken.2 == ANY || ip == ANY)
        };
        other.0.iter().any(clash)
    }

    /// Takes more.
    pub(crate) fn add(&mut self, other: HostPorts) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn ports(list: Value) -> HostPorts {
        HostPorts::of_pod(pod(json!({"containers": [{"name": "c", "image": "x", "ports": list}]})).spec())
    }

    #[test]
    fn ports_clash_by_number_protocol_and_address() {
        let port = |more: Value| {
            let mut port = json!({"containerPort": 80, "hostPort": 8080});
            for (key, value) in more.as_object().unwrap() {
                port[key] = value.clone();
            }
            port
        };
        let taken = ports(json!([port(json!({"hostIP": "192.0.2.1"}))]));
        for (other, clash) in [
            (json!({}), true),
            (json!({"hostIP": "192.0.2.1"}), true),
            (json!({"hostIP": "192.0.2.2"}), false),
            (json!({"hostIP": "0.0.0.0"}), true),
            (json!({"protocol": "UDP"}), false),
            (json!({"hostPort": 8081}), false),
            (json!({"hostPort": 0}), false),
        ] {
            assert_eq!(taken.clash_with(&ports(json!([port(other.clone())]))), clash, "{other}");
        }
        let mut more = taken;
        more.add(ports(json!([port(json!({"hostPort": 9}))])));
        assert!(more.clash_with(&ports(json!([port(json!({"hostPort": 9, "hostIP": "192.0.2.7"}))]))));
    }

    #[test]
    fn an_init_container_takes_none_and_a_sidecar_does() {
        let init = |more: Value| {
            let mut init = json!({"name": "i", "image": "x", "ports": [{"containerPort": 1, "hostPort": 1}]});
            for (key, value) in more.as_object().unwrap() {
                init[key] = value.clone();
            }
            HostPorts::of_pod(pod(json!({"initContainers": [init]})).spec())
        };
        assert_eq!(init(json!({})), HostPorts::default());
        assert_ne!(init(json!({"restartPolicy": "Always"})), HostPorts::default());
    }
}
