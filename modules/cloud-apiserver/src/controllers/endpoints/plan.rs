//! The addresses behind a service.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::controllers::object::{
    has_ended, is_deleting, is_ready, labels, list, name, namespace, reference_to, text, uid,
};
use crate::controllers::selector::picks_all;

/// Who keeps the slices.
pub(crate) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
/// 100 addresses in one slice, as upstream.
const SLICE: usize = 100;

/// Whether we look for the pods of a service.
pub(crate) fn is_selecting(service: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| !selector.is_empty())
        && text(service, "/spec/type") != "ExternalName"
        && !is_deleting(service)
}

/// The pods with an address that a service picks.
fn picked<'a>(service: &Value, pods: &[&'a Value]) -> Vec<&'a Value> {
    let picks = |pod: &&Value| {
        namespace(pod) == namespace(service)
            && !has_ended(pod)
            && !is_deleting(pod)
            && !text(pod, "/status/podIP").is_empty()
            && picks_all(&service["spec"]["selector"], labels(pod))
    };
    pods.iter().copied().filter(|pod| picks(pod)).collect()
}

/// The service's ports as this pod has them; a name that the pod does not know is left out.
fn ports(service: &Value, pod: &Value) -> Vec<(String, i64, String)> {
    let containers = list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports"));
    // By name and protocol, with its place, so that a service of many ports and a pod of many take no time by their product.
    let mut named: BTreeMap<(&str, &str), (usize, Option<i64>)> = BTreeMap::new();
    for (at, port) in containers.enumerate() {
        let key = (text(port, "/name"), text(port, "/protocol"));
        named.entry(key).or_insert((at, port["containerPort"].as_i64()));
    }
    let resolved = list(service, "/spec/ports").iter().filter_map(|port| {
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            said => said,
        };
        let target = match &port["targetPort"] {
            Value::Number(number) => number.as_i64(),
            Value::String(wanted) => {
                // One without a protocol is of any.
                let found = [protocol, ""].into_iter().filter_map(|of| named.get(&(wanted.as_str(), of)));
                found.min().and_then(|(_, port)| *port)
            }
            _ => port["port"].as_i64(),
        };
        Some((text(port, "/name").to_owned(), target?, protocol.to_owned()))
    });
    resolved.collect()
}

type Group<'a> = BTreeMap<Vec<(String, i64, String)>, Vec<&'a Value>>;

fn grouped<'a>(service: &Value, pods: &[&'a Value]) -> Group<'a> {
    let mut groups = Group::new();
    for pod in picked(service, pods) {
        let ports = ports(service, pod);
        if !ports.is_empty() || list(service, "/spec/ports").is_empty() {
            groups.entry(ports).or_default().push(pod);
        }
    }
    for pods in groups.values_mut() {
        pods.sort_by_key(|pod| (text(pod, "/status/podIP").to_owned(), name(pod).to_owned()));
    }
    groups
}

fn is_taken_for_ready(service: &Value, pod: &Value) -> bool {
    is_ready(pod) || service["spec"]["publishNotReadyAddresses"] == json!(true)
}

/// The ports of Endpoints: one without a name has none.
fn port_list(ports: &[(String, i64, String)]) -> Vec<Value> {
    let named = |(port, (name, ..)): (Value, &(String, i64, String))| match (port, name.is_empty()) {
        (Value::Object(mut port), true) => {
            port.remove("name");
            Value::Object(port)
        }
        (port, _) => port,
    };
    slice_ports(ports).into_iter().zip(ports).map(named).collect()
}

/// The ports of an EndpointSlice: one without a name has the empty one (Kubernetes: SetDefaults_EndpointPort).
fn slice_ports(ports: &[(String, i64, String)]) -> Vec<Value> {
    let entry = |(name, port, protocol): &(String, i64, String)| json!({ "name": name, "port": port, "protocol": protocol });
    ports.iter().map(entry).collect()
}

