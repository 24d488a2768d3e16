//! The parts of jobs between a real store and probes for the neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy, Reply};
use config::edge::EdgeCore;
use contract::edged::EdgedMsg;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::metamanager::MetaMsg;
use contract::node_task::acted_upon;
use contract::{ChangedObjects, ObjectKey, TaskKind, TaskProgress, UpReport, rows};
use edge_store::{Options, Store, Table, Write};
use edge_taskmanager::{NodePrograms, Settings, TaskManager};
use serde_json::{Value, json};

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
    started(Settings { enable, programs: None }, folder)
}

fn started(settings: Settings, folder: &Path) -> Node {
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
    async fn sent(&self, uid: &str, images: &[&str], checks: &[&str]) {
        self.sent_as(key(), uid, images, checks).await;
    }

    async fn sent_as(&self, key: ObjectKey, uid: &str, images: &[&str], checks: &[&str]) {
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

    /// Waits until this is said of a part, whatever is said of others.
    async fn until_ended(&self, uid: &str) -> TaskProgress {
        let looking = async {
            loop {
                let rows = self.store.outbox_head(9, 9999).unwrap();
                let reports = rows.iter().map(|row| rows::decode_report(&row.body).unwrap());
                let mut ended = reports.filter_map(|report| match report {
                    UpReport::NodeTask(said) if said.uid == uid && said.phase != "InProgress" => Some(said),
                    _ => None,
                });
                match ended.next_back() {
                    Some(ended) => return ended,
                    None => self.env.sleep(Duration::from_millis(10)).await,
                }
            }
        };
        self.env.timeout(SOON, looking).await.expect("the part ends")
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
        let facts = async || node.store.list_rows(Table::Facts, Some("node-task")).unwrap().len();
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

#[test]
fn a_pull_of_a_job_that_is_gone_holds_no_place() {
    run(async |folder| {
        let mut node = start(folder, true).await;
        node.sent("u", &["a:1", "b:1"], &["mem"]).await;
        let (_, _, _never_answered) = node.asked_to_pull().await;
        node.store.commit(vec![Write::DeleteObject { key: key(), uid: None }]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        node.sent("v", &["c:1"], &["mem"]).await;
        let (image, _, _) = node.asked_to_pull().await;
        assert_eq!(image, "c:1");
        node.stop().await;
    });
}

#[test]
fn a_pull_that_is_tried_again_lets_others_go_first() {
    run(async |folder| {
        let mut node = start(folder, true).await;
        node.sent("u", &["a:1"], &["mem"]).await;
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "a:1");
        node.sent_as(ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "day"), "v", &["c:1"], &["mem"])
            .await;
        reply.send(Err("no route".to_owned()));
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "c:1", "the other one's pause holds nothing up");
        reply.send(Ok(()));
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "a:1", "it is tried again");
        reply.send(Ok(()));
        assert_eq!(node.until_ended("u").await.phase, "Successful");
        node.stop().await;
    });
}

#[test]
fn settings_do_not_wait_for_a_pull() {
    run(async |folder| {
        let (mut node, _) = configuring(folder, Path::new("/nowhere/keadm"));
        node.sent("a", &["a:1"], &["mem"]).await;
        let (_, _, _never_answered) = node.asked_to_pull().await;
        node.store.commit(vec![wants(json!({"modules.edgeHub.heartbeat": "20"}))]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        assert!(node.until_ended("u").await.reason.contains("/nowhere/keadm: No such file"));
        node.stop().await;
    });
}

/// A node that exchanges edgecore with this test's own program, which knows none of keadm's arguments.
fn upgrading(folder: &Path) -> Node {
    let programs = NodePrograms {
        keadm: std::env::current_exe().unwrap(),
        config: "/etc/edgecore.yaml".into(),
        store: folder.join("edgecore.db"),
        runtime_endpoint: "/nowhere".to_owned(),
        settings: Arc::default(),
    };
    started(Settings { enable: true, programs: Some(programs) }, folder)
}

/// A NodeUpgradeJob.
fn release(version: &str, confirm: bool) -> Value {
    json!({"spec": {"version": version, "image": "r.example/package", "requireConfirmation": confirm}})
}

fn wants_release(job: &Value) -> Write {
    Write::PutObject {
        key: ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "spring"),
        uid: "u".to_owned(),
        content_hash: job.to_string(),
        resource_version: "1".to_owned(),
        json: job.to_string().into_bytes(),
    }
}

/// A NodeUpgradeJob, and how far its part is, as an edgecore before has left both: nobody looks at them yet.
async fn upgrade(folder: &Path, confirm: bool, kept: &str) {
    let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
    let job = release("v0.2.0", confirm);
    let kept = with_mark(kept, &acted_upon(TaskKind::NodeUpgrade, &job));
    store.commit(vec![wants_release(&job), fact("node-task", &kept)]).await.unwrap();
}

