//! What of two CloudCores' reports stays.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::NodeName;
use futures::StreamExt;
use harness::{LONG, run};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::sync::Notify;

use crate::fixture::{Cloud, NODE, OTHER, Server, held, kubelet_version, of_node, of_pod, of_pump, version};

#[test]
fn an_older_report_is_dropped_and_confirmed() {
    run(async || {
        let server = Server::start().await;
        let a = Cloud::start("cloudcore-a", server.api.client(), &server.env);
        let session = a.claim().await;
        assert_eq!(a.say(session, vec![of_node(5, "v5")]).await, [5]);
        assert_eq!(held(&server.node().await), version(1, 5));
        assert_eq!(a.say(session, vec![of_node(4, "v4")]).await, [4]);
        assert_eq!(a.say(session, vec![of_node(5, "v5 again")]).await, [5]);
        assert_eq!(kubelet_version(&server).await, "v5");
        assert_eq!(a.say(session, vec![of_node(6, "v6")]).await, [6]);
        assert_eq!(
            (kubelet_version(&server).await, held(&server.node().await)),
            (json!("v6"), version(1, 6))
        );
        // Another CloudCore, which remembers nothing, goes by the object alone; the node's store counts anew.
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        let later = b.claim().await;
        assert_eq!(b.say(later, vec![of_node(2, "v2 of a new store")]).await, [2]);
        assert_eq!(b.say(later, vec![of_node(1, "v1 of a new store")]).await, [1]);
        assert_eq!(kubelet_version(&server).await, "v2 of a new store");
        assert!(
            a.say(session, vec![of_node(7, "v7")]).await.is_empty(),
            "the node says it again where it is now"
        );
        assert_eq!(held(&server.node().await), version(2, 2));
    });
}

/// A client that holds up the first patch of a status until it is let go.
fn gated(client: kube::Client) -> (kube::Client, Arc<Notify>, Arc<Notify>) {
    let (arrived, go, first) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
    let (told, waits) = (Arc::clone(&arrived), Arc::clone(&go));
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, arrived, go, first) =
            (client.clone(), Arc::clone(&told), Arc::clone(&waits), Arc::clone(&first));
        async move {
            let is_status =
                request.method() == http::Method::PATCH && request.uri().path().ends_with("/status");
            if is_status && first.swap(false, Ordering::Relaxed) {
                arrived.notify_one();
                go.notified().await;
            }
            client.send(request).await
        }
    });
    (kube::Client::new(service, "default"), arrived, go)
}

async fn pod(server: &Server) -> String {
    let namespace = Some("default");
    let account = json!({ "metadata": { "name": "default" } });
    let accounts = server.objects("v1", "ServiceAccount", namespace);
    if accounts.get_opt("default").await.unwrap().is_none() {
        let account: DynamicObject = serde_json::from_value(account).unwrap();
        // The controllers may be first.
        let _ = accounts.create(&PostParams::default(), &account).await;
    }
    let spec = json!({ "nodeName": NODE, "containers": [{ "name": "web", "image": "web:1" }] });
    let object = json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": spec });
    server.create("v1", "Pod", namespace, object).await.metadata.uid.unwrap()
}

#[test]
fn a_write_of_the_new_owner_between_read_and_write_of_the_old_one_stays() {
    run(async || {
        let server = Server::start().await;
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        let before = b.claim().await;
        b.say(before, vec![of_node(1, "v1")]).await;
        let uid = pod(&server).await;
        let (client, arrived, go) = gated(server.api.client());
        let mut a = Cloud::start("cloudcore-a", client, &server.env);
        let first = a.claim().await;
        let old = a.say(first, vec![of_pod(7, &uid, "of the old owner")]);
        let new = async {
            arrived.notified().await;
            let second = b.claim().await;
            assert_eq!(b.say(second, vec![of_pod(8, &uid, "of the new owner")]).await, [8]);
            go.notify_one();
        };
        let (confirmed, ()) = futures::join!(old, new);
        assert!(confirmed.is_empty());
        assert_eq!(a.lost().await, Some(first), "its session is ended");
        let pod = server.objects("v1", "Pod", Some("default")).get("web").await.unwrap();
        assert_eq!((&pod.data["status"]["message"], held(&pod)), (&json!("of the new owner"), version(3, 8)));
        // Of one session: one of two writes waits and comes last, and whichever it is, the newer one stays.
        let (client, arrived, go) = gated(server.api.client());
        let c = Cloud::start("cloudcore-c", client, &server.env);
        let third = c.claim().await;
        let both = c.say(third, vec![of_pod(11, &uid, "eleven"), of_pod(12, &uid, "twelve")]);
        let pods = server.objects("v1", "Pod", Some("default"));
        let other = async {
            arrived.notified().await;
            let until = server.env.now() + LONG;
            while pods.get("web").await.unwrap().data["status"]["message"] == "of the new owner" {
                assert!(server.env.now() < until, "the other one is never written");
                server.env.sleep(Duration::from_millis(10)).await;
            }
            go.notify_one();
        };
        let (mut confirmed, ()) = futures::join!(both, other);
        confirmed.sort_unstable();
        assert_eq!(confirmed, [11, 12]);
        assert_eq!(pods.get("web").await.unwrap().data["status"]["message"], "twelve");
    });
}

