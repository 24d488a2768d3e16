//! The node's route to the cloud: its own address on it, and the gateway.
//!
//! A node that runs containers gains and loses addresses and routes all day; what counts is only where a packet to the
//! cloud would leave. The kernel answers that without one being sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

/// Looks at the node's network.
pub trait Network {
    /// The route to the cloud; `None`: there is none.
    fn route(&self) -> Option<Route>;
}

/// Where packets to the cloud leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The node's own addresses towards the servers, one for each that has a route.
    pub sources: Vec<IpAddr>,
    /// The interface and the gateway, where they are known.
    pub gateway: Option<String>,
}

/// Stand-ins for a server that is known by its name only (RFC 5737, RFC 3849): the way to them is the default route.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The routes as the kernel has them.
pub struct KernelRoutes {
    servers: Vec<IpAddr>,
    routes: PathBuf,
}

impl KernelRoutes {
    /// The routes to these hosts.
    pub fn to<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut servers = Vec::new();
        for host in hosts {
            match host.parse::<IpAddr>() {
                Ok(address) => servers.push(address),
                Err(_) => servers.extend(ANYWHERE),
            }
        }
        servers.sort_unstable();
        servers.dedup();
        KernelRoutes { servers, routes: PathBuf::from("/proc/net/route") }
    }
}

impl Network for KernelRoutes {
    fn route(&self) -> Option<Route> {
        let sources: Vec<IpAddr> = self.servers.iter().filter_map(|server| source_towards(*server)).collect();
        if sources.is_empty() {
            return None;
        }
        let table = std::fs::read_to_string(&self.routes).unwrap_or_default();
        let routes = self.servers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => gateway(&table, *server),
            IpAddr::V6(_) => None,
        });
        let routes: Vec<String> = routes.collect();
        Some(Route { sources, gateway: (!routes.is_empty()).then(|| routes.join(",")) })
    }
}

/// The address that a packet to `server` would carry. Nothing is sent.
fn source_towards(server: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    // 9: "discard"; the port plays no part in choosing a route.
    socket.connect(SocketAddr::new(server, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Interface and gateway of the narrowest route to `server` in the kernel's table (proc(5): `/proc/net/route`).
fn gateway(table: &str, server: Ipv4Addr) -> Option<String> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let server = u32::from(server);
    let routes = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (interface, destination, gateway) = (fields.next()?, number(fields.next()?)?, fields.next()?);
        let metric: u32 = fields.nth(3)?.parse().ok()?;
        let mask = number(fields.next()?)?;
        (server & mask == destination).then(|| (mask, u32::MAX - metric, format!("{interface} {gateway}")))
    });
    routes.max().map(|(_, _, route)| route)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        wwan0\t00000000\t0101640A\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
        eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0\n\
        broken line\n";

    #[test]
    fn the_narrowest_and_then_the_cheapest_route_counts() {
        let gateway = |server: &str| gateway(TABLE, server.parse().unwrap());
        assert_eq!(gateway("8.8.8.8").as_deref(), Some("eth0 0100A8C0"));
        assert_eq!(gateway("192.168.3.4").as_deref(), Some("eth0 00000000"));
        assert_eq!(super::gateway("", Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn the_kernel_knows_the_way_to_itself() {
        let route = KernelRoutes::to(["127.0.0.1"]).route().unwrap();
        assert_eq!(route.sources, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert_eq!(KernelRoutes::to(["127.0.0.1"]).route().unwrap(), route);
    }
}
