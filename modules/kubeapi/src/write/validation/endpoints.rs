//! Endpoints and EndpointSlices (Kubernetes: `ValidateEndpoints`, `pkg/apis/discovery/validation`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::metadata::{bad_key, bad_name};
use super::objects::enumerated;
use super::references::bad_subdomain;
use crate::error::FieldError;
use crate::kind::NameRule;
use crate::unstructured::{list, text};

/// 1,000 endpoints of a slice, 100 addresses of each, 20,000 ports.
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What is wrong with the address of an endpoint: those that mean the reader himself, or what is beside him, are nobody's
/// (Kubernetes: `ValidateEndpointIP`).
pub fn bad_endpoint_address(address: &str) -> Option<String> {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned());
    };
    let (link_local, link_multicast) = match ip.to_canonical() {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let what = match ip.to_canonical() {
        ip if ip.is_unspecified() => return Some(format!("may not be unspecified ({address})")),
        ip if ip.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        _ if link_local => "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        _ if link_multicast => "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        _ => return None,
    };
    Some(what.to_owned())
}

/// Everything that is wrong with an Endpoints.
pub(super) fn endpoints(object: &Value, causes: &mut Vec<FieldError>) {
    for (at, subset) in list(object, "/subsets").iter().enumerate() {
        let here = format!("subsets[{at}]");
        let (ready, not_ready) = (list(subset, "/addresses"), list(subset, "/notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            let what = "must specify `addresses` or `notReadyAddresses`";
            causes.push(FieldError::required(&here, what));
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (at, address) in addresses.iter().enumerate() {
                self::address(address, &format!("{here}.{field}[{at}]"), causes);
            }
        }
        let ports = list(subset, "/ports");
        for (at, port) in ports.iter().enumerate() {
            self::port(port, ports.len() > 1, &format!("{here}.ports[{at}]"), causes);
        }
    }
}

fn address(address: &Value, here: &str, causes: &mut Vec<FieldError>) {
    let ip = text(address, "/ip");
    if let Some(what) = bad_endpoint_address(ip) {
        causes.push(FieldError::invalid(format!("{here}.ip"), &json!(ip), &what));
    }
    host_name(address, here, causes);
    let node = text(address, "/nodeName");
    if let Some(what) = bad_subdomain(node).filter(|_| address.get("nodeName").is_some()) {
        causes.push(FieldError::invalid(format!("{here}.nodeName"), &json!(node), what));
    }
}

fn host_name(of: &Value, here: &str, causes: &mut Vec<FieldError>) {
    let name = text(of, "/hostname");
    if let Some(what) = bad_name(NameRule::Label, name).filter(|_| !name.is_empty()) {
        causes.push(FieldError::invalid(format!("{here}.hostname"), &json!(name), what));
    }
}

fn port(port: &Value, needs_name: bool, here: &str, causes: &mut Vec<FieldError>) {
    let name = text(port, "/name");
    if name.is_empty() {
        if needs_name {
            causes.push(FieldError::required(format!("{here}.name"), ""));
        }
    } else if let Some(what) = bad_name(NameRule::Label, name) {
        causes.push(FieldError::invalid(format!("{here}.name"), &json!(name), what));
    }
    number(&port["port"], here, causes);
    enumerated(port, here, "protocol", &PROTOCOLS, causes);
    app_protocol(port, here, causes);
}

fn number(number: &Value, here: &str, causes: &mut Vec<FieldError>) {
    if !number.as_i64().is_some_and(|number| (1..=65535).contains(&number)) {
        let what = "must be between 1 and 65535, inclusive";
        causes.push(FieldError::invalid(format!("{here}.port"), number, what));
    }
}

fn app_protocol(port: &Value, here: &str, causes: &mut Vec<FieldError>) {
    let protocol = text(port, "/appProtocol");
    if let Some(what) = bad_key(protocol).filter(|_| !protocol.is_empty()) {
        causes.push(FieldError::invalid(format!("{here}.appProtocol"), &json!(protocol), what));
    }
}

/// Everything that is wrong with an EndpointSlice, new or in the place of `old`.
pub(super) fn slice(old: Option<&Value>, object: &Value, causes: &mut Vec<FieldError>) {
    let family = text(object, "/addressType");
    if family.is_empty() {
        causes.push(FieldError::required("addressType", ""));
    } else {
        enumerated(object, "", "addressType", &["FQDN", "IPv4", "IPv6"], causes);
    }
    if old.is_some_and(|old| old["addressType"] != object["addressType"]) {
        causes.push(FieldError::invalid("addressType", &json!(family), "field is immutable"));
    }
    let (endpoints, ports) = (list(object, "/endpoints"), list(object, "/ports"));
    if endpoints.len() > ENDPOINTS_MAX {
        causes.push(FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
    } else {
        for (at, endpoint) in endpoints.iter().enumerate() {
            slice_endpoint(endpoint, family, &format!("endpoints[{at}]"), causes);
        }
    }
    if ports.len() > PORTS_MAX {
        causes.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
    } else {
        slice_ports(ports, causes);
    }
}

fn slice_endpoint(endpoint: &Value, family: &str, path: &str, causes: &mut Vec<FieldError>) {
    let (here, addresses) = (format!("{path}.addresses"), list(endpoint, "/addresses"));
    if addresses.is_empty() {
        causes.push(FieldError::required(&here, "must contain at least 1 address"));
    } else if addresses.len() > ADDRESSES_MAX {
        causes.push(FieldError::too_many(&here, addresses.len(), ADDRESSES_MAX));
    }
    for (at, found) in addresses.iter().take(ADDRESSES_MAX).enumerate() {
        let address = found.as_str().unwrap_or_default();
        let what = match (family, address.parse::<IpAddr>()) {
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => bad_endpoint_address(address),
            ("IPv4", _) => Some("must be a valid IPv4 address".to_owned()),
            ("IPv6", _) => Some("must be a valid IPv6 address".to_owned()),
            ("FQDN", _) if !address.trim_end_matches('.').contains('.') => {
                Some("should be a domain with at least two segments separated by dots".to_owned())
            }
            ("FQDN", _) => bad_subdomain(address.strip_suffix('.').unwrap_or(address)).map(str::to_owned),
            _ => None,
        };
        if let Some(what) = what {
            causes.push(FieldError::invalid(format!("{here}[{at}]"), found, &what));
        }
    }
    host_name(endpoint, path, causes);
}

fn slice_ports(ports: &[Value], causes: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let (here, name) = (format!("ports[{at}]"), text(port, "/name"));
        if let Some(what) = bad_name(NameRule::Label, name).filter(|_| !name.is_empty()) {
            causes.push(FieldError::invalid(format!("{here}.name"), &json!(name), what));
        }
        if !names.insert(name) {
            causes.push(FieldError::duplicate(format!("{here}.name"), &json!(name)));
        }
        // Without a number it is every port.
        if port.get("port").is_some_and(|number| !number.is_null()) {
            number(&port["port"], &here, causes);
        }
        enumerated(port, &here, "protocol", &PROTOCOLS, causes);
        app_protocol(port, &here, causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(look: impl FnOnce(&mut Vec<FieldError>)) -> Vec<String> {
        let mut causes = Vec::new();
        look(&mut causes);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn nobody_is_sent_to_himself() {
        for address in ["10.0.0.1", "192.168.1.7", "2001:db8::1", "224.0.1.1"] {
            assert_eq!(bad_endpoint_address(address), None, "{address}");
        }
        for (address, what) in [
            ("zz", "must be a valid IP address"),
            ("", "must be a valid IP address"),
            ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
            ("127.0.0.1", "may not be in the loopback range"),
            ("::1", "may not be in the loopback range"),
            ("::ffff:127.0.0.1", "may not be in the loopback range"),
            ("169.254.169.254", "may not be in the link-local range"),
            ("fe80::1", "may not be in the link-local range"),
            ("224.0.0.1", "may not be in the link-local multicast range"),
            ("ff02::1", "may not be in the link-local multicast range"),
        ] {
            assert!(bad_endpoint_address(address).is_some_and(|found| found.starts_with(what)), "{address}");
        }
    }

    #[test]
    fn endpoints_are_refused_as_by_a_server() {
        let of = |subset: Value| told(|causes| endpoints(&json!({ "subsets": [subset] }), causes));
        let fine = json!({"addresses": [{"ip": "10.0.0.1", "nodeName": "n"}], "ports": [{"port": 1, "protocol": "TCP"}]});
        assert_eq!(of(fine), Vec::<String>::new());
        assert_eq!(
            of(json!({})),
            ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]
        );
        let bad =
            json!({"notReadyAddresses": [{"ip": "127.0.0.1"}], "ports": [{"port": -1, "protocol": "tcp"}]});
        assert_eq!(
            of(bad),
            [
                "subsets[0].notReadyAddresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[0].ports[0].port: Invalid value: -1: must be between 1 and 65535, inclusive",
                "subsets[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\""
            ]
        );
    }

    #[test]
    fn slices_are_refused_as_by_a_server() {
        let of = |family: &str, addresses: Value| {
            let object = json!({"addressType": family, "endpoints": [{"addresses": addresses}]});
            told(|causes| slice(None, &object, causes))
        };
        for (family, address) in [("IPv4", "10.0.0.1"), ("IPv6", "2001:db8::1"), ("FQDN", "a.b.")] {
            assert_eq!(of(family, json!([address])), Vec::<String>::new());
        }
        assert_eq!(
            of("IPv4", json!(["zz"])),
            ["endpoints[0].addresses[0]: Invalid value: \"zz\": must be a valid IPv4 address"]
        );
        assert_eq!(of("IPv6", json!(["10.0.0.1"])).len(), 1);
        assert_eq!(
            of("IPv4", json!([])),
            ["endpoints[0].addresses: Required value: must contain at least 1 address"]
        );
        assert_eq!(
            of("ipv4", json!(["10.0.0.1"])),
            ["addressType: Unsupported value: \"ipv4\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""]
        );
        let many =
            json!({"addressType": "IPv4", "endpoints": vec![json!({"addresses": ["10.0.0.1"]}); 1001]});
        assert_eq!(
            told(|causes| slice(None, &many, causes)),
            ["endpoints: Too many: 1001: must have at most 1000 items"]
        );
        let ports = json!({"addressType": "IPv4", "ports": [{"name": "a", "port": 0}, {"name": "a"}]});
        let old = json!({"addressType": "IPv6"});
        assert_eq!(
            told(|causes| slice(Some(&old), &ports, causes)),
            [
                "addressType: Invalid value: \"IPv4\": field is immutable",
                "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "ports[1].name: Duplicate value: \"a\""
            ]
        );
    }
}
