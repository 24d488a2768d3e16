//! Three CloudCores, nodes that join with keadm and link over either transport, and an administrator who evicts them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beehive::Env;
use beehive::link::tls::Credentials;
use cloud::{CloudCore, Transport};
use config::edge::EdgeCore as Settings;
use contract::NodeName;
use contract::metamanager::MetaMsg;
use contract::wire::META_MAILBOX;
use edge_hub::Endpoints;
use harness::{Cluster, LONG, Node, Recorded, run};
use keadm::Join;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// What the review saw taking more than 35 s.
const SOON: Duration = Duration::from_secs(20);
const IMAGE: &str = "web:1";

async fn cloud(cluster: &Cluster) -> CloudCore {
    let mut settings = config::cloud::CloudCore::default();
    let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
    (endpoint.bind_address, endpoint.first_port) = ("127.0.0.1".to_owned(), 0);
    settings.common_config.monitor_server.bind_address = "127.0.0.1:0".to_owned();
    settings.modules.edge_controller.node_update_frequency = 2;
    let hub = &mut settings.modules.cloud_hub;
    for listener in [&mut hub.quic, &mut hub.https] {
        (listener.address, listener.port) = ("127.0.0.1".to_owned(), 0);
    }
    (hub.websocket.address, hub.websocket.port) = ("127.0.0.1".to_owned(), 0);
    CloudCore::start(&settings, cluster.account(), Transport::Quic, Env::real()).await.unwrap()
}

async fn hub(cloud: &CloudCore) -> Value {
    let report = cloud.inspector().report(LONG).await;
    report.actors.into_iter().find(|actor| actor.name == "cloud-hub").map(|actor| actor.snapshot).unwrap()
}

async fn refusals(cloud: &CloudCore) -> u64 {
    cloud.inspector().report(LONG).await.counter("cloudhub_nodes_refused")
}

/// Joins as an edge machine does; answers what it holds then, or the sentence that keadm ends with.
async fn join(cloud: &CloudCore, folder: PathBuf, node: &str, token: String) -> Result<Credentials, String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let order = Join {
        cloud: keadm::CloudPorts::new("127.0.0.1:10000", cloud.enrolment_address().port()),
        token,
        node: node.to_owned(),
        config: folder.join("edgecore.yaml").into(),
        key_uri: None,
        set: vec![
            format!("modules.edgeHub.tlsCaFile={}", path("rootCA.crt")),
            format!("modules.edgeHub.tlsCertFile={}", path("server.crt")),
            format!("modules.edgeHub.tlsPrivateKeyFile={}", path("server.key")),
        ],
    };
    keadm::join(&order, &mut |_| {}).await.map_err(|error| format!("{error:#}"))?;
    let hub = Settings::load(&order.config.file).unwrap().modules.edge_hub;
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    Ok(Credentials {
        certificate: read(&hub.tls_cert_file),
        key: read(&hub.tls_private_key_file).into(),
        authority: read(&hub.tls_ca_file),
    })
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

async fn say(verb: impl AsyncFnOnce(&mut dyn FnMut(String)) -> anyhow::Result<()>) -> String {
    let mut lines = Vec::new();
    verb(&mut |line| lines.push(line)).await.unwrap();
    lines.join("\n")
}

/// Everything that comes down to a node.
fn received(node: &Node) -> Recorded<()> {
    node.probe(META_MAILBOX, |message: &MetaMsg| matches!(message, MetaMsg::Down(_)).then_some(()))
}

async fn pod(cluster: &Cluster, pod: &str, node: &str) {
    let spec = json!({ "nodeName": node, "containers": [{ "name": "web", "image": IMAGE }] });
    let metadata = json!({ "name": format!("{pod}-{node}"), "namespace": "default" });
    cluster.apply("v1", "Pod", json!({ "metadata": metadata, "spec": spec })).await;
}

async fn has_session(cloud: &CloudCore, node: &str) -> bool {
    hub(cloud).await["nodes"].get(node).is_some()
}

