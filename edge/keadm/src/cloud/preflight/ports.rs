//! Ports that CloudCore is to have and another has, of the cluster and of its machines: each with whose it is, and values that are free.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Service};
use nodechecks::Finding;
use serde_json::Value;

/// The NodePorts that Kubernetes gives out, where nobody has said otherwise.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;
/// A port of the Service, and the value of the chart that chooses its NodePort.
const OF_SERVICE: [(&str, &str); 4] = [
    ("websocket", "cloudhubNodePort"),
    ("quic", "cloudhubQuicNodePort"),
    ("https", "cloudhubHttpsNodePort"),
    ("router", "routerNodePort"),
];
/// A port of the pods on their host, and the value that chooses it.
const OF_HOST: [(&str, &str); 5] = [
    ("websocket", "modules.cloudHub.websocket.port"),
    ("quic", "modules.cloudHub.quic.port"),
    ("https", "modules.cloudHub.https.port"),
    ("router", "modules.router.port"),
    ("peers", "modules.router.peers.port"),
];
/// Where the admin endpoint of KubeEdge's CloudCore is, which its pod does not say (its `commonConfig.monitorServer.bindAddress`).
const KUBEEDGES_MONITOR: i64 = 9091;

/// Ports of the Service that another Service has.
pub(crate) fn node_ports(objects: &[Value], services: &[Service]) -> Finding {
    const CHECK: &str = "NodePorts";
    let ours = objects.iter().filter(|object| object["kind"] == "Service");
    let ports = ours.flat_map(|service| service["spec"]["ports"].as_array().into_iter().flatten());
    let wanted: Vec<(&str, i64)> =
        ports.filter_map(|port| Some((port["name"].as_str()?, port["nodePort"].as_i64()?))).collect();
    let (mut taken, mut occupied) = (Vec::new(), BTreeSet::new());
    for service in services {
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        let is_ours = |object: &Value| {
            object["kind"] == "Service"
                && object["metadata"]["name"].as_str() == name.as_deref()
                && object["metadata"]["namespace"].as_str() == namespace.as_deref()
        };
        if objects.iter().any(is_ours) {
            continue;
        }
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let (namespace, name) =
            (namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
        for port in ports.filter_map(|port| port.node_port).map(i64::from) {
            occupied.insert(port);
            if let Some((of, _)) = wanted.iter().find(|(_, wanted)| *wanted == port) {
                taken.push((*of, port, format!("Service {namespace}/{name}")));
            }
        }
    }
    if taken.is_empty() {
        return Finding::passed(CHECK, if wanted.is_empty() { "none is asked for" } else { "free" });
    }
    occupied.extend(wanted.iter().map(|(_, port)| *port));
    let cure = cure("cloudCore.service.", &OF_SERVICE, &taken, &mut occupied, NODE_PORTS);
    Finding::failed(CHECK, format!("taken: {}: these are free: {cure}", told(&taken)))
}

/// Ports of machines that CloudCore's pods are to have there (`cloudCore.hostNetWork`, `hostPorts`), and other pods have. `machines` are those
/// that the pods may be placed on; a pod waits while it finds none with its ports.
pub(crate) fn host_ports(
    objects: &[Value],
    namespace: &str,
    pods: &[Pod],
    machines: &[&str],
    replicas: u64,
) -> Finding {
    const CHECK: &str = "HostPorts";
    let wanted = wanted_of_host(objects);
    if wanted.is_empty() || replicas == 0 {
        return Finding::passed(CHECK, "none is asked for");
    }
    let mut occupied: BTreeMap<&str, BTreeMap<i64, String>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.metadata.namespace.as_deref() != Some(namespace)) {
        let Some(spec) = &pod.spec else { continue };
        let Some(machine) = spec.node_name.as_deref() else { continue };
        let named = format!(
            "pod {}/{} on {machine}",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default()
        );
        let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let of_host = spec.host_network == Some(true);
        let ports = ports.filter_map(|port| port.host_port.or(of_host.then_some(port.container_port)));
        let labels = pod.metadata.labels.as_ref();
        let is_cloudcore =
            labels.and_then(|labels| labels.get("kubeedge")).is_some_and(|name| name == "cloudcore");
        let monitor = (of_host && is_cloudcore).then_some(KUBEEDGES_MONITOR);
        for port in ports.map(i64::from).chain(monitor) {
            occupied.entry(machine).or_default().insert(port, named.clone());
        }
    }
    let (mut taken, mut free) = (Vec::new(), 0);
    for machine in machines {
        let there = occupied.get(machine);
        let collide = wanted.iter().filter_map(|(of, port)| Some((*of, *port, there?.get(port)?.clone())));
        let before = taken.len();
        taken.extend(collide);
        free += u64::from(taken.len() == before);
    }
    if taken.is_empty() {
        return Finding::passed(CHECK, "free");
    }
    let mut all: BTreeSet<i64> = occupied.values().flat_map(BTreeMap::keys).copied().collect();
    all.extend(wanted.iter().map(|(_, port)| *port));
    let mut cures = vec![cure("cloudCore.", &OF_HOST, &taken, &mut all, 1024..=65_535)];
    if taken.iter().any(|(of, ..)| *of == MONITOR) {
        cures.push(
            "other ports in cloudCore.commonConfig.monitorServer (bindAddress, healthzBindAddress)"
                .to_owned(),
        );
    }
    cures.retain(|cure| !cure.is_empty());
    let says = format!("taken: {}: choose others: {}", told(&taken), cures.join(", and "));
    if free >= replicas {
        return Finding::passed(CHECK, format!("free on {free} machines; {}", told(&taken)));
    }
    if free > 0 {
        return Finding::warned(CHECK, format!("{says}; or place the pods by cloudCore.nodeSelector"));
    }
    Finding::failed(CHECK, says)
}

