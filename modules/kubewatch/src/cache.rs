//! What one watch has told, as nodes are to see it.

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

use crate::{Reads, Unreadable, WatchedKind, pod_status};

/// One object: what is sent, and what is read here.
pub struct Cached {
    /// As it goes to nodes: without what only the API server's bookkeeping moves. Without text where nothing but a
    /// [rest](WatchedKind::rest) is kept.
    pub object: Arc<Object>,
    /// Its content, taken apart: without its resourceVersion, without what a node itself reported, and of some kinds only what is
    /// read of it here ([`WatchedKind::reads`]).
    pub value: Value,
    /// A mark of the status that goes with it, what the node reported included.
    status: Option<String>,
    /// Of a Node: what stands there of its node.
    pub readiness: Readiness,
    /// Of a Node: a mark of its status, so that a reader sees that somebody wrote it. Nothing is told when it moves.
    pub status_mark: u64,
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
    pub unreadable: BTreeMap<ObjectKey, String>,
    /// Whether the first list is complete.
    pub listed: bool,
    /// While a list runs: what it named so far.
    listing: Option<BTreeSet<ObjectKey>>,
    /// What moved since somebody asked; `None` while nobody ever did.
    moved: Option<BTreeSet<ObjectKey>>,
    /// Whether the reader knows that something moved, and has not looked yet.
    is_notified: bool,
}

/// A cache that its watch fills.
pub type SharedCache = Rc<RefCell<Cache>>;

impl Cache {
    /// What came, changed or went since the last call, and at the first call everything that is there. One reader per
    /// cache: what one was told is not told again.
    pub fn take_moved(&mut self) -> BTreeSet<ObjectKey> {
        self.is_notified = false;
        match self.moved.replace(BTreeSet::new()) {
            Some(moved) => moved,
            None => self.objects.keys().cloned().collect(),
        }
    }

    /// Takes one event in. Answers whether the reader is to be told to look: once, until it does, however much moves, and
    /// not while the first list runs.
    pub(crate) fn apply(&mut self, what: &WatchedKind, event: Event<DynamicObject>) -> bool {
        let was_listed = self.listed;
        let moved = self.take(what, event);
        let is_first = self.listed && !was_listed;
        self.nudge(moved, is_first)
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
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        let before = self.objects.get(&key).map(|cached| cached.object.uid.as_str());
        let is_another = before.is_some_and(|before| metadata.uid.as_deref() != Some(before));
        let moved = is_another && self.remove(&key);
        let is_news =
            self.unreadable.insert(key.clone(), unreadable.why.clone()).as_ref() != Some(&unreadable.why);
        (is_news.then_some(key), self.nudge(moved, false))
    }

    fn nudge(&mut self, moved: bool, is_first: bool) -> bool {
        if !self.listed || !moved {
            return false;
        }
        let was_notified = std::mem::replace(&mut self.is_notified, true);
        is_first || !was_notified
    }

    /// Answers whether anything that matters to nodes moved.
    fn take(&mut self, what: &WatchedKind, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                let Some((key, moved)) = self.put(what, object) else { return false };
                if let Some(listing) = &mut self.listing {
                    listing.insert(key);
                }
                moved
            }
            Event::InitDone => self.end_list(),
            Event::Apply(object) => self.put(what, object).is_some_and(|(_, moved)| moved),
            Event::Delete(object) => {
                let (namespace, name) = (object.metadata.namespace, object.metadata.name);
                let key = ObjectKey::new(
                    what.group_resource,
                    namespace.unwrap_or_default(),
                    name.unwrap_or_default(),
                );
                self.remove(&key)
            }
        }
    }

    /// What the list did not name is gone.
    fn end_list(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.listed, true);
        let Some(named) = self.listing.take() else { return is_first };
        let gone: Vec<ObjectKey> = self.objects.keys().filter(|key| !named.contains(*key)).cloned().collect();
        for key in &gone {
            self.remove(key);
        }
        self.unreadable.retain(|key, _| named.contains(key));
        is_first || !gone.is_empty()
    }

    fn remove(&mut self, key: &ObjectKey) -> bool {
        self.unreadable.remove(key);
        let was_there = self.objects.remove(key).is_some();
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
    /// because it goes with the pod, but keeps its version.
    fn put(&mut self, what: &WatchedKind, object: DynamicObject) -> Option<(ObjectKey, bool)> {
        let trimmed = trim(what, object)?;
        let key = trimmed.key.clone();
        self.unreadable.remove(&key);
        let rest = (what.rest)(&trimmed.value);
        let is_whole = matches!(what.reads, Reads::All) && rest.is_none();
        let status = trimmed.status.as_ref().map(|status| content_hash(&Value::Object(status.clone())));
        let same = |cached: &Cached| {
            let content = if is_whole {
                cached.value == trimmed.value
            } else {
                cached.object.content_hash == content_hash(&trimmed.value)
            };
            content && cached.status == status && cached.readiness == trimmed.readiness
        };
        if let Some(cached) = self.objects.get_mut(&key)
            && same(cached)
        {
            cached.status_mark = trimmed.status_mark;
            return Some((key, false));
        }
        let object = Arc::new(if rest.is_some() { named(&trimmed)? } else { to_send(&trimmed)? });
        let Trimmed { value, readiness, status_mark, .. } = trimmed;
        let value = rest.unwrap_or_else(|| match what.reads {
            Reads::All => value,
            Reads::At(pointers) => parts(&value, pointers),
            Reads::By(parts) => parts(&value),
        });
        self.objects.insert(key.clone(), Cached { object, value, status, readiness, status_mark });
        self.note(&key);
        Some((key, true))
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