/// What is kept of a part that began with a job of this mark.
fn with_mark(kept: &str, mark: &str) -> String {
    kept.replacen(r#"{"v":1"#, &format!(r#"{{"v":1,"of":"{mark}""#), 1)
}

fn fact(key1: &str, value: &str) -> Write {
    Write::PutRow { table: Table::Facts, key1: key1.into(), key2: "u".into(), value: value.into() }
}

const FETCHED: &str =
    r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}],"fit":true}"#;
const EXAMINED: &str = r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}]}"#;
const BEGUN: &str = r#"{"v":1,"phase":"InProgress","actions":[{"action":"Check","ok":true,"time":"t"}],"fit":true,"begun":"3 7 0.0.9 0.1.0"}"#;

fn journal(phase: &str, outcome: &str) -> String {
    let step = |phase: &str, action: &str| json!({"phase": phase, "action": action, "succ": true, "time": 20, "reason": ""});
    let outcome = if outcome.is_empty() { json!(null) } else { json!(outcome) };
    json!({
        "layout": 1, "event": "Upgrade", "fromVersion": "0.1.0", "toVersion": "0.2.0",
        "progress": {"phase": phase, "outcome": outcome, "cause": null, "resumes": 0, "mustRestoreStore": false, "isBooting": false},
        "exchanges": [], "config": "/c", "store": "/s", "backup": "/b", "isStoreCurrent": false, "storeFrom": null,
        "launch": {"Unit": "edgecore.service"}, "bar": {"socket": null, "offlineOk": false, "within": 300},
        "steps": [step("PreCheck", "Check"), step("BackUp", "BackUp"), step("Swap", "Upgrade")],
    })
    .to_string()
}

#[test]
fn an_upgrade_waits_for_somebody_on_the_node_and_what_keadm_refuses_is_its_cause() {
    run(async |folder| {
        upgrade(folder, true, FETCHED).await;
        let mut node = upgrading(folder);
        // Images of other jobs are pulled meanwhile.
        node.sent("v", &["a:1"], &["mem"]).await;
        let (_, _, reply) = node.asked_to_pull().await;
        reply.send(Ok(()));
        let mark = acted_upon(TaskKind::NodeUpgrade, &release("v0.2.0", true));
        node.store.commit(vec![fact("confirmed-task", &mark)]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::Tick).await.unwrap();
        let ended = node.until_ended("u").await;
        assert!(ended.reason.starts_with("keadm upgrade edge: "), "{}", ended.reason);
        let flow: Vec<&str> = ended.actions.iter().map(|action| action.action.as_str()).collect();
        assert_eq!(flow, ["Check", "WaitingConfirmation"]);
        node.stop().await;
    });
}

#[test]
fn the_package_of_an_upgrade_that_waits_stays_as_long_as_its_job_and_no_other_does() {
    run(async |folder| {
        upgrade(folder, true, FETCHED).await;
        let packages = folder.join("upgrade/packages");
        std::fs::create_dir_all(&packages).unwrap();
        for name in ["u.tar", "gone.tar"] {
            std::fs::write(packages.join(name), name).unwrap();
        }
        let left = || {
            let files = std::fs::read_dir(&packages).unwrap();
            let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
            names.sort_unstable();
            names
        };
        let mut node = upgrading(folder);
        // Another job comes and fails.
        let job = release("v0.3.0", true);
        let other = Write::PutObject {
            key: ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "summer"),
            uid: "v".to_owned(),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: job.to_string().into_bytes(),
        };
        node.store.commit(vec![other]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "r.example/package:v0.3.0");
        assert_eq!(left(), ["u.tar"], "what nobody waits for goes at the start");
        std::fs::write(packages.join("v.tar"), "a part of it").unwrap();
        reply.send(Err("no route".to_owned()));
        assert_eq!(node.until_ended("v").await.phase, "Failure");
        let until = async |names: &[&str]| {
            let looking = async {
                while left() != names {
                    node.env.sleep(Duration::from_millis(10)).await;
                }
            };
            node.env.timeout(SOON, looking).await.unwrap_or_else(|| panic!("{:?}", left()));
        };
        until(&["u.tar"]).await;
        let key = ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "spring");
        node.store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        until(&[]).await;
        node.stop().await;
    });
}