#[test]
fn a_revoked_node_receives_nothing_more_and_its_name_does_not_come_back_until_it_is_freed() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        cluster.stop_cloud().await;
        let (a, b, c) = (cloud(&cluster).await, cloud(&cluster).await, cloud(&cluster).await);
        let folder = tempfile::tempdir().unwrap();
        // Where UDP goes that gets no answer.
        let nobody_reads = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let wall = nobody_reads.local_addr().unwrap().to_string();
        let clock = cluster.env().clock();
        let quic = |cloud: &CloudCore, held: &Credentials| {
            Endpoints::from_lists(&cloud.link_address().unwrap().to_string(), "", held, &clock).unwrap()
        };
        let env = Env::real();
        // One more than join: it is good still.
        let token = keadm::get_token(cluster.client(), None, 4, keadm::TOKEN_LIFE, &env).await.unwrap();
        let joined =
            async |node: &str| join(&a, folder.path().join(node), node, token.clone()).await.unwrap();
        let (one, two, three) = (joined("edge-1").await, joined("edge-2").await, joined("edge-3").await);
        let over_websocket =
            Endpoints::from_lists(&wall, &b.websocket_address().unwrap().to_string(), &two, &clock).unwrap();
        let (first, third) = (quic(&a, &one), quic(&c, &three));
        let mut first = cluster.node_by("edge-1", first).await;
        let second = cluster.node_by("edge-2", over_websocket).await;
        let third = cluster.node_by("edge-3", third).await;
        for node in [&first, &second, &third] {
            node.runtime().add_image(IMAGE);
            cluster.until_ready(node).await;
        }
        let told = (received(&first), received(&second));
        for node in ["edge-1", "edge-2", "edge-3"] {
            pod(&cluster, "before", node).await;
        }
        for node in [&first, &second, &third] {
            cluster.until("its pod runs", || node.runtime().running().len() == 1).await;
        }

        // By the verb, and by kubectl alone.
        let begun = Instant::now();
        let words =
            say(async |say| keadm::revoke(cluster.client(), &name("edge-1"), Env::real().wall(), say).await)
                .await;
        assert!(words.contains("keadm free edge-1") && words.contains("keadm token revoke"), "{words}");
        let edge_nodes = cluster.objects("kubehive.io/v1alpha1", "EdgeNode", None);
        let label = json!({"metadata": {"labels": {"kubehive.io/revoked": "true"}}});
        edge_nodes.patch("edge-2", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
        cluster
            .until_async("both links are ended", async || {
                !has_session(&a, "edge-1").await && !has_session(&b, "edge-2").await
            })
            .await;
        let took = begun.elapsed();
        println!("both links were ended {took:?} after the first word");
        assert!(took < SOON, "{took:?}");
        assert!(has_session(&c, "edge-3").await);
        // Nobody waits until their Leases are over.
        let nodes = cluster.objects("v1", "Node", None);
        let ready = async |node: &str| {
            let node = nodes.get(node).await.unwrap();
            let conditions = node.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap();
            (ready["status"].as_str().unwrap().to_owned(), ready["reason"].as_str().unwrap().to_owned())
        };
        let revoked = ("Unknown".to_owned(), "NodeRevoked".to_owned());
        cluster
            .until_async("both are said to be shut out", async || {
                ready("edge-1").await == revoked && ready("edge-2").await == revoked
            })
            .await;
        println!("both were said to be shut out {:?} after the first word", begun.elapsed());
        assert_eq!(ready("edge-3").await.0, "True");

        let (of_first, of_second) = (told.0.len(), told.1.len());
        for node in ["edge-1", "edge-2", "edge-3"] {
            pod(&cluster, "after", node).await;
        }
        cluster.until("the other node gets its pod", || third.runtime().running().len() == 2).await;
        cluster
            .until_async("they come again and are refused", async || {
                refusals(&a).await > 0 && refusals(&b).await > 0
            })
            .await;
        assert_eq!(
            (told.0.len(), told.1.len()),
            (of_first, of_second),
            "something came down after the eviction"
        );
        assert_eq!((first.runtime().running().len(), second.runtime().running().len()), (1, 1));

        // The name does not come back: not the Node, not with a token.
        nodes.delete("edge-1", &DeleteParams::default()).await.unwrap();
        first.stop().await;
        let before = refusals(&a).await;
        first.start().await;
        cluster.until_async("it is refused", async || refusals(&a).await > before).await;
        let bound = keadm::get_token(cluster.client(), Some(&name("edge-1")), 1, keadm::TOKEN_LIFE, &env)
            .await
            .unwrap();
        let barred = join(&b, folder.path().join("again"), "edge-1", bound.clone()).await;
        let error = barred.err().unwrap();
        assert!(error.contains("was revoked") && error.contains("keadm free edge-1"), "{error}");
        assert!(nodes.get_opt("edge-1").await.unwrap().is_none());
        first.stop().await;

        // Freed, the same token joins it again; what it had before is worth nothing.
        let words = say(async |say| keadm::free(cluster.client(), &name("edge-1"), say).await).await;
        assert!(words.contains("gettoken --edgenode-name=edge-1") && !words.contains("adopt"), "{words}");
        let again = join(&b, folder.path().join("again"), "edge-1", bound).await.unwrap();
        let before = refusals(&a).await;
        let old = quic(&a, &one);
        let mut stale = cluster.node_by("edge-1", old).await;
        cluster.until_async("the old certificate is refused", async || refusals(&a).await > before).await;
        stale.stop().await;
        let again = quic(&a, &again);
        let again = cluster.node_by("edge-1", again).await;
        cluster.until_ready(&again).await;
        for cloud in [a, b, c] {
            cloud.stop(LONG).await;
        }
    });
}

