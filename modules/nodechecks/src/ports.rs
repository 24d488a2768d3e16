//! Whether edgecore's own ports are free, and else who has them. The verdict is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use config::edge::EdgeCore;

use crate::finding::Finding;
use crate::host::{Host, Process};

const CHECK: &str = "Ports";
/// The kernel's word for a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";
/// What edgecore's process is called.
const EDGECORE: &str = "edgecore";

/// A port that edgecore opens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WantedPort {
    address: SocketAddr,
    /// The key of `edgecore.yaml` that says so.
    key: &'static str,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// Its number, by which the process is found that has it.
    pub inode: u64,
}

/// The ports that edgecore opens by these settings.
fn wanted(settings: &EdgeCore) -> Vec<WantedPort> {
    let modules = &settings.modules;
    let bus = &modules.event_bus;
    let own = |is_on: bool, text: &str| -> Option<SocketAddr> {
        (is_on && bus.has_own_broker()).then(|| text.parse().ok()).flatten()
    };
    let all = [
        (own(true, &bus.mqtt_server_internal), "modules.eventBus.mqttServerInternal"),
        (own(bus.tls.enable, &bus.tls.listen), "modules.eventBus.tls.listen"),
        (own(bus.web_socket.enable, &bus.web_socket.listen), "modules.eventBus.webSocket.listen"),
        (
            modules.edged.tailored_kubelet_config.local_address().filter(|_| modules.edge_stream.enable),
            "modules.edged.tailoredKubeletConfig.readOnlyPort",
        ),
        (modules.edge_page.address().filter(|_| modules.edge_page.enable), "modules.edgePage.port"),
        (modules.service_bus.address().filter(|_| modules.service_bus.enable), "modules.serviceBus.port"),
    ];
    let given = all.into_iter().filter_map(|(address, key)| Some(WantedPort { address: address?, key }));
    given.filter(|port| port.address.port() != 0).collect()
}

/// All TCP sockets that listen in this network namespace.
pub fn listeners(host: &Host) -> Vec<Listener> {
    let tables = [host.text("/proc/net/tcp"), host.text("/proc/net/tcp6")];
    tables.iter().flat_map(|table| table.lines().filter_map(listener)).collect()
}

/// A row of `/proc/net/tcp` or `tcp6`, if it listens.
fn listener(line: &str) -> Option<Listener> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.get(3).copied() != Some(LISTENS) {
        return None;
    }
    let (ip, port) = words.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Whole words alone; a kernel writes no others.
    if ip.len() % 8 != 0 {
        return None;
    }
    let words_of_ip: Vec<u32> = (0..ip.len() / 8)
        .map(|at| ip.get(at * 8..at * 8 + 8).and_then(|part| u32::from_str_radix(part, 16).ok()))
        .collect::<Option<_>>()?;
    // Each word is as the machine has it in memory.
    let ip = match words_of_ip[..] {
        [word] => IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())),
        [a, b, c, d] => {
            let mut octets = [0; 16];
            for (into, word) in octets.chunks_exact_mut(4).zip([a, b, c, d]) {
                into.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(Listener { address: SocketAddr::new(ip, port), inode: words.get(9)?.parse().ok()? })
}

/// Whether a listener is in the way of one at `wanted`.
fn is_in_the_way(listener: SocketAddr, wanted: SocketAddr) -> bool {
    let (there, here) = (listener.ip().to_canonical(), wanted.ip().to_canonical());
    // `::` takes IPv4 as well, unless it was told not to.
    let all = |ip: IpAddr, other: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4());
    listener.port() == wanted.port() && (there == here || all(there, here) || all(here, there))
}

/// Looks who has the ports. `own`: the process that asks, if it is edgecore, whatever its program is called.
pub fn look(host: &Host, settings: &EdgeCore, own: Option<u32>) -> Finding {
    let (wanted, listeners) = (wanted(settings), listeners(host));
    let taken = taken(&wanted, &listeners);
    let inodes: BTreeSet<u64> = taken.iter().map(|(_, listener)| listener.inode).collect();
    let owners = host.socket_owners(&inodes.into_iter().collect::<Vec<_>>());
    verdict(&wanted, &taken, &owners, own)
}

fn taken<'a>(wanted: &'a [WantedPort], listeners: &'a [Listener]) -> Vec<(&'a WantedPort, &'a Listener)> {
    let in_the_way = |port: &WantedPort| {
        let port = port.address;
        listeners.iter().find(move |listener| is_in_the_way(listener.address, port))
    };
    wanted.iter().filter_map(|port| Some((port, in_the_way(port)?))).collect()
}

