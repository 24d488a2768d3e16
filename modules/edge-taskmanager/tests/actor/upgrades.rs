//! Upgrades of edgecore that jobs ask for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::edgetaskmanager::EdgeTaskMsg;
use contract::node_task::acted_upon;
use contract::{ChangedObjects, ObjectKey, TaskKind};
use edge_store::{Options, Store, Write};
use edge_taskmanager::{NodePrograms, Settings};
use serde_json::{Value, json};

use crate::kept::{BEGUN, FETCHED, fact, journal, with_mark};
use crate::node::{Node, SOON, flow, run, started};

/// A node that exchanges edgecore with this test's own program, which knows none of keadm's arguments.
fn upgrading(folder: &Path) -> Node {
    let programs = NodePrograms {
        keadm: std::env::current_exe().unwrap(),
        config: "/etc/edgecore.yaml".into(),
        store: folder.join("edgecore.db"),
        runtime_endpoint: "/nowhere".to_owned(),
        settings: Arc::default(),
        fits: |_| Ok(()),
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
