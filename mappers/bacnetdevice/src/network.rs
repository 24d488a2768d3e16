//! What carries requests and answers: BACnet Virtual Link messages over UDP (Annex J.2), and the network layer's head in them (6.2). Pure.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The first byte of each message.
const BVLL_TYPE: u8 = 0x81;
/// Type, function and length.
const BVLL_HEAD: usize = 4;
const RESULT: u8 = 0x00;
const FORWARDED: u8 = 0x04;
const REGISTER_FOREIGN: u8 = 0x05;
const DISTRIBUTE: u8 = 0x09;
const UNICAST: u8 = 0x0A;
const BROADCAST: u8 = 0x0B;
/// Of a forwarded message: whose it is.
const ORIGIN: usize = 6;

const NPDU_VERSION: u8 = 1;
const IS_NETWORK_MESSAGE: u8 = 0x80;
const HAS_DESTINATION: u8 = 0x20;
const HAS_SOURCE: u8 = 0x08;
const EXPECTS_REPLY: u8 = 0x04;
/// Every network there is.
const ALL_NETWORKS: u16 = 0xFFFF;
const HOPS: u8 = 255;
/// A router says that it does not lead to a network (6.4.4).
const REJECT_TO_NETWORK: u8 = 0x03;
/// 18 bytes: the longest address of any network.
pub(crate) const MAC_MAX: usize = 18;
/// 1497 bytes: the largest NPDU of BACnet/IP, and the head before it. What is longer is none.
pub(crate) const DATAGRAM_MAX: usize = 1497 + BVLL_HEAD + ORIGIN;

/// Where a device is: whom datagrams go to, and behind a router where it is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The device, or its router.
    pub at: SocketAddrV4,
    /// None: it speaks BACnet/IP itself.
    pub remote: Option<Remote>,
}

/// A place in a network behind a router.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// 1 to 65534.
    pub network: u16,
    /// Its address there: one byte on MS/TP, six on BACnet/IP, at most 18.
    pub mac: Vec<u8>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)?;
        let Some(Remote { network, mac }) = &self.remote else { return Ok(()) };
        write!(f, " (network {network}, address ")?;
        match mac.as_slice() {
            [one] => write!(f, "{one})"),
            several => {
                several.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(")")
            }
        }
    }
}

/// What a datagram is for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Datagram<'a> {
    /// A request or an answer.
    Apdu {
        from: Peer,
        /// To us alone, and by its sender itself.
        is_direct: bool,
        apdu: &'a [u8],
    },
    /// What a BBMD says to a request for it.
    Result(u16),
    /// A router does not lead there, for this reason.
    Unreachable { network: u16, reason: u8 },
}

/// What a datagram from there is; None for all that is nothing for us.
pub(crate) fn understood(bytes: &[u8], from: SocketAddrV4) -> Option<Datagram<'_>> {
    let [BVLL_TYPE, function, high, low, rest @ ..] = bytes else { return None };
    if usize::from(u16::from_be_bytes([*high, *low])) != bytes.len() {
        return None;
    }
    match *function {
        RESULT => rest.try_into().ok().map(u16::from_be_bytes).map(Datagram::Result),
        UNICAST => npdu(rest, from, true),
        BROADCAST => npdu(rest, from, false),
        FORWARDED => {
            let (origin, npdu_bytes) = rest.split_at_checked(ORIGIN)?;
            npdu(npdu_bytes, address(origin)?, false)
        }
        _ => None,
    }
}

/// A BACnet/IP address (J.1.2).
pub(crate) fn address(mac: &[u8]) -> Option<SocketAddrV4> {
    let [a, b, c, d, high, low] = mac else { return None };
    Some(SocketAddrV4::new(Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])))
}

fn npdu(bytes: &[u8], at: SocketAddrV4, is_direct: bool) -> Option<Datagram<'_>> {
    let [NPDU_VERSION, control, rest @ ..] = bytes else { return None };
    let mut rest = rest;
    let mut is_direct = is_direct;
    if control & HAS_DESTINATION != 0 {
        let (network, mac) = place(&mut rest)?;
        // A message for another network is a router's, and a broadcast for all of them is for all.
        if network != ALL_NETWORKS {
            return None;
        }
        is_direct &= !mac.is_empty();
    }
    let mut remote = None;
    if control & HAS_SOURCE != 0 {
        let (network, mac) = place(&mut rest)?;
        if mac.is_empty() || network == 0 || network == ALL_NETWORKS {
            return None;
        }
        remote = Some(Remote { network, mac: mac.to_vec() });
    }
    if control & HAS_DESTINATION != 0 {
        rest = rest.get(1..)?;
    }
    if control & IS_NETWORK_MESSAGE != 0 {
        let [REJECT_TO_NETWORK, reason, high, low, ..] = rest else { return None };
        return Some(Datagram::Unreachable { network: u16::from_be_bytes([*high, *low]), reason: *reason });
    }
    Some(Datagram::Apdu { from: Peer { at, remote }, is_direct, apdu: rest })
}

/// A network's number, and an address there.
fn place<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let [high, low, length, behind @ ..] = *rest else { return None };
    let (mac, behind) =
        behind.split_at_checked(usize::from(*length)).filter(|_| usize::from(*length) <= MAC_MAX)?;
    *rest = behind;
    Some((u16::from_be_bytes([*high, *low]), mac))
}

