//! Whether the node has an address by which others reach it.

use std::net::{IpAddr, UdpSocket};

use crate::finding::Finding;

/// Whether it has one. `told`: `modules.edged.nodeIP`.
pub fn node_address(told: &str) -> Finding {
    const CHECK: &str = "NodeAddress";
    if let Ok(ip) = told.parse::<IpAddr>() {
        return match UdpSocket::bind((ip, 0)) {
            Ok(_) => Finding::passed(CHECK, format!("{ip}, as modules.edged.nodeIP has it")),
            Err(_) => Finding::failed(
                CHECK,
                format!(
                    "modules.edged.nodeIP is {ip}, which no interface of this machine has (`ip address`): write one that it has, or leave it out"
                ),
            ),
        };
    }
    // Documentation addresses: only the routing table is asked, and nothing is sent.
    let on_the_way = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let found = on_the_way("0.0.0.0:0", "192.0.2.1:9").or_else(|| on_the_way("[::]:0", "[2001:db8::1]:9"));
    match found {
        Some(ip) => Finding::passed(CHECK, format!("{ip}, on the way out")),
        None => Finding::warned(
            CHECK,
            "this machine has no way out (`ip route` shows no default): the node has no address to be reached at; give it a route, or set \
             modules.edged.nodeIP",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Grade;

    #[test]
    fn an_address_that_no_interface_has_is_found() {
        assert_eq!(node_address("127.0.0.1").grade, Grade::Passed);
        let found = node_address("192.0.2.77");
        assert!(found.grade == Grade::Failed && found.says.contains("ip address"), "{found:?}");
    }
}