#[test]
fn an_upgrade_that_is_another_one_than_was_fetched_or_confirmed_is_not_begun() {
    run(async |folder| {
        upgrade(folder, true, FETCHED).await;
        let node = upgrading(folder);
        let mark = acted_upon(TaskKind::NodeUpgrade, &release("v0.2.0", true));
        // Whoever makes jobs writes another release, or that nobody is to be asked, over what somebody is about to confirm.
        for job in [release("v0.9.9", true), release("v0.2.0", false)] {
            let stale = [wants_release(&job), fact("confirmed-task", &mark)];
            node.store.commit(stale.into()).await.unwrap();
            node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
            let ended = node.until_ended("u").await;
            assert!(ended.reason.contains("says something else"), "{}", ended.reason);
            assert_eq!(flow(&ended), [("Check", true)]);
        }
        node.stop().await;
    });
}

#[test]
fn settings_that_are_others_than_were_examined_are_not_written() {
    run(async |folder| {
        let examined = json!({"spec": {"updateFields": {"modules.edgeHub.heartbeat": "33"}}});
        let kept = with_mark(EXAMINED, &acted_upon(TaskKind::ConfigUpdate, &examined));
        let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
        let changed = wants(json!({"modules.edged.tailoredKubeletConfig.staticPodPath": "/tmp"}));
        store.commit(vec![changed, fact("node-task", &kept)]).await.unwrap();
        drop(store);
        let (node, _) = configuring(folder, Path::new("/bin/true"));
        let ended = node.until_ended("u").await;
        assert!(ended.phase == "Failure" && ended.reason.contains("says something else"), "{ended:?}");
        node.stop().await;

        // What an edgecore that kept no mark has looked at is looked at once more.
        let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
        store.commit(vec![fact("node-task", EXAMINED)]).await.unwrap();
        drop(store);
        let (mut node, _) = configuring(folder, Path::new("/bin/true"));
        let ended =
            node.until("it is examined", |said| said.reason.contains("may be changed by no job")).await;
        assert_eq!((ended.phase.as_str(), flow(&ended)), ("Failure", vec![("Check", false)]));
        node.stop().await;
    });
}

#[test]
fn an_upgrade_that_edgecore_did_not_see_the_end_of_is_told_by_the_next_one() {
    run(async |folder| {
        let journals = folder.join("upgrade");
        std::fs::create_dir_all(&journals).unwrap();
        let document = journals.join("journal.json");
        std::fs::write(&document, journal("Health", "")).unwrap();
        upgrade(folder, false, BEGUN).await;
        let mut node = upgrading(folder);
        node.env.sleep(Duration::from_millis(300)).await;
        assert_eq!(node.said(), None, "it goes on");
        // The cloud has not waited for it, and takes the job away: the end is told all the same.
        let key = ObjectKey::new(TaskKind::NodeUpgrade.resource(), "", "spring");
        node.store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
        node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
        std::fs::write(&document, journal("Done", "Confirmed")).unwrap();
        node.tasks.tell(EdgeTaskMsg::Tick).await.unwrap();
        let said = node.until("its end is told", |said| said.phase == "Successful").await;
        assert_eq!((said.from_version.as_str(), said.to_version.as_str()), ("0.1.0", "0.2.0"));
        let flow: Vec<&str> = said.actions.iter().map(|action| action.action.as_str()).collect();
        assert_eq!(flow, ["Check", "BackUp", "Upgrade"]);
        node.stop().await;

        // Of one that was not even begun when edgecore ended the cloud hears that.
        std::fs::remove_dir_all(&journals).unwrap();
        upgrade(folder, false, BEGUN).await;
        let mut node = upgrading(folder);
        let said = node.until("its end is told", |said| said.phase == "Failure").await;
        assert!(said.reason.contains("before keadm had begun"), "{}", said.reason);
        node.stop().await;
    });
}

/// A node whose settings this `keadm` exchanges, and its `edgecore.yaml`.
fn configuring(folder: &Path, keadm: &Path) -> (Node, PathBuf) {
    let (config, store) = (folder.join("edgecore.yaml"), folder.join("edgecore.db"));
    let text = format!(
        "database:\n  dataSource: {}\nmodules:\n  edgeHub:\n    heartbeat: 15 # mine\n",
        store.display()
    );
    std::fs::write(&config, text).unwrap();
    let programs = NodePrograms {
        keadm: keadm.to_owned(),
        config: config.clone(),
        store,
        runtime_endpoint: "/nowhere".to_owned(),
        settings: Arc::new(EdgeCore::load(&config).unwrap()),
    };
    (started(Settings { enable: true, programs: Some(programs) }, folder), config)
}

fn wants(fields: Value) -> Write {
    Write::PutObject {
        key: ObjectKey::new(TaskKind::ConfigUpdate.resource(), "", "calm"),
        uid: "u".to_owned(),
        content_hash: "1".to_owned(),
        resource_version: "1".to_owned(),
        json: json!({"spec": {"updateFields": fields}}).to_string().into_bytes(),
    }
}

