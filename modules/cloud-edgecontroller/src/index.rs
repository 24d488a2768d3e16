//! What every edge node should hold, kept up by what moved in the caches: a look costs by that, not by all pods. Pure.
//!
//! # What a pod needs goes with or before it
//! Pods and what they need come over watches of their own, and of two watches either may be ahead. Nothing in the API tells
//! how far one is in the terms of the other: resourceVersions of different resources may be compared only since Kubernetes
//! 1.35. So a pod that is new waits for a moment, and what it needs goes ahead of it: [`SETTLE`] when all of it is there,
//! so that a change which was made just before the pod is there too, and [`MISSING`] while something is not. After that it
//! goes anyway, because what is missing may be optional, or may never come, and the node says which.
//! A pod that has gone once never waits again, and nothing is deleted because of a wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use contract::{NodeName, ObjectKey};
use kubewatch::{Place, Placed};
use serde_json::Value;

use crate::plan::{self, EDGE_LABEL, Wanted};

/// 50 ms: by so much one watch of an API server in reach may be behind another one.
pub const SETTLE: Duration = Duration::from_millis(50);
/// 200 ms: as long may something that a new pod needs be on its way.
pub const MISSING: Duration = Duration::from_millis(200);

/// What a look found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What the nodes should hold that anything touched; nothing on those that are no edge nodes (any more).
    pub wanted: Wanted,
    /// Pods that came to an edge node or changed there.
    pub pods: BTreeSet<ObjectKey>,
    /// When to look again though nothing moves: a pod waits.
    pub again: Option<Duration>,
    /// Whether everything is in that was there at the first look: until then nothing is known to be missing.
    pub is_complete: bool,
}

/// The index over the caches.
#[derive(Debug, Default)]
pub struct Index {
    edge_nodes: BTreeSet<NodeName>,
    placed: Placed,
    uids: BTreeMap<ObjectKey, String>,
    /// New pods that wait, and since when.
    waiting: BTreeMap<ObjectKey, Moment>,
    /// Since the last look.
    touched: BTreeSet<NodeName>,
    changed: BTreeSet<ObjectKey>,
    first_look: Option<Moment>,
}

impl Index {
    /// A node came, changed, or went (`None`).
    pub fn node(&mut self, key: &ObjectKey, node: Option<&Value>) {
        let Ok(name) = NodeName::parse(&key.name) else { return };
        let is_edge = node.is_some_and(|node| node["metadata"]["labels"].get(EDGE_LABEL).is_some());
        let has_turned =
            if is_edge { self.edge_nodes.insert(name.clone()) } else { self.edge_nodes.remove(&name) };
        if has_turned {
            self.changed.extend(self.placed.on(&name).map(|(pod, _)| pod.clone()));
            self.touched.insert(name);
        }
    }

    /// A pod came, changed, or went (`None`).
    pub fn pod(&mut self, key: &ObjectKey, pod: Option<&Value>, now: Moment) {
        let place = pod.and_then(|pod| Some(Place { node: plan::node_of(pod)?, needs: plan::needs_of(pod) }));
        let uid = pod.and_then(|pod| pod.pointer("/metadata/uid")?.as_str()).unwrap_or_default();
        if place.is_none() {
            self.uids.remove(key);
            self.waiting.remove(key);
        } else {
            if self.uids.get(key).is_none_or(|known| known != uid) {
                self.uids.insert(key.clone(), uid.to_owned());
                self.waiting.insert(key.clone(), now);
            }
            self.changed.insert(key.clone());
        }
        self.placed.put(key, place, &mut self.touched);
    }

    /// Something that pods may need came, changed or went.
    pub fn need(&mut self, key: &ObjectKey) {
        self.placed.need_moved(key, &mut self.touched);
    }

    /// What follows from all that moved since the last look, when these needs are there.
    pub fn look(&mut self, exists: impl Fn(&ObjectKey) -> bool, now: Moment) -> Look {
        let first = *self.first_look.get_or_insert(now);
        let again = self.let_go(&exists, now);
        let touched = std::mem::take(&mut self.touched);
        let wanted = touched.into_iter().map(|node| {
            let keys = self.wanted_on(&node, &exists);
            (node, keys)
        });
        let wanted: Wanted = wanted.collect();
        let mut pods = std::mem::take(&mut self.changed);
        pods.retain(|pod| self.placed.place(pod).is_some_and(|at| self.edge_nodes.contains(&at.node)));
        Look { wanted, pods, again, is_complete: again.is_none() || now.since(first) >= MISSING }
    }

    fn wanted_on(&self, node: &NodeName, exists: impl Fn(&ObjectKey) -> bool) -> BTreeSet<ObjectKey> {
        let mut wanted = BTreeSet::new();
        if !self.edge_nodes.contains(node) {
            return wanted;
        }
        for (pod, place) in self.placed.on(node) {
            if !self.waiting.contains_key(pod) {
                wanted.insert(pod.clone());
            }
            wanted.extend(place.needs.iter().filter(|need| exists(need)).cloned());
        }
        wanted
    }

