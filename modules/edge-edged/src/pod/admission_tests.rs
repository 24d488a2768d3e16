use std::sync::OnceLock;

use serde_json::{Value, json};

use super::*;
use crate::pod::parsed_pod::tests::pod;

/// A node without labels and taints.
pub(crate) fn plain_node() -> NodeTraits<'static> {
    static SYSCTLS: OnceLock<Sysctls> = OnceLock::new();
    static LABELS: BTreeMap<String, String> = BTreeMap::new();
    let sysctls = SYSCTLS.get_or_init(|| Sysctls::new(&[], "6.1.0"));
    NodeTraits {
        name: "edge-1",
        labels: &LABELS,
        taints: &[],
        sysctls,
        app_armor: false,
        shutting_down: false,
        features: None,
    }
}

fn room() -> Capacity {
    Capacity { pods: 3, cpu_milli: 1000, memory: 1 << 30, ephemeral_storage: 1 << 30, ..Capacity::default() }
}

fn reason(intent: &Intent) -> &str {
    match intent {
        Intent::Fail { reason, .. } | Intent::Hold { reason, .. } => reason,
        Intent::Run => "Run",
        Intent::Terminate => "Terminate",
    }
}

fn refused(admission: &mut Admission<'_>, pod: &ParsedPod) -> (String, String) {
    match admission.decide(pod, History::New) {
        Intent::Fail { reason, message } => {
            (reason, message.strip_prefix("Pod was rejected: ").unwrap().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

fn asks(resource: &str, amount: &str) -> ParsedPod {
    let resources = json!({"requests": {resource: amount}, "limits": {resource: amount}});
    pod(json!({"containers": [{"name": "c", "image": "x", "resources": resources}]}))
}

#[test]
fn pods_are_taken_while_there_is_room() {
    let mut admission = Admission::new(room(), plain_node());
    assert_eq!(reason(&admission.decide(&asks("cpu", "600m"), History::New)), "Run");
    let words = "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000";
    assert_eq!(refused(&mut admission, &asks("cpu", "600m")), ("OutOfcpu".into(), words.into()));
    assert_eq!(reason(&admission.decide(&asks("cpu", "600m"), History::Admitted)), "Run");
    // More is used than there is: who asks for none of it is no worse off.
    assert_eq!(reason(&admission.decide(&asks("memory", "1Ki"), History::New)), "Run");
    let words = "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3";
    assert_eq!(refused(&mut admission, &pod(json!({}))), ("OutOfpods".into(), words.into()));
    assert_eq!(reason(&admission.decide(&pod(json!({})), History::Ended)), "Run");
}

#[test]
fn devices_are_given_while_they_are_healthy_and_waited_for_while_their_plugin_may_come() {
    let count = |allocatable, is_awaited| DeviceCount { capacity: 4, allocatable, is_awaited };
    let devices: BTreeMap<String, DeviceCount> =
        [("example.com/x".to_owned(), count(2, false)), ("example.com/late".to_owned(), count(0, true))]
            .into();
    let mut admission = Admission::new(Capacity { devices, ..room() }, plain_node());
    assert_eq!(reason(&admission.decide(&asks("example.com/x", "2"), History::New)), "Run");
    let words = "Node didn't have enough resource: example.com/x, requested: 1, used: 2, capacity: 2";
    let refusal = refused(&mut admission, &asks("example.com/x", "1"));
    assert_eq!(refusal, ("OutOfexample.com/x".into(), words.into()));
    assert_eq!(reason(&admission.decide(&asks("example.com/late", "1"), History::New)), "Run");
    // Before anything is known of devices nobody is turned away for want of them; of all else they are.
    let unknown = Capacity { devices_unknown: true, ..room() };
    let mut admission = Admission::new(unknown, plain_node());
    assert_eq!(reason(&admission.decide(&asks("example.com/x", "9"), History::New)), "Run");
    assert_eq!(refused(&mut admission, &asks("hugepages-2Mi", "4Mi")).0, "OutOfhugepages-2Mi");
    let pages = Capacity { huge_pages: [("hugepages-2Mi".to_owned(), 4 << 20)].into(), ..room() };
    let mut admission = Admission::new(pages, plain_node());
    assert_eq!(reason(&admission.decide(&asks("hugepages-2Mi", "4Mi"), History::New)), "Run");
    let words = format!(
        "Node didn't have enough resource: hugepages-2Mi, requested: {0}, used: {1}, capacity: {1}",
        2 << 20,
        4 << 20
    );
    assert_eq!(
        refused(&mut admission, &asks("hugepages-2Mi", "2Mi")),
        ("OutOfhugepages-2Mi".to_owned(), words)
    );
}

#[test]
fn what_an_operator_added_to_the_node_is_given_and_a_plugins_own_word_is_the_plugins() {
    let of_node = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 3)).collect();
    let devices =
        [("example.com/x".to_owned(), DeviceCount { capacity: 4, ..DeviceCount::default() })].into();
    let known = Capacity { of_node: of_node(&["example.com/foo", "example.com/x"]), devices, ..room() };
    let mut admission = Admission::new(known, plain_node());
    assert_eq!(reason(&admission.decide(&asks("example.com/foo", "2"), History::New)), "Run");
    let words = "Node didn't have enough resource: example.com/foo, requested: 2, used: 2, capacity: 3";
    let refusal = refused(&mut admission, &asks("example.com/foo", "2"));
    assert_eq!(refusal, ("OutOfexample.com/foo".into(), words.into()));
    assert_eq!(refused(&mut admission, &asks("example.com/x", "1")).0, "OutOfexample.com/x");
    assert_eq!(refused(&mut admission, &asks("example.com/other", "1")).0, "OutOfexample.com/other");
}

#[test]
fn what_the_node_does_not_have_is_named_in_order() {
    let mut admission = Admission::new(room(), plain_node());
    for (resource, amount, wanted, capacity) in [
        ("memory", "2Gi", 2_i64 << 30, 1_i64 << 30),
        ("ephemeral-storage", "2Gi", 2 << 30, 1 << 30),
        ("nvidia.com/gpu", "1", 1, 0),
        ("hugepages-2Mi", "4Mi", 4 << 20, 0),
    ] {
        let (reason, message) = refused(&mut admission, &asks(resource, amount));
        assert_eq!(reason, format!("OutOf{resource}"));
        let words = format!(
            "Node didn't have enough resource: {resource}, requested: {wanted}, used: 0, capacity: {capacity}"
        );
        assert_eq!(message, words);
    }
    let resources = json!({"limits": {"memory": "2Gi", "cpu": "2", "nvidia.com/gpu": "1"}});
    let all = pod(json!({"containers": [{"name": "c", "image": "x", "resources": resources}]}));
    assert_eq!(refused(&mut admission, &all).0, "OutOfcpu");
}

#[test]
fn a_pod_for_another_kind_of_node_is_turned_away() {
    let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let taints: Vec<Taint> =
        serde_json::from_value(json!([{"key": "k", "value": "v", "effect": "NoExecute"}])).unwrap();
    let node = NodeTraits {
        labels: &labels,
        taints: &taints,
        features: Some(cri::Features::default()),
        ..plain_node()
    };
    let tolerant = |spec: Value| {
        let mut spec = spec;
        spec["tolerations"] = json!([{"operator": "Exists"}]);
        pod(spec)
    };
    let mut labelled = tolerant(json!({}));
    labelled.pod.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
    for (pod, reason, message) in [
        (
            tolerant(json!({"securityContext": {"sysctls": [{"name": "kernel.shmmax", "value": "1"}]}})),
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.shmmax\" not allowlisted",
        ),
        (
            labelled,
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        ),
        (
            tolerant(json!({"os": {"name": "windows"}})),
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ),
        (
            tolerant(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}})),
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ),
        (
            tolerant(json!({"nodeSelector": {"zone": "b"}})),
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            tolerant(json!({"nodeName": "edge-2"})),
            "NodeName",
            "Predicate NodeName failed: node(s) didn't match the requested node name",
        ),
        (
            pod(json!({})),
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        ),
        (
            tolerant(json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}})),
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ),
    ] {
        let found = refused(&mut Admission::new(room(), node), &pod);
        assert_eq!(found, (reason.to_owned(), message.to_owned()));
        // What was admitted before stays.
        let again = Admission::new(room(), node).decide(&pod, History::Admitted);
        assert_eq!(again, Intent::Run, "{reason}");
    }
    let confined = tolerant(json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}));
    let able = NodeTraits { app_armor: true, ..node };
    assert_eq!(Admission::new(room(), able).decide(&confined, History::New), Intent::Run);
    let fits =
        tolerant(json!({"nodeSelector": {"zone": "a"}, "os": {"name": "linux"}, "nodeName": "edge-1"}));
    assert_eq!(Admission::new(room(), node).decide(&fits, History::New), Intent::Run);
    // A runtime that has not said what it can do is asked again when the container is made.
    let strict = tolerant(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}));
    let unknown = NodeTraits { features: None, ..node };
    assert_eq!(Admission::new(room(), unknown).decide(&strict, History::New), Intent::Run);
}

