//! Where a camera is that is known by its endpoint reference: it is called by multicast, and says so (WS-Discovery; Core §7).

mod probe;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use probe::{Called, Match};

/// Where cameras listen.
pub(crate) const EVERYONE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 3702);
/// 4 s for all of it, in which it is called three times: multicast is lost now and then.
pub(crate) const FOUND_WITHIN: Duration = Duration::from_secs(4);
const AGAIN_AFTER: Duration = Duration::from_millis(1200);
/// 512 answers on one interface are looked at.
const ANSWERS_MAX: usize = 512;
/// 32 interfaces are called on.
const INTERFACES_MAX: usize = 32;
/// A datagram of UDP is no longer.
const DATAGRAM_MAX: usize = 64 << 10;
/// Where a camera is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Discovered {
    pub(crate) at: SocketAddr,
    /// Of its device service.
    pub(crate) path: String,
}

/// Calls the camera and waits for it.
///
/// # Errors
/// A sentence, when it does not answer.
pub(crate) async fn find(
    reference: &str,
    interface: Option<&str>,
    to: SocketAddr,
) -> Result<Discovered, String> {
    let own = interface.map(str::to_owned);
    let opened = tokio::task::spawn_blocking(move || sockets(own.as_deref(), to)).await;
    let (sockets, names) = opened.map_err(|error| error.to_string())??;
    let until = Instant::now() + FOUND_WITHIN;
    let mut calling = JoinSet::new();
    for socket in sockets {
        let reference = reference.to_owned();
        calling.spawn(async move { timeout_at(until, call(socket, &reference, to)).await.ok().flatten() });
    }
    while let Some(answered) = calling.join_next().await {
        if let Ok(Some(found)) = answered {
            return Ok(found);
        }
    }
    Err(format!(
        "no camera `{reference}` has answered within {} s on {names}; see that it is on that network and has discovery switched on, and \
         that the mapper is in the node's network (`hostNetwork`)",
        FOUND_WITHIN.as_secs()
    ))
}

/// None: nothing more can come here.
async fn call(socket: UdpSocket, reference: &str, to: SocketAddr) -> Option<Discovered> {
    let called = Called::new(uuid::Uuid::new_v4());
    let mut datagram = vec![0; DATAGRAM_MAX];
    let mut answers = 0;
    loop {
        for probe in called.probes() {
            if let Err(error) = socket.send_to(probe.as_bytes(), to).await {
                tracing::debug!(%error, "cameras were not called on one interface");
                return None;
            }
        }
        let again = Instant::now() + AGAIN_AFTER;
        while let Ok(came) = timeout_at(again, socket.recv_from(&mut datagram)).await {
            let Ok((length, from)) = came else { continue };
            answers += 1;
            if answers > ANSWERS_MAX {
                return None;
            }
            for Match { reference: of, port, path } in called.answered(datagram.get(..length)?, from.ip()) {
                if probe::is_same(&of, reference) {
                    return Some(Discovered { at: SocketAddr::new(from.ip(), port), path });
                }
            }
        }
    }
}

/// One for each interface that is called on, and their names.
fn sockets(interface: Option<&str>, to: SocketAddr) -> Result<(Vec<UdpSocket>, String), String> {
    let names = match interface {
        Some(name) => vec![Some(name.to_owned())],
        // One that is called by its own address needs no interface.
        None if !to.ip().is_multicast() => vec![None],
        None => interfaces().into_iter().map(Some).collect(),
    };
    let (mut opened, mut why) = (Vec::new(), "this machine is in no network".to_owned());
    for name in &names {
        match socket(name.as_deref()) {
            Ok(socket) => opened.push(socket),
            Err(error) => why = format!("{}: {error}", name.as_deref().unwrap_or("a socket")),
        }
    }
    if opened.is_empty() {
        return Err(format!("cameras cannot be called: {why}"));
    }
    let names: Vec<String> = names.into_iter().flatten().collect();
    Ok((opened, if names.is_empty() { to.to_string() } else { names.join(", ") }))
}

fn socket(interface: Option<&str>) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_multicast_ttl_v4(1)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    UdpSocket::from_std(socket.into())
}

/// Those with a network of which this machine is a part: neither loopback, nor what is part of a bridge, nor a way to one other address.
fn interfaces() -> Vec<String> {
    // That of this thread, wherever it is.
    of_routes(&fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default())
}

/// From the kernel's table of routes: the interface, the network, the gateway, and behind four other columns the mask, in hexadecimal.
fn of_routes(table: &str) -> Vec<String> {
    let network = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_near = *columns.get(2)? == "00000000" && *columns.get(7)? != "FFFFFFFF";
        is_near.then_some((*columns.first()?).to_owned())
    };
    let mut names: Vec<String> = table.lines().skip(1).filter_map(network).collect();
    names.sort();
    names.dedup();
    names.truncate(INTERFACES_MAX);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_are_called_on_the_networks_that_this_machine_is_in() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
            cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            cali1\t0200F40A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n\
            broken\t0\n";
        assert_eq!(of_routes(table), ["cni0", "eth0"]);
        assert_eq!(of_routes(""), [] as [&str; 0]);
    }
}