fn reference(pod: &Value) -> Value {
    json!({ "kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod) })
}

/// The Endpoints object of a service.
pub(crate) fn endpoints(service: &Value, pods: &[&Value]) -> Value {
    let subsets = grouped(service, pods).into_iter().map(|(ports, pods)| {
        let address = |pod: &Value| {
            json!({ "ip": text(pod, "/status/podIP"), "nodeName": text(pod, "/spec/nodeName"), "targetRef": reference(pod) })
        };
        let (ready, other): (Vec<&Value>, Vec<&Value>) =
            pods.into_iter().partition(|pod| is_taken_for_ready(service, pod));
        let mut subset = json!({ "ports": port_list(&ports) });
        for (field, pods) in [("addresses", ready), ("notReadyAddresses", other)] {
            if !pods.is_empty() {
                subset[field] = pods.into_iter().map(address).collect();
            }
        }
        subset
    });
    let subsets: Vec<Value> = subsets.collect();
    let mut metadata = json!({
        "namespace": namespace(service), "name": name(service),
        "ownerReferences": [reference_to(service, "v1", "Service")],
    });
    if labels(service).is_object() {
        metadata["labels"] = labels(service).clone();
    }
    json!({ "metadata": metadata, "subsets": subsets })
}

/// The EndpointSlices of a service, by name.
pub(crate) fn slices(service: &Value, pods: &[&Value]) -> BTreeMap<String, Value> {
    let mut groups: Vec<_> = grouped(service, pods).into_iter().collect();
    if groups.is_empty() {
        groups.push((Vec::new(), Vec::new()));
    }
    let mut slices = BTreeMap::new();
    for (ports, pods) in groups {
        let chunks: Vec<&[&Value]> = if pods.is_empty() { vec![&[]] } else { pods.chunks(SLICE).collect() };
        for chunk in chunks {
            let endpoint = |pod: &&Value| {
                let ready = is_taken_for_ready(service, pod);
                json!({
                    "addresses": [text(pod, "/status/podIP")], "nodeName": text(pod, "/spec/nodeName"),
                    "targetRef": reference(pod),
                    "conditions": { "ready": ready, "serving": is_ready(pod), "terminating": false },
                })
            };
            let endpoints: Vec<Value> = chunk.iter().map(endpoint).collect();
            // The uid in the name keeps the slices of a service apart from those of an earlier one.
            let short: String = uid(service).chars().filter(char::is_ascii_alphanumeric).take(5).collect();
            let name_of = format!("{}-{}-{}", name(service), short, slices.len());
            let slice = json!({
                "metadata": {
                    "namespace": namespace(service), "name": name_of,
                    "labels": {
                        "kubernetes.io/service-name": name(service),
                        "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
                    },
                    "ownerReferences": [reference_to(service, "v1", "Service")],
                },
                "addressType": "IPv4", "endpoints": endpoints, "ports": slice_ports(&ports),
            });
            slices.insert(name_of, slice);
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, ready: &str) -> Value {
        json!({
            "metadata": {"namespace": "d", "name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn service(target: Value) -> Value {
        json!({"metadata": {"namespace": "d", "name": "web", "uid": "12-34-56"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": target}]}})
    }

    #[test]
    fn ready_and_other_addresses_with_the_pods_own_port() {
        let pods = [
            pod("b", "10.0.0.2", "True"),
            pod("a", "10.0.0.1", "True"),
            pod("c", "10.0.0.3", "False"),
            pod("d", "", "True"),
        ];
        let pods: Vec<&Value> = pods.iter().collect();
        let made = endpoints(&service(json!("http")), &pods);
        let subset = &made["subsets"][0];
        assert_eq!(subset["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        assert_eq!(subset["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subset["addresses"].as_array().map(Vec::len), Some(2));
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.0.0.3");
        let slices = slices(&service(json!("http")), &pods);
        assert!(slices.values().all(|slice| slice["ports"][0]["name"] == ""), "{slices:?}");
        assert_eq!(slices.len(), 1);
        let slice = &slices["web-12345-0"];
        assert_eq!(slice["endpoints"][2]["conditions"]["ready"], false);
        assert_eq!(endpoints(&service(json!("nope")), &pods)["subsets"], json!([]));
        assert_eq!(endpoints(&service(json!(9)), &pods)["subsets"][0]["ports"][0]["port"], 9);
    }

    #[test]
    fn many_addresses_need_more_slices_and_none_needs_one() {
        let pods: Vec<Value> =
            (0..150).map(|at| pod(&format!("p{at}"), &format!("10.0.1.{at}"), "True")).collect();
        let pods: Vec<&Value> = pods.iter().collect();
        assert_eq!(slices(&service(json!(80)), &pods).len(), 2);
        assert_eq!(slices(&service(json!(80)), &[]).len(), 1);
        assert!(is_selecting(&service(json!(80))) && !is_selecting(&json!({"spec": {}})));
    }
}
