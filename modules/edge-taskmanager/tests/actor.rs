//! The parts of jobs between a real store and probes for the neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
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

const SOON: Duration = Duration::from_secs(60);

struct Node {
    hive: Hive,
    store: Store,
    tasks: Address<EdgeTaskMsg>,
    edged: Probe<EdgedMsg>,
    meta: Probe<MetaMsg>,
    env: Env,
}

fn run(test: impl AsyncFnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(folder.path()).await });
}

async fn start(folder: &Path, enable: bool) -> Node {
    let env = Env::real();
    let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
    let (edged, to_edged) = Probe::new(&env, 8);
    let (meta, to_meta) = Probe::new(&env, 64);
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox::<EdgeTaskMsg>("edge-taskmanager", Capacity::new(16, "a test's choice"));
    let tasks = hive.grant("tester", &mailbox, Flow::Tell);
    let kept = store.clone();
    hive.supervise(mailbox, Policy::default(), move || {
        TaskManager::new(Settings { enable }, kept.clone(), to_edged.clone(), to_meta.clone())
    });
    hive.open().unwrap();
    Node { hive, store, tasks, edged, meta, env }
}

impl Node {
    /// As MetaManager does when the cloud has sent a job.
    async fn sent(&self, uid: &str, images: &[&str], checks: &[&str]) {
        let json = json!({"spec": {"imagePrePullTemplate": {
            "images": images, "checkItems": checks, "retryTimes": 1,
        }}, "imageSecret": {"type": "kubernetes.io/dockerconfigjson"}});
        let write = Write::PutObject {
            key: key(),
            uid: uid.to_owned(),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: json.to_string().into_bytes(),
        };
        self.store.commit(vec![write]).await.unwrap();
        self.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
    }

    async fn asked_to_pull(&mut self) -> (String, Option<String>, Reply<Result<(), String>>) {
        let pulls = |message| match message {
            EdgedMsg::PullImage { image, secret, reply } => Some((image, secret, reply)),
            other => panic!("{other:?}"),
        };
        self.edged.find(SOON, pulls).await.unwrap()
    }

    fn said(&self) -> Option<TaskProgress> {
        let rows = self.store.outbox_head(9, 9999).unwrap();
        assert!(rows.len() <= 1, "the newest alone waits");
        match rows::decode_report(&rows.first()?.body).unwrap() {
            UpReport::NodeTask(progress) => Some(progress),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until what waits for the cloud is so.
    async fn until(&mut self, what: &str, holds: impl Fn(&TaskProgress) -> bool) -> TaskProgress {
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

    async fn stop(self) {
        self.hive.shutdown(SOON).await;
        drop((self.store, self.tasks, self.meta));
    }
}

fn key() -> ObjectKey {
    ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "night")
}

#[test]
fn a_part_is_done_over_a_restart_and_told_with_each_step() {
    run(async |folder| {
        let mut node = start(folder, true).await;
        node.sent("u", &["a:1", "b:1"], &["mem"]).await;
        let (image, secret, reply) = node.asked_to_pull().await;
        assert_eq!(image, "a:1");
        assert_eq!(secret.as_deref(), Some(r#"{"type":"kubernetes.io/dockerconfigjson"}"#));
        let said = node.said().unwrap();
        assert_eq!((said.job.as_str(), said.uid.as_str(), said.phase.as_str()), ("night", "u", "InProgress"));
        assert_eq!(said.actions.iter().map(|action| action.action.as_str()).collect::<Vec<_>>(), ["Check"]);
        reply.send(Ok(()));
        let (image, _, _kept) = node.asked_to_pull().await;
        assert_eq!(image, "b:1");
        node.until("the first image is told", |said| said.images.len() == 1).await;
        node.stop().await;

        // edgecore ends in the middle of the second pull: that one is begun again, the first is not.
        let mut node = start(folder, true).await;
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "b:1");
        reply.send(Err("no route".to_owned()));
        // It is tried once more, as the job says.
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "b:1");
        reply.send(Err("no route".to_owned()));
        let said = node.until("its end is told", |said| said.phase == "Failure").await;
        assert_eq!(said.reason, "1 of 2 images were not pulled: b:1");
        assert_eq!(said.images.iter().map(|image| image.succeeded).collect::<Vec<_>>(), [true, false]);
        assert_eq!(said.images[1].reason, "no route");

        // The cloud has heard it, and takes the job away: a later one of that name is another one.
        node.store.commit(vec![Write::DeleteObject { key: key(), uid: None }]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        let facts = async || node.store.list_rows(edge_store::Table::Facts, Some("node-task")).unwrap().len();
        let gone = async {
            while facts().await > 0 {
                node.env.sleep(Duration::from_millis(10)).await;
            }
        };
        node.env.timeout(SOON, gone).await.expect("its row goes");
        node.stop().await;
    });
}

#[test]
fn a_job_that_is_taken_away_begins_no_further_step() {
    run(async |folder| {
        let mut node = start(folder, true).await;
        node.sent("u", &["a:1", "b:1"], &["mem"]).await;
        let (_, _, reply) = node.asked_to_pull().await;
        node.store.commit(vec![Write::DeleteObject { key: key(), uid: None }]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        reply.send(Ok(()));
        // Another job comes behind it, and is what is done next.
        node.sent("v", &["c:1"], &["mem"]).await;
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "c:1");
        reply.send(Ok(()));
        node.stop().await;
    });
}

#[test]
fn a_node_that_does_no_jobs_says_so() {
    run(async |folder| {
        let mut node = start(folder, false).await;
        node.sent("u", &["a:1"], &[]).await;
        let said = node.until("it is refused", |said| said.phase == "Failure").await;
        assert!(said.reason.contains("modules.taskManager.enable"), "{}", said.reason);
        assert_eq!((said.actions, said.images), (vec![], vec![]));
        assert!(matches!(node.meta.next(SOON).await, Some(MetaMsg::OutboxGrew)));
        node.stop().await;
    });
}

#[test]
fn hostile_names_of_images_reach_no_runtime() {
    run(async |folder| {
        let mut node = start(folder, true).await;
        node.sent("u", &["a:1", "$(reboot)"], &[]).await;
        let said = node.until("it is refused", |said| said.phase == "Failure").await;
        assert!(said.reason.contains("is no image"), "{}", said.reason);
        assert!(node.edged.next(Duration::from_millis(200)).await.is_none());
        node.stop().await;
    });
}