    /// Lets the pods go that have waited long enough. Answers in how long the next one will have.
    fn let_go(&mut self, exists: impl Fn(&ObjectKey) -> bool, now: Moment) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        let (placed, edge_nodes, touched) = (&self.placed, &self.edge_nodes, &mut self.touched);
        self.waiting.retain(|pod, since| {
            let Some(place) = placed.place(pod) else { return false };
            let pause = if place.needs.is_empty() {
                Duration::ZERO
            } else if place.needs.iter().all(&exists) {
                SETTLE
            } else {
                MISSING
            };
            let rest = pause.saturating_sub(now.since(*since));
            let is_edge = edge_nodes.contains(&place.node);
            if rest.is_zero() {
                touched.insert(place.node.clone());
                return false;
            }
            if is_edge {
                again = Some(again.map_or(rest, |again| again.min(rest)));
            }
            true
        });
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ids::{CONFIG_MAPS, NODES, PODS};
    use proptest::prelude::*;
    use serde_json::json;

    fn at(milliseconds: u64) -> Moment {
        Moment(Duration::from_millis(milliseconds))
    }

    fn edge_node() -> Value {
        json!({ "metadata": { "labels": { EDGE_LABEL: "" } } })
    }

    fn pod(uid: &str, node: &str, maps: &[&str]) -> Value {
        let volumes: Vec<Value> = maps.iter().map(|map| json!({ "configMap": { "name": map } })).collect();
        json!({
            "metadata": { "namespace": "d", "uid": uid },
            "spec": { "nodeName": node, "volumes": volumes },
        })
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(PODS, "d", name)
    }

    fn node_key(name: &str) -> ObjectKey {
        ObjectKey::new(NODES, "", name)
    }

    fn map(name: &str) -> ObjectKey {
        ObjectKey::new(CONFIG_MAPS, "d", name)
    }

    fn shown(look: &Look) -> Vec<String> {
        let keys = |(node, keys): (&NodeName, &BTreeSet<ObjectKey>)| {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            format!("{node}: {}", names.join(" "))
        };
        look.wanted.iter().map(keys).collect()
    }

    fn index_with_edge_1() -> Index {
        let mut index = Index::default();
        index.node(&node_key("edge-1"), Some(&edge_node()));
        index.look(|_| false, at(0));
        index
    }

    #[test]
    fn a_new_pod_goes_after_what_it_needs() {
        let mut index = index_with_edge_1();
        index.pod(&key("web"), Some(&pod("u1", "edge-1", &["page"])), at(1000));
        let look = index.look(|_| false, at(1000));
        assert_eq!((shown(&look), look.again), (vec!["edge-1: ".to_owned()], Some(MISSING)));
        assert_eq!(look.pods, BTreeSet::from([key("web")]));

        index.need(&map("page"));
        let look = index.look(|_| true, at(1020));
        assert_eq!(shown(&look), ["edge-1: page"], "what it needs goes ahead");
        assert_eq!(look.again, Some(SETTLE - Duration::from_millis(20)));
        let look = index.look(|_| true, at(1050));
        assert_eq!((shown(&look), look.again), (vec!["edge-1: page web".to_owned()], None));
        assert_eq!(index.look(|_| true, at(1051)).wanted, Wanted::new(), "nothing moved");
    }

    #[test]
    fn a_pod_that_waits_in_vain_goes_and_one_that_has_gone_never_waits_again() {
        let mut index = index_with_edge_1();
        index.pod(&key("web"), Some(&pod("u1", "edge-1", &["never"])), at(1000));
        assert_eq!(shown(&index.look(|_| false, at(1199))), ["edge-1: "]);
        assert_eq!(shown(&index.look(|_| false, at(1200))), ["edge-1: web"]);
        index.pod(&key("web"), Some(&pod("u1", "edge-1", &["never", "neither"])), at(1300));
        assert_eq!(shown(&index.look(|_| false, at(1300))), ["edge-1: web"]);
        index.pod(&key("web"), Some(&pod("u2", "edge-1", &["never"])), at(1400));
        assert_eq!(shown(&index.look(|_| false, at(1400))), ["edge-1: "], "another pod of that name is new");
        index.pod(&key("web"), None, at(1410));
        let look = index.look(|_| false, at(1410));
        assert_eq!((shown(&look), look.again), (vec!["edge-1: ".to_owned()], None));
        index.pod(&key("bare"), Some(&pod("u3", "edge-1", &[])), at(1500));
        assert_eq!(
            shown(&index.look(|_| false, at(1500))),
            ["edge-1: bare"],
            "what needs nothing waits for nothing"
        );
    }

    #[test]
    fn nothing_is_known_to_be_missing_while_a_pod_of_the_first_look_waits() {
        let mut index = Index::default();
        index.node(&node_key("edge-1"), Some(&edge_node()));
        index.pod(&key("web"), Some(&pod("u1", "edge-1", &["never"])), at(1000));
        index.pod(&key("else"), Some(&pod("u1", "cloud-1", &["never"])), at(1000));
        assert!(!index.look(|_| false, at(1000)).is_complete);
        index.pod(&key("later"), Some(&pod("u2", "edge-1", &["never"])), at(1150));
        assert!(!index.look(|_| false, at(1150)).is_complete);
        let look = index.look(|_| false, at(1200));
        assert!(look.is_complete, "whatever came since");
        assert_eq!(shown(&look), ["cloud-1: ", "edge-1: web"]);
        let mut empty = Index::default();
        assert!(empty.look(|_| false, at(5)).is_complete);
    }

