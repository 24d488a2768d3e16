//! What Edged reads from the node's store and leaves in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::names::is_extended_resource;
use apimachinery::resource::{RUNTIME_CLASSES, SERVICES};
use apimachinery::{NamespacedName, ObjectKey, Quantity};
use beehive::Env;
use contract::ids::{
    CONFIG_MAPS, CSI_DRIVERS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, SECRETS,
    VOLUME_ATTACHMENTS,
};
use contract::{TokenGrant, UpReport, rows};
use edge_store::{Class, ObjectVersion, Opened, OutboxQueue, Store, StoreError, Table, Write};
use k8s_openapi::api::core::v1::{Service, Taint};
use nodechecks::daemon_sets;
use serde_json::Value;

use crate::error::ParseError;
use crate::node::node_events::{self, NodeEvent};
use crate::plan::StoredPods;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::{ParsedPod, fnv1a};
use crate::pod::reported::{self, ReportedStatuses};
use crate::pod::token_row;
use crate::runs::{self, RunRecord};
use crate::typed_json;

/// What pods need: with a change of it their volumes are looked at again.
const NEEDED: [&str; 7] = [
    CONFIG_MAPS,
    SECRETS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    CSI_DRIVERS,
    RUNTIME_CLASSES,
    VOLUME_ATTACHMENTS,
];

/// Objects that pods need and that came, went or changed.
pub(crate) type ChangedObjects = BTreeSet<ObjectKey>;

/// Which version of each object that pods need the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions(BTreeMap<ObjectKey, (String, String)>);

impl Versions {
    /// What came, went or changed since `before`.
    pub(crate) fn changed_since(&self, before: &Versions) -> ChangedObjects {
        let differs = |key: &&ObjectKey| self.0.get(*key) != before.0.get(*key);
        self.0.keys().chain(before.0.keys()).filter(differs).cloned().collect()
    }
}

/// What the store says of the pods that should run here.
#[derive(Debug, Default)]
pub(crate) struct StoreView {
    pub(crate) pods: StoredPods,
    /// The parsed pods by the hash of their JSON.
    pub(crate) parsed: BTreeMap<u64, Arc<ParsedPod>>,
    /// Namespaces and names of the pods whose rows cannot be read.
    pub(crate) damaged: BTreeSet<NamespacedName>,
    pub(crate) versions: Versions,
    pub(crate) node_labels: Option<BTreeMap<String, String>>,
    /// As the cloud has them.
    pub(crate) node_taints: Vec<Taint>,
    /// The extended resources that the Node has, as the cloud has them.
    pub(crate) node_resources: BTreeMap<String, u64>,
    /// No pod may be scheduled to the node.
    pub(crate) is_cordoned: bool,
    /// The uids of the pods that another daemon ran here before.
    pub(crate) adopted: BTreeSet<String>,
}

impl StoreView {
    fn add(&mut self, json: &[u8], before: &BTreeMap<u64, Arc<ParsedPod>>) {
        let hash = fnv1a(json);
        let parsed = before.get(&hash).cloned();
        match parsed.map_or_else(|| ParsedPod::parse(json).map(Arc::new), Ok) {
            Ok(pod) => {
                self.parsed.insert(hash, Arc::clone(&pod));
                self.pods.valid.push(pod);
            }
            Err(ParseError::NotAPod { id, reason }) => {
                // The events of the pod say so.
                self.pods.invalid.push((*id, reason));
            }
            Err(error) => {
                let error = beehive::Fault::from_error(&error);
                tracing::error!(%error, "pod in the store is passed over");
            }
        }
    }
}

/// Of a Node, whole amounts of what Kubernetes knows nothing of.
fn extended_resources(node: &Value) -> BTreeMap<String, u64> {
    let said = node.pointer("/status/allocatable").and_then(Value::as_object).into_iter().flatten();
    let amounts = said.filter(|(name, _)| is_extended_resource(name)).filter_map(|(name, amount)| {
        let amount = u64::try_from(Quantity::from_json(amount)?.units()).ok()?;
        Some((name.clone(), amount))
    });
    amounts.collect()
}

/// The store as Edged sees it. What reads from it blocks: it is called beside the hive's thread
/// ([`beehive::Env::blocking`]).
#[derive(Clone)]
pub(crate) struct EdgedStore {
    store: Store,
    /// It was filled from another daemon's, and not all that runs is known yet. Known once there was a [`EdgedStore::view`].
    imported: Arc<AtomicBool>,
    /// What was reported of each pod last. Known once there was a [`EdgedStore::view`].
    pub(crate) reported: ReportedStatuses,
}

