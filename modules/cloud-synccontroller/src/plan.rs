//! Decides what to ask whom, what to send and which status to write. Pure: messages in, effects out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contract::digest::bucket_of;
use contract::ids::NODES;
use contract::metamanager::Inventory;
use contract::synccontroller::{BatchFailure, RetryOf, Source, SyncStatus};
use contract::{Change, Digest, NodeName, Object, ObjectKey, ObjectVersion};

pub use crate::node::Current;
use crate::node::{Node, is_unknown};
pub use crate::session::{BATCH_BYTES, BATCH_OBJECTS, RETRY_MAX, RETRY_MIN, WINDOW};
use crate::session::{Compared, HeldVersions, Phase, SyncSession, version_of};
use crate::status::{NodeView, OldestWaiting, Timestamp, printable, status_of};

/// 1000 objects are listed in one answer, as far as the buckets are even: twice as many of the longest names fit a frame.
pub const LIST_OBJECTS: usize = 1000;
/// 20 nodes a second: two thousand that come back together are shown within two minutes.
pub const WRITES_AT_ONCE: usize = 20;

/// What the actor is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the node's MetaManager what it holds in short.
    AskInventory {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
    },
    /// Ask it what it holds in some buckets.
    AskObjectVersions {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// Of which inventory.
        inventory: u64,
        /// The buckets.
        buckets: Vec<u16>,
    },
    /// Send one batch and await its answer.
    Send {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// The batch's number.
        batch: u64,
        /// The inventory it starts from.
        inventory: u64,
        /// Its sequence behind that.
        sequence: u64,
        /// In order.
        changes: Vec<Change>,
    },
    /// Flush when what is in the mailbox now has been handled: it may be much, and then goes in few batches.
    Flush,
    /// Come back later.
    RetryAfter {
        /// The node.
        node: NodeName,
        /// Its session.
        session: u64,
        /// The pause.
        pause: Duration,
        /// What for.
        again: RetryOf,
    },
    /// Write the status to the Node.
    WriteStatus {
        /// The node.
        node: NodeName,
        /// The status.
        status: SyncStatus,
    },
}

/// Every node's desired map and session.
#[derive(Debug)]
pub struct Plan {
    sources: BTreeSet<Source>,
    /// Those that have not listed everything yet.
    waiting_for: BTreeSet<Source>,
    /// While a source lists: what it has sent so far.
    lists: BTreeMap<Source, BTreeSet<(NodeName, ObjectKey)>>,
    nodes: BTreeMap<NodeName, Node>,
    /// The number of the last batch of all sessions.
    last_batch: u64,
    /// Nodes for which something was marked since the last flush.
    touched: BTreeSet<NodeName>,
}

