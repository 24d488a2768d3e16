//! A TaskManager between a real store and probes for the neighbours.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy, Reply};
use contract::edged::EdgedMsg;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::metamanager::MetaMsg;
use contract::{ChangedObjects, ObjectKey, TaskKind, TaskProgress, UpReport, rows};
use edge_store::{Options, Store, Write};
use edge_taskmanager::{Settings, TaskManager};
use serde_json::json;

pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) hive: Hive,
    pub(crate) store: Store,
    pub(crate) tasks: Address<EdgeTaskMsg>,
    pub(crate) edged: Probe<EdgedMsg>,
    pub(crate) meta: Probe<MetaMsg>,
    pub(crate) env: Env,
}

pub(crate) fn run(test: impl AsyncFnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(folder.path()).await });
}

pub(crate) async fn start(folder: &Path, enable: bool) -> Node {
    started(Settings { enable, programs: None }, folder)
}

pub(crate) fn started(settings: Settings, folder: &Path) -> Node {
    let env = Env::real();
    let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
    let (edged, to_edged) = Probe::new(&env, 8);
    let (meta, to_meta) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox::<EdgeTaskMsg>("edge-taskmanager", Capacity::new(16, "a test's choice"));
    let tasks = hive.grant("tester", &mailbox, Flow::Tell);
    let kept = store.clone();
    // It is not asked: nobody listens there.
    let runtime: Arc<dyn cri::Runtime> = Arc::new(cri::Grpc::new("/nowhere", "/nowhere", SOON).unwrap());
    hive.supervise(mailbox, Policy::default(), move || {
        let (edged, meta) = (to_edged.clone(), to_meta.clone());
        TaskManager::new(settings.clone(), kept.clone(), edged, meta, Arc::clone(&runtime))
    });
    hive.open().unwrap();
    Node { hive, store, tasks, edged, meta, env }
}

impl Node {
    /// As MetaManager does when the cloud has sent a job.
    pub(crate) async fn sent(&self, uid: &str, images: &[&str], checks: &[&str]) {
        self.sent_as(key(), uid, images, checks).await;
    }

    pub(crate) async fn sent_as(&self, key: ObjectKey, uid: &str, images: &[&str], checks: &[&str]) {
        let json = json!({"spec": {"imagePrePullTemplate": {
            "images": images, "checkItems": checks, "retryTimes": 1,
        }}, "imageSecret": {"type": "kubernetes.io/dockerconfigjson"}});
        let write = Write::PutObject {
            key,
            uid: uid.to_owned(),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: json.to_string().into_bytes(),
        };
        self.store.commit(vec![write]).await.unwrap();
        self.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
    }

    pub(crate) async fn asked_to_pull(&mut self) -> (String, Option<String>, Reply<Result<(), String>>) {
        let pulls = |message| match message {
            EdgedMsg::PullImage { image, secret, reply } => Some((image, secret, reply)),
            other => panic!("{other:?}"),
        };
        self.edged.find(SOON, pulls).await.unwrap()
    }

    pub(crate) fn said(&self) -> Option<TaskProgress> {
        let rows = self.store.outbox_head(9, 9999).unwrap();
        assert!(rows.len() <= 1, "the newest alone waits");
        match rows::decode_report(&rows.first()?.body).unwrap() {
            UpReport::NodeTask(progress) => Some(progress),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until what waits for the cloud is so.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&TaskProgress) -> bool) -> TaskProgress {
        let looking = async {
            loop {
                match self.said().filter(|said| holds(said)) {
                    Some(said) => return said,
                    None => self.env.sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let found = self.env.timeout(SOON, looking).await;
        found.unwrap_or_else(|| panic!("waited in vain: {what}: {:?}", self.said()))
    }

    /// Waits until the end of a part is told, whatever is said of others.
    pub(crate) async fn until_ended(&self, uid: &str) -> TaskProgress {
        self.until_said(uid, |said| said.phase != "InProgress").await
    }

    /// Waits until this is said of a part, whatever is said of others.
    pub(crate) async fn until_said(&self, uid: &str, holds: impl Fn(&TaskProgress) -> bool) -> TaskProgress {
        let looking = async {
            loop {
                let rows = self.store.outbox_head(9, 9999).unwrap();
                let reports = rows.iter().map(|row| rows::decode_report(&row.body).unwrap());
                let mut found = reports.filter_map(|report| match report {
                    UpReport::NodeTask(said) if said.uid == uid && holds(&said) => Some(said),
                    _ => None,
                });
                match found.next_back() {
                    Some(found) => return found,
                    None => self.env.sleep(Duration::from_millis(10)).await,
                }
            }
        };
        self.env.timeout(SOON, looking).await.expect("nothing of the kind is said of the part")
    }

    pub(crate) async fn stop(self) {
        self.hive.shutdown(SOON).await;
        drop((self.store, self.tasks, self.meta));
    }
}

pub(crate) fn key() -> ObjectKey {
    ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "night")
}

/// Which steps a part has taken, and whether each went well.
pub(crate) fn flow(said: &TaskProgress) -> Vec<(&str, bool)> {
    said.actions.iter().map(|action| (action.action.as_str(), action.succeeded)).collect()
}
