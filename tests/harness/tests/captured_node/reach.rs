//! What it reaches: its own pods, its own devices and its own Node, and nothing else.

use std::time::{Duration, Instant};

use contract::UpReport;
use harness::{LONG, run};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{
    CONTROL, DEVICES, Fixture, HostileEdge, MINE, SERIAL, THEIRS, about, event, node_report, pod_gone,
    pod_status, query, refused, twin,
};

#[test]
fn a_captured_node_reaches_its_own_pods_devices_and_node_and_nothing_else() {
    run(async || {
        let fixture = Fixture::set().await;
        let hostile = HostileEdge::open(&fixture.cluster, MINE, SERIAL).await.unwrap();
        // Before its Node is there, nothing else that it says counts.
        assert!(hostile.say(vec![pod_status(fixture.id("mine"))]).await.is_empty());
        assert!(hostile.token(query(fixture.id("mine"), "default", &[])).await.is_err());
        let before = fixture.others().await;

        its_node(&fixture, &hostile).await;
        let tried = others_pods(&fixture, &hostile).await;
        others_devices(&hostile).await;
        tokens(&fixture, &hostile).await;
        println!("{tried} reports about others, every one confirmed and none written");

        let after = fixture.others().await;
        for (key, value) in &before {
            assert_eq!(Some(value), after.get(key), "{key}");
        }
        let more: Vec<&String> = after.keys().filter(|key| !before.contains_key(*key)).collect();
        assert!(more.is_empty(), "{more:?}");

        // What is its own it still may say.
        assert_eq!(hostile.say(vec![pod_status(fixture.id("mine"))]).await.len(), 1);
        let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
        assert_eq!(pods.get("mine").await.unwrap().data["status"]["message"], "of the attacker");
        assert_eq!(hostile.say_of_devices(vec![twin("default", "pump", "speed")]).await.len(), 1);
        let statuses = fixture.cluster.objects(DEVICES, "DeviceStatus", Some("default"));
        let twins = statuses.get("pump").await.unwrap().data["status"]["twins"].clone();
        assert_eq!(twins[0]["reported"]["value"], "of the attacker");
    });
}

