//! A node in memory that does what MetaManager does, and the messages between it and the plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use bytes::Bytes;
use cloud_synccontroller::plan::{BATCH_OBJECTS, Current, Effect, Plan, RETRY_MAX};
use cloud_synccontroller::status::{NodeView, Timestamp};
use contract::digest::{bucket_of, buckets_for};
use contract::metamanager::Inventory;
use contract::synccontroller::{BatchFailure, RetryOf, Source, SyncState, SyncStatus};
use contract::{Change, Digest, NodeName, Object, ObjectKey, ObjectVersion};

pub(crate) type HeldObjects = BTreeMap<ObjectKey, (String, String)>;

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp {
        moment: Moment(Duration::from_secs(seconds)),
        unix: 1_000_000 + i64::try_from(seconds).unwrap(),
    }
}

/// Said of a session of which all is known.
pub(crate) fn all_of(session: u64) -> Current {
    Current { session, ..Current::default() }
}

pub(crate) fn name() -> NodeName {
    NodeName::parse("edge-1").unwrap()
}

pub(crate) fn object(resource: &str, name: &str, version: &str) -> Arc<Object> {
    Arc::new(Object {
        key: ObjectKey::new(resource, "default", name),
        uid: format!("uid-{name}"),
        content_hash: version.to_owned(),
        resource_version: "1".to_owned(),
        json: Bytes::from_static(b"{}"),
    })
}

pub(crate) fn describe(change: &Change) -> String {
    match change {
        Change::Upsert(o) => format!("+{}@{}", o.key.name, o.content_hash),
        Change::Delete { key, .. } => format!("-{}", key.name),
    }
}

/// A node's store, its gate, and what it was asked.
#[derive(Default)]
pub(crate) struct Edge {
    pub(crate) held: HeldObjects,
    pub(crate) inventory: Option<u64>,
    pub(crate) sequence: u64,
    pub(crate) last_inventory: u64,
    /// Refuses a batch for which this says so.
    pub(crate) refuses: Option<fn(&[Change]) -> bool>,
    pub(crate) lists: usize,
    pub(crate) listed: usize,
    pub(crate) batches: Vec<Vec<String>>,
    /// What was sent last, by name.
    pub(crate) bodies: std::collections::BTreeMap<String, bytes::Bytes>,
    pub(crate) stale: usize,
    pub(crate) refused: usize,
}

impl Edge {
    pub(crate) fn holding(set: &HeldObjects) -> Edge {
        Edge { held: set.clone(), ..Edge::default() }
    }

    pub(crate) fn inventory(&mut self) -> Inventory {
        self.last_inventory += 1;
        self.inventory = Some(self.last_inventory);
        self.sequence = 0;
        let marks = self.held.iter().map(|(key, (uid, version))| (key, uid.as_str(), version.as_str()));
        Inventory { number: self.last_inventory, digest: Digest::of(marks, buckets_for(self.held.len())) }
    }

    pub(crate) fn list(&mut self, buckets: &[u16]) -> Vec<ObjectVersion> {
        let of = buckets_for(self.held.len());
        let of_bucket = |key: &ObjectKey| buckets.contains(&u16::try_from(bucket_of(key, of)).unwrap());
        let held = self.held.iter().filter(|(key, _)| of_bucket(key)).map(|(key, (uid, version))| {
            ObjectVersion { key: key.clone(), uid: uid.clone(), content_hash: version.clone() }
        });
        let list: Vec<ObjectVersion> = held.collect();
        self.lists += 1;
        self.listed += list.len();
        list
    }

    pub(crate) fn apply(
        &mut self,
        inventory: u64,
        sequence: u64,
        changes: Vec<Change>,
    ) -> Result<(), BatchFailure> {
        if self.inventory != Some(inventory) || sequence != self.sequence + 1 {
            self.inventory = self.inventory.filter(|open| *open != inventory);
            self.stale += 1;
            return Err(BatchFailure::Stale);
        }
        self.sequence = sequence;
        if self.refuses.is_some_and(|refuses| refuses(&changes)) {
            self.inventory = None;
            self.refused += 1;
            return Err(BatchFailure::Refused("disk is full".to_owned()));
        }
        self.batches.push(changes.iter().map(describe).collect());
        for change in changes {
            match change {
                Change::Upsert(o) => {
                    self.bodies.insert(o.key.name.clone(), o.json.clone());
                    self.held.insert(o.key.clone(), (o.uid.clone(), o.content_hash.clone()))
                }
                Change::Delete { key, .. } => self.held.remove(&key),
            };
        }
        Ok(())
    }

