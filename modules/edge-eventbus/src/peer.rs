//! Where a connection comes from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Certificates in DER: that of a client, and those between it and a CA. None: they were too long to be kept, or an earlier edgecore kept
/// none.
pub(crate) type Chain = Arc<[Vec<u8>]>;

/// Which listener took a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// TCP without TLS.
    #[default]
    Plain,
    /// TCP with TLS.
    Tls,
    /// TCP with WebSocket.
    WebSocket,
    /// TCP with TLS, and WebSocket in it.
    WebSocketTls,
    /// The Unix socket.
    Unix,
}

impl ListenerKind {
    pub(crate) fn has_tls(self) -> bool {
        matches!(self, ListenerKind::Tls | ListenerKind::WebSocketTls)
    }

    pub(crate) fn has_web_socket(self) -> bool {
        matches!(self, ListenerKind::WebSocket | ListenerKind::WebSocketTls)
    }
}

/// Whom what comes is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PeerOrigin {
    /// An address; of IPv6 the network of 64 bits, in which one machine has as many addresses as it likes.
    Address(IpAddr),
    /// A user of this machine.
    Uid(u32),
}

impl PeerOrigin {
    fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        PeerOrigin::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) if v6.is_loopback() => address,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        })
    }

    /// Whether all programs of this machine look like that.
    pub(crate) fn is_everyone(self) -> bool {
        matches!(self, PeerOrigin::Address(address) if address.is_loopback())
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) listener: ListenerKind,
    pub(crate) source: PeerOrigin,
    /// For logs.
    pub(crate) label: String,
    /// What its certificate says.
    pub(crate) certified: Option<Certified>,
}

/// A client with a certificate that is trusted.
#[derive(Debug, Clone)]
pub(crate) struct Certified {
    /// Whom it names.
    pub(crate) user: String,
    pub(crate) chain: Chain,
}

impl Peer {
    pub(crate) fn tcp(listener: ListenerKind, address: SocketAddr) -> Self {
        Peer { listener, source: PeerOrigin::of(address.ip()), label: address.to_string(), certified: None }
    }

    pub(crate) fn unix(uid: u32, pid: Option<i32>) -> Self {
        let label = match pid {
            Some(pid) => format!("uid {uid}, pid {pid}"),
            None => format!("uid {uid}"),
        };
        Peer { listener: ListenerKind::Unix, source: PeerOrigin::Uid(uid), label, certified: None }
    }
}

impl Default for Peer {
    fn default() -> Self {
        Peer::tcp(ListenerKind::Plain, SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_is_one_source() {
        let source = |text: &str| PeerOrigin::of(text.parse().unwrap());
        assert_eq!(source("fd00::1"), source("fd00::ffff:1:2"));
        assert_ne!(source("fd00::1"), source("fd00:0:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert!(
            source("127.0.0.9").is_everyone()
                && source("::1").is_everyone()
                && source("::ffff:127.0.0.1").is_everyone()
        );
        assert!(!source("::2").is_everyone() && !PeerOrigin::Uid(0).is_everyone());
    }
}
