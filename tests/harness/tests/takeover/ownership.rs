//! Who has a node, and what that is worth.

use std::time::Duration;

use cloud_nodelease::lease::CLOUDCORE_ANNOTATION;
use contract::edgecontroller::EdgeControllerMsg;
use contract::ids::REPORTED_ANNOTATION;
use contract::synccontroller::SyncState;
use harness::{LONG, run};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{
    Cloud, NODE, Server, annotation, held, kubelet_version, node, of_node, renewed, version,
};

#[test]
fn one_cloudcore_has_the_node_and_every_session_has_a_number_of_its_own() {
    run(async || {
        let server = Server::start().await;
        let (a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        assert_eq!((a.claim().await, b.claim().await, a.claim().await), (1, 2, 3));
        let (mut last, mut sessions) = (3, Vec::new());
        for _ in 0..10 {
            let (one, other) = futures::join!(a.claim(), b.claim());
            assert!(one > last && other > last, "{one} and {other} after {last}");
            last = one.max(other);
            sessions.extend([one, other]);
            assert_eq!((a.holds(one).await, b.holds(other).await), (one > other, other > one));
            let lease = server.lease().await;
            let holder = if one > other { "cloudcore-a" } else { "cloudcore-b" };
            assert_eq!(annotation(&lease, CLOUDCORE_ANNOTATION).as_deref(), Some(holder));
            assert_eq!(lease.data["spec"]["leaseTransitions"], last);
            assert_eq!(lease.data["spec"]["holderIdentity"], NODE);
        }
        sessions.sort_unstable();
        sessions.dedup();
        assert_eq!(sessions.len(), 20);
    });
}

#[test]
fn a_link_is_no_sign_of_life_and_who_has_lost_the_node_does_not_renew() {
    run(async || {
        let server = Server::start().await;
        let (mut a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        let first = a.claim().await;
        let never = renewed(&server).await;
        assert!(never.as_str().unwrap().starts_with("1970-01-01T00:00:00"), "{never}");
        // A sign of life is one of a Node.
        a.say(first, vec![of_node(1, "v1")]).await;
        assert_eq!(renewed(&server).await, never);
        a.alive(first).await;
        let until = server.env.now() + LONG;
        while renewed(&server).await == never {
            assert!(server.env.now() < until, "never renewed");
            server.env.sleep(Duration::from_millis(10)).await;
        }
        let at = renewed(&server).await;
        let second = b.claim().await;
        assert_eq!(renewed(&server).await, at, "taking a node renews nothing");
        a.alive(first).await;
        assert_eq!(a.lost().await, Some(first));
        assert_eq!(renewed(&server).await, at);
        b.alive(second).await;
        while renewed(&server).await == at {
            assert!(server.env.now() < until, "never renewed by the new one");
            server.env.sleep(Duration::from_millis(10)).await;
        }
        assert!(b.holds(second).await);
    });
}

#[test]
fn a_lease_that_was_removed_stops_nothing() {
    run(async || {
        let server = Server::start().await;
        let a = Cloud::start("cloudcore-a", server.api.client(), &server.env);
        let leases = server.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
        let mut session = a.claim().await;
        session = session.max(a.claim().await);
        a.say(session, vec![of_node(5, "v5")]).await;
        leases.delete(NODE, &DeleteParams::default()).await.unwrap();
        // The next life of a CloudCore: the Node remembers the sessions.
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        assert_eq!(b.claim().await, session + 1);
        // Or nothing does, and the Lease that is there decides.
        let nodes = server.objects("v1", "Node", None);
        let far = format!("900.1/{}", server.node().await.metadata.uid.unwrap());
        let far = json!({ "metadata": { "annotations": { REPORTED_ANNOTATION: far } } });
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(far)).await.unwrap();
        assert_eq!(b.say(session + 1, vec![of_node(6, "v6")]).await, [6]);
        assert_eq!(kubelet_version(&server).await, "v6");
        assert_eq!(held(&server.node().await), version(session + 1, 6));
        // A renewal makes it again, in the same session.
        leases.delete(NODE, &DeleteParams::default()).await.unwrap();
        b.alive(session + 1).await;
        let until = server.env.now() + LONG;
        while leases.get_opt(NODE).await.unwrap().is_none() {
            assert!(server.env.now() < until, "never made again");
            server.env.sleep(Duration::from_millis(10)).await;
        }
        assert!(b.holds(session + 1).await);
    });
}

#[test]
fn only_who_has_the_node_says_whether_it_is_in_sync() {
    run(async || {
        let server = Server::start().await;
        let (a, b) = (
            Cloud::start("cloudcore-a", server.api.client(), &server.env),
            Cloud::start("cloudcore-b", server.api.client(), &server.env),
        );
        let reason = async || {
            let conditions = server.node().await.data["status"]["conditions"].clone();
            let all = conditions.as_array().cloned().unwrap_or_default();
            all.into_iter().find(|c| c["type"] == "kubehive.io/Synced").map(|c| c["reason"].clone())
        };
        let first = a.claim().await;
        a.say(first, vec![of_node(1, "v1")]).await;
        assert!(a.show(SyncState::InSync, true).await);
        assert_eq!(reason().await, Some(json!("InSync")));
        b.claim().await;
        assert!(a.show(SyncState::Waiting, true).await, "nothing is left to do here");
        assert!(a.show(SyncState::Waiting, false).await);
        assert_eq!(reason().await, Some(json!("InSync")));
        assert!(b.show(SyncState::Refused, true).await);
        assert_eq!(reason().await, Some(json!("EdgeRefused")));
        assert!(b.show(SyncState::Waiting, false).await, "it had the node last");
        assert_eq!(reason().await, Some(json!("Waiting")));
    });
}

/// The Node with its conditions as who watches nodes writes them when it hears nothing.
async fn unheard(server: &Server) {
    let said = |kind| json!({ "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown" });
    let patch = json!({ "status": { "conditions": [said("Ready"), said("MemoryPressure")] } });
    let nodes = server.objects("v1", "Node", None);
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
}

async fn ready(server: &Server) -> Value {
    let conditions = server.node().await.data["status"]["conditions"].clone();
    let of_kind =
        |kind| conditions.as_array().unwrap().iter().find(|one| one["type"] == kind).unwrap().clone();
    json!([of_kind("Ready")["status"], of_kind("Ready")["reason"], of_kind("MemoryPressure")["status"]])
}

#[test]
fn a_node_that_is_alive_and_unheard_of_is_ready_again_by_its_next_sign_of_life() {
    run(async || {
        let server = Server::start().await;
        let a = Cloud::start("cloudcore-a", server.api.client(), &server.env);
        let session = a.claim().await;
        a.edge.tell(EdgeControllerMsg::NodeUp { node: node(), session }).await.unwrap();
        assert_eq!(a.say(session, vec![of_node(1, "v1")]).await, [1]);
        unheard(&server).await;
        // The watch may still have to tell of it: the node says again and again that it is alive.
        let until = server.env.now() + LONG;
        while ready(&server).await != json!(["True", "EdgeReady", "False"]) {
            assert!(server.env.now() < until, "{}", ready(&server).await);
            a.alive(session).await;
            server.env.sleep(Duration::from_millis(50)).await;
        }
        // Whoever does not have the node says nothing again.
        let b = Cloud::start("cloudcore-b", server.api.client(), &server.env);
        let next = b.claim().await;
        unheard(&server).await;
        for _ in 0..20 {
            a.alive(session).await;
            server.env.sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ready(&server).await, json!(["Unknown", "NodeStatusUnknown", "Unknown"]));
        assert!(next > session);
    });
}