    #[test]
    fn a_node_that_turns_to_the_edge_gets_its_pods_and_one_that_turns_away_nothing() {
        let mut index = Index::default();
        index.pod(&key("web"), Some(&pod("u1", "edge-1", &["page"])), at(0));
        assert_eq!(index.look(|_| true, at(0)).again, None, "nobody waits for a pod of the cloud's nodes");
        index.look(|_| true, at(900));
        index.node(&node_key("edge-1"), Some(&edge_node()));
        let look = index.look(|_| true, at(1000));
        assert_eq!((shown(&look), look.pods.len()), (vec!["edge-1: page web".to_owned()], 1));
        index.node(&node_key("edge-1"), Some(&edge_node()));
        assert_eq!(index.look(|_| true, at(1001)), Look { is_complete: true, ..Look::default() });
        index.node(&node_key("edge-1"), Some(&json!({ "metadata": {} })));
        assert_eq!(shown(&index.look(|_| true, at(1002))), ["edge-1: "]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Node(usize, Option<bool>),
        Pod(usize, Option<(usize, usize, Vec<usize>)>),
        Need(usize, bool),
        Look(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let placed = (0_usize..3, 0_usize..5, prop::collection::vec(0_usize..4, 0..3));
        let step = prop_oneof![
            (0_usize..4, prop::option::of(any::<bool>())).prop_map(|(node, edge)| Step::Node(node, edge)),
            (0_usize..6, prop::option::of(placed)).prop_map(|(pod, place)| Step::Pod(pod, place)),
            (0_usize..4, any::<bool>()).prop_map(|(need, there)| Step::Need(need, there)),
            (0_u64..120).prop_map(Step::Look),
        ];
        prop::collection::vec(step, 1..60)
    }

    /// Takes what a look says as what the nodes hold.
    fn follow(told: &mut Wanted, look: Look) {
        for (node, keys) in look.wanted {
            if keys.is_empty() {
                told.remove(&node)
            } else {
                told.insert(node, keys)
            };
        }
    }

    proptest! {
        /// However things moved: once nobody waits any more, what was told is what a look at everything would say; and
        /// before that a pod is late at the most, and nothing else is missing or too much.
        #[test]
        fn the_index_comes_to_what_a_look_at_everything_says(steps in steps()) {
            let (mut index, mut told, mut now) = (Index::default(), Wanted::new(), at(0));
            let (mut nodes, mut pods) = (BTreeSet::new(), BTreeMap::new());
            let mut needs: BTreeSet<ObjectKey> = BTreeSet::new();
            let all = [Step::Look(0), Step::Look(200)];
            for step in steps.into_iter().chain(all) {
                match step {
                    Step::Node(n, edge) => {
                        let name = format!("n{n}");
                        let value = edge.map(|edge| if edge { edge_node() } else { json!({}) });
                        index.node(&node_key(&name), value.as_ref());
                        let name = NodeName::parse(&name).unwrap();
                        if edge == Some(true) { nodes.insert(name) } else { nodes.remove(&name) };
                    }
                    Step::Pod(n, place) => {
                        // Node 4 stands for a pod that is bound to none.
                        let value = place.map(|(uid, node, maps)| {
                            let node = if node == 4 { String::new() } else { format!("n{node}") };
                            let maps: Vec<String> = maps.iter().map(|map| format!("m{map}")).collect();
                            let maps: Vec<&str> = maps.iter().map(String::as_str).collect();
                            pod(&uid.to_string(), &node, &maps)
                        });
                        let key = key(&format!("p{n}"));
                        index.pod(&key, value.as_ref(), now);
                        match value {
                            Some(value) => pods.insert(key, value),
                            None => pods.remove(&key),
                        };
                    }
                    Step::Need(n, there) => {
                        let key = map(&format!("m{n}"));
                        index.need(&key);
                        if there { needs.insert(key) } else { needs.remove(&key) };
                    }
                    Step::Look(milliseconds) => {
                        now = now + Duration::from_millis(milliseconds);
                        follow(&mut told, index.look(|need| needs.contains(need), now));
                        let full = plan::wanted(&nodes, &pods, |need| needs.contains(need));
                        for (node, keys) in &full {
                            let here = told.get(node).cloned().unwrap_or_default();
                            prop_assert!(here.is_subset(keys));
                            let late: Vec<&ObjectKey> = keys.difference(&here).collect();
                            prop_assert!(late.iter().all(|key| index.waiting.contains_key(*key)), "{late:?}");
                        }
                        prop_assert!(told.keys().all(|node| full.contains_key(node)));
                    }
                }
            }
            prop_assert_eq!(told, plan::wanted(&nodes, &pods, |need| needs.contains(need)));
        }
    }
}
