//! Which addresses a rule or a device may lead to. Pure.
//!
//! Whoever may write a rule has CloudCore send requests from where it stands, and whoever may write a device a mapper. What is there
//! for that program alone is closed to them: its loopback, link-local addresses, where clouds keep the metadata of their machines with
//! credentials in it, and what is no single machine. Addresses of the cluster and of private networks are open, for rules and devices
//! lead there. The program resolves the name, each address is judged, and the connection goes to one that was judged, so that a name
//! cannot become another address in between.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use crate::network::Network;

/// Where clouds keep the metadata of their machines, with credentials in it, beside the link-local addresses: those are closed as a
/// whole, and most clouds are there alone (169.254.169.254: AWS, Azure, Google, Oracle, IBM, DigitalOcean, Hetzner, OpenStack;
/// 169.254.170.2 and .23: AWS's tasks and pods; 169.254.0.23: Tencent; 169.254.42.42: Scaleway; fe80::a9fe:a9fe: OpenStack).
const METADATA: [(&str, &str); 9] = [
    // docs.aws.amazon.com, "Access instance metadata" (::254) and "EKS Pod Identity Agent" (::23): the services of a machine are in here.
    ("fd00:ec2::/32", "where AWS keeps the metadata of its machines"),
    // cloud.google.com, "About VM metadata": of machines with IPv6 alone.
    ("fd20:ce::254/128", "where Google keeps the metadata of its machines"),
    // learn.microsoft.com, "What is IP address 168.63.129.16?": the WireServer has the settings and certificates of the machine.
    ("168.63.129.16/32", "Azure's own address at each of its machines"),
    // docs.oracle.com, "Getting Instance Metadata", and the SDKs of OCI.
    ("fd00:c1::a9fe:a9fe/128", "where Oracle keeps the metadata of its machines"),
    // docs.oracle.com, "Retrieving Instance Metadata" of Oracle Cloud Infrastructure Classic.
    ("192.0.0.192/32", "where Oracle keeps the metadata of its machines"),
    // www.alibabacloud.com, "ECS instance metadata": over IPv4, and over IPv6.
    ("100.100.100.200/32", "where Alibaba keeps the metadata of its machines"),
    ("fd00:100::100:200/128", "where Alibaba keeps the metadata of its machines"),
    // cloudinit.readthedocs.io, "Scaleway".
    ("fd00:42::42/128", "where Scaleway keeps the metadata of its machines"),
    // techdocs.akamai.com, "Metadata service API".
    ("fd00:a9fe:a9fe::1/128", "where Akamai keeps the metadata of its machines"),
];

/// The same, read. A test holds that none is left out.
static PLACES: LazyLock<Vec<(Network, &'static str)>> = LazyLock::new(|| {
    METADATA.iter().filter_map(|(text, what)| Some((Network::parse(text)?, *what))).collect()
});

/// What may be led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetAddresses {
    allowed: Vec<Network>,
}

impl TargetAddresses {
    /// The rule above, and these networks beside. What is no network was refused with the settings.
    pub fn new(allowed: &[String]) -> Self {
        TargetAddresses { allowed: allowed.iter().filter_map(|text| Network::parse(text)).collect() }
    }

    /// Whether it is open.
    ///
    /// # Errors
    /// What the address is.
    pub fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        let is_allowed = |address| self.allowed.iter().any(|network| network.contains(address));
        if is_allowed(address) {
            return Ok(());
        }
        let inside = inside(address).into_iter().map(IpAddr::from);
        let refused =
            std::iter::once(address).chain(inside).filter(|address| !is_allowed(*address)).find_map(closed);
        refused.map_or(Ok(()), Err)
    }
}

/// The addresses of IPv4 that one of IPv6 leads on to, whoever does the leading, or that it may lead on to.
fn inside(address: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return Vec::new() };
    let bytes = v6.octets();
    let of = |at: [usize; 4]| Ipv4Addr::from(at.map(|at| bytes.get(at).copied().unwrap_or_default()));
    let (last, segments) = (of([12, 13, 14, 15]), v6.segments());
    match segments {
        // NAT64's well-known prefix (RFC 6052, section 2.1), and SIIT (RFC 2765, section 2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => vec![last],
        // NAT64's prefixes for local use: how long it is only the network knows (RFC 8215, section 5; RFC 6052, section 2.2), so none of
        // the addresses that it may be is to be a closed one. Zeros are what another length leaves.
        [0x64, 0xff9b, 1, ..] => [of([6, 7, 9, 10]), of([7, 9, 10, 11]), of([9, 10, 11, 12]), last]
            .into_iter()
            .filter(|v4| v4.octets()[0] != 0)
            .collect(),
        // 6to4 (RFC 3056, section 2).
        [0x2002, ..] => vec![of([2, 3, 4, 5])],
        // Teredo: the server, and the client with each bit turned (RFC 4380, section 4).
        [0x2001, 0, ..] => vec![of([4, 5, 6, 7]), Ipv4Addr::from(!u32::from(last))],
        // ISATAP (RFC 5214, section 6.1).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![last],
        _ => Vec::new(),
    }
}