    pub(crate) fn changes(&self) -> Vec<String> {
        self.batches.concat()
    }
}

/// A plan whose sources have begun to list.
pub(crate) fn new_plan(sources: impl IntoIterator<Item = Source>) -> Plan {
    let sources: Vec<Source> = sources.into_iter().collect();
    let mut plan = Plan::new(sources.clone());
    sources.into_iter().for_each(|source| plan.list_begins(source));
    plan
}

/// A session opens, and every source says at once that it has sent all.
pub(crate) fn up(plan: &mut Plan, node: NodeName, session: u64) -> Vec<Effect> {
    let effects = plan.node_up(node.clone(), session);
    if !effects.is_empty() {
        Source::ALL.into_iter().for_each(|source| {
            plan.current(source, &node, all_of(session), at(0));
        });
    }
    effects
}

/// One change, and what goes out for it.
pub(crate) fn put(plan: &mut Plan, object: Arc<Object>, now: Timestamp) -> Vec<Effect> {
    plan.upsert(&name(), object, now);
    plan.flush()
}

/// What is due at which second.
pub(crate) type Timers = Vec<(u64, u64, RetryOf)>;

/// A plan, a node, and the messages between them.
pub(crate) struct Fixture {
    pub(crate) plan: Plan,
    pub(crate) edge: Edge,
    pub(crate) second: u64,
    pub(crate) timers: Timers,
    pub(crate) most_flying: usize,
    pub(crate) shown: Vec<(u64, SyncStatus)>,
}

impl Fixture {
    pub(crate) fn new(plan: Plan, edge: Edge) -> Fixture {
        Fixture { plan, edge, second: 0, timers: Vec::new(), most_flying: 0, shown: Vec::new() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.second)
    }

    pub(crate) fn up(&mut self, session: u64) {
        let effects = up(&mut self.plan, name(), session);
        self.settle(effects);
    }

    pub(crate) fn put(&mut self, object: Arc<Object>) {
        let effects = self.plan.upsert(&name(), object, self.now());
        self.settle(effects);
    }

    /// Performs effects, first come first served, until there are none.
    pub(crate) fn settle(&mut self, effects: Vec<Effect>) {
        let mut queue: std::collections::VecDeque<Effect> = effects.into();
        let now = self.now();
        while let Some(effect) = queue.pop_front() {
            let flying = queue.iter().filter(|e| matches!(e, Effect::Send { .. })).count();
            self.most_flying = self.most_flying.max(flying + 1);
            queue.extend(match effect {
                Effect::AskInventory { node, session } => {
                    let inventory = self.edge.inventory();
                    self.plan.inventory_answered(&node, session, Some(inventory), now)
                }
                Effect::AskObjectVersions { node, session, inventory, buckets } => {
                    let held = self.edge.list(&buckets);
                    self.plan.object_versions(&node, session, (inventory, &buckets), Some(held), now)
                }
                Effect::Send { node, session, batch, inventory, sequence, changes } => {
                    assert!(changes.len() <= BATCH_OBJECTS);
                    let result = self.edge.apply(inventory, sequence, changes);
                    self.plan.applied(&node, session, batch, result, now)
                }
                Effect::Flush => self.plan.flush(),
                Effect::RetryAfter { session, pause, again, .. } => {
                    assert!(pause <= RETRY_MAX);
                    self.timers.push((self.second + pause.as_secs().max(1), session, again));
                    Vec::new()
                }
                Effect::WriteStatus { node, status } => {
                    self.shown.push((self.second, status.clone()));
                    self.plan.status_written(&node, status, true);
                    Vec::new()
                }
            });
        }
    }

    /// Lets time pass, a second at a time.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let now = self.second;
            let (due, later): (Timers, Timers) =
                std::mem::take(&mut self.timers).into_iter().partition(|(when, ..)| *when <= now);
            self.timers = later;
            for (_, session, again) in due {
                let effects = self.plan.retry(&name(), session, again);
                self.settle(effects);
            }
            let effects = self.plan.tick(self.now());
            self.settle(effects);
        }
    }

    pub(crate) fn view(&self) -> NodeView {
        self.plan.view(self.now())["edge-1"].clone()
    }

    pub(crate) fn states(&self) -> Vec<SyncState> {
        self.shown.iter().map(|(_, status)| status.state).collect()
    }
}

pub(crate) fn set(objects: &[&Arc<Object>]) -> HeldObjects {
    objects.iter().map(|o| (o.key.clone(), (o.uid.clone(), o.content_hash.clone()))).collect()
}