/// Its Node is made with nothing on it that a kubelet may not set.
async fn its_node(fixture: &Fixture, hostile: &HostileEdge) {
    let labels = json!({
        "node-role.kubernetes.io/control-plane": "", "node-restriction.kubernetes.io/vault": "yes",
        "kubehive.io/anything": "1", "kubernetes.io/hostname": CONTROL, "site": "quay-7",
    });
    assert_eq!(hostile.say(vec![node_report(labels)]).await.len(), 1);
    let node = fixture.node(MINE).await.unwrap();
    let labels = node.metadata.labels.clone().unwrap();
    let keys: Vec<&str> = labels.keys().map(String::as_str).collect();
    let expected = [
        "kubehive.io/own",
        "kubernetes.io/hostname",
        "node-role.kubernetes.io/agent",
        "node-role.kubernetes.io/edge",
        "site",
    ];
    assert_eq!((keys.as_slice(), labels["kubernetes.io/hostname"].as_str()), (expected.as_slice(), MINE));
    let annotations = node.metadata.annotations.unwrap();
    assert_eq!(annotations["kubehive.io/enrolment"], SERIAL);
    assert!(!annotations.contains_key("kubehive.io/adopted") && !annotations.contains_key("a"));
    assert_eq!(node.metadata.owner_references.unwrap_or_default(), []);
    assert_eq!(
        (&node.data["spec"]["podCIDR"], &node.data["spec"]["providerID"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(node.data["status"]["volumesAttached"], Value::Null);
    let conditions = node.data["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["message"] != "forged"), "{conditions:?}");
}

/// Everything that can be said of others' pods, under their names and uids, and under names that would be paths.
async fn others_pods(fixture: &Fixture, hostile: &HostileEdge) -> usize {
    let mut reports = Vec::new();
    for name in ["theirs", "vault"] {
        let id = fixture.id(name);
        // Its own uid under another's name, and the other way about.
        let mixed = [["default", name, &*fixture.uids["mine"]], ["default", "mine", id[2]]];
        reports.extend([pod_status(id), pod_gone(id), event("e1", about(id))]);
        reports.extend(mixed.into_iter().flat_map(|id| [pod_gone(id), event("e2", about(id))]));
        reports.push(pod_status(mixed[0]));
    }
    reports.extend([
        event("e3", json!({ "kind": "Node", "name": CONTROL, "uid": "u" })),
        event("e4", json!({ "kind": "Node", "name": THEIRS })),
        event("e5", json!({ "kind": "Secret", "namespace": "default", "name": "vault" })),
        event("e6", json!({})),
    ]);
    let theirs = fixture.uids["theirs"].as_str();
    for odd in ["theirs/status?x=", "../default/pods/theirs", "theirs%2fstatus", "theirs#", "", "Theirs"] {
        reports.extend([pod_status(["default", odd, theirs]), pod_gone(["default", odd, theirs])]);
        reports.extend([pod_status([odd, "theirs", theirs]), event(odd, about(fixture.id("mine")))]);
        reports.push(event("e7", about(["default", odd, theirs])));
    }
    // Where devices belong.
    reports.push(twin("default", "valve", "speed"));
    let count = reports.len();
    assert_eq!(hostile.say(reports).await.len(), count, "what can never be is forgotten by the node");
    // A pod of its own stays until somebody asked for it to go.
    assert_eq!(hostile.say(vec![pod_gone(fixture.id("mine"))]).await.len(), 1);
    let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
    assert!(pods.get("mine").await.unwrap().metadata.deletion_timestamp.is_none());
    count
}

async fn others_devices(hostile: &HostileEdge) {
    let state = |namespace: &str, name: &str| UpReport::DeviceState {
        namespace: namespace.into(),
        name: name.into(),
        state: "offline".into(),
        last_online_time: None,
    };
    let mut reports = vec![twin("default", "valve", "speed"), state("default", "valve")];
    for odd in ["valve?x=", "valve/status", "../devicestatuses/valve", "default/valve", "valv%65", ""] {
        reports.extend([twin("default", odd, "speed"), twin(odd, "valve", "speed"), state("default", odd)]);
    }
    reports.extend([twin("default", "pump", "a b"), twin("default", "pump", ""), node_report(json!({}))]);
    let count = reports.len();
    assert_eq!(hostile.say_of_devices(reports).await.len(), count);
}

async fn tokens(fixture: &Fixture, hostile: &HostileEdge) {
    let mine = fixture.id("mine");
    let granted = hostile.token(query(mine, "default", &[])).await.unwrap();
    assert!(granted.lifetime_seconds <= 3700, "as the volume says: {}", granted.lifetime_seconds);
    assert!(hostile.token(query(mine, "default", &["vault"])).await.is_ok());
    let theirs_by_mine = ["default", "theirs", mine[2]];
    let tried = [
        query(fixture.id("theirs"), "admin", &[]),
        query(fixture.id("vault"), "admin", &[]),
        query(theirs_by_mine, "admin", &[]),
        query(["default", "mine", fixture.id("theirs")[2]], "default", &[]),
        query(["kube-system", "mine", mine[2]], "default", &[]),
        query(mine, "admin", &[]),
        query(mine, "default", &["https://kubernetes.default.svc"]),
        query(mine, "default", &["vault", "sts"]),
        query(mine, "admin/token?x=", &[]),
        query(["default/serviceaccounts/admin/token?x=", "mine", mine[2]], "default", &[]),
        query(["default", "mine?x=", mine[2]], "default", &[]),
    ];
    for query in tried {
        let shown = format!("{query:?}");
        let reason = hostile.token(query).await.expect_err(&shown);
        assert!(!reason.contains("Status") && !reason.contains("Api(") && !reason.contains('{'), "{reason}");
    }
}

#[test]
fn nobody_speaks_for_a_node_that_is_not_his_even_with_a_certificate_of_its_name() {
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let unknown = refused(HostileEdge::open(cluster, CONTROL, SERIAL).await);
        assert!(unknown.reason.contains("register"), "{}", unknown.reason);
        assert_eq!(unknown.wait, Some(Duration::from_secs(60)));
        // As if the enrolment had been talked into it.
        let entry = json!({
            "metadata": { "name": CONTROL, "annotations": { "kubehive.io/certificate": SERIAL } },
            "spec": { "serial": SERIAL },
        });
        cluster.apply("kubehive.io/v1alpha1", "EdgeNode", entry).await;
        let before = fixture.others().await;
        let foreign = refused(HostileEdge::open(cluster, CONTROL, SERIAL).await);
        assert!(foreign.reason.contains("was not made by this edge node"), "{}", foreign.reason);
        assert_eq!(fixture.others().await, before, "not even a Lease");
        // Nor with an older certificate of its own name.
        let old = refused(HostileEdge::open(cluster, MINE, "09").await);
        assert!(old.reason.contains("given back or replaced"), "{}", old.reason);
        // Until an administrator says so, of this very Node.
        let uid = fixture.node(CONTROL).await.unwrap().metadata.uid.unwrap();
        let word = json!({ "metadata": { "annotations": { "kubehive.io/adopted": uid } } });
        let nodes = cluster.objects("v1", "Node", None);
        nodes.patch(CONTROL, &PatchParams::default(), &Patch::Merge(word)).await.unwrap();
        assert!(HostileEdge::open(cluster, CONTROL, SERIAL).await.is_ok());
    });
}

#[test]
fn a_node_that_was_deleted_or_replaced_is_gone_and_does_not_come_back_by_itself() {
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let nodes = cluster.objects("v1", "Node", None);
        let hostile = HostileEdge::open(cluster, MINE, SERIAL).await.unwrap();
        assert_eq!(hostile.say(vec![node_report(json!({}))]).await.len(), 1);
        let made = fixture.node(MINE).await.unwrap();
        let ended = hostile.link.ended();
        nodes.delete(MINE, &DeleteParams::default()).await.unwrap();
        let began = Instant::now();
        cluster.env().timeout(LONG, ended).await.expect("the link is ended");
        println!("the link of a deleted Node ended after {} ms", began.elapsed().as_millis());
        let reason = refused(HostileEdge::open(cluster, MINE, SERIAL).await).reason;
        assert!(reason.contains("was deleted from the cluster"), "{reason}");
        assert!(fixture.node(MINE).await.is_none());

        // Another Node in its place, with all that stood on the first one, is another Node.
        let annotations = made.metadata.annotations.clone();
        let copied = json!({ "metadata": {
            "name": MINE, "labels": made.metadata.labels.clone(), "annotations": annotations } });
        let copied = cluster.apply("v1", "Node", copied).await;
        let reason = refused(HostileEdge::open(cluster, MINE, SERIAL).await).reason;
        assert!(reason.contains("was not made by this edge node"), "{reason}");
        let found = fixture.node(MINE).await.unwrap();
        // The cluster's own controllers write to a new Node, too.
        assert_eq!(found.metadata.annotations, copied.metadata.annotations, "nothing was written to it");
        assert!(!found.data["status"].to_string().contains("192.0.2.66"), "{}", found.data["status"]);
    });
}

