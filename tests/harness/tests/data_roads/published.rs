//! eventbus to rest: what is published arrives, in order, whatever becomes of the target, the cloud and the node meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use beehive::link::memory::Direction;
use contract::router::{RouterMsg, RouterUp};
use contract::wire::ROUTER_MAILBOX;
use harness::{LinkTransport, run};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::fixture::{self, Mqtt, V1, broker, numbers, rule, status, until_status};
use crate::target::Target;

fn topic(topic: &str) -> (&'static str, serde_json::Value) {
    ("eventbus", json!({"topic": topic, "node_name": "edge-1"}))
}

fn to(target: &Target) -> (&'static str, serde_json::Value) {
    ("rest", json!({"resource": target.url("/in?from=edge")}))
}

#[test]
fn nothing_is_lost_and_nothing_overtakes_while_target_cloud_and_node_go_and_come() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Quic, false).await;
        let target = Target::start(cluster.env());
        rule(&cluster, "up", topic("readings"), to(&target)).await;
        let mut node = cluster.node("edge-1").await;
        let client = Mqtt::connect(broker(&cluster, &node, 1).await, "sensor");
        client.publish(&cluster, "default/readings", numbers(0..5)).await;
        cluster.until("the first arrive", || target.taken() == numbers(0..5)).await;
        let first = &target.arrived()[0];
        assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/in?from=edge"));
        let header = |name: &str| first.headers[name].to_str().unwrap().to_owned();
        assert_eq!(
            [header("kubehive-node"), header("kubehive-topic"), header("content-type")],
            ["edge-1", "default/readings", "application/json"]
        );

        // The target is away: the messages wait on the node, and the rule's status says so.
        target.answers(503);
        client.publish(&cluster, "default/readings", numbers(5..10)).await;
        until_status(&cluster, "up", "says that messages wait", |status| {
            let errors = status["errors"].as_array().cloned().unwrap_or_default();
            errors
                .iter()
                .any(|error| error.as_str().unwrap().contains("messages wait: the target answered 503"))
        })
        .await;
        // The cloud goes, and with it the link; then the node ends, and begins without one.
        cluster.stop_cloud().await;
        client.publish(&cluster, "default/readings", numbers(10..15)).await;
        drop(client);
        node.stop().await;
        node.start().await;
        let client = Mqtt::connect(broker(&cluster, &node, 1).await, "sensor");
        client.publish(&cluster, "default/readings", numbers(15..20)).await;
        assert_eq!(target.taken(), numbers(0..5));
        target.answers(200);
        cluster.start_cloud().await;
        cluster.until("all have arrived", || target.taken().len() >= 20).await;
        assert_eq!(target.taken(), numbers(0..20), "each once, in order");
        // Two that came in different runs of the node have names of their own, and so has each.
        let names = target.arrived().into_iter().map(|arrived| arrived.headers["idempotency-key"].clone());
        assert_eq!(names.collect::<BTreeSet<_>>().len(), 20);
        until_status(&cluster, "up", "counts each", |status| status["successMessages"] == 20).await;
        assert_eq!(status(&cluster, "up").await["failMessages"], 0);
        cluster
            .until("the outbox is empty", || node.core().store().outbox_head(9, 999).unwrap().is_empty())
            .await;
    });
}

#[test]
fn a_target_that_hangs_or_is_gone_holds_up_no_other_rule_and_what_it_refuses_is_told() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Memory, false).await;
        let (good, hanging) = (Target::start(cluster.env()), Target::start(cluster.env()));
        rule(&cluster, "good", topic("good"), to(&good)).await;
        rule(&cluster, "hangs", topic("hangs"), to(&hanging)).await;
        let gone = format!("http://127.0.0.1:{}/", fixture::free_port());
        rule(&cluster, "gone", topic("gone"), ("rest", json!({"resource": gone}))).await;
        let node = cluster.node("edge-1").await;
        let client = Mqtt::connect(broker(&cluster, &node, 3).await, "sensor");
        hanging.hangs(true);
        for topic in ["default/hangs", "default/gone"] {
            client.publish(&cluster, topic, numbers(0..100)).await;
        }
        client.publish(&cluster, "default/good", numbers(0..5)).await;
        cluster.until("the other rule's messages arrive", || good.taken() == numbers(0..5)).await;
        assert_eq!(hanging.arrived().len(), 1, "one at a time");
        until_status(&cluster, "gone", "names the target", |status| {
            let errors = status["errors"].as_array().cloned().unwrap_or_default();
            errors.iter().any(|error| error.as_str().unwrap().contains(&gone))
        })
        .await;
        assert_eq!(status(&cluster, "gone").await["failMessages"], 0);

        // What the target says of a message itself will be the same the next time.
        good.answers(422);
        client.publish(&cluster, "default/good", ["wrong".to_owned()]).await;
        until_status(&cluster, "good", "counts what was refused", |status| status["failMessages"] == 1).await;
        good.answers(200);
        client.publish(&cluster, "default/good", numbers(5..7)).await;
        cluster.until("those behind it arrive", || good.taken() == numbers(0..7)).await;
        // A rule that goes takes what waits for it along.
        let rules = cluster.objects(V1, "Rule", Some("default"));
        for name in ["gone", "hangs"] {
            rules.delete(name, &DeleteParams::default()).await.unwrap();
        }
        broker(&cluster, &node, 1).await;
        hanging.hangs(false);
        cluster
            .until("the outbox is empty", || node.core().store().outbox_head(9, 999).unwrap().is_empty())
            .await;
    });
}