#[test]
fn a_node_that_was_deleted_or_made_by_hand_is_adopted() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let nodes = cluster.objects("v1", "Node", None);
        let admin = cluster.client();
        let adopt = async |text: &str| {
            let mut lines = Vec::new();
            let done = keadm::adopt(admin.clone(), &name(text), &mut |line| lines.push(line)).await;
            done.map(|()| lines.join("\n")).map_err(|error| format!("{error:#}"))
        };
        // Deleted: gone until somebody says so.
        nodes.delete("edge-1", &DeleteParams::default()).await.unwrap();
        let gone = async || hub_of(&cluster).await["nodes"].get("edge-1").is_none();
        cluster.until_async("its session ends", gone).await;
        let words = adopt("edge-1").await.unwrap();
        assert!(words.contains("makes a new one") && words.contains("has joined"), "{words}");
        // It would come by itself within a minute.
        node.stop().await;
        node.start().await;
        cluster
            .until_async("its Node is made anew", async || nodes.get_opt("edge-1").await.unwrap().is_some())
            .await;
        // Made by hand, as KubeEdge's nodes are there already.
        cluster.apply("v1", "Node", json!({"metadata": {"name": "old-1"}})).await;
        let words = adopt("old-1").await.unwrap();
        assert!(words.contains("gettoken --edgenode-name=old-1"), "{words}");
        let adopted = nodes.get("old-1").await.unwrap();
        let annotations = adopted.metadata.annotations.unwrap();
        assert_eq!(annotations.get("kubehive.io/adopted"), adopted.metadata.uid.as_ref());
        assert!(adopted.metadata.labels.unwrap().contains_key("node-role.kubernetes.io/edge"));
        let mut old = cluster.node("old-1").await;
        cluster.until_ready(&old).await;
        old.stop().await;
        // Neither one of the control plane, nor nobody, nor one that was revoked.
        let labels = json!({"node-role.kubernetes.io/control-plane": ""});
        cluster.apply("v1", "Node", json!({"metadata": {"name": "cp-1", "labels": labels}})).await;
        assert!(adopt("cp-1").await.unwrap_err().contains("control plane"));
        assert!(adopt("nobody").await.unwrap_err().contains("neither a Node"));
        let mistyped = keadm::revoke(cluster.client(), &name("odl-1"), Env::real().wall(), &mut |_| {})
            .await
            .unwrap_err();
        assert!(mistyped.to_string().contains("no edge node has the name `odl-1`"), "{mistyped}");
        let names = cluster.objects("kubehive.io/v1alpha1", "EdgeNode", None);
        assert!(names.get_opt("odl-1").await.unwrap().is_none(), "it bars nothing");
        let words =
            say(async |say| keadm::bar(cluster.client(), &name("odl-1"), Env::real().wall(), say).await)
                .await;
        assert!(words.contains("it is barred until `keadm free odl-1`"), "{words}");
        keadm::revoke(cluster.client(), &name("old-1"), Env::real().wall(), &mut |_| {}).await.unwrap();
        assert!(adopt("old-1").await.unwrap_err().contains("keadm free old-1"));
    });
}

