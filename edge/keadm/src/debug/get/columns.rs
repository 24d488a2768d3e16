//! Objects as rows of a table, as kubectl prints them. Pure.

use serde_json::Value;

use super::Kind;
use crate::store::{age, plain};

/// What is said of a thing that is not there.
const NONE: &str = "<none>";

impl Kind {
    /// The heads, without the namespace.
    pub(super) fn heads(self, wide: bool) -> Vec<&'static str> {
        let (usual, more): (&[&str], &[&str]) = match self {
            Kind::Pods => (&["NAME", "READY", "STATUS", "RESTARTS", "AGE"], &["IP", "NODE"]),
            Kind::Nodes => (
                &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
                &["INTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"],
            ),
            Kind::Services => {
                (&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"], &["SELECTOR"])
            }
            Kind::Secrets => (&["NAME", "TYPE", "DATA", "AGE"], &[]),
            Kind::Configmaps => (&["NAME", "DATA", "AGE"], &[]),
            Kind::Devices => (&["NAME", "PROTOCOL", "STATE", "AGE"], &["MODEL", "NODE"]),
            Kind::Devicemodels => (&["NAME", "PROTOCOL", "AGE"], &[]),
            Kind::Persistentvolumeclaims => (&["NAME", "STATUS", "VOLUME", "STORAGECLASS", "AGE"], &[]),
            Kind::All | Kind::Endpoints | Kind::Persistentvolumes | Kind::Rules | Kind::Ruleendpoints => {
                (&["NAME", "AGE"], &[])
            }
        };
        usual.iter().chain(if wide { more } else { &[] }).copied().collect()
    }

    /// The cells below them, at `now` in seconds since 1970.
    pub(super) fn cells(self, object: &Value, wide: bool, now: u64) -> Vec<String> {
        let text = |pointer: &str| {
            plain(
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .filter(|text| !text.is_empty())
                    .unwrap_or(NONE),
            )
        };
        let (name, age) = (text("/metadata/name"), age_of(object, now));
        let count = |pointers: &[&str]| -> String {
            let of = |pointer: &&str| {
                object.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len)
            };
            pointers.iter().map(of).sum::<usize>().to_string()
        };
        let (usual, more) = match self {
            Kind::Pods => {
                let (ready, all, restarts) = containers(object);
                let usual =
                    vec![name, format!("{ready}/{all}"), pod_state(object), restarts.to_string(), age];
                (usual, vec![text("/status/podIP"), text("/spec/nodeName")])
            }
            Kind::Nodes => (
                vec![name, node_state(object), roles(object), age, text("/status/nodeInfo/kubeletVersion")],
                vec![
                    address(object),
                    text("/status/nodeInfo/osImage"),
                    text("/status/nodeInfo/kernelVersion"),
                    text("/status/nodeInfo/containerRuntimeVersion"),
                ],
            ),
            Kind::Services => (
                vec![name, text("/spec/type"), text("/spec/clusterIP"), external(object), ports(object), age],
                vec![pairs(&object["spec"]["selector"])],
            ),
            Kind::Secrets => (vec![name, text("/type"), count(&["/data", "/stringData"]), age], vec![]),
            Kind::Configmaps => (vec![name, count(&["/data", "/binaryData"]), age], vec![]),
            Kind::Devices => (
                vec![name, text("/spec/protocol/protocolName"), text("/status/state"), age],
                vec![text("/spec/deviceModelRef/name"), text("/spec/nodeName")],
            ),
            Kind::Devicemodels => (vec![name, text("/spec/protocol"), age], vec![]),
            Kind::Persistentvolumeclaims => (
                vec![
                    name,
                    text("/status/phase"),
                    text("/spec/volumeName"),
                    text("/spec/storageClassName"),
                    age,
                ],
                vec![],
            ),
            Kind::All | Kind::Endpoints | Kind::Persistentvolumes | Kind::Rules | Kind::Ruleendpoints => {
                (vec![name, age], vec![])
            }
        };
        usual.into_iter().chain(if wide { more } else { vec![] }).collect()
    }
}

fn age_of(object: &Value, now: u64) -> String {
    let made = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    let made = made.and_then(|made| made.parse::<jiff::Timestamp>().ok());
    let made = made.and_then(|made| u64::try_from(made.as_second()).ok());
    made.map_or_else(|| "<unknown>".to_owned(), |made| age(now.saturating_sub(made)))
}

