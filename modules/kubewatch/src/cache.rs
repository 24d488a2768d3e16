//! What one watch has told, as nodes are to see it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use contract::ids::{NODES, PERSISTENT_VOLUME_CLAIMS, PODS, REPORTED_ANNOTATION, VOLUME_ATTACHMENTS};
use contract::{Object, ObjectKey, content_hash};
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Map, Value};

use crate::{Unreadable, WatchedKind, pod_status};

/// One object: what is sent, and what is read here.
pub struct Cached {
    /// As it goes to nodes: without what only the API server's bookkeeping moves.
    pub object: Arc<Object>,
    /// Its content, taken apart: without its resourceVersion, without what a node itself reported, and of some kinds only what is
    /// read of it here ([`WatchedKind::reads`]).
    pub value: Value,
    /// The status that goes with it, what the node reported included.
    status: Option<Map<String, Value>>,
    /// Of a Node: what stands there of its node.
    pub readiness: Readiness,
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
        let same = |cached: &Cached| {
            let content = match what.reads {
                [] => cached.value == trimmed.value,
                _ => cached.object.content_hash == content_hash(&trimmed.value),
            };
            content && cached.status == trimmed.status && cached.readiness == trimmed.readiness
        };
        if self.objects.get(&key).is_some_and(same) {
            return Some((key, false));
        }
        let object = Arc::new(to_send(&trimmed)?);
        let Trimmed { value, status, readiness, .. } = trimmed;
        let value = parts(value, what.reads);
        self.objects.insert(key.clone(), Cached { object, value, status, readiness });
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
}

