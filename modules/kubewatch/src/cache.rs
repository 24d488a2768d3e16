//! What one watch has told, as nodes are to see it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::names::is_extended_resource;
use bytes::Bytes;
use contract::ids::{
    CONFIG_UPDATE_JOBS, DEVICES, IMAGE_PRE_PULL_JOBS, NODE_UPGRADE_JOBS, NODES, PERSISTENT_VOLUME_CLAIMS,
    PODS, REPORTED_ANNOTATION, VOLUME_ATTACHMENTS,
};
use contract::{Object, ObjectKey, content_hash};
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Map, Value, json};

use crate::budget::{Budget, Charge, OBJECT_BYTES};
use crate::{Reads, Unreadable, WatchedKind, pod_status};

/// 4,096 values in what is read here of an object that is passed on: that is kept taken apart.
const PARTS_MAX: usize = 4096;
/// 128 bytes that one value of it takes, with its name.
const VALUE_BYTES: usize = 128;

/// One object: what is sent, and what is read here.
pub struct Cached {
    /// As it goes to nodes: without what only the API server's bookkeeping moves. Without text where nothing but a
    /// [rest](WatchedKind::rest) is kept.
    pub object: Arc<Object>,
    /// What is read of it here and of what is left of it, taken apart; `None`: all of it, and it stands in the text.
    parts: Option<Value>,
    /// A mark of the status that goes with it, what the node reported included.
    status: Option<String>,
    /// Of a Node: what stands there of its node.
    pub readiness: Readiness,
    /// Of a Node: a mark of its status, so that a reader sees that somebody wrote it. Nothing is told when it moves.
    pub status_mark: u64,
    /// What it takes of the budget.
    charge: Charge,
}

impl Cached {
    /// What is read of it here, where that is not all of it.
    pub fn parts(&self) -> Option<&Value> {
        self.parts.as_ref()
    }

    /// Its content, without what a node itself reported, but for a pod's, and of some kinds only what is read of it here
    /// ([`WatchedKind::reads`]). Where that is all of it, it is taken apart at each call: no tree of an object is kept, since that has many
    /// times the size of the text.
    pub fn value(&self) -> Cow<'_, Value> {
        match &self.parts {
            Some(parts) => Cow::Borrowed(parts),
            // It was written here.
            None => Cow::Owned(serde_json::from_slice(&self.object.json).unwrap_or_default()),
        }
    }
}

/// An object that is there and could not be read, or found no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its uid; empty if that is no text.
    pub uid: String,
    /// Why, for a person. It quotes nothing of the object.
    pub why: String,
    /// How many bytes it would take, if it was for want of room that it was not kept.
    wants: Option<usize>,
}

impl Unread {
    /// What cannot be read, whatever room there is.
    pub fn new(uid: &str, why: &str) -> Unread {
        Unread { uid: uid.to_owned(), why: why.to_owned(), wants: None }
    }
}

/// What a Node's condition `Ready` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readiness {
    /// Nothing, or it is no Node.
    #[default]
    Unsaid,
    /// The node is ready.
    Ready,
    /// It said itself that it is not.
    NotReady,
    /// Somebody has written that nothing is heard of it.
    Unheard,
}

/// What one watch has told.
#[derive(Default)]
pub struct Cache {
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Cached>,
    /// Objects that are there and could not be read, and why. Of one whose last version could be read, and which is the same
    /// object still, that version stays in `objects`: nodes go on with it. Of any other there is none, as if it were not there.
    /// Objects for which there was no room are among them, and nothing else of those is kept.
    pub unreadable: BTreeMap<ObjectKey, Unread>,
    /// Whether the first list is complete.
    pub listed: bool,
    /// While a list runs: what it named so far.
    listing: Option<BTreeSet<ObjectKey>>,
    /// What moved since somebody asked; `None` while nobody ever did.
    moved: Option<BTreeSet<ObjectKey>>,
    /// Whether the reader knows that something moved, and has not looked yet.
    is_notified: bool,
    /// What all caches may hold.
    budget: Budget,
}

/// A cache that its watch fills.
pub type SharedCache = Rc<RefCell<Cache>>;

impl Cache {
    /// An empty one, which takes what it holds of this budget.
    pub(crate) fn within(budget: Budget) -> Cache {
        Cache { budget, ..Cache::default() }
    }

    /// Whether there would be room now for any that was not kept for want of it: only a list brings it again.
    pub(crate) fn has_room_again(&self) -> bool {
        self.unreadable
            .iter()
            .any(|(key, unread)| unread.wants.is_some_and(|bytes| self.budget.has_room(key, bytes)))
    }

