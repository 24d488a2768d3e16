//! Decides what to send to whom. Pure: messages in, effects out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contract::ids::{CONFIG_MAPS, DEVICE_MODELS, SECRETS};
use contract::synccontroller::Source;
use contract::{Change, Held, NodeName, Object, ObjectKey};

/// 8 batches: on a link of 200 ms that is 8 × 64 objects per round trip.
pub const WINDOW: usize = 8;
/// 64 objects per batch: one commit on the node's disk each.
pub const BATCH_OBJECTS: usize = 64;
/// 256 KiB of JSON per batch, before compression, unless one object is larger: well within a frame.
pub const BATCH_BYTES: usize = 256 << 10;
/// The first pause after a refused batch; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause after refused batches.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the actor is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the node's MetaManager what it holds.
    AskHoldings {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
    },
    /// Send one batch and await its answer.
    Send {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// The batch's number.
        batch: u64,
        /// In order.
        changes: Vec<Change>,
    },
    /// Come back with a retry.
    RetryAfter {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// The pause.
        pause: Duration,
    },
}

type Version = (String, String);

/// What one session is known to hold, and what is on its way.
#[derive(Debug)]
struct Session {
    number: u64,
    /// `None` until the node has answered.
    held: Option<BTreeMap<ObjectKey, Version>>,
    /// Keys whose state on the node is not, or may not be, what it should be.
    dirty: BTreeSet<(u8, ObjectKey)>,
    /// What each batch in flight makes of its keys; `None` deletes.
    flying: BTreeMap<u64, Vec<(ObjectKey, Option<Version>)>>,
    in_flight: BTreeSet<ObjectKey>,
    next_batch: u64,
    refusals: u32,
    resting: bool,
    last_refusal: Option<String>,
}

#[derive(Debug, Default)]
struct Node {
    desired: BTreeMap<ObjectKey, Arc<Object>>,
    session: Option<Session>,
}

/// Every node's desired map and session.
#[derive(Debug)]
pub struct Plan {
    waiting_for: BTreeSet<Source>,
    nodes: BTreeMap<NodeName, Node>,
}

/// One node, for the snapshot.
#[derive(Debug, serde::Serialize)]
pub struct NodeView {
    /// Objects it should hold.
    pub desired: usize,
    /// Objects that wait or fly.
    pub waiting: usize,
    /// Whether it holds what it should, as far as it has confirmed.
    pub in_sync: bool,
    /// Why its store refused the last batch, if it did.
    pub last_refusal: Option<String>,
}

/// What pods and devices need goes with or before them.
fn rank(key: &ObjectKey) -> u8 {
    match key.resource.as_str() {
        CONFIG_MAPS | SECRETS | DEVICE_MODELS => 0,
        _ => 1,
    }
}