impl EdgedStore {
    pub(crate) fn new(store: Store) -> Self {
        EdgedStore { store, imported: Arc::default(), reported: ReportedStatuses::default() }
    }

    /// Reads everything that says which pods should run here. `parsed`: pods of the last time, by the hash of their JSON.
    ///
    /// # Errors
    /// When a part cannot be read; rows that are damaged are no error.
    pub(crate) fn view(
        &self,
        node: &str,
        parsed: &BTreeMap<u64, Arc<ParsedPod>>,
    ) -> Result<StoreView, StoreError> {
        self.reported.load(&self.store)?;
        let mut view = StoreView { versions: self.versions()?, ..StoreView::default() };
        view.pods.reported = self.reported.all();
        let imported = self.store.get_row(Table::Facts, rows::IMPORTED_STORE_FACT, "")?;
        self.imported.store(imported.is_some(), Ordering::Relaxed);
        view.adopted = self.adopted_pods()?;
        let released = self.store.list_rows(Table::Facts, Some(rows::RELEASED_PODS_FACT))?;
        view.pods.released = released.into_iter().map(|row| row.key2).collect();
        for object in self.store.list_objects(PODS, None)? {
            view.add(&object.json, parsed);
        }
        if !self.is_whole() {
            view.damaged = self.damaged_pods()?;
        }
        if let Some(node) = self.node(node) {
            view.node_labels = node
                .pointer("/metadata/labels")
                .and_then(|labels| serde_json::from_value(labels.clone()).ok());
            view.is_cordoned = node.pointer("/spec/unschedulable").is_some_and(|told| *told == true);
            view.node_resources = extended_resources(&node);
            let taints = node.pointer("/spec/taints").cloned();
            view.node_taints =
                taints.and_then(|taints| serde_json::from_value(taints).ok()).unwrap_or_default();
        }
        Ok(view)
    }

    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.object(CONFIG_MAPS, namespace, name)
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.object(SECRETS, namespace, name)
    }

    /// The services of a namespace, as far as the cloud has sent them; one that cannot be read is passed over.
    pub(crate) fn services(&self, namespace: &str) -> Result<Vec<Service>, StoreError> {
        let found = self.store.list_objects(SERVICES, Some(namespace))?.into_iter();
        Ok(found.filter_map(|object| typed_json::read(&object.json).ok()).collect())
    }

    /// The daemon sets that have pods here, by namespace and name; none while the store cannot be read, which says so by itself.
    pub(crate) fn daemon_sets(&self) -> Vec<(String, String)> {
        let pods = self.store.list_objects(PODS, None).unwrap_or_default().into_iter();
        let read = pods.filter_map(|pod| serde_json::from_slice::<Value>(&pod.json).ok());
        read.flat_map(|pod| daemon_sets::of_pod(&pod)).collect()
    }

    /// The node's own object, when the cloud has sent it.
    fn node(&self, node: &str) -> Option<Value> {
        let json = self.object(NODES, "", node).ok().flatten()?;
        serde_json::from_slice(&json).ok()
    }

    fn object(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get_object(&ObjectKey::new(resource, namespace, name))?;
        Ok(found.map(|object| object.json))
    }

    /// An object that is known by its key.
    pub(crate) fn by_key(&self, key: &ObjectKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.object(&key.resource, &key.namespace, &key.name)
    }

    /// The node's labels as the cloud has them.
    pub(crate) fn node_labels(&self, node: &str) -> Option<BTreeMap<String, String>> {
        let labels = self.node(node)?.pointer("/metadata/labels")?.clone();
        serde_json::from_value(labels).ok()
    }

    /// The versions of all config maps, Secrets, and what stands behind claims.
    pub(crate) fn versions(&self) -> Result<Versions, StoreError> {
        let own = |key: &ObjectKey| NEEDED.contains(&key.resource.as_str());
        let found = self.store.object_versions()?.into_iter().filter(|version| own(&version.key));
        Ok(Versions(
            found.map(|ObjectVersion { key, uid, content_hash }| (key, (uid, content_hash))).collect(),
        ))
    }

    /// Whether every row of the store could be read so far.
    pub(crate) fn is_whole(&self) -> bool {
        self.store.damaged_rows().is_empty()
    }

    /// Namespaces and names of the pods whose rows cannot be read.
    pub(crate) fn damaged_pods(&self) -> Result<BTreeSet<NamespacedName>, StoreError> {
        // A damaged row has no uid.
        let damaged = |version: &ObjectVersion| version.key.resource == PODS && version.uid.is_empty();
        let found = self.store.object_versions()?.into_iter().filter(damaged);
        Ok(found.map(|version| version.key.namespaced_name()).collect())
    }

    /// Whether it holds every pod that there should be: it has lost nothing.
    pub(crate) fn names_all(&self) -> bool {
        self.is_whole() && !matches!(self.store.opened(), Opened::Quarantined { .. })
    }

    /// Whether a pod that is not in the store is really not wanted. A store that lost rows cannot say so; one that began
    /// empty, or with what could be read of another daemon's, knows only of the pods that it has held since, whose status was reported.
    pub(crate) fn absence_counts(&self, uid: &str) -> bool {
        let held = match self.store.opened() {
            Opened::Clean if self.imported.load(Ordering::Relaxed) => self.reported.of(uid).status.is_some(),
            Opened::Clean => true,
            Opened::Fresh | Opened::Emptied => self.reported.of(uid).status.is_some(),
            Opened::Quarantined { .. } => false,
        };
        held && self.is_whole()
    }

    /// What is to be told of how it was found.
    pub(crate) fn found(&self) -> Vec<NodeEvent> {
        node_events::of_store(self.store.opened(), self.store.put_back_before())
    }

    /// Puts a report where MetaManager finds it. A newer one takes the place of an older one about the same thing.
    pub(crate) async fn report(&self, report: &UpReport) -> Result<(), String> {
        let kept = self.reported.write_with(report);
        let writes = std::iter::once(enqueue(report)?).chain(kept).collect();
        self.store.commit(writes).await.map_err(|error| error.to_string())?;
        self.reported.reported(report);
        Ok(())
    }

    /// Keeps a pod's status under its own uid, and puts it where MetaManager finds it under the uid that the cloud has for the pod,
    /// if it has any: that of a static pod's mirror.
    pub(crate) async fn report_status(&self, own: UpReport, reader: Option<String>) -> Result<(), String> {
        let mut writes: Vec<Write> = self.reported.write_with(&own).into_iter().collect();
        if let (Some(reader), UpReport::PodStatus { namespace, name, status_json, .. }) = (reader, &own) {
            let (namespace, name, status_json) = (namespace.clone(), name.clone(), status_json.clone());
            let told = UpReport::PodStatus { namespace, name, uid: reader, status_json };
            writes.push(enqueue(&told)?);
        }
        self.store.commit(writes).await.map_err(|error| error.to_string())?;
        self.reported.reported(&own);
        Ok(())
    }

    /// Keeps the static pods, by their names, for who answers for the node's pods.
    pub(crate) async fn keep_static_pods(&self, pods: Vec<(PodId, String)>) -> Result<(), String> {
        let gone = Write::DeleteRows { table: Table::Facts, key1: rows::STATIC_PODS_FACT.to_owned() };
        let kept = pods.into_iter().map(|(id, json)| {
            let (key1, key2) = (rows::STATIC_PODS_FACT.to_owned(), id.namespaced_name().to_string());
            Write::PutRow { table: Table::Facts, key1, key2, value: json.into_bytes() }
        });
        let writes = std::iter::once(gone).chain(kept).collect();
        self.store.commit(writes).await.map(drop).map_err(|error| error.to_string())
    }

    /// Forgets that pods were released which are not here any more.
    pub(crate) async fn forget_released(&self, gone: Vec<String>) -> Result<(), String> {
        let forget = |key2: String| Write::DeleteRow {
            table: Table::Facts,
            key1: rows::RELEASED_PODS_FACT.to_owned(),
            key2,
        };
        let writes = gone.into_iter().map(forget).collect();
        self.store.commit(writes).await.map(drop).map_err(|error| error.to_string())
    }

    /// The uids of the pods that another daemon ran here before. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn adopted_pods(&self) -> Result<BTreeSet<String>, StoreError> {
        let rows = self.store.list_rows(Table::Facts, Some(rows::ADOPTED_PODS_FACT))?;
        Ok(rows.into_iter().map(|row| row.key2).collect())
    }

    /// Whether the store was filled from another daemon's, and not all that runs was known yet.
    pub(crate) fn is_imported(&self) -> bool {
        self.imported.load(Ordering::Relaxed)
    }

    /// Forgets of which pods another daemon made the containers: they are gone.
    pub(crate) async fn forget_adopted(&self, gone: Vec<String>) -> Result<(), String> {
        let forget = |key2: String| Write::DeleteRow {
            table: Table::Facts,
            key1: rows::ADOPTED_PODS_FACT.to_owned(),
            key2,
        };
        let writes = gone.into_iter().map(forget).collect();
        self.store.commit(writes).await.map(drop).map_err(|error| error.to_string())
    }

    /// All that runs is known: from now on the store is as any other.
    pub(crate) async fn import_done(&self) -> Result<(), String> {
        let key1 = rows::IMPORTED_STORE_FACT.to_owned();
        let done = Write::DeleteRow { table: Table::Facts, key1, key2: String::new() };
        self.store.commit(vec![done]).await.map_err(|error| error.to_string())?;
        self.imported.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps how long a pod has been active, for the next start. When that fails the pod has more time.
    pub(crate) async fn keep_active(&self, uid: &str, active: Duration) {
        match self.store.commit(vec![reported::keep_active(uid, active)]).await {
            Ok(_) => self.reported.was_active(uid, active),
            Err(error) => tracing::warn!(uid, %error, "the time that a pod has been active is not kept"),
        }
    }

    /// The run that goes on, if it was said that it began. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn run_record(&self) -> Result<Option<RunRecord>, StoreError> {
        runs::record::read(&self.store)
    }

    /// Keeps what the next run is to know of this one.
    pub(crate) async fn keep_run(&self, run: &RunRecord) -> Result<(), beehive::Fault> {
        runs::record::keep(&self.store, run).await
    }

    /// Forgets what was reported of a pod whose end nobody waits for.
    pub(crate) async fn forget_status(&self, uid: &str) -> Result<(), String> {
        self.store.commit(vec![reported::forget(uid)]).await.map_err(|error| error.to_string())?;
        self.reported.forget(uid);
        Ok(())
    }

    /// A token that was granted before.
    pub(crate) fn token(&self, key: &str) -> Option<TokenGrant> {
        let bytes = self.store.get_row(Table::Tokens, key, "").ok().flatten()?;
        token_row::decode(&bytes)
    }

    pub(crate) async fn keep_token(&self, key: &str, grant: &TokenGrant) -> Result<(), String> {
        let value = token_row::encode(grant).map_err(|error| error.to_string())?;
        let row = Write::PutRow { table: Table::Tokens, key1: key.to_owned(), key2: String::new(), value };
        self.store.commit(vec![row]).await.map(drop).map_err(|error| error.to_string())
    }

    /// Forgets the tokens of a pod.
    pub(crate) async fn forget_tokens(&self, env: &Env, prefix: &str) -> Result<(), String> {
        let store = self.store.clone();
        let read = env.blocking(move || store.list_rows(Table::Tokens, None)).await;
        let rows = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let own = rows.into_iter().filter(|row| row.key1.starts_with(prefix));
        let writes: Vec<Write> =
            own.map(|row| Write::DeleteRows { table: Table::Tokens, key1: row.key1 }).collect();
        if writes.is_empty() {
            return Ok(());
        }
        self.store.commit(writes).await.map(drop).map_err(|error| error.to_string())
    }
}

