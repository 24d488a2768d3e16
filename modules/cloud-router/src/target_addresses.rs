//! Which addresses a rule may lead to. Pure.
//!
//! Whoever may write a rule has CloudCore send requests from where it stands. What is there for CloudCore alone is closed to them:
//! its loopback, link-local addresses, where clouds keep the metadata of their machines with credentials in it, and what is no
//! single machine. Addresses of the cluster and of private networks are open, for rules lead there. The name is resolved by
//! CloudCore, each address is judged, and the connection goes to one that was judged, so that a name cannot become another address
//! in between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::network::Network;

/// Metadata of machines beside the link-local addresses: AWS over IPv6, and Alibaba.
const METADATA: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// What rules may lead to.
#[derive(Debug, Clone, Default)]
pub struct TargetAddresses {
    allowed: Vec<Network>,
}

impl TargetAddresses {
    /// The rule above, and these networks beside. What is no network was refused with the settings.
    pub fn new(allowed: &[String]) -> Self {
        TargetAddresses { allowed: allowed.iter().filter_map(|text| Network::parse(text)).collect() }
    }

    /// Whether a rule may lead there.
    ///
    /// # Errors
    /// What the address is.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = plain(address);
        match closed(address) {
            Some(_) if self.allowed.iter().any(|network| network.contains(address)) => Ok(()),
            Some(what) => Err(what),
            None => Ok(()),
        }
    }
}

/// The address that is meant: one of IPv4 may be written in IPv6 in several ways.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    match v6.segments() {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead on to the IPv4 address in them.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        _ => address,
    }
}

fn closed(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("where a cloud keeps the metadata of its machines");
    }
    match address {
        address if address.is_loopback() => Some("CloudCore's own loopback"),
        address if address.is_unspecified() => Some("no address of a machine"),
        address if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("no address of a machine"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address, where clouds keep metadata"),
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] >= 240 => Some("no address of a machine"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        // What is left of ::/96 (RFC 4291, section 2.5.5.1), which systems once took for IPv4.
        IpAddr::V6(v6) if v6.segments()[..6] == [0; 6] => Some("an address that stands for one of IPv4"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_open(addresses: &TargetAddresses, text: &str) -> bool {
        addresses.check(text.parse().unwrap()).is_ok()
    }

    #[test]
    fn what_is_cloudcores_alone_is_closed_however_it_is_written() {
        let addresses = TargetAddresses::default();
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "::127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "240.0.0.1",
        ] {
            assert!(!is_open(&addresses, text), "{text}");
        }
        for text in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "203.0.113.9", "fd00::1", "2001:db8::1"]
        {
            assert!(is_open(&addresses, text), "{text}");
        }
    }

    #[test]
    fn the_settings_open_networks_and_no_others() {
        let addresses = TargetAddresses::new(&["127.0.0.1/32".to_owned(), "fe80::/10".to_owned()]);
        for (text, open) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("127.0.0.2", false),
            ("fe80::9", true),
            ("::1", false),
        ] {
            assert_eq!(is_open(&addresses, text), open, "{text}");
        }
    }
}
