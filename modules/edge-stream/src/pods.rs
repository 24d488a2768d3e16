//! The node's pods as its store holds them, each with the status that Edged reported last: those of the cloud, and the static
//! ones that Edged keeps there, in the place of their mirrors. What reads here blocks.

use std::io;

use apimachinery::static_pod::mirror_of;
use apimachinery::{NamespacedName, ObjectKey};
use contract::ids::{NODE_UPGRADE_JOBS, PODS};
use contract::rows::{CONFIRMED_TASKS_FACT, NODE_TASKS_FACT, STATIC_PODS_FACT, WaitingTask};
use contract::{TaskKind, node_task};
use edge_store::{Store, Table};
use serde_json::Value;

/// The lists of a pod's containers.
const CONTAINERS: [&str; 3] = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];

/// One pod of this node. It was checked where it was taken in, and little of it is needed here: read as its whole type it would
/// cost edgecore a third of a megabyte of code a second time.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownPod {
    pub(crate) pod: Value,
}

/// What of a container a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContainerSpec {
    pub(crate) tty: bool,
}

/// A NodeUpgradeJob that waits for somebody on the node.
#[derive(Debug)]
pub(crate) struct WaitingUpgrade {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) job: Value,
    pub(crate) part: WaitingTask,
}

impl KnownPod {
    pub(crate) fn uid(&self) -> &str {
        self.pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default()
    }

    /// What the node reported of it.
    pub(crate) fn status(&self) -> Option<&Value> {
        self.pod.get("status")
    }

    /// A container of any of the three lists.
    pub(crate) fn container(&self, name: &str) -> Option<ContainerSpec> {
        let mut all = CONTAINERS.iter().filter_map(|list| self.pod.pointer(list)?.as_array()).flatten();
        let found = all.find(|container| container["name"] == name)?;
        Some(ContainerSpec { tty: found["tty"].as_bool().unwrap_or(false) })
    }
}

/// The pods of one node.
#[derive(Clone)]
pub(crate) struct Pods {
    store: Store,
    node: String,
}