    /// Whether any was not kept for want of room.
    pub(crate) fn lacks_room(&self) -> bool {
        self.unreadable.values().any(|unread| unread.wants.is_some())
    }

    /// What came, changed, went or could not be read since the last call, and at the first call everything that is there. One reader per
    /// cache: what one was told is not told again.
    pub fn take_moved(&mut self) -> BTreeSet<ObjectKey> {
        self.is_notified = false;
        match self.moved.replace(BTreeSet::new()) {
            Some(moved) => moved,
            None => self.objects.keys().chain(self.unreadable.keys()).cloned().collect(),
        }
    }

    /// Takes one event in. Answers the object for which there was no room and why, if that is new, and whether the reader is to be told to
    /// look: once, until it does, however much moves, and not while the first list runs.
    pub(crate) fn apply(
        &mut self,
        what: &WatchedKind,
        event: Event<DynamicObject>,
    ) -> (Option<(ObjectKey, String)>, bool) {
        let was_listed = self.listed;
        let Taken { moved, refused } = self.take_in(what, event);
        let is_first = self.listed && !was_listed;
        (refused, self.nudge(moved, is_first))
    }

    /// Takes in that an object is there and could not be read. Answers its key if that is new, and whether the reader is to be
    /// told to look.
    pub(crate) fn apply_unreadable(
        &mut self,
        what: &WatchedKind,
        unreadable: &Unreadable,
    ) -> (Option<ObjectKey>, bool) {
        let metadata = &unreadable.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new(what.group_resource, namespace, metadata.name.clone().unwrap_or_default());
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let is_news = self.note_unread(&key, Unread::new(uid, &unreadable.why));
        (is_news.then_some(key), self.nudge(is_news, false))
    }

    /// Answers whether that is new, or moved anything.
    fn note_unread(&mut self, key: &ObjectKey, unread: Unread) -> bool {
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        let before = self.objects.get(key).map(|cached| cached.object.uid.as_str());
        let is_another = before.is_some_and(|before| unread.uid != before);
        let moved = is_another && self.remove(key);
        let is_news = self.unreadable.get(key) != Some(&unread);
        self.unreadable.insert(key.clone(), unread);
        if is_news {
            self.note(key);
        }
        moved || is_news
    }

    fn nudge(&mut self, moved: bool, is_first: bool) -> bool {
        if !self.listed || !moved {
            return false;
        }
        let was_notified = std::mem::replace(&mut self.is_notified, true);
        is_first || !was_notified
    }

    /// Answers whether anything that matters to nodes moved, or is to be said.
    fn take_in(&mut self, what: &WatchedKind, event: Event<DynamicObject>) -> Taken {
        let moved = match event {
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) | Event::Apply(object) => return self.put_in(what, object),
            Event::InitDone => self.end_list(),
            Event::Delete(object) => {
                let (namespace, name) = (object.metadata.namespace, object.metadata.name);
                let key = ObjectKey::new(
                    what.group_resource,
                    namespace.unwrap_or_default(),
                    name.unwrap_or_default(),
                );
                self.remove(&key)
            }
        };
        Taken { moved, refused: None }
    }

    /// What the list did not name is gone.
    fn end_list(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.listed, true);
        let Some(named) = self.listing.take() else { return is_first };
        let known = self.objects.keys().chain(self.unreadable.keys());
        let gone: BTreeSet<ObjectKey> = known.filter(|key| !named.contains(*key)).cloned().collect();
        for key in &gone {
            self.remove(key);
        }
        is_first || !gone.is_empty()
    }

    fn remove(&mut self, key: &ObjectKey) -> bool {
        let was_unread = self.unreadable.remove(key).is_some();
        let was_there = self.objects.remove(key).is_some() || was_unread;
        if was_there {
            self.note(key);
        }
        was_there
    }

    fn note(&mut self, key: &ObjectKey) {
        if let Some(moved) = &mut self.moved {
            moved.insert(key.clone());
        }
    }

    /// Takes an object in, unless what nodes are to see of it is the same as before. A report of its own node moves it, too,
    /// because it goes with the pod, but keeps its version. One for which there is no room is noted alone; its version before stays, if
    /// it is the same object.
    fn put_in(&mut self, what: &WatchedKind, object: DynamicObject) -> Taken {
        self.try_put(what, object).unwrap_or_default()
    }

    fn try_put(&mut self, what: &WatchedKind, object: DynamicObject) -> Option<Taken> {
        let trimmed = trim(what, object)?;
        let key = trimmed.key.clone();
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        let status = trimmed.status.as_ref().map(|status| content_hash(&Value::Object(status.clone())));
        let same = |cached: &Cached| {
            cached.object.content_hash == content_hash(&trimmed.value)
                && cached.status == status
                && cached.readiness == trimmed.readiness
        };
        if let Some(cached) = self.objects.get_mut(&key)
            && same(cached)
        {
            cached.status_mark = trimmed.status_mark;
            let moved = self.unreadable.remove(&key).is_some();
            if moved {
                self.note(&key);
            }
            return Some(Taken { moved, refused: None });
        }
        let rest = (what.rest)(&trimmed.value);
        let object = if rest.is_some() { named(&trimmed)? } else { to_send(&trimmed)? };
        let Trimmed { value, readiness, status_mark, .. } = trimmed;
        let parts = match (rest, what.reads) {
            (Some(rest), _) => Some(rest),
            (None, Reads::All) => None,
            (None, Reads::At(pointers)) => Some(parts(&value, pointers)),
            (None, Reads::By(parts)) => Some(parts(&value)),
        };
        drop(value);
        let values = parts.as_ref().map_or(0, values);
        let bytes = OBJECT_BYTES + object.json.len() + VALUE_BYTES * values;
        let charged = if values > PARTS_MAX {
            let why =
                format!("it is too large: CloudCore would read {values} values of it, and reads {PARTS_MAX}");
            Err(Unread::new(&object.uid, &why))
        } else {
            let before = self.objects.get(&key).map(|before| &before.charge);
            let charged = self.budget.take(&key, bytes, before);
            charged.map_err(|why| Unread { uid: object.uid.clone(), why, wants: Some(bytes) })
        };
        let charge = match charged {
            Ok(charge) => charge,
            Err(unread) => {
                let why = unread.why.clone();
                let is_news = self.note_unread(&key, unread);
                return Some(Taken { moved: is_news, refused: is_news.then_some((key, why)) });
            }
        };
        self.unreadable.remove(&key);
        let cached = Cached { object: Arc::new(object), parts, status, readiness, status_mark, charge };
        self.objects.insert(key.clone(), cached);
        self.note(&key);
        Some(Taken { moved: true, refused: None })
    }
}