async fn hold(cluster: &Cluster, kind: &str, object: &str, held: bool) {
    let version = if kind == "Node" { "v1" } else { "kubehive.io/v1alpha1" };
    let finalizers = if held { json!(["example.com/hold"]) } else { json!([]) };
    let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    let objects = cluster.objects(version, kind, None);
    objects.patch(object, &PatchParams::default(), &patch).await.unwrap();
}

/// What is deleted and held by a finalizer counts as gone, and the verbs say what is still there.
#[test]
fn what_finalizers_hold_is_gone_and_the_verbs_say_that_it_is_held() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let (admin, edge) = (cluster.client(), name("edge-1"));
        // Its Node.
        hold(&cluster, "Node", "edge-1", true).await;
        let nodes = cluster.objects("v1", "Node", None);
        nodes.delete("edge-1", &DeleteParams::default()).await.unwrap();
        let gone = async || hub_of(&cluster).await["nodes"].get("edge-1").is_none();
        cluster.until_async("its session ends", gone).await;
        assert!(nodes.get("edge-1").await.unwrap().metadata.deletion_timestamp.is_some());
        let error = keadm::adopt(admin.clone(), &edge, &mut |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("is being deleted"), "{error:#}");
        hold(&cluster, "Node", "edge-1", false).await;
        // Its name.
        hold(&cluster, "EdgeNode", "edge-1", true).await;
        let mut said = Vec::new();
        let error = keadm::free(admin.clone(), &edge, &mut |line| said.push(line)).await.unwrap_err();
        let cure = "kubectl edit edgenode edge-1";
        assert!(error.to_string().contains("not free yet") && error.to_string().contains(cure), "{error:#}");
        assert!(said.iter().all(|line| !line.contains("is free")), "{said:?}");
        for verb in [
            keadm::revoke(admin.clone(), &edge, Env::real().wall(), &mut |_| {}).await,
            keadm::adopt(admin.clone(), &edge, &mut |_| {}).await,
        ] {
            assert!(verb.unwrap_err().to_string().contains(cure));
        }
        hold(&cluster, "EdgeNode", "edge-1", false).await;
        let error = keadm::free(admin.clone(), &edge, &mut |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("no edge node"), "{error:#}");
        // A token.
        let text = keadm::get_token(admin.clone(), Some(&name("held")), 1, keadm::TOKEN_LIFE, &Env::real())
            .await
            .unwrap();
        assert!(!text.is_empty());
        let listed = async || say(async |say| keadm::list_tokens(cluster.client(), say).await).await;
        let table = listed().await;
        let id = table.lines().find(|line| line.contains("held")).unwrap().split_whitespace().next().unwrap();
        hold(&cluster, "JoinToken", id, true).await;
        let words = say(async |say| keadm::withdraw_token(cluster.client(), id, say).await).await;
        assert!(words.contains("still there") && words.contains(&format!("edit jointoken {id}")), "{words}");
        assert!(listed().await.contains("finalizers hold its object"));
    });
}