fn verdict(
    wanted: &[WantedPort],
    taken: &[(&WantedPort, &Listener)],
    owners: &BTreeMap<u64, Process>,
    own: Option<u32>,
) -> Finding {
    let owner = |listener: &Listener| owners.get(&listener.inode);
    let is_own = |listener: &Listener| {
        owner(listener).is_some_and(|process| process.name == EDGECORE || Some(process.pid) == own)
    };
    let of_others: Vec<String> = taken
        .iter()
        .filter(|(_, listener)| !is_own(listener))
        .map(|(port, listener)| {
            let by = match owner(listener) {
                Some(Process { pid, name }) => format!("{name} (pid {pid})"),
                None => "a process that is not seen from here (`ss -ltnp` as root names it)".to_owned(),
            };
            let cure = match owner(listener).map(|process| process.name.as_str()) {
                Some("mosquitto") => {
                    ": stop it (`systemctl disable --now mosquitto`), or have edgecore be its client (modules.eventBus.mqttMode: 2)".to_owned()
                }
                Some("kubelet") => ": stop it (`systemctl disable --now kubelet`), a machine has one of them".to_owned(),
                _ => format!(": end it, or set {} to another port", port.key),
            };
            format!("{} ({}) is taken by {by}{cure}", port.address, port.key)
        })
        .collect();
    if !of_others.is_empty() {
        return Finding::failed(CHECK, of_others.join("; "));
    }
    let ports: Vec<String> = wanted.iter().map(|port| port.address.to_string()).collect();
    let of = if taken.is_empty() { "free" } else { "edgecore's own, or free" };
    Finding::passed(
        CHECK,
        if ports.is_empty() {
            "edgecore opens none".to_owned()
        } else {
            format!("{}: {of}", ports.join(", "))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Grade::{Failed, Passed};
    use crate::finding::tests::grade;

    #[test]
    fn a_table_of_the_kernels_is_read() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(listener(head), None);
        let row = |at: &str, state: &str| {
            listener(&format!(
                "   0: {at} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"
            ))
        };
        let at = |text: &str| Some(Listener { address: text.parse().unwrap(), inode: 4711 });
        if cfg!(target_endian = "little") {
            assert_eq!(row("0100007F:075B", "0A"), at("127.0.0.1:1883"));
            assert_eq!(row("00000000000000000000000001000000:286E", "0A"), at("[::1]:10350"));
        }
        assert_eq!(row("00000000:075B", "0A"), at("0.0.0.0:1883"));
        assert_eq!(row("0100007F:075B", "01"), None, "a connection does not listen");
        for torn in ["", "0:", "zz:075B", "0100:075B", "0100007Fé:1"] {
            assert_eq!(row(torn, "0A"), None, "{torn}");
        }
    }

    #[test]
    fn an_address_that_means_all_is_in_the_way_of_each() {
        let is = |there: &str, here: &str| is_in_the_way(there.parse().unwrap(), here.parse().unwrap());
        assert!(
            is("0.0.0.0:1", "127.0.0.1:1")
                && is("[::]:1", "127.0.0.1:1")
                && is("[::ffff:127.0.0.1]:1", "127.0.0.1:1")
        );
        assert!(is("127.0.0.1:1", "0.0.0.0:1") && is("[::]:1", "[::1]:1"));
        assert!(
            !is("127.0.0.1:2", "127.0.0.1:1")
                && !is("127.0.0.2:1", "127.0.0.1:1")
                && !is("0.0.0.0:1", "[::1]:1")
        );
    }

    #[test]
    fn only_what_is_on_is_wanted() {
        let mut settings = EdgeCore::default();
        let ports =
            |settings: &EdgeCore| wanted(settings).iter().map(|port| port.address.port()).collect::<Vec<_>>();
        assert_eq!(ports(&settings), [1883, 10350]);
        settings.modules.edge_page.enable = true;
        settings.modules.service_bus.enable = true;
        assert_eq!(ports(&settings), [1883, 10350, 10360, 9060]);
        settings.modules.event_bus.mqtt_mode = 2;
        settings.modules.edge_stream.enable = false;
        assert_eq!(ports(&settings), [10360, 9060]);
    }

    /// The port is really taken, by this very process.
    #[test]
    fn a_port_that_is_taken_names_who_has_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = EdgeCore::default();
        settings.modules.event_bus.mqtt_server_internal = address.to_string();
        settings.modules.edge_stream.enable = false;
        let host = Host::here();
        let found = look(&host, &settings, None);
        grade(&found, Failed, &format!("{address} (modules.eventBus.mqttServerInternal) is taken by"));
        assert!(found.says.contains(&format!("(pid {})", std::process::id())), "{found:?}");
        grade(&look(&host, &settings, Some(std::process::id())), Passed, "edgecore's own");
        drop(listener);
        grade(&look(&host, &settings, None), Passed, "free");
    }

    #[test]
    fn edgecores_own_are_no_fault_and_a_mosquitto_has_a_cure_of_its_own() {
        let wanted = [WantedPort { address: "127.0.0.1:1883".parse().unwrap(), key: "k" }];
        let there = [Listener { address: "0.0.0.0:1883".parse().unwrap(), inode: 7 }];
        let taken = taken(&wanted, &there);
        let by = |name: &str| {
            verdict(&wanted, &taken, &BTreeMap::from([(7, Process { pid: 9, name: name.to_owned() })]), None)
        };
        grade(&by("edgecore"), Passed, "edgecore's own");
        grade(&by("mosquitto"), Failed, "mqttMode: 2");
        grade(&by("nginx"), Failed, "nginx (pid 9): end it, or set k to another port");
        grade(&verdict(&wanted, &taken, &BTreeMap::new(), None), Failed, "ss -ltnp");
    }
}