fn closed(address: IpAddr) -> Option<&'static str> {
    if let Some((_, what)) = PLACES.iter().find(|(network, _)| network.contains(address)) {
        return Some(what);
    }
    match address {
        address if address.is_loopback() => Some("the machine's own loopback"),
        address if address.is_unspecified() => Some("no address of a machine"),
        address if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("no address of a machine"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address, where clouds keep metadata"),
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] >= 240 => Some("no address of a machine"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("a link-local address, where clouds keep metadata")
        }
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
    fn what_is_the_machines_alone_is_closed() {
        let addresses = TargetAddresses::default();
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::127.0.0.1",
            "::10.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.0.23",
            "169.254.42.42",
            "169.254.169.254",
            "169.254.170.2",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "240.0.0.1",
        ] {
            assert!(!is_open(&addresses, text), "{text}");
        }
        for text in [
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "168.63.129.17",
            "192.0.0.193",
            "203.0.113.9",
            "fd00::1",
            "fd20:ce::253",
            "2001:db8::1",
        ] {
            assert!(is_open(&addresses, text), "{text}");
        }
    }

    #[test]
    fn metadata_of_each_cloud_is_closed() {
        let addresses = TargetAddresses::default();
        assert_eq!(PLACES.len(), METADATA.len());
        for (text, what) in [
            ("fd00:ec2::254", "AWS"),
            ("fd00:ec2::23", "AWS"),
            ("fd20:ce::254", "Google"),
            ("168.63.129.16", "Azure"),
            ("::ffff:168.63.129.16", "Azure"),
            ("fd00:c1::a9fe:a9fe", "Oracle"),
            ("192.0.0.192", "Oracle"),
            ("100.100.100.200", "Alibaba"),
            ("fd00:100::100:200", "Alibaba"),
            ("fd00:42::42", "Scaleway"),
            ("fd00:a9fe:a9fe::1", "Akamai"),
        ] {
            let said = addresses.check(text.parse().unwrap()).unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
        }
    }

    /// An address of IPv6 that leads on to one of IPv4.
    type Written = fn([u8; 4]) -> String;

    #[test]
    fn an_address_of_ipv4_is_judged_however_it_is_written() {
        let forms: [(&str, Written); 12] = [
            ("mapped", |[a, b, c, d]| format!("::ffff:{a}.{b}.{c}.{d}")),
            ("NAT64", |[a, b, c, d]| format!("64:ff9b::{a}.{b}.{c}.{d}")),
            ("SIIT", |[a, b, c, d]| format!("::ffff:0:{a}.{b}.{c}.{d}")),
            ("NAT64, local, /96", |[a, b, c, d]| format!("64:ff9b:1::{a}.{b}.{c}.{d}")),
            ("NAT64, local, a part of its /96s", |[a, b, c, d]| format!("64:ff9b:1:9::{a}.{b}.{c}.{d}")),
            ("NAT64, local, /48", |[a, b, c, d]| format!("64:ff9b:1:{a:x}{b:02x}:{c:x}:{d:x}00::")),
            ("NAT64, local, /56", |[a, b, c, d]| format!("64:ff9b:1:{a:x}:{b:x}:{c:x}{d:02x}::")),
            ("NAT64, local, /64", |[a, b, c, d]| format!("64:ff9b:1:0:{a:x}:{b:x}{c:02x}:{d:x}00::")),
            ("6to4", |[a, b, c, d]| format!("2002:{a:x}{b:02x}:{c:x}{d:02x}::1")),
            ("Teredo's server", |[a, b, c, d]| format!("2001:0:{a:x}{b:02x}:{c:x}{d:02x}:0:0:f7f7:f7f7")),
            ("Teredo's client", |[a, b, c, d]| {
                format!("2001:0:808:808:0:0:{:x}{:02x}:{:x}{:02x}", !a, !b, !c, !d)
            }),
            ("ISATAP", |[a, b, c, d]| format!("fd00::5efe:{a}.{b}.{c}.{d}")),
        ];
        let addresses = TargetAddresses::default();
        for (name, written) in forms {
            for (v4, open) in [
                ([127, 0, 0, 1], false),
                ([169, 254, 169, 254], false),
                ([100, 100, 100, 200], false),
                ([168, 63, 129, 16], false),
                ([240, 1, 2, 3], false),
                ([10, 0, 0, 1], true),
                ([203, 0, 113, 9], true),
            ] {
                let text = written(v4);
                assert_eq!(is_open(&addresses, &text), open, "{name}: {text}");
            }
        }
    }

    #[test]
    fn the_settings_open_networks_and_no_others() {
        let addresses = TargetAddresses::new(&["127.0.0.1/32".to_owned(), "fe80::/10".to_owned()]);
        for (text, open) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("64:ff9b::127.0.0.1", true),
            ("127.0.0.2", false),
            ("64:ff9b::127.0.0.2", false),
            ("2001:0:7f00:1::", false),
            ("fe80::9", true),
            ("::1", false),
        ] {
            assert_eq!(is_open(&addresses, text), open, "{text}");
        }
    }
}