#[test]
fn what_was_posted_and_not_confirmed_is_not_posted_again() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Memory, false).await;
        let target = Target::start(cluster.env());
        rule(&cluster, "up", topic("readings"), to(&target)).await;
        let node = cluster.node("edge-1").await;
        let client = Mqtt::connect(broker(&cluster, &node, 1).await, "sensor");
        let (lose, path) = (Arc::new(AtomicBool::new(true)), node.network_path().clone());
        let losing = Arc::clone(&lose);
        // The router is handed it, and what it answers does not come back.
        let seen = cluster.probe(ROUTER_MAILBOX, move |message: &RouterMsg| {
            let RouterMsg::Up { message: RouterUp::RuleUploads { uploads, .. }, .. } = message else {
                return None;
            };
            if losing.swap(false, Ordering::SeqCst) {
                path.cut_direction(Direction::ToDialler);
            }
            Some(uploads.clone().open().unwrap().items.len())
        });
        client.publish(&cluster, "default/readings", numbers(0..1)).await;
        cluster.until("it is posted", || target.taken() == numbers(0..1)).await;
        cluster
            .until_async("the link is down", async || node.snapshot("edge-hub").await["up"] == false)
            .await;
        node.network_path().mend();
        client.publish(&cluster, "default/readings", numbers(1..3)).await;
        cluster.until("the next arrive", || target.taken().len() >= 3).await;
        assert_eq!(target.taken(), numbers(0..3));
        assert!(seen.len() >= 2, "the first came again");
    });
}

#[test]
fn a_rule_that_cannot_be_done_says_why_and_its_messages_wait_until_it_is_mended() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Memory, false).await;
        let target = Target::start(cluster.env());
        let (source, resource) = (topic("readings"), json!({"resource": target.url("/")}));
        rule(&cluster, "up", source, ("later", resource)).await;
        // Metadata of a cloud's machines, and what else is closed to rules, by whatever name.
        let metadata = json!({"resource": "http://169.254.169.254/latest/meta-data"});
        rule(&cluster, "closed", topic("closed"), ("rest", metadata)).await;
        let node = cluster.node("edge-1").await;
        let client = Mqtt::connect(broker(&cluster, &node, 2).await, "sensor");
        client.publish(&cluster, "default/readings", numbers(0..3)).await;
        client.publish(&cluster, "default/closed", numbers(0..1)).await;
        let says = |name: &'static str, what: &'static str| {
            let cluster = &cluster;
            async move {
                until_status(cluster, name, what, |status| {
                    let errors = status["errors"].as_array().cloned().unwrap_or_default();
                    errors.iter().any(|error| error.as_str().unwrap().contains(what))
                })
                .await;
            }
        };
        says("up", "the rule does nothing: there is no RuleEndpoint `later`").await;
        says("closed", "169.254.169.254, a link-local address, where clouds keep metadata: closed to rules")
            .await;
        assert!(target.arrived().is_empty());
        fixture::endpoint(&cluster, "later", "rest", json!({})).await;
        cluster.until("what waited arrives", || target.taken() == numbers(0..3)).await;
        // A rule may be led elsewhere: unlike KubeEdge's it follows.
        let other = Target::start(cluster.env());
        let patch = json!({"spec": {"targetResource": {"resource": other.url("/")}}});
        let rules = cluster.objects(V1, "Rule", Some("default"));
        rules.patch("up", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        cluster
            .until_async("the next arrive there", async || {
                client.publish(&cluster, "default/readings", numbers(3..4)).await;
                !other.taken().is_empty()
            })
            .await;
    });
}

#[test]
fn a_rule_while_the_cloud_serves_none_says_so() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Memory, false).await;
        cluster.reconfigure_cloud(|settings| settings.modules.router.enable = false).await;
        let target = Target::start(cluster.env());
        rule(&cluster, "up", topic("readings"), to(&target)).await;
        let says = |status: &serde_json::Value| {
            let errors = status["errors"].as_array().cloned().unwrap_or_default();
            errors.iter().any(|error| {
                error.as_str().unwrap().contains("modules.router.enable is false in cloudcore.yaml")
            })
        };
        until_status(&cluster, "up", "says what to set", says).await;
    });
}