/// What an event came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    /// Whether anything that matters to nodes moved, or is to be said.
    moved: bool,
    /// For which object there was no room, and why, if that is new.
    refused: Option<(ObjectKey, String)>,
}

/// How many values there are, lists and maps counted with what is in them.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    }
}

/// An object without what nodes are not to see.
struct Trimmed {
    key: ObjectKey,
    resource_version: String,
    /// The content.
    value: Value,
    /// What is sent in the place of its status; `None` for what is no pod.
    status: Option<Map<String, Value>>,
    readiness: Readiness,
    status_mark: u64,
}

/// What nodes are to see of an object: without managedFields, without the mark of a report, without the status that a node
/// reported itself, and without the resourceVersion, which moves with them. Whatever a spec says stays, and so does the
/// generation, which moves with the spec.
fn trim(what: &WatchedKind, mut object: DynamicObject) -> Option<Trimmed> {
    object.metadata.managed_fields = None;
    let mut mark = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        mark = annotations.remove(REPORTED_ANNOTATION);
        if matches!(what.reads, Reads::At(_)) {
            annotations.remove(LAST_APPLIED);
        }
        if annotations.is_empty() {
            object.metadata.annotations = None;
        }
    }
    let resource_version = object.metadata.resource_version.take()?;
    let name = object.metadata.name.clone()?;
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let key = ObjectKey::new(what.group_resource, &namespace, &name);
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let mut value = serde_json::to_value(&object).ok()?;
    let fields = value.as_object_mut()?;
    let status = fields.remove("status");
    let of_node = status.as_ref().filter(|_| what.group_resource == NODES);
    let readiness = of_node.map(readiness).unwrap_or_default();
    let status_mark = of_node.map(status_mark).unwrap_or_default();
    // What nodes wait for stands there, and others write it: whether a claim is bound, and a volume attached. Of a job it says whose turn
    // it is.
    if let (Some(status), true) = (
        &status,
        matches!(
            what.group_resource,
            PERSISTENT_VOLUME_CLAIMS
                | VOLUME_ATTACHMENTS
                | NODE_UPGRADE_JOBS
                | IMAGE_PRE_PULL_JOBS
                | CONFIG_UPDATE_JOBS
        ),
    ) {
        fields.insert("status".to_owned(), status.clone());
    }
    if let Some(amounts) = status.as_ref().filter(|_| what.group_resource == NODES).and_then(extended_amounts)
    {
        fields.insert("status".to_owned(), amounts);
    }
    if let Some(wishes) =
        status.as_ref().filter(|_| what.group_resource == DEVICES).and_then(wishes_of_device)
    {
        fields.insert("status".to_owned(), wishes);
    }
    let status = status.filter(|_| what.group_resource == PODS).map(|status| {
        let parts = pod_status::parts(&status, mark.as_deref(), &uid);
        if !parts.of_others.is_empty() {
            fields.insert("status".to_owned(), Value::Object(parts.of_others));
        }
        parts.sent
    });
    fields.insert("apiVersion".to_owned(), Value::from(what.api_version()));
    fields.insert("kind".to_owned(), Value::from(what.kind));
    let status = status.filter(|status| !status.is_empty());
    Some(Trimmed { key, resource_version, value, status, readiness, status_mark })
}