impl Plan {
    /// A plan that waits for `sources` before it deletes anything.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Plan { waiting_for: sources.into_iter().collect(), nodes: BTreeMap::new() }
    }

    /// The node should hold `object`.
    pub fn upsert(&mut self, node: &NodeName, object: Arc<Object>) -> Vec<Effect> {
        let entry = self.nodes.entry(node.clone()).or_default();
        let key = object.key.clone();
        entry.desired.insert(key.clone(), object);
        self.touch(node, key)
    }

    /// The node should not hold `key`.
    pub fn delete(&mut self, node: &NodeName, key: ObjectKey) -> Vec<Effect> {
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.desired.remove(&key);
        }
        self.touch(node, key)
    }

    /// `source` has listed everything once.
    pub fn source_ready(&mut self, source: Source) -> Vec<Effect> {
        if !self.waiting_for.remove(&source) || !self.waiting_for.is_empty() {
            return Vec::new();
        }
        let nodes: Vec<NodeName> = self.nodes.keys().cloned().collect();
        nodes.iter().flat_map(|node| self.compare(node)).collect()
    }

    /// A session opened; it replaces an older one.
    pub fn node_up(&mut self, node: NodeName, session: u64) -> Vec<Effect> {
        let entry = self.nodes.entry(node.clone()).or_default();
        if entry.session.as_ref().is_some_and(|s| s.number > session) {
            return Vec::new();
        }
        entry.session = Some(Session {
            number: session,
            held: None,
            dirty: BTreeSet::new(),
            flying: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            next_batch: 1,
            refusals: 0,
            resting: false,
            last_refusal: None,
        });
        vec![Effect::AskHoldings { node, session }]
    }

    /// A session ended.
    pub fn node_down(&mut self, node: &NodeName, session: u64) {
        if let Some(entry) = self.nodes.get_mut(node)
            && entry.session.as_ref().is_some_and(|s| s.number == session)
        {
            entry.session = None;
            if entry.desired.is_empty() {
                self.nodes.remove(node);
            }
        }
    }

    /// The node said what it holds, or did not answer.
    pub fn holdings(&mut self, node: &NodeName, session: u64, held: Option<Vec<Held>>) -> Vec<Effect> {
        let Some(open) = self.session(node, session) else { return Vec::new() };
        match held {
            None => vec![Effect::RetryAfter { node: node.clone(), session, pause: RETRY_MIN }],
            Some(held) => {
                open.held = Some(held.into_iter().map(|h| (h.key, (h.uid, h.version))).collect());
                self.compare(node)
            }
        }
    }

    /// A batch was committed, refused or lost.
    pub fn applied(
        &mut self,
        node: &NodeName,
        session: u64,
        batch: u64,
        result: Result<(), String>,
    ) -> Vec<Effect> {
        let Some(open) = self.session(node, session) else { return Vec::new() };
        let Some(keys) = open.flying.remove(&batch) else { return Vec::new() };
        let committed = result.is_ok();
        for (key, version) in keys {
            open.in_flight.remove(&key);
            if !committed {
                open.dirty.insert((rank(&key), key));
            } else if let Some(held) = &mut open.held {
                match version {
                    Some(version) => held.insert(key, version),
                    None => held.remove(&key),
                };
            }
        }
        match result {
            Ok(()) => {
                open.refusals = 0;
                open.last_refusal = None;
                self.pump(node)
            }
            Err(why) => {
                let pause = (RETRY_MIN * 2_u32.pow(open.refusals.min(5))).min(RETRY_MAX);
                open.refusals = open.refusals.saturating_add(1);
                open.last_refusal = Some(why);
                if std::mem::replace(&mut open.resting, true) {
                    return Vec::new();
                }
                vec![Effect::RetryAfter { node: node.clone(), session, pause }]
            }
        }
    }

    /// The pause after a refusal, or after an unanswered question, is over.
    pub fn retry(&mut self, node: &NodeName, session: u64) -> Vec<Effect> {
        let Some(open) = self.session(node, session) else { return Vec::new() };
        open.resting = false;
        if open.held.is_none() {
            return vec![Effect::AskHoldings { node: node.clone(), session }];
        }
        self.pump(node)
    }

    /// Every node, for the snapshot.
    pub fn view(&self) -> BTreeMap<String, NodeView> {
        let all_ready = self.waiting_for.is_empty();
        self.nodes
            .iter()
            .map(|(name, node)| {
                let open = node.session.as_ref();
                let waiting = open.map_or(node.desired.len(), |s| s.dirty.len() + s.in_flight.len());
                let answered = open.is_some_and(|s| s.held.is_some());
                let view = NodeView {
                    desired: node.desired.len(),
                    waiting,
                    in_sync: all_ready && answered && waiting == 0,
                    last_refusal: open.and_then(|s| s.last_refusal.clone()),
                };
                (name.to_string(), view)
            })
            .collect()
    }

    fn session(&mut self, node: &NodeName, number: u64) -> Option<&mut Session> {
        self.nodes.get_mut(node)?.session.as_mut().filter(|s| s.number == number)
    }

    /// Marks `key` when the node does not hold what it should.
    fn touch(&mut self, node: &NodeName, key: ObjectKey) -> Vec<Effect> {
        let Some(entry) = self.nodes.get_mut(node) else { return Vec::new() };
        if let Some(open) = &mut entry.session
            && open.held.is_some()
        {
            open.dirty.insert((rank(&key), key));
        }
        self.pump(node)
    }

    /// Marks every key in which desired and held differ.
    fn compare(&mut self, node: &NodeName) -> Vec<Effect> {
        if let Some(Node { desired, session: Some(open) }) = self.nodes.get_mut(node)
            && let Some(held) = &open.held
        {
            let keys = desired.keys().chain(held.keys());
            open.dirty.extend(keys.map(|key| (rank(key), key.clone())));
        }
        self.pump(node)
    }

    /// Fills the window from what is marked. A key whose batch flies waits for its answer.
    fn pump(&mut self, name: &NodeName) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let Some(Node { desired, session: Some(open) }) = self.nodes.get_mut(name) else { return Vec::new() };
        let Some(held) = &open.held else { return Vec::new() };
        let mut effects = Vec::new();
        while !open.resting && open.flying.len() < WINDOW {
            let mut changes = Vec::new();
            let mut keys = Vec::new();
            let mut bytes = 0;
            let mut passed = Vec::new();
            while changes.len() < BATCH_OBJECTS && bytes < BATCH_BYTES {
                let Some((rank, key)) = open.dirty.pop_first() else { break };
                if open.in_flight.contains(&key) {
                    passed.push((rank, key));
                    continue;
                }
                match (desired.get(&key), held.get(&key)) {
                    (Some(object), there) => {
                        let version = (object.uid.clone(), object.version.clone());
                        if there == Some(&version) {
                            continue;
                        }
                        // A large object flies alone rather than making a frame too long.
                        if !changes.is_empty() && bytes + object.json.len() > BATCH_BYTES {
                            open.dirty.insert((rank, key));
                            break;
                        }
                        bytes += object.json.len();
                        changes.push(Change::Upsert(Object::clone(object)));
                        keys.push((key, Some(version)));
                    }
                    (None, Some(_)) if may_delete => {
                        changes.push(Change::Delete { key: key.clone(), uid: None });
                        keys.push((key, None));
                    }
                    // Compared again when the last source is ready.
                    (None, _) => {}
                }
            }
            open.dirty.extend(passed);
            if changes.is_empty() {
                break;
            }
            let batch = open.next_batch;
            open.next_batch += 1;
            open.in_flight.extend(keys.iter().map(|(key, _)| key.clone()));
            open.flying.insert(batch, keys);
            effects.push(Effect::Send { node: name.clone(), session: open.number, batch, changes });
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use contract::ids::PODS;

    fn node() -> NodeName {
        NodeName::parse("edge-1").unwrap()
    }

    fn object(resource: &str, name: &str, version: &str) -> Arc<Object> {
        Arc::new(Object {
            key: ObjectKey::new(resource, "default", name),
            uid: format!("uid-{name}"),
            version: version.to_owned(),
            json: Bytes::from_static(b"{}"),
        })
    }

    fn held(resource: &str, name: &str, version: &str) -> Held {
        let o = object(resource, name, version);
        Held { key: o.key.clone(), uid: o.uid.clone(), version: o.version.clone() }
    }

    fn ready() -> Plan {
        Plan::new([])
    }

    fn sent(effects: &[Effect]) -> Vec<(u64, Vec<String>)> {
        effects
            .iter()
            .filter_map(|e| match e {
                Effect::Send { batch, changes, .. } => Some((*batch, changes.iter().map(describe).collect())),
                Effect::AskHoldings { .. } | Effect::RetryAfter { .. } => None,
            })
            .collect()
    }

    fn describe(change: &Change) -> String {
        match change {
            Change::Upsert(o) => format!("+{}@{}", o.key.name, o.version),
            Change::Delete { key, .. } => format!("-{}", key.name),
        }
    }

    #[test]
    fn only_the_difference_travels_and_needs_go_first() {
        let mut plan = ready();
        plan.upsert(&node(), object(PODS, "same", "1"));
        plan.upsert(&node(), object(PODS, "changed", "2"));
        plan.upsert(&node(), object(CONFIG_MAPS, "z-needed", "1"));
        plan.node_up(node(), 1);
        let effects = plan.holdings(
            &node(),
            1,
            Some(vec![held(PODS, "same", "1"), held(PODS, "changed", "1"), held(PODS, "gone", "1")]),
        );
        assert_eq!(sent(&effects), [(1, vec!["+z-needed@1".into(), "+changed@2".into(), "-gone".into()])]);
        assert!(plan.applied(&node(), 1, 1, Ok(())).is_empty());
        assert!(plan.view()["edge-1"].in_sync);
    }

    #[test]
    fn nothing_is_deleted_before_every_source_is_ready() {
        let mut plan = Plan::new([Source::Edge, Source::Device]);
        plan.node_up(node(), 1);
        assert!(sent(&plan.holdings(&node(), 1, Some(vec![held(PODS, "kept", "1")]))).is_empty());
        assert!(sent(&plan.source_ready(Source::Edge)).is_empty());
        assert!(!plan.view()["edge-1"].in_sync);
        assert_eq!(sent(&plan.source_ready(Source::Device)), [(1, vec!["-kept".into()])]);
    }

    #[test]
    fn a_key_in_flight_waits_and_then_goes_newest() {
        let mut plan = ready();
        plan.node_up(node(), 1);
        plan.holdings(&node(), 1, Some(vec![]));
        assert_eq!(sent(&plan.upsert(&node(), object(PODS, "a", "1"))), [(1, vec!["+a@1".into()])]);
        assert!(plan.upsert(&node(), object(PODS, "a", "2")).is_empty());
        assert!(plan.upsert(&node(), object(PODS, "a", "3")).is_empty());
        assert_eq!(sent(&plan.applied(&node(), 1, 1, Ok(()))), [(2, vec!["+a@3".into()])]);
    }

    #[test]
    fn a_refused_batch_is_tried_again_after_a_pause() {
        let mut plan = ready();
        plan.node_up(node(), 1);
        plan.holdings(&node(), 1, Some(vec![]));
        plan.upsert(&node(), object(PODS, "a", "1"));
        let effects = plan.applied(&node(), 1, 1, Err("disk is full".into()));
        assert_eq!(effects, [Effect::RetryAfter { node: node(), session: 1, pause: RETRY_MIN }]);
        assert_eq!(plan.view()["edge-1"].last_refusal.as_deref(), Some("disk is full"));
        assert!(plan.upsert(&node(), object(PODS, "b", "1")).is_empty(), "rests");
        assert_eq!(sent(&plan.retry(&node(), 1)), [(2, vec!["+a@1".into(), "+b@1".into()])]);
    }

    #[test]
    fn an_old_session_is_not_heard() {
        let mut plan = ready();
        plan.node_up(node(), 2);
        assert!(plan.node_up(node(), 1).is_empty());
        assert!(plan.holdings(&node(), 1, Some(vec![])).is_empty());
        plan.node_down(&node(), 1);
        plan.upsert(&node(), object(PODS, "a", "1"));
        assert_eq!(sent(&plan.holdings(&node(), 2, Some(vec![]))).len(), 1);
    }

    #[test]
    fn the_window_bounds_what_flies() {
        let mut plan = ready();
        for n in 0..2000 {
            plan.upsert(&node(), object(PODS, &format!("p{n}"), "1"));
        }
        plan.node_up(node(), 1);
        let mut flying = sent(&plan.holdings(&node(), 1, Some(vec![])));
        assert_eq!(flying.len(), WINDOW);
        let mut total = 0;
        while let Some((batch, changes)) = flying.pop() {
            assert!(changes.len() <= BATCH_OBJECTS);
            total += changes.len();
            flying.extend(sent(&plan.applied(&node(), 1, batch, Ok(()))));
            assert!(flying.len() <= WINDOW);
        }
        assert_eq!(total, 2000);
        assert!(plan.view()["edge-1"].in_sync);
    }

    #[test]
    fn a_large_object_flies_alone() {
        let mut plan = ready();
        let large = Object {
            json: Bytes::from(vec![b' '; BATCH_BYTES + 1]),
            ..Object::clone(&object(PODS, "b-large", "1"))
        };
        plan.upsert(&node(), object(PODS, "a", "1"));
        plan.upsert(&node(), Arc::new(large));
        plan.node_up(node(), 1);
        let effects = plan.holdings(&node(), 1, Some(vec![]));
        assert_eq!(sent(&effects), [(1, vec!["+a@1".into()]), (2, vec!["+b-large@1".into()])]);
    }
}