/// What is said of a node that is revoked is so: a bound token is used up by it, and one that never linked has no Node.
#[test]
fn a_revoked_node_that_never_linked_has_neither_a_node_nor_a_good_token() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        cluster.stop_cloud().await;
        let cloud = cloud(&cluster).await;
        let folder = tempfile::tempdir().unwrap();
        for (node, bound, is_good) in [("edge-1", true, false), ("edge-2", false, true)] {
            let of = name(node);
            let of = bound.then_some(&of);
            let token =
                keadm::get_token(cluster.client(), of, 3, keadm::TOKEN_LIFE, &Env::real()).await.unwrap();
            join(&cloud, folder.path().join(node), node, token).await.unwrap();
            let words =
                say(async |say| keadm::revoke(cluster.client(), &name(node), Env::real().wall(), say).await)
                    .await;
            assert!(words.contains(&format!("`{node}` is revoked")), "{words}");
            assert_eq!(words.contains("is still good"), is_good, "{words}");
            assert!(!words.contains("its Node and pods"), "{words}");
        }
        cloud.stop(LONG).await;
    });
}

/// Whoever may write the register writes something that nobody understands.
#[test]
fn an_odd_token_is_shown_as_such_and_withdrawn_and_stops_no_other() {
    run(async || {
        let cluster = Cluster::spawn().await;
        let kind = "CustomResourceDefinition";
        let definitions = cluster.objects("apiextensions.k8s.io/v1", kind, None);
        let mut loose = definitions.get("jointokens.kubehive.io").await.unwrap();
        loose.data["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        definitions.replace("jointokens.kubehive.io", &PostParams::default(), &loose).await.unwrap();
        let odd = json!({
            "apiVersion": "kubehive.io/v1alpha1", "kind": "JoinToken", "metadata": { "name": "odd" },
            "spec": { "expires": "2100-01-01T00:00:00Z", "uses": 50, "used": 5_000_000_000_u64 },
        });
        let odd = serde_json::from_value(odd).unwrap();
        let tokens = cluster.objects("kubehive.io/v1alpha1", "JoinToken", None);
        let plant = async || tokens.create(&PostParams::default(), &odd).await.is_ok();
        cluster.until_async("the odd token is there", plant).await;
        keadm::get_token(cluster.client(), None, 7, keadm::TOKEN_LIFE, &Env::real()).await.unwrap();
        let table = say(async |say| keadm::list_tokens(cluster.client(), say).await).await;
        assert!(table.contains("0/7"), "{table}");
        let line = table.lines().find(|line| line.starts_with("odd ")).unwrap();
        assert!(line.contains("not understood"), "{table}");
        let words = say(async |say| keadm::withdraw_token(cluster.client(), "odd", say).await).await;
        assert!(words.contains("is withdrawn"), "{words}");
        assert!(tokens.get_opt("odd").await.unwrap().is_none());
    });
}

async fn hub_of(cluster: &Cluster) -> Value {
    let state = cluster.state().await;
    state.actors.into_iter().find(|actor| actor.name == "cloud-hub").map(|actor| actor.snapshot).unwrap()
}

#[test]
fn tokens_are_listed_and_withdrawn_one_by_one() {
    run(async || {
        let cluster = Cluster::spawn().await;
        let env = Env::real();
        let listed = async || say(async |say| keadm::list_tokens(cluster.client(), say).await).await;
        assert!(listed().await.contains("no token is good"));
        keadm::get_token(cluster.client(), None, 7, keadm::TOKEN_LIFE, &env).await.unwrap();
        keadm::get_token(cluster.client(), Some(&name("edge-1")), 7, keadm::TOKEN_LIFE, &env).await.unwrap();
        let table = listed().await;
        assert!(table.contains("0/7") && table.contains("0/1") && table.contains("edge-1"), "{table}");
        let bound = table.lines().find(|line| line.contains("edge-1")).unwrap();
        let id = bound.split_whitespace().next().unwrap();
        say(async |say| keadm::withdraw_token(cluster.client(), id, say).await).await;
        assert!(!listed().await.contains("edge-1"));
        for wrong in [id, "../nodes/x", "", "a?x="] {
            let error = keadm::withdraw_token(cluster.client(), wrong, &mut |_| {}).await.unwrap_err();
            assert!(error.to_string().contains("keadm token list"), "{error:#}");
        }
    });
}
