//! The ports of `edgecore`'s own, and of mappers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::edge::{EdgeCore, MAPPER_PORT};

impl EdgeCore {
    /// The ports of `edgecore`'s own and of mappers, which no rule calls: who may write a rule is not therefore who may speak to them. A
    /// mapper asks nobody in whose name it sets a device, of whatever namespace.
    pub fn own_ports(&self) -> BTreeSet<u16> {
        let of = |text: &String| text.parse::<SocketAddr>().ok().map(|address| address.port());
        let modules = &self.modules;
        let bus = &modules.event_bus;
        let brokers = [&bus.mqtt_server_internal, &bus.tls.listen, &bus.web_socket.listen];
        let kubelet = modules.edged.tailored_kubelet_config.read_only_port;
        let others = [modules.service_bus.port, modules.edge_page.port, kubelet, MAPPER_PORT];
        let mappers = modules.device_twin.mapper_ports.values().copied();
        let all = brokers.into_iter().filter_map(of).chain(others).chain(mappers);
        all.filter(|port| *port != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_edgecore_and_mappers_listen_at_is_their_own() {
        let mut settings = EdgeCore::default();
        assert_eq!(settings.own_ports(), [1883, 7777, 8083, 8883, 9060, 10350, 10360].into());
        settings.modules.device_twin.mapper_ports = [("modbus-mapper".to_owned(), 7800)].into();
        assert!(
            settings.own_ports().is_superset(&[7777, 7800].into()),
            "one that is not named may listen at 7777"
        );
    }
}
