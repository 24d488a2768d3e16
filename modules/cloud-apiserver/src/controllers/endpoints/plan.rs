//! The addresses behind a service.

use std::collections::{BTreeMap, BTreeSet};

use kubeapi::bad_endpoint_address;
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

/// The pods that a service picks, with an address that an endpoint may have: a node says what it likes of its pods, and one that nobody
/// may have would keep all others of the service from being told.
fn picked<'a>(service: &Value, pods: &[&'a Value]) -> Vec<&'a Value> {
    let picks = |pod: &&Value| {
        namespace(pod) == namespace(service)
            && !has_ended(pod)
            && !is_deleting(pod)
            && bad_endpoint_address(text(pod, "/status/podIP")).is_none()
            && picks_all(&service["spec"]["selector"], labels(pod))
    };
    pods.iter().copied().filter(|pod| picks(pod)).collect()
}

/// A port of a service as a pod has it: its name, its number, its protocol.
type Port = (String, i64, String);

/// Pods that have the service's ports at the same numbers.
pub(crate) struct Subset<'a> {
    ports: Vec<Port>,
    pods: Vec<&'a Value>,
}

/// The pods of a service have its ports at so many numbers that the ports of all subsets are more than [`PORTS_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ports} ports, whose names stand for other numbers in {subsets} groups of pods: more than {PORTS_MAX} in all; \
     give the pods the same numbers, or the service fewer ports"
)]
pub(crate) struct TooManyPorts {
    ports: usize,
    subsets: usize,
}

/// 20,000 ports in all subsets of a service, as many as Kubernetes puts into one slice (`maxPorts` of discovery's validation).
const PORTS_MAX: usize = 20_000;

/// A port of a service: its name, where it leads, its protocol.
struct ServicePort<'a> {
    name: &'a str,
    target: Target<'a>,
    protocol: &'a str,
}

/// Where a port leads.
enum Target<'a> {
    Number(i64),
    /// Whatever number the pod gives this name.
    Named(&'a str),
}

fn service_ports(service: &Value) -> Vec<ServicePort<'_>> {
    let ports = list(service, "/spec/ports").iter().filter_map(|port| {
        let protocol = match text(port, "/protocol") {
            "" => "TCP",
            said => said,
        };
        let target = match &port["targetPort"] {
            Value::Number(number) => Target::Number(number.as_i64()?),
            Value::String(wanted) => Target::Named(wanted),
            _ => Target::Number(port["port"].as_i64()?),
        };
        Some(ServicePort { name: text(port, "/name"), target, protocol })
    });
    ports.collect()
}

/// The numbers of those of the wanted names and protocols that a pod knows. It costs the pod's ports, however many the service has.
fn named_numbers<'s>(
    wanted: &BTreeMap<&'s str, BTreeSet<&'s str>>,
    pod: &Value,
) -> BTreeMap<(&'s str, &'s str), i64> {
    let mut numbers: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for port in list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports")) {
        let Some((name, protocols)) = wanted.get_key_value(text(port, "/name")) else { continue };
        let Some(number) = port["containerPort"].as_i64() else { continue };
        // One without a protocol is of any, and the first counts.
        let of = text(port, "/protocol");
        for protocol in protocols.iter().filter(|protocol| of.is_empty() || **protocol == of) {
            numbers.entry((*name, *protocol)).or_insert(number);
        }
    }
    numbers
}

