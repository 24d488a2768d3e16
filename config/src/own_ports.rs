//! The ports of `edgecore`'s own.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::edge::EdgeCore;

impl EdgeCore {
    /// The ports of `edgecore`'s own, which no rule calls: who may write a rule is not therefore who may speak to them.
    pub fn own_ports(&self) -> BTreeSet<u16> {
        let of = |text: &String| text.parse::<SocketAddr>().ok().map(|address| address.port());
        let modules = &self.modules;
        let bus = &modules.event_bus;
        let brokers = [&bus.mqtt_server_internal, &bus.tls.listen, &bus.web_socket.listen];
        let kubelet = modules.edged.tailored_kubelet_config.read_only_port;
        let others = [modules.service_bus.port, kubelet];
        brokers.into_iter().filter_map(of).chain(others).filter(|port| *port != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_edgecore_listens_at_is_its_own() {
        let settings = EdgeCore::default();
        assert_eq!(settings.own_ports(), [1883, 8083, 8883, 9060, 10350].into());
    }
}