/// The mirror of a static pod; `None`: there is to be none.
fn mirror(name: &str, hash: Option<&str>, change: impl Fn(&mut Value)) -> UpReport {
    let pod_json = hash.map(|hash| {
        let mut pod = json!({
            "metadata": { "labels": { "app": "own" }, "annotations": {
                "kubernetes.io/config.mirror": hash, "kubernetes.io/config.hash": hash } },
            "spec": { "nodeName": MINE, "containers": [{ "name": "c", "image": "i" }] },
        });
        change(&mut pod);
        pod.to_string()
    });
    UpReport::MirrorPod { namespace: "default".into(), name: name.into(), pod_json }
}

#[test]
fn a_node_has_mirrors_of_its_own_static_pods_and_of_nothing_else() {
    run(async || {
        let fixture = Fixture::set().await;
        let hostile = HostileEdge::open(&fixture.cluster, MINE, SERIAL).await.unwrap();
        its_node(&fixture, &hostile).await;
        let before = fixture.others().await;
        let tried = vec![
            mirror("theirs", None, |_| {}),
            mirror("vault", Some("0a"), |_| {}),
            mirror("mine", Some("0a"), |_| {}),
            mirror("x", Some("0a"), |pod| pod["spec"]["nodeName"] = json!(THEIRS)),
            mirror("x", Some("0a"), |pod| pod["spec"]["serviceAccountName"] = json!("admin")),
            mirror("x", Some("0a"), |pod| {
                pod["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "vault" } }]);
            }),
            mirror("x", Some(""), |_| {}),
            mirror("../x", Some("0a"), |_| {}),
        ];
        let count = tried.len();
        assert_eq!(hostile.say(tried).await.len(), count, "every one is confirmed");
        assert_eq!(fixture.others().await, before, "and none is written");

        let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
        let uid = async || pods.get_opt("own-edge-1").await.unwrap().and_then(|pod| pod.metadata.uid);
        assert_eq!(hostile.say(vec![mirror("own-edge-1", Some("0a"), |_| {})]).await.len(), 1);
        let made = pods.get("own-edge-1").await.unwrap();
        let owner = made.metadata.owner_references.clone().unwrap();
        let node = fixture.node(MINE).await.unwrap();
        assert_eq!((owner.len(), Some(&owner[0].uid)), (1, node.metadata.uid.as_ref()));
        assert_eq!(made.data["spec"].get("serviceAccountName"), None, "{:#}", made.data);
        let first = made.metadata.uid.clone();
        hostile.say(vec![mirror("own-edge-1", Some("0a"), |_| {})]).await;
        assert_eq!(uid().await, first, "it is there");
        // Its events name the static pod's own uid.
        let told = event("own.1", about(["default", "own-edge-1", "0a"]));
        hostile.say(vec![told]).await;
        let events = fixture.cluster.objects("v1", "Event", Some("default"));
        assert_eq!(events.get("own.1").await.unwrap().data["involvedObject"]["uid"], "0a");
        // Somebody deletes it, and another version comes.
        pods.delete("own-edge-1", &DeleteParams::default()).await.unwrap();
        hostile.say(vec![mirror("own-edge-1", Some("0a"), |_| {})]).await;
        let second = uid().await;
        assert!(second.is_some() && second != first);
        hostile.say(vec![mirror("own-edge-1", Some("0b"), |_| {})]).await;
        assert!(uid().await.is_some_and(|third| Some(third) != second));
        hostile.say(vec![mirror("own-edge-1", None, |_| {})]).await;
        assert_eq!(uid().await, None);
    });
}
