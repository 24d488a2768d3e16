//! What reconciling costs when ten thousand pods are there and one changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The figures are what these tests are for.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beehive::Moment;
use bytes::Bytes;
use cloud_edgecontroller::plan;
use cloud_edgecontroller::pod_index::PodIndex;
use contract::synccontroller::SyncMsg;
use contract::{NodeName, Object, ObjectKey};
use kubewatch::{DesiredObjects, LastSent, Presence};
use serde_json::{Value, json};

const PODS: usize = 10_000;
const NODES: usize = 100;

type Cached = BTreeMap<ObjectKey, (Arc<Object>, Value)>;

fn object(key: &ObjectKey, version: &str, value: Value) -> (Arc<Object>, Value) {
    let (uid, content_hash) = (format!("uid-{}", key.name), version.to_owned());
    let resource_version = "1".to_owned();
    (Arc::new(Object { key: key.clone(), uid, content_hash, resource_version, json: Bytes::new() }), value)
}

fn pod_key(n: usize) -> ObjectKey {
    ObjectKey::new("pods", "default", format!("web-{n:05}"))
}

fn pod(n: usize, version: &str) -> (Arc<Object>, Value) {
    let key = pod_key(n);
    let variables: Vec<Value> = (0..20).map(|v| json!({"name": format!("V{v}"), "value": "x"})).collect();
    let value = json!({
        "metadata": {"namespace": "default", "name": key.name, "uid": format!("uid-{}", key.name)},
        "spec": {
            "nodeName": format!("edge-{:03}", n % NODES),
            "volumes": [
                {"name": "a", "configMap": {"name": format!("map-{:03}", n % 500)}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
            ],
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [{"name": "web", "image": "web:1", "env": variables}],
        },
    });
    object(&key, version, value)
}

fn needs() -> Cached {
    let names = (0..500).map(|n| format!("map-{n:03}")).chain(["kube-root-ca.crt".to_owned()]);
    let mut needs: Cached = names
        .map(|name| ObjectKey::new("configmaps", "default", &name))
        .map(|key| (key.clone(), object(&key, "1", Value::Null)))
        .collect();
    let key = ObjectKey::new("secrets", "default", "registry");
    needs.insert(key.clone(), object(&key, "1", Value::Null));
    needs
}

fn with_objects(
    desired_keys: &plan::DesiredKeys,
    pods: &Cached,
    needs: &Cached,
) -> BTreeMap<NodeName, DesiredObjects> {
    let find =
        |key: &ObjectKey| pods.get(key).or_else(|| needs.get(key)).map(|(object, _)| Arc::clone(object));
    let held =
        |keys: &BTreeSet<ObjectKey>| keys.iter().map(|key| (key.clone(), find(key).unwrap())).collect();
    desired_keys.iter().map(|(node, keys)| (node.clone(), held(keys))).collect()
}

fn one_upsert(messages: &[SyncMsg]) -> bool {
    matches!(messages, [SyncMsg::Upsert { object, .. }] if object.key == pod_key(4711))
}

#[test]
fn reconciling_costs_by_what_changed() {
    let (mut pods, needs) = ((0..PODS).map(|n| (pod_key(n), pod(n, "1"))).collect::<Cached>(), needs());
    let nodes: BTreeSet<NodeName> =
        (0..NODES).map(|n| NodeName::parse(&format!("edge-{n:03}")).unwrap()).collect();
    let edge = json!({"metadata": {"labels": {plan::EDGE_LABEL: ""}, "annotations": {"kubehive.io/enrolment": "1"}}});
    let mut index = PodIndex::default();
    for node in &nodes {
        index.node(&ObjectKey::new("nodes", "", node.as_str()), Some(&edge), Moment(Duration::ZERO));
    }
    let exists = |key: &ObjectKey| needs.contains_key(key);
    let presence = |key: &ObjectKey| if exists(key) { Presence::Present } else { Presence::Absent };
    let at = |later: Duration| Moment(Duration::from_secs(1) + later);

    let began = Instant::now();
    for (key, (_, value)) in &pods {
        index.pod(key, Some(value), &|_| None, at(Duration::ZERO));
    }
    let unknown = index.reconcile(|_| Presence::Unknown, at(Duration::ZERO));
    assert_eq!(unknown.needs.len(), needs.len(), "one watch each, however many pods share it");
    let first = index.reconcile(presence, at(Duration::from_millis(20)));
    let (mut sent, mut sent_by_all) = (LastSent::default(), LastSent::default());
    sent.difference(&with_objects(&first.desired_keys, &pods, &needs));
    println!("reconciling the first list of {PODS} pods: {} ms", began.elapsed().as_millis());
    assert_eq!(sent.nodes(), NODES);
    sent_by_all.difference(&with_objects(&first.desired_keys, &pods, &needs));

    pods.insert(pod_key(4711), pod(4711, "2"));
    let began = Instant::now();
    let values = pods.iter().map(|(key, (_, value))| (key, value));
    let all = plan::desired_keys(&nodes, values, &|_| None, exists);
    let by_all = sent_by_all.difference(&with_objects(&all, &pods, &needs));
    println!("one of {PODS} pods changed, all compared: {} µs", began.elapsed().as_micros());
    assert!(one_upsert(&by_all));

    let began = Instant::now();
    index.pod(&pod_key(4711), Some(&pods[&pod_key(4711)].1), &|_| None, at(Duration::from_secs(1)));
    let found = index.reconcile(presence, at(Duration::from_secs(1)));
    let by_index = sent.difference(&with_objects(&found.desired_keys, &pods, &needs));
    println!("one of {PODS} pods changed, reconciled: {} µs", began.elapsed().as_micros());
    assert!(one_upsert(&by_index));
    assert_eq!(found.desired_keys.len(), 1, "one node");
}
