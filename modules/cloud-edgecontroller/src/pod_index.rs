//! What every edge node should hold, kept up by what changed in the informers' caches: reconciling costs by
//! that, not by all pods. Pure.
//!
//! # What a pod needs goes with or before it
//! Secrets and config maps are watched one by one, by the names that pods on edge nodes refer to. So it is known of each
//! whether the API server has answered: a new pod goes as soon as it has for all that it needs, whatever the answer was,
//! because what is missing may be optional, or may never come, and the node says which. What was there when the pod was
//! made is in the answer: it is asked for after the pod was seen. Only where another pod needed it before may a change of
//! just then follow the pod, as with kubelets. A pod does not wait longer than [`TIMEOUT`].
//! A pod that has gone once never waits again, and nothing is deleted because of a wait.
//!
//! The Services of a pod's namespace go with it, too, for the variables that name them (`enableServiceLinks`): see
//! [`crate::service_links`]. One watch has them all, and all of them are one need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use contract::{NodeName, ObjectKey};
use kubewatch::{NodeIndex, Placement, Presence};
use serde_json::Value;

use crate::plan::{self, DesiredKeys, FindVolume};
use crate::references::References;
use crate::service_links::{self, LinkedServices};

/// 5 s: so long may a new pod wait for the API server's word on what it needs.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// 60 s: so long may the needs of the first reconciliation go unanswered until the other nodes wait no more for them.
pub const FIRST_TIMEOUT: Duration = Duration::from_secs(60);

/// What follows from all that changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// What the nodes should hold that anything touched; nothing on those that are no edge nodes (any more).
    pub desired_keys: DesiredKeys,
    /// Pods that came to an edge node or changed there.
    pub pods: BTreeSet<ObjectKey>,
    /// When to reconcile again though nothing changes: a pod waits, or the first list does.
    pub again: Option<Duration>,
    /// Whether everything was answered that the first reconciliation asked for: until then nothing is known to be missing.
    pub is_complete: bool,
    /// The needs whose nodes changed, and nodes to read them as: see [`References::take`].
    pub needs: BTreeMap<ObjectKey, Vec<NodeName>>,
}

/// The index over the caches.
#[derive(Debug, Default)]
pub struct PodIndex {
    edge_nodes: BTreeSet<NodeName>,
    placed: NodeIndex,
    references: References,
    services: LinkedServices,
    uids: BTreeMap<ObjectKey, String>,
    /// New pods that wait, and since when.
    waiting: BTreeMap<ObjectKey, Moment>,
    /// Since it was last reconciled.
    touched: BTreeSet<NodeName>,
    changed: BTreeSet<ObjectKey>,
    /// What the first reconciliation asked for and was not answered yet, and when that was.
    first: Option<(Moment, BTreeSet<ObjectKey>)>,
}

impl PodIndex {
    /// A node came, changed, or went (`None`).
    pub fn node(&mut self, key: &ObjectKey, node: Option<&Value>, now: Moment) {
        let Ok(name) = NodeName::parse(&key.name) else { return };
        let is_edge = node.is_some_and(plan::is_edge);
        let has_turned =
            if is_edge { self.edge_nodes.insert(name.clone()) } else { self.edge_nodes.remove(&name) };
        if has_turned {
            for (pod, place) in self.placed.on(&name) {
                self.changed.insert(pod.clone());
                if is_edge {
                    self.references.add(&name, &place.needs);
                    self.waiting.insert(pod.clone(), now);
                } else {
                    self.references.remove(&name, &place.needs);
                    self.waiting.remove(pod);
                }
            }
            self.touched.insert(name);
        }
    }

    /// A pod came, changed, or went (`None`). Of one that has claims it is known again when something behind them moves: see
    /// [`PodIndex::needing`].
    pub fn pod(&mut self, key: &ObjectKey, pod: Option<&Value>, find: &FindVolume<'_>, now: Moment) {
        let place = pod.and_then(|pod| {
            let needs = plan::needs_of(pod, find).into_iter().chain(service_links::need_of(pod)).collect();
            Some(Placement { node: plan::node_of(pod)?, needs })
        });
        let uid = pod.and_then(|pod| pod.pointer("/metadata/uid")?.as_str()).unwrap_or_default();
        let at_the_edge = place.as_ref().filter(|place| self.edge_nodes.contains(&place.node));
        if place.is_none() {
            self.uids.remove(key);
        } else {
            if self.uids.get(key).is_none_or(|presence| presence != uid) {
                self.uids.insert(key.clone(), uid.to_owned());
                self.waiting.insert(key.clone(), now);
            }
            self.changed.insert(key.clone());
        }
        if at_the_edge.is_none() {
            self.waiting.remove(key);
        }
        // First what is new: what stays needed is not let go in between.
        if let Some(place) = at_the_edge {
            self.references.add(&place.node, &place.needs);
        }
        if let Some(before) = self.placed.place(key).filter(|place| self.edge_nodes.contains(&place.node)) {
            self.references.remove(&before.node, &before.needs);
        }
        self.placed.put(key, place, &mut self.touched);
    }

    /// Whether the Node is one of an edge node of ours: of others nothing is known here, least of all that it has no pods.
    pub fn is_edge_node(&self, node: &NodeName) -> bool {
        self.edge_nodes.contains(node)
    }