impl Plan {
    /// A plan that waits for `sources` before it deletes anything.
    pub fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        let sources: BTreeSet<Source> = sources.into_iter().collect();
        Plan {
            waiting_for: sources.clone(),
            sources,
            lists: BTreeMap::new(),
            nodes: BTreeMap::new(),
            last_batch: 0,
            touched: BTreeSet::new(),
        }
    }

    /// The source sends everything from here on. Until it says of each session that all was sent, nothing goes out there.
    pub fn list_begins(&mut self, source: Source) {
        self.lists.insert(source, BTreeSet::new());
        for node in self.nodes.values_mut() {
            node.current.remove(&source);
            if let Some(open) = &mut node.session {
                open.await_again(source);
            }
        }
        self.nodes.retain(|_, node| !node.is_forgettable());
    }

    /// The source has sent everything: what it did not send is gone. A list that began before this plan did says nothing.
    pub fn list_complete(&mut self, source: Source, now: Timestamp) -> Vec<Effect> {
        let Some(sent) = self.lists.remove(&source) else { return Vec::new() };
        let mut gone = Vec::new();
        for (name, node) in &self.nodes {
            let of_source = node.desired.keys().filter(|key| Source::of(key) == source);
            let not_sent =
                of_source.map(|key| (name.clone(), key.clone())).filter(|pair| !sent.contains(pair));
            gone.extend(not_sent);
        }
        let mut effects: Vec<Effect> =
            gone.iter().flat_map(|(node, key)| self.delete(node, key, now)).collect();
        if self.waiting_for.remove(&source) && self.waiting_for.is_empty() {
            for node in self.nodes.values_mut() {
                node.compare(true, now);
            }
            let names: Vec<NodeName> = self.nodes.keys().cloned().collect();
            effects.extend(names.iter().flat_map(|name| self.pump(name)));
        }
        effects
    }

    /// The source has sent all that the node should hold in this session.
    pub fn current(&mut self, source: Source, node: &NodeName, said: Current, now: Timestamp) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let entry = self.nodes.entry(node.clone()).or_default();
        let session = said.session;
        let before = entry.current.insert(source, said);
        let Some(open) = entry.session.as_mut().filter(|open| open.number == session) else {
            return Vec::new();
        };
        let had_unknown = before.is_some_and(|before| !before.unknown.is_empty());
        if (open.current(source) || had_unknown) && open.is_open() {
            entry.compare(may_delete, now);
            return self.pump(node);
        }
        Vec::new()
    }

    /// The node should hold `object`.
    pub fn upsert(&mut self, node: &NodeName, object: Arc<Object>, now: Timestamp) -> Vec<Effect> {
        let entry = self.nodes.entry(node.clone()).or_default();
        let key = object.key.clone();
        entry.desired.insert(key.clone(), object);
        if let Some(list) = self.lists.get_mut(&Source::of(&key)) {
            list.insert((node.clone(), key.clone()));
        }
        self.touch(node, &key, now)
    }

    /// The node should not hold `key`.
    pub fn delete(&mut self, node: &NodeName, key: &ObjectKey, now: Timestamp) -> Vec<Effect> {
        if let Some(list) = self.lists.get_mut(&Source::of(key)) {
            list.remove(&(node.clone(), key.clone()));
        }
        let Some(entry) = self.nodes.get_mut(node) else { return Vec::new() };
        entry.desired.remove(key);
        if entry.is_forgettable() {
            self.nodes.remove(node);
            return Vec::new();
        }
        self.touch(node, key, now)
    }

    /// Sends what was marked.
    pub fn flush(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.touched).iter().flat_map(|node| self.pump(node)).collect()
    }

    /// No session is open but those that come after this.
    pub fn all_nodes_down(&mut self) {
        for node in self.nodes.values_mut() {
            node.session = None;
        }
        self.nodes.retain(|_, node| !node.is_forgettable());
    }

    /// A session opened; it replaces an older one.
    pub fn node_up(&mut self, node: NodeName, session: u64) -> Vec<Effect> {
        let entry = self.nodes.entry(node.clone()).or_default();
        if entry.session.as_ref().is_some_and(|open| open.number > session) {
            return Vec::new();
        }
        let is_awaited =
            |source: &&Source| entry.current.get(*source).map(|said| said.session) != Some(session);
        let awaited = self.sources.iter().filter(is_awaited).copied().collect();
        entry.session = Some(SyncSession::new(session, awaited));
        entry.published.forget();
        vec![Effect::AskInventory { node, session }]
    }

    /// A session ended. It may be one that was never told here as open, of which only a source spoke.
    pub fn node_down(&mut self, node: &NodeName, session: u64) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        entry.current.retain(|_, said| said.session > session);
        if entry.session.as_ref().is_some_and(|open| open.number == session) {
            entry.session = None;
        }
        if entry.is_forgettable() {
            self.nodes.remove(node);
        }
    }

    /// The node said what it holds in short, or did not answer.
    pub fn inventory_answered(
        &mut self,
        node: &NodeName,
        session: u64,
        inventory: Option<Inventory>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let Some(entry) = self.with_session(node, session) else { return Vec::new() };
        let Some(open) = entry.session.as_mut().filter(|open| matches!(open.phase, Phase::Asking)) else {
            return Vec::new();
        };
        let Some(Inventory { number, digest }) = inventory.filter(|inventory| inventory.digest.is_sound())
        else {
            return self.pause(node);
        };
        open.begin();
        entry.confirmed = Some(now);
        let of = digest.buckets.len();
        let differing = if digest.objects == 0 {
            Vec::new()
        } else {
            let entries = entry.desired.iter().map(|(key, o)| (key, o.uid.as_str(), o.content_hash.as_str()));
            digest.differing(&Digest::of(entries, of))
        };
        let missing: BTreeSet<u16> = differing.iter().copied().collect();
        let found: HeldVersions = if digest.objects == 0 {
            HeldVersions::new()
        } else {
            let same = entry.desired.iter().filter(|(key, _)| !is_in(&missing, key, of));
            same.map(|(key, object)| (key.clone(), version_of(object))).collect()
        };
        if missing.is_empty() {
            entry.open(number, found, may_delete, now);
            return self.pump(node);
        }
        open.phase = Phase::Listing { inventory: number, of, missing, found };
        let per_bucket = usize::try_from(digest.objects).unwrap_or(usize::MAX).div_ceil(of).max(1);
        let ask = |buckets: &[u16]| Effect::AskObjectVersions {
            node: node.clone(),
            session,
            inventory: number,
            buckets: buckets.to_vec(),
        };
        differing.chunks((LIST_OBJECTS / per_bucket).max(1)).map(ask).collect()
    }

    /// The node said what it holds in `buckets`, or did not answer.
    pub fn object_versions(
        &mut self,
        node: &NodeName,
        session: u64,
        (inventory, buckets): (u64, &[u16]),
        held: Option<Vec<ObjectVersion>>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let Some(entry) = self.with_session(node, session) else { return Vec::new() };
        let Some(Phase::Listing { inventory: asked, of, missing, found }) =
            entry.session.as_mut().map(|open| &mut open.phase)
        else {
            return Vec::new();
        };
        if *asked != inventory {
            return Vec::new();
        }
        let Some(held) = held else { return self.pause(node) };
        let answered: BTreeSet<u16> = buckets.iter().copied().filter(|b| missing.remove(b)).collect();
        // What it was not asked for is not listened to.
        let said = held.into_iter().filter(|held| is_in(&answered, &held.key, *of));
        found.extend(said.map(|held| (held.key, (held.uid, held.content_hash))));
        if !missing.is_empty() {
            return Vec::new();
        }
        let found = std::mem::take(found);
        entry.confirmed = Some(now);
        entry.open(inventory, found, may_delete, now);
        self.pump(node)
    }

    /// A batch was committed, or not.
    pub fn applied(
        &mut self,
        node: &NodeName,
        session: u64,
        batch: u64,
        result: Result<(), BatchFailure>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let Some(entry) = self.with_session(node, session) else { return Vec::new() };
        let Some(open) = entry.session.as_mut() else { return Vec::new() };
        let Some(outcome) = open.answered(batch) else { return Vec::new() };
        let mut quarantine = None;
        let goes_on = match result {
            Ok(()) => {
                open.taken(&outcome);
                entry.confirmed = Some(now);
                let held = entry.held.get_or_insert_default();
                for (key, version) in &outcome {
                    match version {
                        Some(version) => held.insert(key.clone(), version.clone()),
                        None => held.remove(key),
                    };
                }
                true
            }
            Err(BatchFailure::Refused(why)) => {
                open.refused(&outcome);
                quarantine = open.time_quarantine();
                entry.refused += 1;
                entry.last_refusal = Some(printable(&why));
                entry.refusing = true;
                false
            }
            Err(BatchFailure::TooLarge) => {
                if let Some((key, _)) = outcome.first() {
                    entry.last_refusal = Some(format!("{key} is too large for the link"));
                }
                entry.refusing = true;
                open.never(outcome.clone());
                false
            }
            Err(BatchFailure::Stale | BatchFailure::Unanswered(_)) => false,
        };
        for (key, _) in &outcome {
            let waits = entry.update_waiting(key, may_delete, now);
            let is_desired = entry.desired.contains_key(key);
            if let Some(open) = entry.session.as_mut().filter(|_| waits) {
                open.mark(key, is_desired);
            }
        }
        if goes_on {
            let healed = entry.session.as_ref().is_some_and(SyncSession::has_no_quarantine);
            entry.refusing &= !healed && !entry.waiting.is_empty();
            return self.pump(node);
        }
        let mut effects = self.pause(node);
        effects.extend(quarantine.map(|pause| Effect::RetryAfter {
            node: node.clone(),
            session,
            pause,
            again: RetryOf::Quarantined,
        }));
        effects
    }

    /// A pause is over.
    pub fn retry(&mut self, node: &NodeName, session: u64, again: RetryOf) -> Vec<Effect> {
        let Some(open) = self.with_session(node, session).and_then(|entry| entry.session.as_mut()) else {
            return Vec::new();
        };
        match again {
            RetryOf::Compare => {
                open.is_paused = false;
                open.phase = Phase::Asking;
                vec![Effect::AskInventory { node: node.clone(), session }]
            }
            RetryOf::Quarantined => {
                open.quarantine_is_due();
                self.pump(node)
            }
        }
    }

    /// Whose status is to be written now: those first that were written longest ago.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        if !self.waiting_for.is_empty() {
            return Vec::new();
        }
        let mut wanted: Vec<(&NodeName, &mut Node, SyncStatus)> = Vec::new();
        for (name, node) in &mut self.nodes {
            // What it refuses is shown at once, also while it is asked again.
            let is_known =
                node.is_in_sync() || (node.is_known() || node.refusing) && !node.waiting.is_empty();
            let status =
                status_of(node.waiting.len(), node.oldest(), node.refusal(), node.session.is_some(), now);
            let last_confirmed = node.confirmed.map(|at| at.unix);
            let status = status.map(|status| SyncStatus { last_confirmed, ..status });
            if let Some(status) = status.filter(|status| is_known && node.published.wants(status, now.moment))
            {
                wanted.push((name, node, status));
            }
        }
        wanted.sort_by_key(|(_, node, _)| node.published.at());
        let writes = wanted.into_iter().take(WRITES_AT_ONCE).map(|(name, node, status)| {
            node.published.begin(&status, now.moment);
            Effect::WriteStatus { node: name.clone(), status }
        });
        writes.collect()
    }

    /// The status of a node was written, or not.
    pub fn status_written(&mut self, node: &NodeName, status: SyncStatus, is_written: bool) {
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.published.end(status, is_written);
        }
    }

    /// Every node, for the snapshot.
    pub fn view(&self, now: Timestamp) -> BTreeMap<String, NodeView> {
        let all_ready = self.waiting_for.is_empty();
        let view = |name: &NodeName, node: &Node| NodeView {
            linked: node.session.is_some(),
            registered: node.desired.contains_key(&ObjectKey::new(NODES, "", name.as_str())),
            in_sync: all_ready && node.is_in_sync(),
            desired: node.desired.len(),
            waiting: node.waiting.len(),
            oldest: node.oldest().map(|(key, since)| OldestWaiting {
                object: key.to_string(),
                seconds: now.moment.since(since.moment).as_secs(),
            }),
            last_confirmed: node.confirmed.map(|at| at.unix),
            refused: node.refused,
            last_refusal: node.last_refusal.clone(),
            refusing: node.refusing,
        };
        self.nodes.iter().map(|(name, node)| (name.to_string(), view(name, node))).collect()
    }

    fn with_session(&mut self, node: &NodeName, number: u64) -> Option<&mut Node> {
        let entry = self.nodes.get_mut(node)?;
        entry.session.as_ref().is_some_and(|open| open.number == number).then_some(entry)
    }

    /// Nothing goes out for a while, and then everything is compared anew.
    fn pause(&mut self, node: &NodeName) -> Vec<Effect> {
        let Some(open) = self.nodes.get_mut(node).and_then(|entry| entry.session.as_mut()) else {
            return Vec::new();
        };
        let session = open.number;
        let retry =
            |pause| Effect::RetryAfter { node: node.clone(), session, pause, again: RetryOf::Compare };
        open.pause().map(retry).into_iter().collect()
    }

    /// Marks `key` when the node does not hold what it should.
    fn touch(&mut self, node: &NodeName, key: &ObjectKey, now: Timestamp) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let Some(entry) = self.nodes.get_mut(node) else { return Vec::new() };
        entry.update_waiting(key, may_delete, now);
        let is_desired = entry.desired.contains_key(key);
        if let Some(open) = entry.session.as_mut().filter(|open| open.is_open()) {
            open.mark(key, is_desired);
            let is_first = self.touched.is_empty();
            self.touched.insert(node.clone());
            return if is_first { vec![Effect::Flush] } else { Vec::new() };
        }
        Vec::new()
    }

    /// Fills the window from what is marked.
    fn pump(&mut self, name: &NodeName) -> Vec<Effect> {
        let may_delete = self.waiting_for.is_empty();
        let mut effects = Vec::new();
        if let Some(Node { desired, held: Some(held), session: Some(open), current, .. }) =
            self.nodes.get_mut(name)
        {
            let is_unknown = |key: &ObjectKey| is_unknown(current, key);
            let compared = Compared { desired, held, may_delete, is_unknown: &is_unknown };
            while let Some(batch) = open.next(&mut self.last_batch, &compared) {
                effects.push(Effect::Send {
                    node: name.clone(),
                    session: open.number,
                    batch: batch.number,
                    inventory: batch.inventory,
                    sequence: batch.sequence,
                    changes: batch.changes,
                });
            }
        }
        effects
    }
}

fn is_in(buckets: &BTreeSet<u16>, key: &ObjectKey, of: usize) -> bool {
    !buckets.is_empty() && u16::try_from(bucket_of(key, of)).is_ok_and(|bucket| buckets.contains(&bucket))
}