/// How the ports of health and of the admin endpoint are called here.
const MONITOR: &str = "monitor";

fn wanted_of_host(objects: &[Value]) -> Vec<(&str, i64)> {
    let Some(deployment) = objects.iter().find(|object| object["kind"] == "Deployment") else {
        return Vec::new();
    };
    let pod = &deployment["spec"]["template"]["spec"];
    let is_on_host = pod["hostNetwork"] == true;
    let containers = pod["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let mut wanted: Vec<(&str, i64)> = ports
        .filter_map(|port| {
            let name = port["name"].as_str()?;
            let name = OF_HOST.iter().find(|(of, _)| *of == name).map_or(MONITOR, |(of, _)| *of);
            Some((name, port["hostPort"].as_i64().or(port["containerPort"].as_i64().filter(|_| is_on_host))?))
        })
        .collect();
    if is_on_host {
        let map = objects.iter().find(|object| object["kind"] == "ConfigMap");
        let text = map.and_then(|map| map["data"]["cloudcore.yaml"].as_str()).unwrap_or_default();
        // Settings that are not understood are named by whoever reads them first.
        let settings = config::cloud::CloudCore::parse(text).unwrap_or_default();
        let address = settings.common_config.monitor_server.bind_address;
        wanted.extend(address.rsplit_once(':').and_then(|(_, port)| Some((MONITOR, port.parse().ok()?))));
    }
    wanted
}

fn told(taken: &[(&str, i64, String)]) -> String {
    let one = |(_, port, whose): &(&str, i64, String)| format!("{port} ({whose})");
    taken.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `--set` with a free port for each that is taken, ten above it or the next one.
fn cure(
    before: &str,
    values: &[(&str, &str)],
    taken: &[(&str, i64, String)],
    occupied: &mut BTreeSet<i64>,
    range: std::ops::RangeInclusive<i64>,
) -> String {
    let mut pairs = Vec::new();
    for (of, value) in values {
        let Some((_, port, _)) = taken.iter().find(|(taken, ..)| taken == of) else { continue };
        let mut above = (port + 10..=*range.end()).chain(range.clone());
        let is_free = |port: &i64| range.contains(port) && !occupied.contains(port);
        let Some(free) = above.find(is_free) else { continue };
        occupied.insert(free);
        pairs.push(format!("{before}{value}={free}"));
    }
    if pairs.is_empty() { String::new() } else { format!("--set {}", pairs.join(",")) }
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade;

    use super::*;
    use crate::debug::testing::grade;
    use serde_json::json;

    fn rendered(values: Value) -> Vec<Value> {
        let mut values = values;
        values["cloudCore"]["modules"]["cloudHub"]["advertiseAddress"] = json!(["192.0.2.1"]);
        let capabilities = helmchart::Capabilities { version: "v1.36.0".to_owned(), kinds: Vec::new() };
        helmchart::render(&helmchart::with_defaults(&values).unwrap(), &capabilities, "hive").unwrap()
    }

    #[test]
    fn a_port_that_another_service_has_is_named_with_it_and_free_ones() {
        let service = |namespace: &str, name: &str, ports: &[i32]| -> Service {
            let ports: Vec<Value> = ports.iter().map(|port| json!({ "port": 1, "nodePort": port })).collect();
            let metadata = json!({ "namespace": namespace, "name": name });
            serde_json::from_value(json!({ "metadata": metadata, "spec": { "ports": ports } })).unwrap()
        };
        let ours = rendered(json!({}));
        grade(&node_ports(&ours, &[service("hive", "cloudcore", &[30000])]), Grade::Passed, "free");
        grade(&node_ports(&ours, &[service("web", "shop", &[30003])]), Grade::Passed, "free");
        grade(&node_ports(&[], &[service("web", "shop", &[30000])]), Grade::Passed, "none is asked for");
        // KubeEdge's CloudCore without hostNetWork, and somebody at one of the ports above.
        let theirs = [
            service("kubeedge", "cloudcore", &[30000, 30001, 30002, 30003, 30004]),
            service("web", "shop", &[30010]),
        ];
        let found = node_ports(&ours, &theirs);
        grade(&found, Grade::Failed, "30000 (Service kubeedge/cloudcore)");
        grade(
            &found,
            Grade::Failed,
            "--set cloudCore.service.cloudhubNodePort=30011,cloudCore.service.cloudhubQuicNodePort=30012,cloudCore.service.cloudhubHttpsNodePort=30013",
        );
        // And what is said is taken.
        let set = found.says.rsplit_once("--set ").unwrap().1.to_owned();
        let mut values = json!({});
        helmchart::set(&mut values, &set).unwrap();
        grade(&node_ports(&rendered(values), &theirs), Grade::Passed, "free");
    }

    fn kubeedges(machine: &str, is_on_host: bool) -> Pod {
        let ports: Vec<Value> = (10000..=10004).map(|port| json!({ "containerPort": port })).collect();
        let metadata =
            json!({ "namespace": "kubeedge", "name": "cloudcore-1", "labels": { "kubeedge": "cloudcore" } });
        let spec = json!({ "nodeName": machine, "hostNetwork": is_on_host, "containers": [{ "name": "cloudcore", "ports": ports }] });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn ports_of_machines_that_kubeedges_cloudcore_has_are_named() {
        let on_host = |values: Value| rendered(json!({ "cloudCore": values }));
        let of = |objects: &[Value], pods: &[Pod], machines: &[&str], replicas| {
            host_ports(objects, "hive", pods, machines, replicas)
        };
        let theirs = [kubeedges("a", true)];
        let plain = on_host(json!({}));
        grade(&of(&plain, &theirs, &["a"], 1), Grade::Passed, "none is asked for");
        let ports = on_host(json!({ "hostPorts": true }));
        grade(&of(&ports, &[kubeedges("a", false)], &["a"], 1), Grade::Passed, "free");
        let found = of(&ports, &theirs, &["a"], 1);
        grade(&found, Grade::Failed, "10000 (pod kubeedge/cloudcore-1 on a)");
        grade(
            &found,
            Grade::Failed,
            "--set cloudCore.modules.cloudHub.websocket.port=10010,cloudCore.modules.cloudHub.quic.port=10011,cloudCore.modules.cloudHub.https.port=10012",
        );
        assert!(!found.says.contains("monitorServer"), "its own network has its own loopback");
        grade(&of(&ports, &theirs, &["a", "b"], 1), Grade::Passed, "free on 1 machines");
        grade(&of(&ports, &theirs, &["a", "b"], 2), Grade::Warned, "nodeSelector");
        // On the host's network their admin endpoints are at the same port, too.
        let network = on_host(json!({ "hostNetWork": true }));
        grade(&of(&network, &theirs, &["a"], 1), Grade::Failed, "9091 (pod kubeedge/cloudcore-1 on a)");
        grade(&of(&network, &theirs, &["a"], 1), Grade::Failed, "cloudCore.commonConfig.monitorServer");
        grade(&of(&network, &theirs, &["a"], 0), Grade::Passed, "none is asked for");
        // One of ours is replaced.
        let mut own = kubeedges("a", true);
        own.metadata.namespace = Some("hive".to_owned());
        grade(&of(&network, &[own], &["a"], 1), Grade::Passed, "free");
    }
}