fn message(function: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = BVLL_HEAD + parts.iter().map(|part| part.len()).sum::<usize>();
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![BVLL_TYPE, function, high, low];
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// A message to one device.
pub(crate) fn unicast(to: &Peer, expects_reply: bool, apdu: &[u8]) -> Vec<u8> {
    let reply = if expects_reply { EXPECTS_REPLY } else { 0 };
    match &to.remote {
        None => message(UNICAST, &[&[NPDU_VERSION, reply], apdu]),
        Some(Remote { network, mac }) => {
            let length = u8::try_from(mac.len()).unwrap_or_default();
            let head = [NPDU_VERSION, reply | HAS_DESTINATION];
            message(UNICAST, &[&head, &network.to_be_bytes(), &[length], mac, &[HOPS], apdu])
        }
    }
}

/// A message to all devices of all networks, by our own broadcast or by a BBMD's.
pub(crate) fn broadcast(is_foreign: bool, apdu: &[u8]) -> Vec<u8> {
    let [high, low] = ALL_NETWORKS.to_be_bytes();
    let head = [NPDU_VERSION, HAS_DESTINATION, high, low, 0, HOPS];
    message(if is_foreign { DISTRIBUTE } else { BROADCAST }, &[&head, apdu])
}

/// A BBMD is to send us what it broadcasts, for so many seconds (J.5.2).
pub(crate) fn register(seconds: u16) -> Vec<u8> {
    message(REGISTER_FOREIGN, &[&seconds.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 47808);

    fn peer(remote: Option<Remote>) -> Peer {
        Peer { at: AT, remote }
    }

    #[test]
    fn what_goes_out_is_as_the_standard_has_it() {
        assert_eq!(unicast(&peer(None), true, &[7]), [0x81, 0x0A, 0, 7, 1, 4, 7]);
        let remote = Remote { network: 2001, mac: vec![12] };
        let sent = unicast(&peer(Some(remote.clone())), true, &[7]);
        assert_eq!(sent, [0x81, 0x0A, 0, 12, 1, 0x24, 7, 209, 1, 12, 255, 7]);
        assert_eq!(broadcast(false, &[9]), [0x81, 0x0B, 0, 11, 1, 0x20, 255, 255, 0, 255, 9]);
        assert_eq!(broadcast(true, &[9])[..4], [0x81, 0x09, 0, 11]);
        assert_eq!(register(300), [0x81, 5, 0, 6, 1, 44]);
        assert_eq!(peer(Some(remote)).to_string(), "192.0.2.7:47808 (network 2001, address 12)");
    }

    #[test]
    fn what_comes_in_says_whose_it_is() {
        let direct = [0x81, 0x0A, 0, 7, 1, 0, 0x20];
        assert_eq!(
            understood(&direct, AT),
            Some(Datagram::Apdu { from: peer(None), is_direct: true, apdu: &[0x20] })
        );
        // Behind a router: network 5, address 3.
        let routed = [0x81, 0x0A, 0, 11, 1, 8, 0, 5, 1, 3, 0x20];
        let remote = Some(Remote { network: 5, mac: vec![3] });
        assert_eq!(
            understood(&routed, AT),
            Some(Datagram::Apdu { from: peer(remote.clone()), is_direct: true, apdu: &[0x20] })
        );
        // Through a BBMD, to all networks, from behind a router there.
        let forwarded =
            [0x81, 4, 0, 21, 192, 0, 2, 7, 0xBA, 0xC0, 1, 0x28, 255, 255, 0, 0, 5, 1, 3, 255, 0x10];
        let other = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 47808);
        assert_eq!(
            understood(&forwarded, other),
            Some(Datagram::Apdu { from: peer(remote), is_direct: false, apdu: &[0x10] })
        );
        assert_eq!(understood(&[0x81, 0, 0, 6, 0, 0x30], AT), Some(Datagram::Result(0x30)));
        let unreachable = [0x81, 0x0A, 0, 10, 1, 0x80, 3, 1, 0, 5];
        assert_eq!(understood(&unreachable, AT), Some(Datagram::Unreachable { network: 5, reason: 1 }));
    }

    #[test]
    fn what_is_nothing_for_us_is_dropped() {
        for bytes in [
            &[][..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0x81, 0x0A, 0, 8, 1, 0, 0x20],
            &[0x81, 0x0A, 0, 6, 1, 0, 0x20],
            &[0x82, 0x0A, 0, 7, 1, 0, 0x20],
            &[0x81, 0x0A, 0, 7, 2, 0, 0x20],
            &[0x81, 0x01, 0, 7, 1, 0, 0x20],
            &[0x81, 0x04, 0, 7, 1, 0, 0x20],
            &[0x81, 0x00, 0, 5, 0],
            // For another network, of which we are no router.
            &[0x81, 0x0A, 0, 12, 1, 0x20, 0, 5, 1, 3, 255, 0x20],
            // From an address that is longer than any, and from none.
            &[0x81, 0x0A, 0, 9, 1, 8, 0, 5, 200],
            &[0x81, 0x0A, 0, 10, 1, 8, 0, 5, 0, 0x20],
            &[0x81, 0x0A, 0, 7, 1, 0x80, 0x00],
        ] {
            assert_eq!(understood(bytes, AT), None, "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_ends_the_mapper(function: u8, rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            drop(understood(&rest, AT));
            drop(understood(&message(function, &[&rest]), AT));
            drop(understood(&message(UNICAST, &[&[1], &rest]), AT));
        }
    }
}
