//! What Edged reads from the node's store and leaves in it.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::{CONFIG_MAPS, NODES, PODS, SECRETS};
use contract::{TokenGrant, UpReport, rows};
use edge_store::{Class, ObjectKey, ObjectVersion, Opened, OutboxQueue, Store, StoreError, Table, Write};

/// Which version of each config map and secret the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions(BTreeMap<ObjectKey, (String, String)>);

impl Versions {
    /// What came, went or changed since `before`.
    pub(crate) fn changed_since(&self, before: &Versions) -> BTreeSet<ObjectKey> {
        let differs = |key: &&ObjectKey| self.0.get(*key) != before.0.get(*key);
        self.0.keys().chain(before.0.keys()).filter(differs).cloned().collect()
    }
}

/// The store as Edged sees it.
#[derive(Clone)]
pub(crate) struct Desk {
    store: Store,
}

impl Desk {
    pub(crate) fn new(store: Store) -> Self {
        Desk { store }
    }

    /// The pods that should be here, as JSON.
    pub(crate) fn pods(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.store.list_objects(PODS, None)?.into_iter().map(|object| object.json).collect())
    }

    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.object(CONFIG_MAPS, namespace, name)
    }

    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.object(SECRETS, namespace, name)
    }

    /// The node's own object, when the cloud has sent it.
    pub(crate) fn node(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.object(NODES, "", name)
    }

    fn object(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.store.get_object(&ObjectKey::new(resource, namespace, name))?;
        Ok(found.map(|object| object.json))
    }

    /// The versions of all config maps and secrets.
    pub(crate) fn versions(&self) -> Result<Versions, StoreError> {
        let own = |key: &ObjectKey| key.resource == CONFIG_MAPS || key.resource == SECRETS;
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
    pub(crate) fn damaged_pods(&self) -> Result<BTreeSet<(String, String)>, StoreError> {
        // A damaged row has no uid.
        let damaged = |version: &ObjectVersion| version.key.resource == PODS && version.uid.is_empty();
        let found = self.store.object_versions()?.into_iter().filter(damaged);
        Ok(found.map(|version| (version.key.namespace, version.key.name)).collect())
    }

    /// Whether a pod that is not in the store is really not wanted: a store that lost rows cannot say so.
    pub(crate) fn absence_counts(&self) -> bool {
        let whole = match self.store.opened() {
            Opened::Clean => true,
            Opened::Fresh | Opened::Quarantined { .. } => false,
        };
        whole && self.is_whole()
    }

    /// Puts a report where MetaManager finds it. A newer one takes the place of an older one about the same thing.
    pub(crate) async fn report(&self, report: &UpReport) -> Result<(), String> {
        let body = rows::encode_report(report).map_err(|error| error.to_string())?;
        let (class, key) = match report.newest_key() {
            Some(key) => (Class::Status, key),
            None => (Class::Event, event_key(report)),
        };
        let commit = self.store.commit(vec![Write::Enqueue { queue: OutboxQueue::Node, class, key, body }]);
        commit.await.map(drop).map_err(|error| error.to_string())
    }

    /// A token that was granted before.
    pub(crate) fn token(&self, key: &str) -> Option<TokenGrant> {
        let bytes = self.store.get_row(Table::Tokens, key, "").ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) async fn keep_token(&self, key: &str, grant: &TokenGrant) -> Result<(), String> {
        let value = serde_json::to_vec(grant).map_err(|error| error.to_string())?;
        let row = Write::PutRow { table: Table::Tokens, key1: key.to_owned(), key2: String::new(), value };
        self.store.commit(vec![row]).await.map(drop).map_err(|error| error.to_string())
    }

    /// Forgets the tokens of a pod.
    pub(crate) async fn forget_tokens(&self, prefix: &str) -> Result<(), String> {
        let rows = self.store.list_rows(Table::Tokens, None).map_err(|error| error.to_string())?;
        let own = rows.into_iter().filter(|row| row.key1.starts_with(prefix));
        let writes: Vec<Write> =
            own.map(|row| Write::DeleteRows { table: Table::Tokens, key1: row.key1 }).collect();
        if writes.is_empty() {
            return Ok(());
        }
        self.store.commit(writes).await.map(drop).map_err(|error| error.to_string())
    }
}

fn event_key(report: &UpReport) -> String {
    match report {
        UpReport::Event { namespace, name, .. } => format!("event/{namespace}/{name}"),
        UpReport::Node { .. }
        | UpReport::PodStatus { .. }
        | UpReport::PodGone { .. }
        | UpReport::Twin { .. }
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
        let desk = Desk::new(store.clone());
        let report = |text: &str| UpReport::PodStatus {
            namespace: "d".into(),
            name: "p".into(),
            uid: "u".into(),
            status_json: text.into(),
        };
        desk.report(&report("{\"phase\":\"Pending\"}")).await.unwrap();
        desk.report(&report("{\"phase\":\"Running\"}")).await.unwrap();
        let rows = store.outbox_head(10, 1 << 20).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows::decode_report(&rows[0].body).unwrap(), report("{\"phase\":\"Running\"}"));
        let grant = TokenGrant { token: "t".into(), expires_unix: 9, lifetime_seconds: 3600 };
        desk.keep_token("u/a", &grant).await.unwrap();
        assert_eq!(desk.token("u/a"), Some(grant));
        desk.forget_tokens("u/").await.unwrap();
        assert_eq!(desk.token("u/a"), None);
        assert!(!desk.absence_counts(), "a fresh store knows of no pod");
    }

    #[tokio::test]
    async fn only_objects_that_changed_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let desk = Desk::new(store.clone());
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
        let before = desk.versions().unwrap();
        let gone = Write::DeleteObject { key: ObjectKey::new(SECRETS, "d", "s"), uid: None };
        store.commit(vec![put(CONFIG_MAPS, "b", "2"), put(PODS, "p", "2"), gone]).await.unwrap();
        let changed = desk.versions().unwrap().changed_since(&before);
        let names: Vec<&str> = changed.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["b", "s"]);
        let spec = serde_json::from_value(serde_json::json!({"containers": [{"name": "c",
            "envFrom": [{"configMapRef": {"name": "b"}}]}]}));
        let named = crate::objects::references(&spec.unwrap());
        assert!(named.meet("d", &changed) && !named.meet("other", &changed));
        assert!(desk.is_whole() && desk.damaged_pods().unwrap().is_empty());
    }
}
