//! Pods that ask to be evicted from a node that is cut off, and when their time there is over: as Kubernetes' taint eviction controller
//! has it, from when the node was first seen cut off here. A new CloudCore counts anew, as a new kube-controller-manager does. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::taint::{NO_EXECUTE, NOT_READY, TolerationTime, UNREACHABLE, toleration_time};
use beehive::Moment;
use contract::{NodeName, ObjectKey};
use kubewatch::Readiness;
use serde_json::{Value, json};

use crate::plan;

/// 10 s until an eviction that did not come about is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A pod to evict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) node: NodeName,
}

#[derive(Debug)]
struct KeptPod {
    uid: String,
    tolerations: Vec<Value>,
    /// Since when it is on a node that is cut off.
    since: Option<Moment>,
    /// When its eviction was tried last.
    tried: Option<Moment>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct KeptPods {
    placed: BTreeMap<ObjectKey, NodeName>,
    by_node: BTreeMap<NodeName, BTreeMap<ObjectKey, KeptPod>>,
    /// The key of the taint that they would have.
    cut_off: BTreeMap<NodeName, &'static str>,
}

impl KeptPods {
    pub(crate) fn node(&mut self, node: NodeName, readiness: Readiness) {
        let taint = match readiness {
            Readiness::NotReady => Some(NOT_READY),
            Readiness::Unheard => Some(UNREACHABLE),
            Readiness::Ready | Readiness::Unsaid => None,
        };
        match taint {
            Some(taint) => {
                self.cut_off.insert(node, taint);
            }
            None => {
                for pod in self.by_node.get_mut(&node).into_iter().flat_map(BTreeMap::values_mut) {
                    (pod.since, pod.tried) = (None, None);
                }
                self.cut_off.remove(&node);
            }
        }
    }

    pub(crate) fn pod(&mut self, key: &ObjectKey, pod: Option<&Value>) {
        let asks = pod.filter(|pod| plan::asks_for_eviction(pod) && !is_deleted(pod));
        let asking = asks.and_then(|pod| Some((plan::node_of(pod)?, pod)));
        let before = self.placed.remove(key).and_then(|node| self.take(&node, key));
        let Some((node, pod)) = asking else { return };
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
        let tolerations = pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned();
        let before = before.filter(|before| before.uid == uid);
        let (since, tried) = before.map(|before| (before.since, before.tried)).unwrap_or_default();
        let kept = KeptPod { uid, tolerations: tolerations.unwrap_or_default(), since, tried };
        self.placed.insert(key.clone(), node.clone());
        self.by_node.entry(node).or_default().insert(key.clone(), kept);
    }

    fn take(&mut self, node: &NodeName, key: &ObjectKey) -> Option<KeptPod> {
        let pods = self.by_node.get_mut(node)?;
        let taken = pods.remove(key);
        if pods.is_empty() {
            self.by_node.remove(node);
        }
        taken
    }

    /// The pods whose time is over, and when to ask again. One that is not gone by then is in the answer again.
    pub(crate) fn due(
        &mut self,
        is_edge: impl Fn(&NodeName) -> bool,
        now: Moment,
    ) -> (Vec<Eviction>, Option<Duration>) {
        let (mut due, mut again) = (Vec::new(), None::<Duration>);
        for (node, taint) in self.cut_off.iter().filter(|(node, _)| is_edge(node)) {
            let taint = [json!({ "key": taint, "effect": NO_EXECUTE })];
            for (key, pod) in self.by_node.get_mut(node).into_iter().flatten() {
                let since = *pod.since.get_or_insert(now);
                let TolerationTime::For(limit) = toleration_time(&pod.tolerations, &taint) else { continue };
                let mut left = limit.saturating_sub(now.since(since));
                if let (true, Some(tried)) = (left.is_zero(), pod.tried) {
                    left = AGAIN_AFTER.saturating_sub(now.since(tried));
                }
                if left.is_zero() {
                    pod.tried = Some(now);
                    due.push(Eviction { key: key.clone(), uid: pod.uid.clone(), node: node.clone() });
                    left = AGAIN_AFTER;
                }
                again = Some(again.map_or(left, |again| again.min(left)));
            }
        }
        (due, again)
    }
}

fn is_deleted(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::PODS;

    fn node() -> NodeName {
        NodeName::parse("edge-1").unwrap()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(PODS, "shop", name)
    }

    fn pod(name: &str, seconds: Value, label: &str) -> Value {
        json!({ "metadata": { "name": name, "uid": name, "labels": { plan::KEEP_EVICTION_LABEL: label } },
            "spec": { "nodeName": "edge-1", "tolerations": [
                { "key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds }] } })
    }

    fn at(second: u64) -> Moment {
        Moment(Duration::from_secs(second))
    }

    fn names(due: &[Eviction]) -> Vec<&str> {
        due.iter().map(|eviction| eviction.uid.as_str()).collect()
    }

    #[test]
    fn who_asks_for_it_is_evicted_when_its_time_is_over_and_nobody_else() {
        let mut kept = KeptPods::default();
        kept.pod(&key("short"), Some(&pod("short", json!(20), "true")));
        kept.pod(&key("long"), Some(&pod("long", json!(300), "true")));
        kept.pod(&key("ever"), Some(&pod("ever", Value::Null, "true")));
        kept.pod(&key("other"), Some(&pod("other", json!(1), "false")));
        assert_eq!(kept.due(|_| true, at(0)), (vec![], None), "nothing is cut off");
        kept.node(node(), Readiness::Unheard);
        assert_eq!(kept.due(|_| false, at(0)), (vec![], None), "it is no node of ours");
        let (due, again) = kept.due(|_| true, at(10));
        assert_eq!((names(&due), again), (vec![], Some(Duration::from_secs(20))));
        let (due, again) = kept.due(|_| true, at(30));
        assert_eq!((names(&due), again), (vec!["short"], Some(AGAIN_AFTER)));
        let (due, again) = kept.due(|_| true, at(35));
        assert_eq!((names(&due), again), (vec![], Some(Duration::from_secs(5))), "it is tried already");
        assert_eq!(names(&kept.due(|_| true, at(40)).0), ["short"], "it is still there");
        let mut deleted = pod("short", json!(20), "true");
        deleted["metadata"]["deletionTimestamp"] = json!("2026-11-28T00:00:00Z");
        kept.pod(&key("short"), Some(&deleted));
        assert_eq!(names(&kept.due(|_| true, at(310)).0), ["long"]);
    }

    #[test]
    fn a_node_that_is_heard_of_begins_anew_and_a_change_of_the_pod_does_not() {
        let mut kept = KeptPods::default();
        kept.pod(&key("p"), Some(&pod("p", json!(20), "true")));
        kept.node(node(), Readiness::Unheard);
        kept.due(|_| true, at(0));
        kept.pod(&key("p"), Some(&pod("p", json!(10), "true")));
        assert_eq!(names(&kept.due(|_| true, at(11)).0), ["p"], "it counts from when the node was cut off");
        kept.node(node(), Readiness::Ready);
        kept.node(node(), Readiness::Unheard);
        assert_eq!(kept.due(|_| true, at(20)), (vec![], Some(Duration::from_secs(10))));
        kept.node(node(), Readiness::NotReady);
        assert_eq!(names(&kept.due(|_| true, at(21)).0), ["p"], "it does not tolerate that at all");
        kept.pod(&key("p"), None);
        assert_eq!(kept.due(|_| true, at(90)), (vec![], None));
    }
}
