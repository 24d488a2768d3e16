//! Variables that name the services of a pod's namespace, as Docker's links once did. Pure.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use k8s_openapi::api::core::v1::Service;

/// What begins so says whose API server a client is to ask, and by `KUBERNETES_PORT` EdgeMesh tells the cloud from the
/// edge: a node of the edge never sets it.
const RESERVED: &str = "KUBERNETES";

/// The variables of the services that have an address of their own; of the API server's none. The kubelet's
/// `envvars.FromServices`.
pub(crate) fn variables<'a>(services: impl IntoIterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        of_service(service, &mut variables);
    }
    variables
}

fn of_service(service: &Service, into: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let prefix = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    if ip.is_empty() || ip == "None" || prefix.is_empty() || prefix == RESERVED {
        return;
    }
    into.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    into.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            into.insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
        }
    }
    let host = if ip.parse::<Ipv6Addr>().is_ok() { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (small, number) = (protocol.to_lowercase(), port.port);
        let url = format!("{small}://{host}:{number}");
        if index == 0 {
            into.insert(format!("{prefix}_PORT"), url.clone());
        }
        let link = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        into.insert(format!("{link}_PROTO"), small);
        into.insert(format!("{link}_PORT"), number.to_string());
        into.insert(format!("{link}_ADDR"), ip.to_owned());
        into.insert(link, url);
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(name: &str, spec: Value) -> BTreeMap<String, String> {
        let service: Service =
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        variables([&service])
    }

    #[test]
    fn a_service_becomes_the_variables_of_a_link() {
        let found = of(
            "web-db",
            json!({"clusterIP": "10.0.0.9", "ports": [
            {"name": "sql-in", "port": 5432}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
        );
        let text: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text,
            [
                "WEB_DB_PORT=tcp://10.0.0.9:5432",
                "WEB_DB_PORT_53_UDP=udp://10.0.0.9:53",
                "WEB_DB_PORT_53_UDP_ADDR=10.0.0.9",
                "WEB_DB_PORT_53_UDP_PORT=53",
                "WEB_DB_PORT_53_UDP_PROTO=udp",
                "WEB_DB_PORT_5432_TCP=tcp://10.0.0.9:5432",
                "WEB_DB_PORT_5432_TCP_ADDR=10.0.0.9",
                "WEB_DB_PORT_5432_TCP_PORT=5432",
                "WEB_DB_PORT_5432_TCP_PROTO=tcp",
                "WEB_DB_SERVICE_HOST=10.0.0.9",
                "WEB_DB_SERVICE_PORT=5432",
                "WEB_DB_SERVICE_PORT_DNS=53",
                "WEB_DB_SERVICE_PORT_SQL_IN=5432",
            ]
        );
        let found = of("six", json!({"clusterIP": "fd00::9", "ports": [{"port": 80}]}));
        assert_eq!(found["SIX_PORT"], "tcp://[fd00::9]:80");
        assert_eq!(found["SIX_PORT_80_TCP_ADDR"], "fd00::9");
    }

    #[test]
    fn what_has_no_address_and_the_api_server_have_none() {
        let ports = json!([{"port": 443}]);
        for (name, ip) in [("headless", "None"), ("external", ""), ("kubernetes", "10.0.0.1")] {
            assert!(of(name, json!({"clusterIP": ip, "ports": ports})).is_empty(), "{name}");
        }
        assert!(of("portless", json!({"clusterIP": "10.0.0.1"})).is_empty());
    }
}