fn enqueue(report: &UpReport) -> Result<Write, String> {
    let body = rows::encode_report(report).map_err(|error| error.to_string())?;
    let (class, key) = match report.newest_key() {
        Some(key) => (Class::Status, key),
        None => (Class::Event, event_key(report)),
    };
    Ok(Write::Enqueue { queue: OutboxQueue::Node, class, key, body })
}

fn event_key(report: &UpReport) -> String {
    match report {
        UpReport::Event { namespace, name, .. } => format!("event/{namespace}/{name}"),
        UpReport::Node { .. }
        | UpReport::PodStatus { .. }
        | UpReport::PodGone { .. }
        | UpReport::MirrorPod { .. }
        | UpReport::ClaimExpansion { .. }
        | UpReport::Twin { .. }
        | UpReport::DeviceConditions { .. }
        | UpReport::MethodCalls { .. }
        | UpReport::NodeTask(_)
        | UpReport::DeviceState { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::Options;

    #[tokio::test]
    async fn what_is_left_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let edged_store = EdgedStore::new(store.clone());
        let report = |text: &str| UpReport::PodStatus {
            namespace: "d".into(),
            name: "p".into(),
            uid: "u".into(),
            status_json: text.into(),
        };
        edged_store.report(&report("{\"phase\":\"Pending\"}")).await.unwrap();
        edged_store.report(&report("{\"phase\":\"Running\"}")).await.unwrap();
        let rows = store.outbox_head(10, 1 << 20).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows::decode_report(&rows[0].body).unwrap(), report("{\"phase\":\"Running\"}"));
        let grant = TokenGrant { token: "t".into(), expires_unix: 9, lifetime_seconds: 3600 };
        edged_store.keep_token("u/a", &grant).await.unwrap();
        assert_eq!(edged_store.token("u/a"), Some(grant));
        edged_store.forget_tokens(&Env::seeded(1), "u/").await.unwrap();
        assert_eq!(edged_store.token("u/a"), None);
        assert!(!edged_store.absence_counts("another"), "a fresh store knows of no pod");
    }

    #[tokio::test]
    async fn what_could_not_be_imported_is_not_unwanted_until_all_that_runs_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let fact = |key1: &str, key2: &str| Write::PutRow {
            table: Table::Facts,
            key1: key1.to_owned(),
            key2: key2.to_owned(),
            value: Vec::new(),
        };
        let open = || Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let imported = vec![fact(rows::IMPORTED_STORE_FACT, ""), fact(rows::ADOPTED_PODS_FACT, "a")];
        let store = open();
        store.commit(imported).await.unwrap();
        drop(store);
        let store = open();
        assert_eq!(*store.opened(), Opened::Clean);
        let edged_store = EdgedStore::new(store.clone());
        let view = edged_store.view("edge-1", &BTreeMap::new()).unwrap();
        assert_eq!(view.adopted, BTreeSet::from(["a".to_owned()]));
        assert!(edged_store.is_imported() && !edged_store.absence_counts("u"));
        edged_store.forget_adopted(vec!["a".to_owned()]).await.unwrap();
        edged_store.import_done().await.unwrap();
        assert!(edged_store.absence_counts("u"));
        let view = edged_store.view("edge-1", &BTreeMap::new()).unwrap();
        assert!(view.adopted.is_empty() && edged_store.absence_counts("u"));
    }

    #[tokio::test]
    async fn whole_amounts_of_extended_resources_are_taken_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let amounts = serde_json::json!({"example.com/foo": "3", "example.com/k": "2k", "example.com/below": "-1",
            "example.com/odd": [], "cpu": "2", "hugepages-2Mi": "4Mi"});
        let node = Write::PutObject {
            key: ObjectKey::new(NODES, "", "edge-1"),
            uid: "u".into(),
            content_hash: "1".into(),
            resource_version: "1".into(),
            json: serde_json::json!({"status": {"allocatable": amounts}}).to_string().into_bytes(),
        };
        store.commit(vec![node]).await.unwrap();
        let view = EdgedStore::new(store).view("edge-1", &BTreeMap::new()).unwrap();
        let wanted = [("example.com/foo", 3), ("example.com/k", 2000)];
        assert_eq!(view.node_resources, wanted.map(|(name, amount)| (name.to_owned(), amount)).into());
    }

    #[tokio::test]
    async fn only_objects_that_changed_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let edged_store = EdgedStore::new(store.clone());
        let put = |resource: &str, name: &str, version: &str| Write::PutObject {
            key: ObjectKey::new(resource, "d", name),
            uid: "u".into(),
            content_hash: version.into(),
            resource_version: version.into(),
            json: b"{}".to_vec(),
        };
        let all = vec![
            put(CONFIG_MAPS, "a", "1"),
            put(CONFIG_MAPS, "b", "1"),
            put(SECRETS, "s", "1"),
            put(PODS, "p", "1"),
        ];
        store.commit(all).await.unwrap();
        let before = edged_store.versions().unwrap();
        let gone = Write::DeleteObject { key: ObjectKey::new(SECRETS, "d", "s"), uid: None };
        store.commit(vec![put(CONFIG_MAPS, "b", "2"), put(PODS, "p", "2"), gone]).await.unwrap();
        let changed = edged_store.versions().unwrap().changed_since(&before);
        let names: Vec<&str> = changed.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["b", "s"]);
        assert!(edged_store.is_whole() && edged_store.damaged_pods().unwrap().is_empty());
    }
}