/// The pods behind a service, by the numbers that its ports have there. A name that a pod does not know is left out, and a pod that
/// knows none, too.
///
/// # Errors
/// If that comes to more than there is room for.
pub(crate) fn subsets<'a>(service: &Value, pods: &[&'a Value]) -> Result<Vec<Subset<'a>>, TooManyPorts> {
    let ports = service_ports(service);
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for port in &ports {
        if let Target::Named(name) = port.target {
            wanted.entry(name).or_default().insert(port.protocol);
        }
    }
    // What names stand for in a pod makes the difference: the ports themselves are made once for all pods that agree.
    let mut groups: BTreeMap<BTreeMap<(&str, &str), i64>, Vec<&'a Value>> = BTreeMap::new();
    for pod in picked(service, pods) {
        groups.entry(named_numbers(&wanted, pod)).or_default().push(pod);
    }
    if groups.len() > 1 && groups.len().saturating_mul(ports.len()) > PORTS_MAX {
        return Err(TooManyPorts { ports: ports.len(), subsets: groups.len() });
    }
    let has_none = list(service, "/spec/ports").is_empty();
    let subsets = groups.into_iter().filter_map(|(numbers, mut pods)| {
        let ports = ports.iter().filter_map(|port| {
            let number = match port.target {
                Target::Number(number) => number,
                Target::Named(name) => *numbers.get(&(name, port.protocol))?,
            };
            Some((port.name.to_owned(), number, port.protocol.to_owned()))
        });
        let ports: Vec<Port> = ports.collect();
        pods.sort_by_key(|pod| (text(pod, "/status/podIP").to_owned(), name(pod).to_owned()));
        (has_none || !ports.is_empty()).then_some(Subset { ports, pods })
    });
    Ok(subsets.collect())
}

fn is_taken_for_ready(service: &Value, pod: &Value) -> bool {
    is_ready(pod) || service["spec"]["publishNotReadyAddresses"] == json!(true)
}

/// The ports of Endpoints: one without a name has none.
fn port_list(ports: &[Port]) -> Vec<Value> {
    let named = |(port, (name, ..)): (Value, &Port)| match (port, name.is_empty()) {
        (Value::Object(mut port), true) => {
            port.remove("name");
            Value::Object(port)
        }
        (port, _) => port,
    };
    slice_ports(ports).into_iter().zip(ports).map(named).collect()
}

/// The ports of an EndpointSlice: one without a name has the empty one (Kubernetes: SetDefaults_EndpointPort).
fn slice_ports(ports: &[Port]) -> Vec<Value> {
    let entry = |(name, port, protocol): &Port| json!({ "name": name, "port": port, "protocol": protocol });
    ports.iter().map(entry).collect()
}