/// What nodes are to see of an object: without managedFields, without the mark of a report, without the status that a node
/// reported itself, and without the resourceVersion, which moves with them. Whatever a spec says stays, and so does the
/// generation, which moves with the spec.
fn trim(what: &WatchedKind, mut object: DynamicObject) -> Option<Trimmed> {
    object.metadata.managed_fields = None;
    let mut mark = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        mark = annotations.remove(REPORTED_ANNOTATION);
        if !what.reads.is_empty() {
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
    // What nodes wait for stands there, and others write it: whether a claim is bound, and a volume attached.
    if let (Some(status), true) =
        (&status, matches!(what.group_resource, PERSISTENT_VOLUME_CLAIMS | VOLUME_ATTACHMENTS))
    {
        fields.insert("status".to_owned(), status.clone());
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
    Some(Trimmed { key, resource_version, value, status, readiness })
}

/// What is read of an object here; `reads`: where, or nothing for everything.
fn parts(value: Value, reads: &[&str]) -> Value {
    if reads.is_empty() {
        return value;
    }
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

/// The same, as it goes to nodes.
pub(crate) fn sent(what: &WatchedKind, object: DynamicObject) -> Option<Object> {
    to_send(&trim(what, object)?)
}

fn to_send(trimmed: &Trimmed) -> Option<Object> {
    let Trimmed { key, resource_version, value, status, .. } = trimmed;
    let uid = value.pointer("/metadata/uid")?.as_str()?.to_owned();
    let content_hash = content_hash(value);
    let mut sent = value.clone();
    sent["metadata"]["resourceVersion"] = Value::from(resource_version.as_str());
    if let Some(status) = status {
        sent["status"] = Value::Object(status.clone());
    }
    let json = Bytes::from(serde_json::to_vec(&sent).ok()?);
    Some(Object { key: key.clone(), uid, content_hash, resource_version: resource_version.to_owned(), json })
}

// What the objects take is shown with --nocapture.
#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: WatchedKind = WatchedKind::core("pods", "Pod");

    #[test]
    fn it_is_known_of_a_node_whether_it_is_ready() {
        let node = |ready: &str| {
            let conditions = json!([{ "type": "MemoryPressure", "status": "Unknown" }, { "type": "Ready", "status": ready }]);
            let node = json!({ "metadata": { "name": "edge-1", "uid": "u", "resourceVersion": "1" },
                "status": { "conditions": conditions } });
            serde_json::from_value::<DynamicObject>(node).unwrap()
        };
        let kind = WatchedKind::core("nodes", "Node");
        let mut cache = Cache::default();
        let cases = [
            ("True", Readiness::Ready),
            ("Unknown", Readiness::Unheard),
            ("False", Readiness::NotReady),
            ("", Readiness::Unsaid),
        ];
        for (ready, said) in cases {
            let (key, moved) = cache.put(&kind, node(ready)).unwrap();
            assert_eq!((moved, cache.objects[&key].readiness), (true, said), "{ready}");
        }
    }

    #[test]
    fn a_claim_that_is_bound_and_a_volume_that_is_attached_are_other_versions() {
        let kinds = [
            (WatchedKind::core(PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim"), true),
            (WatchedKind::core("persistentvolumes", "PersistentVolume"), false),
        ];
        for (kind, moves) in kinds {
            let mut cache = Cache::default();
            let versions = ["Pending", "Bound"].map(|phase| {
                let (key, _) = cache.put(&kind, named("c", phase, "x", phase)).unwrap();
                cache.objects[&key].object.content_hash.clone()
            });
            assert_eq!(versions[0] != versions[1], moves, "{}", kind.kind);
        }
    }

    #[test]
    fn of_what_is_only_passed_on_no_more_is_held_than_is_read_and_nothing_of_its_change_is_missed() {
        let kind = WatchedKind::core("persistentvolumes", "PersistentVolume")
            .reading(&["/spec/csi/driver", "/spec/none"]);
        let volume = |size: &str| {
            let annotations = json!({LAST_APPLIED: "{}", "pv.beta.kubernetes.io/gid": "7"});
            let object = json!({"metadata": {"name": "pv", "uid": "u", "resourceVersion": size, "annotations": annotations},
                "spec": {"capacity": {"storage": size}, "csi": {"driver": "d.io", "volumeHandle": "h"}}});
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let mut cache = Cache::default();
        let (key, _) = cache.put(&kind, volume("1Gi")).unwrap();
        assert_eq!(cache.objects[&key].value, json!({"spec": {"csi": {"driver": "d.io"}}}));
        let sent: Value = serde_json::from_slice(&cache.objects[&key].object.json).unwrap();
        assert_eq!(sent["metadata"]["annotations"], json!({"pv.beta.kubernetes.io/gid": "7"}));
        assert_eq!(sent["spec"]["csi"]["volumeHandle"], "h");
        assert!(!cache.put(&kind, volume("1Gi")).unwrap().1);
        assert!(cache.put(&kind, volume("2Gi")).unwrap().1, "what is not read here is news on the node");
    }

    /// The memory of this process, in bytes.
    fn resident() -> usize {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// As a cluster of databases has them: claims and volumes with the API server's notes and a provisioner's attributes.
    #[test]
    fn ten_thousand_claims_and_their_volumes_are_held_in_little_memory() {
        let claims = WatchedKind::core(PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim").reading(&[
            "/metadata/namespace",
            "/metadata/name",
            "/metadata/uid",
            "/spec/volumeName",
        ]);
        let volumes = WatchedKind::core("persistentvolumes", "PersistentVolume").reading(&[
            "/spec/claimRef/uid",
            "/spec/csi/driver",
            "/spec/csi/volumeHandle",
        ]);
        let owner = json!([{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:annotations": {".": {}}}}}]);
        let metadata = |name: &str| {
            json!({"name": name, "namespace": "shop", "uid": format!("0f1e2d3c-{name}"), "resourceVersion": "123456",
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes.io/pvc-protection"],
                "labels": {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": name},
                "annotations": {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
                    "volume.kubernetes.io/storage-provisioner": "csi.example.com", LAST_APPLIED: "x".repeat(600)},
                "managedFields": owner})
        };
        let before = resident();
        let (mut of_claims, mut of_volumes) = (Cache::default(), Cache::default());
        for number in 0..10_000 {
            let (name, volume) = (format!("data-postgres-{number}"), format!("pvc-0f1e2d3c-{number}"));
            let claim = json!({"metadata": metadata(&name),
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}},
                    "storageClassName": "fast", "volumeMode": "Filesystem", "volumeName": volume},
                "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}}});
            let volume = json!({"metadata": metadata(&volume),
                "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "storageClassName": "fast",
                    "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "shop", "name": name, "uid": "0f1e2d3c"},
                    "csi": {"driver": "csi.example.com", "volumeHandle": volume, "fsType": "ext4",
                        "volumeAttributes": {"storage.kubernetes.io/csiProvisionerIdentity": "1700000000000-8081-csi"}},
                    "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Bound"}});
            of_claims.put(&claims, serde_json::from_value(claim).unwrap()).unwrap();
            of_volumes.put(&volumes, serde_json::from_value(volume).unwrap()).unwrap();
        }
        let bytes = resident().saturating_sub(before);
        println!("{} MiB", bytes >> 20);
        assert!(bytes < 120 << 20, "{} MiB", bytes >> 20);
        assert_eq!(of_claims.objects.len() + of_volumes.objects.len(), 20_000);
    }

    fn pod(version: &str, image: &str, phase: &str) -> DynamicObject {
        named("p", version, image, phase)
    }

    fn named(name: &str, version: &str, image: &str, phase: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "namespace": "d", "name": name, "uid": "u", "resourceVersion": version },
            "spec": { "image": image }, "status": { "phase": phase },
        }))
        .unwrap()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("pods", "d", name)
    }

    fn version(cache: &Cache) -> &str {
        &cache.objects[&key("p")].object.content_hash
    }

    fn sent(cache: &Cache) -> Value {
        serde_json::from_slice(&cache.objects[&key("p")].object.json).unwrap()
    }

    #[test]
    fn a_nodes_report_makes_no_new_version_and_goes_with_the_pod() {
        let mut cache = Cache::default();
        assert!(cache.take(&POD, Event::Apply(pod("1", "a", "Pending"))));
        let before = version(&cache).to_owned();
        assert!(cache.take(&POD, Event::Apply(pod("2", "a", "Running"))));
        assert_eq!(version(&cache), before);
        assert_eq!(sent(&cache)["status"], json!({ "phase": "Running" }));
        assert!(!cache.take(&POD, Event::Apply(pod("3", "a", "Running"))));
        assert!(cache.take(&POD, Event::Apply(pod("4", "b", "Running"))));
        assert_ne!(version(&cache), before);
        assert_eq!(
            (&sent(&cache)["metadata"]["resourceVersion"], &sent(&cache)["kind"]),
            (&json!("4"), &json!("Pod"))
        );
    }

    #[test]
    fn an_end_makes_a_new_version_unless_the_node_reported_it() {
        let mut cache = Cache::default();
        let fingerprint = |phase| contract::pod_status::fingerprint(&json!({ "phase": phase }));
        let mark = |phase| format!("1.1/u/{}", fingerprint(phase));
        let with = |version: &str, phase: &str, mark: &str| {
            let mut pod = pod(version, "a", phase);
            pod.metadata.annotations = Some([(REPORTED_ANNOTATION.to_owned(), mark.to_owned())].into());
            Event::Apply(pod)
        };
        cache.take(&POD, with("1", "Running", &mark("Running")));
        let running = version(&cache).to_owned();
        cache.take(&POD, with("2", "Succeeded", &format!("{}/Succeeded", mark("Succeeded"))));
        assert_eq!(version(&cache), running);
        assert_eq!(sent(&cache)["status"]["phase"], "Succeeded");
        cache.take(&POD, with("3", "Failed", &mark("Failed")));
        assert_ne!(version(&cache), running);
        assert_eq!(sent(&cache)["status"]["phase"], "Failed");
    }

    #[test]
    fn the_status_of_what_is_no_pod_is_not_sent() {
        const NODE: WatchedKind = WatchedKind::core("nodes", "Node");
        let mut cache = Cache::default();
        assert!(cache.take(&NODE, Event::Apply(pod("1", "a", "Pending"))));
        assert!(!cache.take(&NODE, Event::Apply(pod("2", "a", "Running"))));
    }

    #[test]
    fn the_mark_of_a_report_moves_nothing_and_is_not_sent() {
        let mut cache = Cache::default();
        let with = |annotations: &[(&str, &str)]| {
            let mut pod = pod("2", "a", "Running");
            let texts = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            pod.metadata.annotations = Some(texts.collect());
            Event::Apply(pod)
        };
        cache.take(&POD, Event::Apply(pod("1", "a", "Running")));
        assert!(!cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.1")])));
        assert!(!cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.2")])));
        assert!(cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.2"), ("mine", "kept")])));
        assert!(!cache.take(&POD, with(&[(REPORTED_ANNOTATION, "3.3"), ("mine", "kept")])));
        let sent: Value = serde_json::from_slice(&cache.objects[&key("p")].object.json).unwrap();
        assert_eq!(sent["metadata"]["annotations"], json!({ "mine": "kept" }));
    }

    #[test]
    fn caches_that_saw_different_histories_come_to_the_same_version() {
        let (mut old, mut fresh) = (Cache::default(), Cache::default());
        for object in [pod("1", "a", "Pending"), pod("2", "a", "Running"), pod("5", "b", "Running")] {
            old.take(&POD, Event::Apply(object));
        }
        fresh.take(&POD, Event::Init);
        let mut later = pod("9", "b", "Failed");
        later.metadata.annotations = Some(
            [(
                REPORTED_ANNOTATION.to_owned(),
                format!("7.7/u/{}/Failed", contract::pod_status::fingerprint(&json!({ "phase": "Failed" }))),
            )]
            .into(),
        );
        later.metadata.managed_fields = Some(Vec::new());
        fresh.take(&POD, Event::InitApply(later));
        assert_eq!(version(&old), version(&fresh));
        let mut other = pod("9", "b", "Running");
        other.metadata.uid = Some("another".to_owned());
        fresh.take(&POD, Event::Apply(other));
        assert_ne!(version(&old), version(&fresh));
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let mut cache = Cache::default();
        cache.take(&POD, Event::Apply(pod("1", "a", "Pending")));
        assert!(!cache.listed);
        cache.take(&POD, Event::Init);
        assert_eq!(cache.objects.len(), 1, "kept until the list is complete");
        assert!(cache.take(&POD, Event::InitDone));
        assert!(cache.listed && cache.objects.is_empty());
    }

    #[test]
    fn an_object_that_cannot_be_read_is_named_and_its_last_version_is_kept_while_it_is_the_same_object() {
        let mut cache = Cache::default();
        let unreadable = |name: &str, uid: &str| Unreadable {
            metadata: Box::new(
                serde_json::from_value(json!({ "namespace": "d", "name": name, "uid": uid })).unwrap(),
            ),
            why: "it is odd".to_owned(),
        };
        cache.take(&POD, Event::Init);
        cache.take(&POD, Event::InitApply(named("p", "1", "a", "Pending")));
        let fresh = cache.apply_unreadable(&POD, &unreadable("new", "u"));
        assert_eq!(fresh, (Some(key("new")), false));
        cache.take(&POD, Event::InitApply(named("q", "1", "a", "Pending")));
        assert!(cache.apply(&POD, Event::InitDone), "the list is complete, whatever is odd in it");
        assert_eq!(cache.objects.keys().cloned().collect::<Vec<_>>(), [key("p"), key("q")]);
        cache.take_moved();

        assert_eq!(cache.apply_unreadable(&POD, &unreadable("p", "u")), (Some(key("p")), false));
        assert_eq!(cache.apply_unreadable(&POD, &unreadable("p", "u")), (None, false), "it is said once");
        assert!(cache.objects.contains_key(&key("p")), "the version before is kept");
        cache.take(&POD, Event::Init);
        cache.apply_unreadable(&POD, &unreadable("p", "u"));
        cache.apply_unreadable(&POD, &unreadable("q", "another"));
        assert!(!cache.apply(&POD, Event::InitDone) && cache.take_moved() == BTreeSet::from([key("q")]));
        assert_eq!(cache.objects.keys().cloned().collect::<Vec<_>>(), [key("p")], "q is another object now");
        assert_eq!(cache.unreadable.keys().cloned().collect::<Vec<_>>(), [key("p"), key("q")]);

        assert!(cache.apply(&POD, Event::Apply(named("p", "5", "b", "Pending"))));
        assert!(
            cache.apply(&POD, Event::Delete(named("q", "6", "b", "Pending"))) || cache.unreadable.is_empty()
        );
        assert!(cache.unreadable.is_empty(), "what can be read again, or is gone, is forgotten");
    }

    #[test]
    fn what_moved_is_told_once_and_all_of_it_at_first() {
        let mut cache = Cache::default();
        let all = |cache: &mut Cache| cache.take_moved().into_iter().map(|key| key.name).collect::<Vec<_>>();
        cache.take(&POD, Event::Init);
        for name in ["p", "q"] {
            cache.take(&POD, Event::InitApply(named(name, "1", "a", "Pending")));
        }
        assert!(cache.take(&POD, Event::InitDone));
        assert_eq!(all(&mut cache), ["p", "q"]);
        cache.take(&POD, Event::Apply(named("q", "2", "a", "Pending")));
        assert!(all(&mut cache).is_empty(), "a write that nodes do not see");
        cache.take(&POD, Event::Apply(named("q", "3", "b", "Running")));
        cache.take(&POD, Event::Delete(named("q", "4", "b", "Running")));
        assert_eq!(all(&mut cache), ["q"]);
        cache.take(&POD, Event::Init);
        assert!(cache.take(&POD, Event::InitDone));
        assert_eq!(all(&mut cache), ["p"]);
        cache.take(&POD, Event::Init);
        assert!(!cache.take(&POD, Event::InitDone), "a list that changes nothing");
        assert!(all(&mut cache).is_empty());
    }

    #[test]
    fn the_reader_is_told_once_until_it_looks() {
        let mut cache = Cache::default();
        assert!(!cache.apply(&POD, Event::Init));
        assert!(!cache.apply(&POD, Event::InitApply(pod("1", "a", "Pending"))), "the list is not complete");
        assert!(cache.apply(&POD, Event::InitDone));
        assert!(!cache.apply(&POD, Event::Apply(named("q", "2", "a", "Pending"))), "it knows");
        cache.take_moved();
        assert!(!cache.apply(&POD, Event::Apply(named("q", "3", "a", "Pending"))), "nothing that nodes see");
        assert!(cache.apply(&POD, Event::Delete(named("q", "4", "a", "Running"))));
        assert!(!cache.apply(&POD, Event::Delete(pod("5", "a", "Running"))), "it knows");
        assert_eq!(cache.take_moved().len(), 2);
        assert!(cache.apply(&POD, Event::Apply(pod("6", "a", "Pending"))));
    }
}
