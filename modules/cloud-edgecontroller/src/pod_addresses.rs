//! Which addresses a node may say of its pods. Pure.
//!
//! Others send to them: who reaches a Service, a monitoring that asks each pod, a proxy. API servers themselves refuse the
//! Endpoints of a Service that has one of a machine's own addresses in it, with all the others.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::reported_fields::LeftOut;

/// Which addresses pods of edge nodes may have (`modules.edgeController.podAddresses`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodAddresses {
    /// Any but those that mean another machine on each machine: loopback, link-local, multicast and none.
    Any,
    /// Of these those of their Node: within its `podCIDRs` where it has them, or for pods of the host's network its own.
    OfNode,
}

/// Leaves out of a pod's status the addresses that its node may not say. Without any left it says nothing of addresses.
pub(crate) fn bound(
    status: &mut Value,
    pod: &Pod,
    node: Option<&Value>,
    rule: PodAddresses,
    left_out: &mut LeftOut,
) {
    let listed = status["podIPs"].as_array().into_iter().flatten().filter_map(|one| one["ip"].as_str());
    let mut said: Vec<&str> = listed.collect();
    if let Some(first) = status["podIP"].as_str()
        && !said.contains(&first)
    {
        said.insert(0, first);
    }
    let allowed = Allowed::of(pod, node, rule);
    let fits = |text: &&&str| text.parse().is_ok_and(|address| allowed.has(address));
    let kept: Vec<String> = said.iter().filter(fits).map(|text| (*text).to_owned()).collect();
    if kept.len() == said.len() {
        return;
    }
    for text in said.iter().filter(|text| !fits(text)) {
        left_out.add(format!("podIPs {text}"));
    }
    let Some(fields) = status.as_object_mut() else { return };
    match kept.first() {
        Some(first) => {
            fields.insert("podIP".to_owned(), json!(first));
            let all: Vec<Value> = kept.iter().map(|ip| json!({ "ip": ip })).collect();
            fields.insert("podIPs".to_owned(), Value::Array(all));
        }
        None => {
            fields.remove("podIP");
            fields.remove("podIPs");
        }
    }
}

/// Whether the address means another machine on each machine, or none.
fn is_everywhere(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()
        }
    }
}

/// `None`: it is not bounded by that.
struct Allowed {
    ranges: Option<Vec<(IpAddr, u32)>>,
    own: Option<Vec<IpAddr>>,
}

impl Allowed {
    fn of(pod: &Pod, node: Option<&Value>, rule: PodAddresses) -> Allowed {
        let node = node.filter(|_| rule == PodAddresses::OfNode);
        let texts = |at: &str, field: &str| -> Vec<String> {
            let list = node.and_then(|node| node.pointer(at)).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|one| one.get(field).unwrap_or(one).as_str()).map(str::to_owned).collect()
        };
        if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
            let own: Vec<IpAddr> =
                texts("/status/addresses", "address").iter().filter_map(|text| text.parse().ok()).collect();
            return Allowed { ranges: None, own: (!own.is_empty()).then_some(own) };
        }
        let ranges = texts("/spec/podCIDRs", "");
        let parsed: Vec<(IpAddr, u32)> = ranges.iter().filter_map(|text| range(text)).collect();
        Allowed { ranges: (!ranges.is_empty()).then_some(parsed), own: None }
    }

    fn has(&self, address: IpAddr) -> bool {
        !is_everywhere(address)
            && self.own.as_ref().is_none_or(|own| own.contains(&address))
            && self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| is_within(address, *range)))
    }
}

fn range(text: &str) -> Option<(IpAddr, u32)> {
    let (base, bits) = text.split_once('/')?;
    Some((base.parse().ok()?, bits.parse().ok()?))
}

fn is_within(address: IpAddr, (base, bits): (IpAddr, u32)) -> bool {
    let (address, base, width) = match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            (u128::from(address.to_bits()), u128::from(base.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => (address.to_bits(), base.to_bits(), 128),
        _ => return false,
    };
    let free = u32::saturating_sub(width, bits);
    bits <= width && address.checked_shr(free).unwrap_or(0) == base.checked_shr(free).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(said: Value, host_network: bool, node: Value, rule: PodAddresses) -> (Value, usize) {
        let pod = json!({"spec": {"hostNetwork": host_network, "containers": []}});
        let (mut status, mut left_out) = (said, LeftOut::default());
        bound(&mut status, &serde_json::from_value(pod).unwrap(), Some(&node), rule, &mut left_out);
        (status, left_out.count())
    }

    fn said(ips: &[&str]) -> Value {
        let all: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        json!({"phase": "Running", "podIP": ips[0], "podIPs": all})
    }

    fn node() -> Value {
        json!({"spec": {"podCIDRs": ["10.1.2.0/24", "fd00:1::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n"}]}})
    }

    #[test]
    fn no_pod_has_an_address_that_each_machine_has() {
        for rule in [PodAddresses::Any, PodAddresses::OfNode] {
            for address in [
                "127.0.0.1",
                "0.0.0.0",
                "169.254.169.254",
                "224.0.0.1",
                "255.255.255.255",
                "::1",
                "::",
                "fe80::1",
                "ff02::1",
                "::ffff:127.0.0.1",
            ] {
                for host_network in [false, true] {
                    let (left, count) = bounded(said(&[address]), host_network, json!({}), rule);
                    assert_eq!((left, count), (json!({"phase": "Running"}), 1), "{address}");
                }
            }
        }
        let (left, count) = bounded(said(&["127.0.0.1", "10.9.9.9"]), false, node(), PodAddresses::Any);
        assert_eq!((left, count), (said(&["10.9.9.9"]), 1));
        let alone = json!({"podIP": "::1"});
        assert_eq!(bounded(alone, false, node(), PodAddresses::Any), (json!({}), 1));
        assert_eq!(
            bounded(json!({"phase": "x"}), false, node(), PodAddresses::Any),
            (json!({"phase": "x"}), 0)
        );
    }

    #[test]
    fn a_range_that_the_cloud_does_not_know_holds_where_nobody_bounds_it() {
        let honest = said(&["172.17.0.2"]);
        assert_eq!(bounded(honest.clone(), false, node(), PodAddresses::Any), (honest.clone(), 0));
        assert_eq!(bounded(honest.clone(), false, json!({}), PodAddresses::OfNode), (honest.clone(), 0));
        assert_eq!(bounded(honest, false, node(), PodAddresses::OfNode), (json!({"phase": "Running"}), 1));
    }

    #[test]
    fn a_pod_has_an_address_of_its_nodes_range_or_on_the_hosts_network_the_nodes_own() {
        let fits = |address: &str, host_network: bool| {
            bounded(said(&[address]), host_network, node(), PodAddresses::OfNode).1 == 0
        };
        for address in ["10.1.2.0", "10.1.2.255", "fd00:1::7"] {
            assert!(fits(address, false) && !fits(address, true), "{address}");
        }
        for address in ["10.1.3.0", "10.1.1.255", "fd00:1:0:1::7", "10.96.0.1"] {
            assert!(!fits(address, false), "{address}");
        }
        assert!(fits("192.0.2.1", true) && !fits("192.0.2.2", true) && !fits("192.0.2.1", false));
        let all = json!({"spec": {"podCIDRs": ["0.0.0.0/0"]}});
        assert_eq!(bounded(said(&["8.8.8.8"]), false, all, PodAddresses::OfNode).1, 0);
        let odd = json!({"spec": {"podCIDRs": ["10.0.0.0/99"]}});
        assert_eq!(bounded(said(&["10.0.0.1"]), false, odd, PodAddresses::OfNode).1, 1);
    }
}
