//! Settings that jobs change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::edge::EdgeCore;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::node_task::acted_upon;
use contract::{ChangedObjects, ObjectKey, TaskKind};
use edge_store::{Options, Store, Write};
use edge_taskmanager::{NodePrograms, Settings};
use serde_json::{Value, json};

use crate::kept::{BEGUN, EXAMINED, fact, journal, with_mark};
use crate::node::{Node, flow, run, started};

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
        fits: |_| Ok(()),
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
