//! Images that jobs have the node pull.

use std::time::Duration;

use contract::edgetaskmanager::EdgeTaskMsg;
use contract::metamanager::MetaMsg;
use contract::node_task::WAITS_FOR_TURN;
use contract::{ChangedObjects, ObjectKey, TaskKind};
use edge_store::{Table, Write};

use crate::node::{SOON, key, run, start};

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
fn a_part_that_waits_for_its_turn_says_so_until_it_begins() {
    run(async |folder| {
        let mut node = start(folder, true).await;
        node.sent("u", &["a:1"], &["mem"]).await;
        let (_, _, reply) = node.asked_to_pull().await;
        node.sent_as(ObjectKey::new(TaskKind::ImagePrePull.resource(), "", "day"), "v", &["c:1"], &["mem"])
            .await;
        let waits = node.until_said("v", |said| said.reason == WAITS_FOR_TURN).await;
        assert_eq!((waits.phase.as_str(), waits.actions.len()), ("InProgress", 1), "its check is over");
        reply.send(Ok(()));
        let (image, _, reply) = node.asked_to_pull().await;
        assert_eq!(image, "c:1");
        node.until_said("v", |said| said.reason.is_empty() && said.phase == "InProgress").await;
        reply.send(Ok(()));
        let ended = node.until_ended("v").await;
        assert_eq!((ended.phase.as_str(), ended.reason.as_str()), ("Successful", ""));
        node.stop().await;
    });
}