#[test]
fn a_port_of_the_host_is_one_pods_until_that_is_gone() {
    let server = |terminating: bool| {
        let ports = json!([{"containerPort": 80, "hostPort": 18080}]);
        let mut server = pod(json!({"containers": [{"name": "c", "image": "x", "ports": ports}]}));
        server.pod.metadata.deletion_timestamp =
            terminating.then(|| serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        server
    };
    let mut admission = Admission::new(room(), plain_node());
    assert_eq!(admission.decide(&server(true), History::Admitted), Intent::Terminate);
    let words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    assert_eq!(refused(&mut admission, &server(false)), ("NodePorts".into(), words.into()));
    // Neither one that never ran here nor one that has ended has it.
    for history in [History::New, History::Ended] {
        let mut admission = Admission::new(room(), plain_node());
        assert_eq!(admission.decide(&server(true), history), Intent::Terminate);
        assert_eq!(admission.decide(&server(false), History::New), Intent::Run);
    }
}

#[test]
fn what_this_node_cannot_honour_is_held_whatever_was_decided_before() {
    let refused =
        pod(json!({"volumes": [{"name": "v", "iscsi": {"targetPortal": "x", "iqn": "y", "lun": 0}}]}));
    let decided = Admission::new(room(), plain_node()).decide(&refused, History::Admitted);
    assert_eq!(reason(&decided), "FieldsNotSupported");
}

#[test]
fn a_critical_pod_for_which_nobody_can_make_room_says_so() {
    let critical = |mut pod: ParsedPod| {
        pod.pod.spec.as_mut().unwrap().priority = Some(2_000_000_000);
        pod
    };
    let mut admission = Admission::new(room(), plain_node());
    assert_eq!(admission.decide(&asks("cpu", "400m"), History::New), Intent::Run);
    let words = "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
                 pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]";
    let found = refused(&mut admission, &critical(asks("cpu", "2")));
    assert_eq!(found, ("UnexpectedAdmissionError".into(), words.into()));
    assert_eq!(admission.preempted().count(), 0);
    // What else is in its way comes first.
    let mut elsewhere = critical(asks("cpu", "900m"));
    elsewhere.pod.spec.as_mut().unwrap().node_name = Some("edge-2".to_owned());
    assert_eq!(refused(&mut admission, &elsewhere).0, "NodeName");
    assert_eq!(admission.decide(&critical(asks("cpu", "900m")), History::New), Intent::Run);
    assert_eq!(admission.preempted().count(), 1);
}

#[test]
fn a_pod_that_ends_takes_room_until_the_runtime_has_nothing_of_it_whatever_the_cloud_keeps_of_it() {
    let one = |uid: &str, more: Value| {
        let mut own = pod(
            json!({"containers": [{"name": "c", "image": "x", "resources": {"requests": {"cpu": "600m"}}}]}),
        );
        own.id.uid = uid.to_owned();
        own.pod.metadata.deletion_timestamp = serde_json::from_value(more).unwrap();
        own
    };
    let (ends, new) = (one("ends", json!("2026-01-01T00:00:00Z")), one("new", Value::Null));
    let decided = |is_there: bool| {
        let own = Left {
            pod: std::sync::Arc::new(ends.clone()),
            intent: Intent::Terminate,
            is_there,
            may_run: is_there,
        };
        let left = BTreeMap::from([("ends".to_owned(), own)]);
        let mut admission = Admission::new(room(), plain_node()).beside(&left);
        assert_eq!(admission.decide(&ends, History::Admitted), Intent::Terminate);
        reason(&admission.decide(&new, History::New)).to_owned()
    };
    assert_eq!([decided(true), decided(false)], ["OutOfcpu", "Run"]);
}