fn reference(pod: &Value) -> Value {
    json!({ "kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod) })
}

/// The Endpoints object of a service.
pub(crate) fn endpoints(service: &Value, subsets: &[Subset<'_>]) -> Value {
    let subsets = subsets.iter().map(|Subset { ports, pods }| {
        let address = |pod: &Value| {
            json!({ "ip": text(pod, "/status/podIP"), "nodeName": text(pod, "/spec/nodeName"), "targetRef": reference(pod) })
        };
        let (ready, other): (Vec<&Value>, Vec<&Value>) =
            pods.iter().copied().partition(|pod| is_taken_for_ready(service, pod));
        let mut subset = json!({ "ports": port_list(ports) });
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
pub(crate) fn slices(service: &Value, subsets: &[Subset<'_>]) -> BTreeMap<String, Value> {
    let none = [Subset { ports: Vec::new(), pods: Vec::new() }];
    let subsets = if subsets.is_empty() { &none[..] } else { subsets };
    let mut slices = BTreeMap::new();
    for Subset { ports, pods } in subsets {
        let (six, four): (Vec<&Value>, Vec<&Value>) =
            pods.iter().copied().partition(|pod| text(pod, "/status/podIP").contains(':'));
        let chunks: Vec<&[&Value]> = if pods.is_empty() { vec![&[]] } else { four.chunks(SLICE).collect() };
        let families = chunks.into_iter().map(|chunk| ("IPv4", chunk));
        for (family, chunk) in families.chain(six.chunks(SLICE).map(|chunk| ("IPv6", chunk))) {
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
                "addressType": family, "endpoints": endpoints, "ports": slice_ports(ports),
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

    fn endpoints(service: &Value, pods: &[&Value]) -> Value {
        super::endpoints(service, &subsets(service, pods).unwrap())
    }

    fn slices(service: &Value, pods: &[&Value]) -> BTreeMap<String, Value> {
        super::slices(service, &subsets(service, pods).unwrap())
    }

    #[test]
    fn pods_that_give_a_name_other_numbers_are_told_apart() {
        let mut pods: Vec<Value> = [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
            .map(|(name, at)| pod(name, &format!("10.0.0.{at}"), "True"))
            .into();
        pods[1]["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 1, "protocol": "UDP"}, {"name": "http", "containerPort": 9090}]);
        pods[2]["spec"]["containers"][0]["ports"][0]["name"] = json!("other");
        let pods: Vec<&Value> = pods.iter().collect();
        let mut service = service(json!("http"));
        service["spec"]["ports"] = json!([{"name": "w", "port": 80, "targetPort": "http"},
            {"name": "u", "port": 80, "targetPort": "http", "protocol": "UDP"}, {"name": "n", "port": 7}]);
        let made = endpoints(&service, &pods);
        let told: Vec<(Vec<i64>, Vec<&str>)> = list(&made, "/subsets")
            .iter()
            .map(|subset| {
                let numbers = list(subset, "/ports").iter().map(|port| port["port"].as_i64().unwrap());
                let names = list(subset, "/addresses").iter().map(|address| text(address, "/targetRef/name"));
                (numbers.collect(), names.collect())
            })
            .collect();
        assert_eq!(
            told,
            [(vec![7], vec!["c"]), (vec![8080, 8080, 7], vec!["a", "d"]), (vec![9090, 1, 7], vec!["b"])]
        );
    }

    #[test]
    fn many_ports_are_not_resolved_for_each_of_many_pods() {
        let began = std::time::Instant::now();
        let mut service = service(json!("http"));
        let ports = |target: fn(usize) -> Value| {
            json!(
                (0..20_000)
                    .map(|n| json!({"name": format!("p{n}"), "port": n + 1, "targetPort": target(n)}))
                    .collect::<Vec<_>>()
            )
        };
        let pods: Vec<Value> = (0..10_000).map(|n| pod(&format!("p{n}"), "10.0.0.1", "True")).collect();
        let mut pods: Vec<&Value> = pods.iter().collect();
        for target in
            [(|n| json!(n + 1)) as fn(usize) -> Value, |_| json!("http"), |n| json!(format!("x{n}"))]
        {
            service["spec"]["ports"] = ports(target);
            let subsets = subsets(&service, &pods).unwrap();
            assert!(subsets.iter().all(|subset| (subset.ports.len(), subset.pods.len()) == (20_000, 10_000)));
        }
        // A product that cannot be put otherwise is refused.
        let mut other = pod("other", "10.0.0.2", "True");
        other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(1);
        pods.push(&other);
        service["spec"]["ports"] = ports(|_| json!("http"));
        assert_eq!(subsets(&service, &pods).err(), Some(TooManyPorts { ports: 20_000, subsets: 2 }));
        // What made each for each took a quarter of an hour.
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }

    #[test]
    fn ready_and_other_addresses_with_the_pods_own_port() {
        let pods = [
            pod("b", "10.0.0.2", "True"),
            pod("a", "10.0.0.1", "True"),
            pod("c", "10.0.0.3", "False"),
            pod("d", "", "True"),
            // What a node may say of its pods: none of it is anybody's address.
            pod("e", "127.0.0.1", "True"),
            pod("f", "zz", "True"),
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
        let six = pod("six", "2001:db8::1", "True");
        let both = slices(&service(json!(80)), &[pods[0], &six]);
        let families: Vec<&str> = both.values().map(|slice| text(slice, "/addressType")).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        assert_eq!(slices(&service(json!(80)), &[]).len(), 1);
        assert!(is_selecting(&service(json!(80))) && !is_selecting(&json!({"spec": {}})));
    }
}