#[test]
fn whoever_writes_and_whenever_the_report_version_of_an_object_only_grows() {
    run(async || {
        let server = Server::start().await;
        let clouds =
            ["cloudcore-a", "cloudcore-b"].map(|name| Cloud::start(name, server.api.client(), &server.env));
        let sessions = [Cell::new(clouds[0].claim().await), Cell::new(clouds[1].claim().await)];
        clouds[1].say(sessions[1].get(), vec![of_node(1, "v1")]).await;
        let nodes = server.objects("v1", "Node", None);
        let begin = server.node().await.metadata.resource_version.unwrap();
        let events = nodes.watch(&WatchParams::default(), &begin).await.unwrap();
        let all = futures::stream::iter(2..80).for_each_concurrent(7, async |row| {
            let which = usize::try_from(row).unwrap() % 2;
            if row % 5 == 0 {
                sessions[which].set(clouds[which].claim().await);
            }
            let text = format!("v{row}");
            clouds[which].say(sessions[which].get(), vec![of_node(row, &text)]).await;
        });
        all.await;
        // What does not fit into a node's queue is turned away, and a node says it again: the last session has the last word.
        let last = usize::from(sessions[1].get() > sessions[0].get());
        clouds[last].say(sessions[last].get(), vec![of_node(80, "v80")]).await;
        let end = server.node().await;
        let mut seen = Vec::new();
        let mut events = std::pin::pin!(events);
        while let Some(event) = server.env.timeout(LONG, events.next()).await.expect("the end is not told") {
            let WatchEvent::Modified(object) = event.unwrap() else { continue };
            seen.push(held(&object).unwrap());
            if object.metadata.resource_version == end.metadata.resource_version {
                break;
            }
        }
        assert!(seen.is_sorted(), "{seen:?}");
        assert!(seen.len() > 10, "{seen:?}");
        let highest = sessions.iter().map(Cell::get).max().unwrap();
        assert_eq!(seen.last().unwrap().session, highest);
    });
}

#[test]
fn of_each_property_the_newest_stays_whoever_writes_last() {
    run(async || {
        let server = Server::start().await;
        let device = json!({
            "metadata": { "name": "pump", "namespace": "default" },
            "spec": { "nodeName": NODE, "deviceModelRef": { "name": "pumps" } },
        });
        server.create("devices.kubeedge.io/v1beta1", "Device", Some("default"), device).await;
        let (mut a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        let value = async |property: &str| {
            let twins = server.device_status().await.data["status"]["twins"].clone();
            let all = twins.as_array().cloned().unwrap_or_default();
            let twin = all.into_iter().find(|twin| twin["propertyName"] == property).unwrap_or_default();
            twin["reported"]["value"].as_str().map(str::to_owned)
        };
        let first = a.claim().await;
        assert_eq!(a.say(first, vec![of_node(1, "v1")]).await, [1]);
        assert_eq!(a.say_of_a_device(NODE, first, vec![of_pump(9, "speed", "nine")]).await, [9]);
        let older = vec![of_pump(8, "speed", "eight"), of_pump(7, "heat", "seven")];
        let mut confirmed = a.say_of_a_device(NODE, first, older).await;
        confirmed.sort_unstable();
        assert_eq!(confirmed, [7, 8]);
        assert_eq!((value("speed").await, value("heat").await), (Some("nine".into()), Some("seven".into())));
        let second = b.claim().await;
        assert_eq!(
            b.say_of_a_device(NODE, second, vec![of_pump(1, "heat", "one of a new store")]).await,
            [1]
        );
        assert!(a.say_of_a_device(NODE, first, vec![of_pump(10, "speed", "ten")]).await.is_empty());
        assert_eq!(a.lost().await, Some(first));
        assert_eq!(
            (value("speed").await, value("heat").await),
            (Some("nine".into()), Some("one of a new store".into()))
        );
        // The device moves to a node that has had fewer sessions.
        let devices = server.objects("devices.kubeedge.io/v1beta1", "Device", Some("default"));
        let moved = json!({ "spec": { "nodeName": OTHER } });
        devices.patch("pump", &PatchParams::default(), &Patch::Merge(moved)).await.unwrap();
        let other = NodeName::parse(OTHER).unwrap();
        let session = a.claim_of(other.clone()).await;
        assert_eq!(a.say_of(other, session, vec![of_node(1, "v1")]).await, [1]);
        assert_eq!(a.say_of_a_device(OTHER, session, vec![of_pump(1, "speed", "of edge-2")]).await, [1]);
        assert_eq!(value("speed").await, Some("of edge-2".into()));
        assert_eq!(
            b.say_of_a_device(NODE, second, vec![of_pump(2, "speed", "of edge-1")]).await,
            [2],
            "dropped"
        );
        assert_eq!(value("speed").await, Some("of edge-2".into()));
    });
}