fn array<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many containers are ready, how many there are, and how often they were started again.
pub(crate) fn containers(pod: &Value) -> (usize, usize, u64) {
    let statuses = array(pod, "/status/containerStatuses");
    let ready = statuses.iter().filter(|status| status["ready"] == true).count();
    let restarts =
        statuses.iter().filter_map(|status| status["restartCount"].as_u64()).fold(0, u64::saturating_add);
    (ready, array(pod, "/spec/containers").len(), restarts)
}

/// One word on how a pod is, as kubectl has it (`printPod` of Kubernetes' `printers/internalversion`).
pub(crate) fn pod_state(pod: &Value) -> String {
    let status = &pod["status"];
    let word = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(plain);
    let mut state =
        word(&status["reason"]).or_else(|| word(&status["phase"])).unwrap_or_else(|| "Unknown".to_owned());
    match initializing(pod) {
        Some(init) => state = init,
        None => {
            let mut has_running = false;
            for container in array(pod, "/status/containerStatuses").iter().rev() {
                let (waiting, terminated) =
                    (&container["state"]["waiting"], &container["state"]["terminated"]);
                if let Some(reason) = word(&waiting["reason"]) {
                    state = reason;
                } else if let Some(reason) = word(&terminated["reason"]) {
                    state = reason;
                } else if terminated.is_object() {
                    state = ended(terminated);
                } else if container["ready"] == true && container["state"]["running"].is_object() {
                    has_running = true;
                }
            }
            if state == "Completed" && has_running {
                let ready = array(pod, "/status/conditions")
                    .iter()
                    .any(|one| one["type"] == "Ready" && one["status"] == "True");
                state = if ready { "Running" } else { "NotReady" }.to_owned();
            }
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() { "Terminating".to_owned() } else { state }
}

/// How far its init containers are, while they are not done.
fn initializing(pod: &Value) -> Option<String> {
    let (statuses, specs) = (array(pod, "/status/initContainerStatuses"), array(pod, "/spec/initContainers"));
    for (at, container) in statuses.iter().enumerate() {
        let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
        let is_sidecar =
            specs.iter().any(|spec| spec["name"] == container["name"] && spec["restartPolicy"] == "Always");
        if terminated["exitCode"] == 0 || (is_sidecar && container["started"] == true) {
            continue;
        }
        let reason = |value: &Value| value["reason"].as_str().filter(|reason| !reason.is_empty()).map(plain);
        return Some(match (reason(terminated), reason(waiting)) {
            (Some(reason), _) => format!("Init:{reason}"),
            (None, _) if terminated.is_object() => format!("Init:{}", ended(terminated)),
            (None, Some(reason)) if reason != "PodInitializing" => format!("Init:{reason}"),
            (None, _) => format!("Init:{at}/{}", specs.len()),
        });
    }
    None
}

fn ended(terminated: &Value) -> String {
    match terminated["signal"].as_i64().filter(|signal| *signal != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", terminated["exitCode"]),
    }
}

/// Leaves out what a node's store never knows of it: the cloud sends no Node's own word about its programs back, and a column of `<none>` says that there
/// is none.
pub(super) fn without_unknown(heads: &mut Vec<&'static str>, rows: &mut [Vec<String>]) {
    const OF_THE_NODE_ITSELF: [&str; 5] =
        ["VERSION", "INTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"];
    for at in (0..heads.len()).rev() {
        let is_unknown = |row: &Vec<String>| row.get(at).is_some_and(|cell| cell == NONE);
        let is_own = heads.get(at).is_some_and(|head| OF_THE_NODE_ITSELF.contains(head));
        if is_own && rows.iter().all(is_unknown) {
            heads.remove(at);
            rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
    }
}

fn node_state(node: &Value) -> String {
    let ready = array(node, "/status/conditions").iter().find(|one| one["type"] == "Ready");
    let state = match ready.and_then(|ready| ready["status"].as_str()) {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    };
    if node["spec"]["unschedulable"] == true {
        format!("{state},SchedulingDisabled")
    } else {
        state.to_owned()
    }
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let roles =
        labels.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
    let roles: Vec<String> = roles.map(plain).collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

fn address(node: &Value) -> String {
    let internal = array(node, "/status/addresses").iter().find(|address| address["type"] == "InternalIP");
    plain(internal.and_then(|address| address["address"].as_str()).unwrap_or(NONE))
}

fn external(service: &Value) -> String {
    let ingress = array(service, "/status/loadBalancer/ingress").iter();
    let mut all: Vec<String> =
        ingress.filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str())).map(plain).collect();
    all.extend(array(service, "/spec/externalIPs").iter().filter_map(Value::as_str).map(plain));
    if service["spec"]["type"] == "ExternalName" {
        all.extend(service["spec"]["externalName"].as_str().map(plain));
    }
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}

fn ports(service: &Value) -> String {
    let of = |port: &Value| {
        let protocol = plain(port["protocol"].as_str().unwrap_or("TCP"));
        match port["nodePort"].as_u64() {
            Some(node) => format!("{}:{node}/{protocol}", port["port"]),
            None => format!("{}/{protocol}", port["port"]),
        }
    };
    let ports: Vec<String> = array(service, "/spec/ports").iter().map(of).collect();
    if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }
}

fn pairs(labels: &Value) -> String {
    let of = |(key, value): (&String, &Value)| {
        format!("{}={}", plain(key), plain(value.as_str().unwrap_or_default()))
    };
    let pairs: Vec<String> = labels.as_object().into_iter().flatten().map(of).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_of_a_node_that_nobody_knows_is_left_out() {
        let node = |info: Value| json!({"metadata": {"name": "edge-1"}, "status": {"nodeInfo": info}});
        let shown = |info: Value| {
            let (mut heads, mut rows) =
                (Kind::Nodes.heads(true), vec![Kind::Nodes.cells(&node(info), true, 0)]);
            without_unknown(&mut heads, &mut rows);
            assert_eq!(heads.len(), rows[0].len());
            heads
        };
        assert_eq!(shown(json!({})), ["NAME", "STATUS", "ROLES", "AGE"]);
        assert_eq!(shown(json!({"kubeletVersion": "v1"})), ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    }

    #[test]
    fn a_pods_state_is_kubectls() {
        let with = |status: Value| json!({"metadata": {}, "spec": {"containers": [{}, {}], "initContainers": [{"name": "i"}]}, "status": status});
        let of =
            |statuses: Value| pod_state(&with(json!({"phase": "Running", "containerStatuses": statuses})));
        assert_eq!(pod_state(&with(json!({"phase": "Pending"}))), "Pending");
        assert_eq!(pod_state(&with(json!({"phase": "Failed", "reason": "Evicted"}))), "Evicted");
        assert_eq!(of(json!([{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}])), "CrashLoopBackOff");
        assert_eq!(of(json!([{"state": {"terminated": {"exitCode": 7}}}])), "ExitCode:7");
        assert_eq!(of(json!([{"state": {"terminated": {"exitCode": 137, "signal": 9}}}])), "Signal:9");
        let done = json!([{"state": {"terminated": {"reason": "Completed"}}}, {"ready": true, "state": {"running": {}}}]);
        assert_eq!(of(done), "NotReady");
        let init =
            |status: Value| pod_state(&with(json!({"phase": "Pending", "initContainerStatuses": [status]})));
        assert_eq!(init(json!({"name": "i", "state": {"running": {}}})), "Init:0/1");
        assert_eq!(
            init(json!({"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}})),
            "Init:ErrImagePull"
        );
        assert_eq!(init(json!({"name": "i", "state": {"terminated": {"exitCode": 3}}})), "Init:ExitCode:3");
        assert_eq!(init(json!({"name": "i", "state": {"terminated": {"exitCode": 0}}})), "Pending");
        assert_eq!(pod_state(&json!({"metadata": {"deletionTimestamp": "x"}})), "Terminating");
        assert_eq!(pod_state(&json!(null)), "Unknown");
    }

    #[test]
    fn every_head_has_its_cell_and_nothing_of_a_secret_is_in_one() {
        let object = json!({"metadata": {"name": "n\u{1b}[2J", "labels": {"node-role.kubernetes.io/edge": ""}, "creationTimestamp": "2023-11-14T22:13:20Z"},
            "type": "Opaque", "data": {"a": "aHVudGVy", "b": "aHVudGVy"},
            "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"a": "b"}}});
        for kind in <Kind as clap::ValueEnum>::value_variants() {
            for wide in [false, true] {
                let cells = kind.cells(&object, wide, 1_700_000_060);
                assert_eq!(cells.len(), kind.heads(wide).len(), "{kind:?}");
                assert!(
                    !cells.concat().contains("aHVudGVy") && !cells.concat().contains('\u{1b}'),
                    "{cells:?}"
                );
                assert!(cells.contains(&"60s".to_owned()), "{cells:?}");
            }
        }
        assert_eq!(Kind::Secrets.cells(&object, false, 0)[1..3], ["Opaque", "2"]);
        let service = Kind::Services.cells(&object, true, 1_700_000_060);
        assert_eq!(service[1..], ["NodePort", "10.0.0.1", "<none>", "80:30080/TCP", "60s", "a=b"]);
        assert_eq!(Kind::Nodes.cells(&object, false, 0)[1..3], ["Unknown", "edge"]);
    }
}
