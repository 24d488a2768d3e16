//! One node: what it should hold, what it holds, and what waits in between. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ObjectKey;
use contract::synccontroller::Source;

use crate::session::{Desired, HeldVersions, Phase, SyncSession, version_of};
use crate::status::{PublishedStatus, Timestamp};

/// What a source says of a session when it has sent all.
#[derive(Debug, Default)]
pub struct Current {
    /// The session.
    pub session: u64,
    /// What the source cannot read: it stays on the node as it is.
    pub unknown: BTreeSet<ObjectKey>,
}

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) desired: Desired,
    /// What it holds, as far as it has confirmed; `None` until it has answered for the first time.
    pub(crate) held: Option<HeldVersions>,
    /// The keys in which the two differ, and since when.
    pub(crate) waiting: BTreeMap<ObjectKey, Timestamp>,
    pub(crate) confirmed: Option<Timestamp>,
    pub(crate) refused: u64,
    pub(crate) last_refusal: Option<String>,
    /// Whether the last refusal is not healed yet.
    pub(crate) refusing: bool,
    pub(crate) session: Option<SyncSession>,
    /// The session of which each source has said that it has sent all.
    pub(crate) current: BTreeMap<Source, Current>,
    pub(crate) published: PublishedStatus,
}

impl Node {
    /// Whether `key` waits.
    pub(crate) fn update_waiting(&mut self, key: &ObjectKey, may_delete: bool, now: Timestamp) -> bool {
        let has = self.held.as_ref().and_then(|held| held.get(key));
        let waits = match self.desired.get(key) {
            Some(object) => has.is_none_or(|has| *has != version_of(object)),
            None => has.is_some() && may_delete,
        };
        let waits = waits && !is_unknown(&self.current, key);
        if !waits {
            self.waiting.remove(key);
        } else if !self.waiting.contains_key(key) {
            self.waiting.insert(key.clone(), now);
        }
        waits
    }

    /// Looks at every key, and marks what differs.
    pub(crate) fn compare(&mut self, may_delete: bool, now: Timestamp) {
        let held = self.held.iter().flat_map(BTreeMap::keys);
        let keys: BTreeSet<ObjectKey> =
            self.desired.keys().chain(held).chain(self.waiting.keys()).cloned().collect();
        for key in keys {
            let waits = self.update_waiting(&key, may_delete, now);
            let is_desired = self.desired.contains_key(&key);
            if let Some(open) = self.session.as_mut().filter(|open| waits && open.is_open()) {
                open.mark(&key, is_desired);
            }
        }
    }

    /// Whether nothing is known of it that anybody will not say again. What a source said of a session may be all that it
    /// says of it, and come before the session itself.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.session.is_none() && self.desired.is_empty() && self.current.is_empty()
    }

    pub(crate) fn oldest(&self) -> Option<(&ObjectKey, Timestamp)> {
        self.waiting.iter().map(|(key, since)| (key, *since)).min_by_key(|(_, since)| since.moment)
    }

    /// Whether it is known how it stands: not of a node that was never here, nor while it is found out at the beginning of a session.
    pub(crate) fn is_known(&self) -> bool {
        self.confirmed.is_some() && self.session.as_ref().is_none_or(SyncSession::is_open)
    }

    /// Whether it has confirmed all that it should hold, as the gauge and the condition say it alike: with a link or without, since
    /// what was confirmed is not undone by a cut. Whether there is a link is said beside it.
    pub(crate) fn is_in_sync(&self) -> bool {
        self.is_known() && self.waiting.is_empty()
    }

    pub(crate) fn refusal(&self) -> Option<&str> {
        self.last_refusal.as_deref().filter(|_| self.refusing)
    }

    /// What is known of the node now is `held`.
    pub(crate) fn open(&mut self, inventory: u64, held: HeldVersions, may_delete: bool, now: Timestamp) {
        self.held = Some(held);
        if let Some(open) = &mut self.session {
            open.phase = Phase::Open { inventory };
        }
        self.compare(may_delete, now);
        self.refusing &= !self.waiting.is_empty();
    }
}

/// Whether a source has said that it cannot read this.
pub(crate) fn is_unknown(current: &BTreeMap<Source, Current>, key: &ObjectKey) -> bool {
    current.values().any(|said| said.unknown.contains(key))
}