impl Pods {
    pub(crate) fn new(store: Store, node: &str) -> Pods {
        Pods { store, node: node.to_owned() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// A pod of this node; `None`: there is none of this name.
    pub(crate) fn find(&self, name: &NamespacedName) -> io::Result<Option<KnownPod>> {
        let found = self.read(&ObjectKey::new(PODS, &*name.namespace, &*name.name))?;
        Ok(found.map(|pod| KnownPod { pod }))
    }

    /// The pod of that name as it is run: a static one, else the cloud's, unless it is a mirror, which says nothing of what runs:
    /// anybody may have made it.
    fn read(&self, key: &ObjectKey) -> io::Result<Option<Value>> {
        let row = self.store.get_row(Table::Facts, STATIC_PODS_FACT, &key.namespaced_name().to_string());
        if let Some(row) = row.map_err(io::Error::other)? {
            return self.with_status(&row);
        }
        let Some(object) = self.store.get_object(key).map_err(io::Error::other)? else { return Ok(None) };
        Ok(self.with_status(&object.json)?.filter(|pod| mirror_of(pod).is_none()))
    }

    /// The names of all pods that the store has, those of other nodes among them.
    pub(crate) fn keys(&self) -> io::Result<Vec<ObjectKey>> {
        let mut keys = self.store.object_keys(PODS).map_err(io::Error::other)?;
        let rows = self.store.list_rows(Table::Facts, Some(STATIC_PODS_FACT)).map_err(io::Error::other)?;
        for (namespace, name) in rows.iter().filter_map(|row| row.key2.split_once('/')) {
            let key = ObjectKey::new(PODS, namespace, name);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The NodeUpgradeJobs whose parts wait here for a confirmation, each as it was fetched: what says something else by now does not.
    pub(crate) fn upgrades_to_confirm(&self) -> io::Result<Vec<WaitingUpgrade>> {
        let jobs = self.store.list_objects(NODE_UPGRADE_JOBS, None).map_err(io::Error::other)?;
        let mut waiting = Vec::new();
        for object in jobs {
            let Ok(job) = serde_json::from_slice::<Value>(&object.json) else { continue };
            let row = |fact| self.store.get_row(Table::Facts, fact, &object.uid).map_err(io::Error::other);
            let asks = job.pointer("/spec/requireConfirmation").and_then(Value::as_bool) == Some(true);
            let Some(part) = row(NODE_TASKS_FACT)?.filter(|_| asks) else { continue };
            let Some(part) = WaitingTask::read(&part) else { continue };
            let is_confirmed = row(CONFIRMED_TASKS_FACT)?.is_some_and(|mark| mark == part.mark.as_bytes());
            if part.mark == node_task::acted_upon(TaskKind::NodeUpgrade, &job) && !is_confirmed {
                waiting.push(WaitingUpgrade { uid: object.uid, name: object.key.name, job, part });
            }
        }
        Ok(waiting)
    }

    /// Writes a pod behind `text`; `None`: it has gone, or is another node's.
    pub(crate) fn write(&self, key: &ObjectKey, mut text: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        // One that is no JSON is Edged's to complain about.
        let Some(pod) = self.read(key).unwrap_or_default() else { return Ok(None) };
        serde_json::to_writer(&mut text, &pod).map_err(io::Error::other)?;
        text.shrink_to_fit();
        Ok(Some(text))
    }

    /// The pod with the node's own word on its status; `None` when it is another node's.
    fn with_status(&self, pod: &[u8]) -> io::Result<Option<Value>> {
        let mut pod: Value = serde_json::from_slice(pod).map_err(io::Error::other)?;
        if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(&self.node) {
            return Ok(None);
        }
        let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let reported = self.store.get_row(Table::PodStatuses, uid, "").map_err(io::Error::other)?;
        let status = reported.and_then(|status| serde_json::from_slice::<Value>(&status).ok());
        if let (Some(status), Some(pod)) = (status, pod.as_object_mut()) {
            pod.insert("status".to_owned(), status);
        }
        Ok(Some(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_store::{Options, Write};
    use serde_json::json;

    #[tokio::test]
    async fn only_the_nodes_own_pods_are_known_with_the_status_that_it_reported() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let pods = Pods::new(store.clone(), "n");
        let put = |name: &str, node: &str| Write::PutObject {
            key: ObjectKey::new(PODS, "d", name),
            uid: format!("u-{name}"),
            content_hash: "h".into(),
            resource_version: "1".into(),
            json: json!({"metadata": {"namespace": "d", "name": name, "uid": format!("u-{name}")},
                "spec": {"nodeName": node, "containers": [{"name": "c", "tty": true}],
                    "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}]},
                "status": {"phase": "Pending"}})
            .to_string()
            .into_bytes(),
        };
        let status = Write::PutRow {
            table: Table::PodStatuses,
            key1: "u-p".into(),
            key2: String::new(),
            value: br#"{"phase":"Running"}"#.to_vec(),
        };
        store.commit(vec![put("p", "n"), put("q", "other"), put("r", "n"), status]).await.unwrap();
        let found = pods.find(&NamespacedName::new("d", "p")).unwrap().unwrap();
        assert_eq!(found.status().unwrap()["phase"], "Running");
        assert_eq!(found.container("c"), Some(ContainerSpec { tty: true }));
        assert!(
            found.container("i").is_some()
                && found.container("e").is_some()
                && found.container("x").is_none()
        );
        assert!(pods.find(&NamespacedName::new("d", "q")).unwrap().is_none(), "another node's");
        assert!(pods.find(&NamespacedName::new("x", "p")).unwrap().is_none());
        let phases: Vec<Value> = pods
            .keys()
            .unwrap()
            .iter()
            .filter_map(|key| pods.write(key, Vec::new()).unwrap())
            .map(|pod| serde_json::from_slice::<Value>(&pod).unwrap()["status"]["phase"].clone())
            .collect();
        assert_eq!(phases, ["Running", "Pending"]);
    }

    /// Whoever makes a pod may write on it that it is the mirror of any.
    #[tokio::test]
    async fn a_static_pod_is_known_in_the_place_of_its_mirror_and_a_mirror_alone_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let pods = Pods::new(store.clone(), "n");
        let mirror = |name: &str| Write::PutObject {
            key: ObjectKey::new(PODS, "d", name),
            uid: format!("api-{name}"),
            content_hash: "h".into(),
            resource_version: "1".into(),
            json: json!({"metadata": {"namespace": "d", "name": name, "uid": format!("api-{name}"),
                    "annotations": {"kubernetes.io/config.mirror": "static"}},
                "spec": {"nodeName": "n", "containers": [{"name": "c"}]}})
            .to_string()
            .into_bytes(),
        };
        let own = json!({"metadata": {"namespace": "d", "name": "web-n", "uid": "static"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]}});
        let row = |table, key1: &str, key2: &str, value: &str| Write::PutRow {
            table,
            key1: key1.into(),
            key2: key2.into(),
            value: value.as_bytes().to_vec(),
        };
        let kept = row(Table::Facts, STATIC_PODS_FACT, "d/web-n", &own.to_string());
        let status = row(Table::PodStatuses, "static", "", r#"{"phase":"Running"}"#);
        store.commit(vec![mirror("web-n"), mirror("fake"), kept, status]).await.unwrap();
        let found = pods.find(&NamespacedName::new("d", "web-n")).unwrap().unwrap();
        assert_eq!((found.uid(), &found.status().unwrap()["phase"]), ("static", &json!("Running")));
        assert!(pods.find(&NamespacedName::new("d", "fake")).unwrap().is_none());
        store
            .commit(vec![Write::DeleteObject { key: ObjectKey::new(PODS, "d", "web-n"), uid: None }])
            .await
            .unwrap();
        assert!(pods.find(&NamespacedName::new("d", "web-n")).unwrap().is_some(), "without a cloud, too");
        let listed = pods.keys().unwrap();
        let listed: Vec<_> =
            listed.iter().filter(|key| pods.write(key, Vec::new()).unwrap().is_some()).collect();
        assert_eq!((listed.len(), listed[0].name.as_str()), (1, "web-n"));
    }
}
