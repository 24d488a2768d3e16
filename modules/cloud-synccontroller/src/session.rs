//! One session with a node: what it was asked, which batches are in flight, and what it would not take. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contract::ids::{DEVICES, PODS};
use contract::synccontroller::Source;
use contract::{Change, Object, ObjectKey};

/// 8 batches: on a link of 200 ms that is 8 × 64 objects per round trip.
pub const WINDOW: usize = 8;
/// 64 objects per batch: one commit on the node's disk each.
pub const BATCH_OBJECTS: usize = 64;
/// 256 KiB of JSON per batch, before compression, unless one object is larger: well within a frame.
pub const BATCH_BYTES: usize = 256 << 10;
/// 1 s: the pause after a second refusal; doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause after refused batches.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the node should hold, beside what it holds.
pub(crate) struct Compared<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) held: &'a HeldVersions,
    /// Whether what is not desired may be deleted.
    pub(crate) may_delete: bool,
    /// What is neither sent nor deleted.
    pub(crate) is_unknown: &'a dyn Fn(&ObjectKey) -> bool,
}

/// uid and version of the content: two objects under one key are the same when both are.
pub(crate) type Version = (String, String);
pub(crate) type Desired = BTreeMap<ObjectKey, Arc<Object>>;
pub(crate) type HeldVersions = BTreeMap<ObjectKey, Version>;
/// What a batch makes of its keys; `None` deletes.
pub(crate) type Outcome = Vec<(ObjectKey, Option<Version>)>;

/// 100 ms: after a first refusal, which may have been of one object only.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// An object that is never tried again in this version.
const NEVER: u32 = u32::MAX;

pub(crate) fn version_of(object: &Object) -> Version {
    (object.uid.clone(), object.content_hash.clone())
}

/// What pods and devices need goes with or before them, and leaves after them.
fn rank(key: &ObjectKey, is_desired: bool) -> u8 {
    let is_need = !matches!(key.resource.as_str(), PODS | DEVICES);
    match (is_desired, is_need) {
        (true, true) => 0,
        (true, false) => 1,
        (false, false) => 2,
        (false, true) => 3,
    }
}

/// Where the session is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It was asked what it holds.
    Asking,
    /// It was asked for the buckets that differ.
    Listing {
        inventory: u64,
        /// How many buckets there are.
        of: usize,
        missing: BTreeSet<u16>,
        /// What it holds, as far as known.
        found: HeldVersions,
    },
    /// What it holds is known, and batches go out behind this inventory.
    Open { inventory: u64 },
}

/// An object that the node refused when it came alone.
#[derive(Debug)]
struct Quarantined {
    version: Option<Version>,
    tries: u32,
}

/// A batch that is to go.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) inventory: u64,
    pub(crate) sequence: u64,
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug)]
pub(crate) struct SyncSession {
    pub(crate) number: u64,
    pub(crate) phase: Phase,
    /// Who has not said yet that all was sent which the node should hold.
    awaited: BTreeSet<Source>,
    /// Keys whose state on the node is not, or may not be, what it should be.
    dirty: BTreeSet<(u8, ObjectKey)>,
    in_flight_batches: BTreeMap<u64, Outcome>,
    in_flight: BTreeSet<ObjectKey>,
    last_sequence: u64,
    /// How many objects a batch may have: few after a refusal, to find out which object it was about.
    limit: usize,
    quarantine: BTreeMap<ObjectKey, Quarantined>,
    quarantine_is_due: bool,
    /// Whether somebody will say that they are due.
    pub(crate) quarantine_is_timed: bool,
    /// Refusals with no success between them.
    refusals: u32,
    pub(crate) is_paused: bool,
}

impl SyncSession {
    pub(crate) fn new(number: u64, awaited: BTreeSet<Source>) -> Self {
        SyncSession {
            number,
            phase: Phase::Asking,
            awaited,
            dirty: BTreeSet::new(),
            in_flight_batches: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            last_sequence: 0,
            limit: BATCH_OBJECTS,
            quarantine: BTreeMap::new(),
            quarantine_is_due: false,
            quarantine_is_timed: false,
            refusals: 0,
            is_paused: false,
        }
    }