    /// A Service came, changed, or went (`None`).
    pub fn service(&mut self, key: &ObjectKey, service: Option<&Value>) {
        if self.services.put(key, service) {
            self.placed.need_changed(&service_links::need_in(&key.namespace), &mut self.touched);
        }
    }

    /// What an edge node should hold is to be said again; of any other nothing is.
    pub fn touch_edge_node(&mut self, name: &str) {
        let node = NodeName::parse(name).ok().filter(|node| self.edge_nodes.contains(node));
        self.touched.extend(node);
    }

    /// What the node should hold is to be said again.
    pub fn touch(&mut self, node: &NodeName) {
        self.touched.insert(node.clone());
    }

    /// What all nodes should hold is to be said again.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.edge_nodes.iter().cloned());
    }

    /// All pods on edge nodes are to be looked at.
    pub fn change_all(&mut self) {
        for node in &self.edge_nodes {
            self.changed.extend(self.placed.on(node).map(|(pod, _)| pod.clone()));
        }
    }

    /// Something that pods may need came, changed or went.
    pub fn need(&mut self, key: &ObjectKey) {
        self.placed.need_changed(key, &mut self.touched);
    }

    /// The pods that need it, as far as that is known.
    pub fn needing(&self, need: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.placed.needing(need).cloned().collect()
    }

    /// What follows from all that changed since the last time, when this is known of the needs.
    pub fn reconcile(&mut self, presence: impl Fn(&ObjectKey) -> Presence, now: Moment) -> Reconciled {
        let mut needs = self.references.take();
        needs.retain(|need, _| !service_links::is_need(need));
        let rest = self.first_wait(&presence, now);
        let next = self.release_pods(&presence, now);
        let touched = std::mem::take(&mut self.touched);
        let desired_keys = touched.into_iter().map(|node| {
            let keys = self.wanted_on(&node, &presence);
            (node, keys)
        });
        let desired_keys: DesiredKeys = desired_keys.collect();
        let mut pods = std::mem::take(&mut self.changed);
        pods.retain(|pod| self.placed.place(pod).is_some_and(|at| self.edge_nodes.contains(&at.node)));
        let again = next.into_iter().chain(rest).min();
        Reconciled { desired_keys, pods, again, is_complete: rest.is_none(), needs }
    }

    /// For how long the first reconciliation may still wait for its answers; `None` when it waits no more.
    fn first_wait(&mut self, presence: impl Fn(&ObjectKey) -> Presence, now: Moment) -> Option<Duration> {
        let references = &self.references;
        let (since, open) = self.first.get_or_insert_with(|| (now, references.all().cloned().collect()));
        open.retain(|need| references.is_needed(need) && presence(need) == Presence::Unknown);
        let rest = FIRST_TIMEOUT.saturating_sub(now.since(*since));
        if rest.is_zero() {
            open.clear();
        }
        (!open.is_empty()).then_some(rest)
    }

    /// Why nobody should begin to speak for the node now: something that it should hold is not known to be, or not to be,
    /// as the API server has it. Whoever did would have the node forget it.
    pub fn blocked_by(&self, node: &NodeName, is_whole: impl Fn(&ObjectKey) -> bool) -> Option<&ObjectKey> {
        if !self.edge_nodes.contains(node) {
            return None;
        }
        self.placed.on(node).find_map(|(pod, place)| {
            let waits = self.waiting.contains_key(pod).then_some(pod);
            waits.or_else(|| place.needs.iter().find(|need| !is_whole(need)))
        })
    }

    /// What the pods on the node need.
    pub fn needs_on(&self, node: &NodeName) -> impl Iterator<Item = &ObjectKey> {
        self.placed.on(node).flat_map(|(_, place)| &place.needs)
    }

    fn wanted_on(&self, node: &NodeName, presence: impl Fn(&ObjectKey) -> Presence) -> BTreeSet<ObjectKey> {
        let mut desired_keys = BTreeSet::new();
        if !self.edge_nodes.contains(node) {
            return desired_keys;
        }
        let mut linked = BTreeSet::new();
        for (pod, place) in self.placed.on(node) {
            if !self.waiting.contains_key(pod) {
                desired_keys.insert(pod.clone());
            }
            let present = place.needs.iter().filter(|need| presence(need) == Presence::Present);
            let (links, objects): (Vec<&ObjectKey>, Vec<&ObjectKey>) =
                present.partition(|need| service_links::is_need(need));
            desired_keys.extend(objects.into_iter().cloned());
            linked.extend(links.into_iter().map(|need| need.namespace.as_str()));
        }
        for namespace in linked {
            desired_keys.extend(self.services.of(namespace).cloned());
        }
        desired_keys
    }

    /// Lets the pods go whose needs are answered or that have waited long enough. Answers in how long the next one will have.
    fn release_pods(&mut self, presence: impl Fn(&ObjectKey) -> Presence, now: Moment) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        let (placed, touched) = (&self.placed, &mut self.touched);
        self.waiting.retain(|pod, since| {
            let Some(place) = placed.place(pod) else { return false };
            let is_answered = place.needs.iter().all(|need| presence(need) != Presence::Unknown);
            let rest = TIMEOUT.saturating_sub(now.since(*since));
            if is_answered || rest.is_zero() {
                touched.insert(place.node.clone());
                return false;
            }
            again = Some(again.map_or(rest, |again| again.min(rest)));
            true
        });
        again
    }
}

#[cfg(test)]
#[path = "pod_index_tests.rs"]
mod tests;
