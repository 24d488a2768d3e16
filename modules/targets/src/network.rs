//! Networks of IP addresses, as `ADDRESS/BITS`.

use std::net::IpAddr;

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

/// The first so many bits of a number.
fn first(bits: u8, of: u128) -> u128 {
    if bits == 0 { 0 } else { of >> (128 - u32::from(bits)) }
}

impl Network {
    /// `None`: it is not `ADDRESS/BITS`, or the address has bits behind those.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let (value, width) = number(address);
        let is_whole = bits <= width && (bits == 128 || value << bits == 0);
        is_whole.then_some(Network { address, bits })
    }

    /// Whether an address is in it. One of IPv4 is in none of IPv6, and the other way.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (number(self.address), number(address));
        width == other_width && first(self.bits, own) == first(self.bits, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_network_by_its_first_bits() {
        let is_in = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(is_in("127.0.0.0/8", "127.9.9.9") && !is_in("127.0.0.0/8", "128.0.0.1"));
        assert!(is_in("192.0.2.7/32", "192.0.2.7") && !is_in("192.0.2.7/32", "192.0.2.6"));
        assert!(is_in("fd00::/8", "fdff::1") && !is_in("fd00::/8", "fe80::1"));
        assert!(is_in("::1/128", "::1") && !is_in("::1/128", "::2"));
        assert!(is_in("0.0.0.0/0", "1.2.3.4") && !is_in("0.0.0.0/0", "::1") && !is_in("::/0", "1.2.3.4"));
        for none in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3.4/8", "::/129", "a/8", "1.2.3.0/-1"] {
            assert_eq!(Network::parse(none), None, "{none}");
        }
    }
}