fn flow(said: &TaskProgress) -> Vec<(&str, bool)> {
    said.actions.iter().map(|action| (action.action.as_str(), action.succeeded)).collect()
}

#[test]
fn values_that_are_wrong_no_jobs_to_change_or_so_already_reach_no_keadm() {
    for (fields, phase, said) in [
        (json!({"modules.edgeHub.heartbeat": "15"}), "Successful", "nothing was changed"),
        (
            json!({"modules.edgeHub.heartbeat": "often"}),
            "Failure",
            "`modules.edgeHub.heartbeat` is to be `often`",
        ),
        (json!({"modules.edgeHub.heartbeet": "20"}), "Failure", "`modules.edgeHub.heartbeet` is no setting"),
        (
            json!({"modules.edgeHub.heartbeat": "20", "modules.edgeHub.httpServer": "https://evil.example:1"}),
            "Failure",
            "`modules.edgeHub.httpServer` may be changed by no job",
        ),
        (json!({"modules.edgeHub.heartbeat": "0"}), "Failure", "may be 1 to 60 by a job"),
        // keadm is asked, and is not there.
        (json!({"modules.edgeHub.heartbeat": "20"}), "Failure", "/nowhere/keadm: No such file"),
    ] {
        run(async |folder| {
            let (mut node, config) = configuring(folder, Path::new("/nowhere/keadm"));
            let before = std::fs::read(&config).unwrap();
            node.store.commit(vec![wants(fields.clone())]).await.unwrap();
            node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
            let ended = node.until("its end is told", |said| said.phase != "InProgress").await;
            assert_eq!(ended.phase, phase, "{}", ended.reason);
            assert!(ended.reason.contains(said), "{}", ended.reason);
            let is_fit = phase == "Successful" || said.starts_with("/nowhere");
            assert_eq!(flow(&ended), [("Check", is_fit)], "{}", ended.reason);
            assert_eq!(std::fs::read(&config).unwrap(), before);
            node.stop().await;
        });
    }
}

#[test]
fn what_keadm_refuses_is_the_cause_and_what_it_finds_done_is_done() {
    let own = std::env::current_exe().unwrap();
    for (keadm, phase, said) in
        [(own.as_path(), "Failure", "keadm config-update: "), (Path::new("/bin/true"), "Successful", "")]
    {
        run(async |folder| {
            let (mut node, _) = configuring(folder, keadm);
            node.store.commit(vec![wants(json!({"modules.edgeHub.heartbeat": "20"}))]).await.unwrap();
            node.tasks.tell(EdgeTaskMsg::ObjectsChanged(ChangedObjects::Any)).await.unwrap();
            let ended = node.until("its end is told", |said| said.phase != "InProgress").await;
            assert_eq!((ended.phase.as_str(), flow(&ended)), (phase, vec![("Check", true)]));
            assert!(ended.reason.starts_with(said), "{}", ended.reason);
            node.stop().await;
        });
    }
}

#[test]
fn settings_that_were_taken_back_are_told_with_their_cause_by_whichever_edgecore_runs_then() {
    run(async |folder| {
        let journals = folder.join("upgrade");
        std::fs::create_dir_all(&journals).unwrap();
        let step = |phase: &str, action: &str, succ: bool| json!({"phase": phase, "action": action, "succ": succ, "time": 20, "reason": if succ { "" } else { "no link, after 60 s" }});
        let mut journal: Value = serde_json::from_str(&journal("Done", "RolledBack")).unwrap();
        journal["event"] = json!("ConfigUpdate");
        journal["sequence"] = json!(4);
        journal["progress"]["cause"] = json!("Health: no link, after 60 s");
        journal["steps"] = json!([
            step("PreCheck", "Check", true),
            step("BackUp", "BackUp", true),
            step("Swap", "Update", true),
            step("Health", "Update", false),
            step("RestorePrograms", "RollBack", true),
        ]);
        std::fs::write(journals.join("journal.json"), journal.to_string()).unwrap();
        let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
        store
            .commit(vec![wants(json!({"modules.edgeHub.heartbeat": "20"})), fact("node-task", BEGUN)])
            .await
            .unwrap();
        drop(store);
        let (mut node, _) = configuring(folder, Path::new("/nowhere/keadm"));
        let said = node.until("its end is told", |said| said.phase == "Failure").await;
        assert_eq!(said.reason, "edgecore.yaml is as it was: Health: no link, after 60 s");
        assert_eq!(flow(&said), [("Check", true), ("BackUp", true), ("Update", false), ("RollBack", true)]);
        assert_eq!((said.from_version.as_str(), said.to_version.as_str()), ("", ""));
        node.stop().await;
    });
}