/// What is read of an object here, by these pointers.
fn parts(value: &Value, reads: &[&str]) -> Value {
    let mut kept = Value::Object(Map::new());
    for pointer in reads {
        let Some(found) = value.pointer(pointer) else { continue };
        let mut at = &mut kept;
        for name in pointer.split('/').skip(1) {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[name];
        }
        *at = found.clone();
    }
    kept
}

/// The API server's own note of what somebody applied: as large as the object, and nobody on a node reads it. Of a pod it stays: its
/// containers may ask for its annotations.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a user says in a Device's status: how the device's state is reported. It stood there before `spec.stateReport` came, and
/// KubeEdge still reads it where the spec says nothing. Whatever else is there was reported once, and is no node's business.
fn wishes_of_device(status: &Value) -> Option<Value> {
    let said = |key: &&str| status.get(*key).is_some_and(|value| !value.is_null());
    let wishes = ["reportCycle", "reportToCloud"].into_iter().filter(said);
    let wishes: Map<String, Value> = wishes.map(|key| (key.to_owned(), status[key].clone())).collect();
    (!wishes.is_empty()).then_some(Value::Object(wishes))
}

/// What a Node has of resources that Kubernetes knows nothing of: operators write them there, the scheduler places pods by them, and
/// the node admits pods by them as a kubelet does. The other amounts are the node's own word, and so is all else.
fn extended_amounts(status: &Value) -> Option<Value> {
    let said = status["allocatable"].as_object().into_iter().flatten();
    let extended: Map<String, Value> = said
        .filter(|(name, _)| is_extended_resource(name))
        .map(|(name, amount)| (name.clone(), amount.clone()))
        .collect();
    (!extended.is_empty()).then(|| json!({ "allocatable": extended }))
}

fn readiness(status: &Value) -> Readiness {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    match ready.and_then(|ready| ready["status"].as_str()) {
        Some("True") => Readiness::Ready,
        Some("False") => Readiness::NotReady,
        Some("Unknown") => Readiness::Unheard,
        _ => Readiness::Unsaid,
    }
}

/// Of the conditions of a Node those that CloudCore itself writes.
const CONDITION_PREFIX: &str = "kubehive.io/";

/// Two statuses of a Node with one mark say the same, but for when it was said and for what CloudCore itself says there.
fn status_mark(status: &Value) -> u64 {
    let mut status = status.clone();
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| {
            !condition["type"].as_str().is_some_and(|kind| kind.starts_with(CONDITION_PREFIX))
        });
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            condition.remove("lastHeartbeatTime");
        }
    }
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&status.to_string(), &mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// The same, as it goes to nodes.
pub(crate) fn sent(what: &WatchedKind, object: DynamicObject) -> Option<Object> {
    to_send(&trim(what, object)?)
}

/// Which version of which object it is, without its text.
fn named(trimmed: &Trimmed) -> Option<Object> {
    let Trimmed { key, resource_version, value, .. } = trimmed;
    let uid = value.pointer("/metadata/uid")?.as_str()?.to_owned();
    let (content_hash, json) = (content_hash(value), Bytes::new());
    Some(Object { key: key.clone(), uid, content_hash, resource_version: resource_version.to_owned(), json })
}

fn to_send(trimmed: &Trimmed) -> Option<Object> {
    let Trimmed { resource_version, value, status, .. } = trimmed;
    let mut sent = value.clone();
    sent["metadata"]["resourceVersion"] = Value::from(resource_version.as_str());
    if let Some(status) = status {
        sent["status"] = Value::Object(status.clone());
    }
    let json = Bytes::from(serde_json::to_vec(&sent).ok()?);
    Some(Object { json, ..named(trimmed)? })
}

// What the objects take is shown with --nocapture.
#[cfg(test)]
#[allow(clippy::print_stdout)]
#[path = "cache_tests.rs"]
mod tests;