    /// Whether it is known what the node holds and what it should hold.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. }) && self.awaited.is_empty()
    }

    /// The source has sent all. Answers whether nothing else is awaited now, and something was before.
    pub(crate) fn current(&mut self, source: Source) -> bool {
        self.awaited.remove(&source) && self.awaited.is_empty()
    }

    /// The source begins anew.
    pub(crate) fn await_again(&mut self, source: Source) {
        self.awaited.insert(source);
    }

    /// A new inventory was answered: whatever was in flight behind an older one is in it, or will not be taken.
    pub(crate) fn begin(&mut self) {
        self.in_flight_batches.clear();
        self.in_flight.clear();
        self.dirty.clear();
        self.last_sequence = 0;
    }

    /// `key` may differ.
    pub(crate) fn mark(&mut self, key: &ObjectKey, is_desired: bool) {
        self.dirty.insert((rank(key, is_desired), key.clone()));
    }

    /// Whether every object that was refused alone has been taken since, or is not wanted any more.
    pub(crate) fn has_no_quarantine(&self) -> bool {
        self.quarantine.is_empty()
    }

    /// Batch `number` ended. Answers what it was to make of its keys.
    pub(crate) fn answered(&mut self, number: u64) -> Option<Outcome> {
        let outcome = self.in_flight_batches.remove(&number)?;
        for (key, _) in &outcome {
            self.in_flight.remove(key);
        }
        Some(outcome)
    }

    /// The node took a batch.
    pub(crate) fn taken(&mut self, outcome: &Outcome) {
        self.refusals = 0;
        self.limit = (self.limit * 2).min(BATCH_OBJECTS);
        let was_quarantined =
            outcome.iter().filter(|(key, _)| self.quarantine.remove(key).is_some()).count() > 0;
        if was_quarantined {
            // What was wrong with one is over, and so perhaps with the others.
            self.quarantine.retain(|_, one| one.tries == NEVER);
        }
    }

    /// The node refused a batch: the next ones are small, and an object that was alone is quarantined.
    pub(crate) fn refused(&mut self, outcome: &Outcome) {
        self.limit = 1;
        if let [(key, version)] = outcome.as_slice() {
            let tries =
                self.quarantine.get(key).filter(|one| one.version == *version).map_or(0, |one| one.tries);
            let one = Quarantined { version: version.clone(), tries: tries.saturating_add(1).min(NEVER - 1) };
            self.quarantine.insert(key.clone(), one);
        }
    }

    /// The objects of a batch can never go in this version.
    pub(crate) fn never(&mut self, outcome: Outcome) {
        let one = |(key, version)| (key, Quarantined { version, tries: NEVER });
        self.quarantine.extend(outcome.into_iter().map(one));
    }

    /// Begins a pause, unless there is one. Answers how long it is.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        if std::mem::replace(&mut self.is_paused, true) {
            return None;
        }
        let pause = match self.refusals {
            0 => RETRY_FIRST,
            more => (RETRY_MIN * 2_u32.pow((more - 1).min(5))).min(RETRY_MAX),
        };
        self.refusals = self.refusals.saturating_add(1);
        Some(pause)
    }

    /// The pause before what is quarantined is tried again, unless that is timed already.
    pub(crate) fn time_quarantine(&mut self) -> Option<Duration> {
        let tries = self.quarantine.values().map(|one| one.tries).filter(|tries| *tries != NEVER).min()?;
        if std::mem::replace(&mut self.quarantine_is_timed, true) {
            return None;
        }
        Some((RETRY_MIN * 2_u32.pow(tries.saturating_sub(1).min(5))).min(RETRY_MAX))
    }

    /// What is quarantined may be tried.
    pub(crate) fn quarantine_is_due(&mut self) {
        self.quarantine_is_timed = false;
        self.quarantine_is_due = true;
    }

    /// The next batch from what is marked, if there is one and the window has room; its number is the one after `last`. A key
    /// whose batch is in flight waits for its answer.
    pub(crate) fn next(&mut self, last: &mut u64, compared: &Compared<'_>) -> Option<Batch> {
        let Phase::Open { inventory } = self.phase else { return None };
        if !self.awaited.is_empty() {
            return None;
        }
        let window = if self.limit < BATCH_OBJECTS { 1 } else { WINDOW };
        if self.is_paused || self.in_flight_batches.len() >= window {
            return None;
        }
        let (mut changes, mut outcome) = self.fill(compared);
        if changes.is_empty() && self.in_flight_batches.is_empty() && self.quarantine_is_due {
            self.quarantine_is_due = false;
            (changes, outcome) = self.one_quarantined(compared);
        }
        if changes.is_empty() {
            return None;
        }
        *last += 1;
        self.last_sequence += 1;
        self.in_flight.extend(outcome.iter().map(|(key, _)| key.clone()));
        self.in_flight_batches.insert(*last, outcome);
        Some(Batch { number: *last, inventory, sequence: self.last_sequence, changes })
    }

    fn fill(&mut self, compared: &Compared<'_>) -> (Vec<Change>, Outcome) {
        let (mut changes, mut outcome, mut bytes) = (Vec::new(), Outcome::new(), 0);
        let mut passed = Vec::new();
        while changes.len() < self.limit && bytes < BATCH_BYTES {
            let Some((rank, key)) = self.dirty.pop_first() else { break };
            if self.in_flight.contains(&key) {
                passed.push((rank, key));
                continue;
            }
            let Some((change, version)) = change(&key, compared) else {
                self.quarantine.remove(&key);
                continue;
            };
            if let Some(one) = self.quarantine.get(&key) {
                if one.version == version {
                    passed.push((rank, key));
                    continue;
                }
                self.quarantine.remove(&key);
            }
            let size = size_of(&change);
            // A large object goes alone rather than making a frame too long.
            if !changes.is_empty() && bytes + size > BATCH_BYTES {
                self.dirty.insert((rank, key));
                break;
            }
            bytes += size;
            changes.push(change);
            outcome.push((key, version));
        }
        self.dirty.extend(passed);
        (changes, outcome)
    }

    /// The object that was tried least often, alone.
    fn one_quarantined(&mut self, compared: &Compared<'_>) -> (Vec<Change>, Outcome) {
        loop {
            let due = self.quarantine.iter().filter(|(_, one)| one.tries != NEVER);
            let Some(key) = due.min_by_key(|(_, one)| one.tries).map(|(key, _)| key.clone()) else {
                return (Vec::new(), Outcome::new());
            };
            if let Some((change, version)) = change(&key, compared) {
                self.dirty.retain(|(_, marked)| *marked != key);
                return (vec![change], vec![(key, version)]);
            }
            // It is not wanted any more.
            self.quarantine.remove(&key);
        }
    }
}

fn size_of(change: &Change) -> usize {
    match change {
        Change::Upsert(object) => object.json.len(),
        Change::Delete { .. } => 0,
    }
}

/// What makes the node hold what it should under `key`; `None` when it does, as far as may be done now.
fn change(key: &ObjectKey, compared: &Compared<'_>) -> Option<(Change, Option<Version>)> {
    if (compared.is_unknown)(key) {
        return None;
    }
    match (compared.desired.get(key), compared.held.get(key)) {
        (Some(object), there) => {
            let version = version_of(object);
            (there != Some(&version)).then(|| (Change::Upsert(Object::clone(object)), Some(version)))
        }
        (None, Some(_)) if compared.may_delete => {
            Some((Change::Delete { key: key.clone(), uid: None }, None))
        }
        // Compared again when the last source is ready.
        (None, _) => None,
    }
}
