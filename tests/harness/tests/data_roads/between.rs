//! Two CloudCores, and a node that one of them has: whichever is called, the node hears it.

use std::time::{Duration, Instant};

use beehive::Env;
use cloud::{CloudCore, Transport};
use harness::{Cluster, LONG, LinkTransport, Node, run};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::fixture::{self, Mqtt, broker, endpoint, free_port, rule, until_status};
use crate::services::{Answered, BEARER, ask, linked, node_with_services};
use crate::target::Target;

/// A cluster whose CloudCore passes calls on, and a second CloudCore of it.
async fn two() -> (Cluster, CloudCore) {
    let mut cluster = fixture::cluster(LinkTransport::Quic, true).await;
    cluster.reconfigure_cloud(|settings| settings.modules.router.peers.port = free_port()).await;
    let mut settings = cluster.settings().clone();
    let router = &mut settings.modules.router;
    (router.port, router.peers.port) = (free_port(), free_port());
    settings.modules.cloud_hub.quic.port = 0;
    let second = CloudCore::start(&settings, cluster.account(), Transport::Quic, Env::real()).await.unwrap();
    (cluster, second)
}

fn door_of(cloud: &CloudCore) -> u16 {
    cloud.rule_door_address().unwrap().port()
}

async fn router_of(cloud: &CloudCore) -> serde_json::Value {
    let report = cloud.inspector().report(LONG).await;
    report.actors.into_iter().find(|actor| actor.name == "cloud-router").unwrap().snapshot
}

/// The node goes to the CloudCore whose link is at this port.
async fn goes_to(cluster: &Cluster, node: &mut Node, port: u16) {
    node.reconfigure(|settings| settings.modules.edge_hub.quic.server = format!("127.0.0.1:{port}")).await;
    linked(cluster, node).await;
}

/// What of an answer is the same, whoever gave it.
fn same(answered: Answered) -> (u16, Vec<(String, String)>, String) {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = answered.headers.iter().filter(|(name, _)| *name != http::header::DATE);
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    headers.sort();
    (answered.status, headers, answered.body)
}

#[test]
fn either_cloudcore_is_called_and_the_answers_are_the_same() {
    run(async || {
        let (mut cluster, second) = two().await;
        let (node, _) = node_with_services(&mut cluster).await;
        cluster.until_ready(&node).await;
        let service = Target::start(cluster.env());
        endpoint(&cluster, "app", "servicebus", json!({"service_port": service.port().to_string()})).await;
        endpoint(&cluster, "nobody", "servicebus", json!({"service_port": "9"})).await;
        rule(
            &cluster,
            "lamp",
            ("rest", json!({"path": "lamp"})),
            ("eventbus", json!({"topic": "home/lamp"})),
        )
        .await;
        rule(&cluster, "app", ("rest", json!({"path": "app"})), ("app", json!({"path": "/v1"}))).await;
        rule(&cluster, "nobody", ("rest", json!({"path": "nobody"})), ("nobody", json!({"path": "/"}))).await;
        let client = Mqtt::connect(broker(&cluster, &node, 0).await, "lamp");
        client.subscribe(&cluster, "home/#").await;
        let doors = [cluster.rule_door().port(), door_of(&second)];
        for door in doors {
            cluster
                .until_async("the rules are known", async || {
                    ask(door, "GET", "/edge-1/default/nobody", &[BEARER], "").await.status == 502
                })
                .await;
        }
        let large = "x".repeat(3 << 20);
        let too_large = "x".repeat((256 << 10) + 1);
        let headers = [BEARER, ("x-app", "1"), ("connection", "x-own"), ("x-own", "of this connection")];
        for (method, path, body, status) in [
            ("POST", "/edge-1/default/lamp", "on", 200),
            ("POST", "/edge-1/default/lamp/kitchen?x=1", "off", 200),
            ("PUT", "/edge-1/default/app/items/7?q=a%20b", "{\"n\":1}", 200),
            ("DELETE", "/edge-1/default/app", "", 200),
            ("POST", "/edge-1/default/app", large.as_str(), 200),
            ("POST", "/edge-1/default/lamp", too_large.as_str(), 413),
            ("GET", "/edge-1/default/lamp", "", 405),
            ("GET", "/edge-1/default/none", "", 404),
            ("POST", "/edge-1/default/lamp/+", "x", 400),
            ("GET", "/edge-1/default/nobody", "", 502),
            ("GET", "/edge-9/default/app", "", 503),
        ] {
            let mut answers = Vec::new();
            for door in doors {
                answers.push(same(ask(door, method, path, &headers, body.to_owned()).await));
            }
            assert_eq!(answers[0].0, status, "{method} {path}: {}", answers[0].2);
            assert_eq!(answers[0], answers[1], "{method} {path}");
        }
        service.answers(418);
        let refused = ask(doors[1], "GET", "/edge-1/default/app", &[BEARER], "").await;
        assert_eq!((refused.status, refused.body.as_str()), (418, "answer to 0 bytes"));
        cluster.until("both are published twice", || client.heard.borrow().len() == 4).await;
        let arrived = service.arrived();
        for own in ["authorization", "x-own", "kubehive-forward-within", "kubehive-forward-outcome"] {
            assert!(arrived.iter().all(|arrived| !arrived.headers.contains_key(own)), "{own}");
        }
        let told: Vec<(&str, &str)> =
            arrived.iter().map(|arrived| (arrived.method.as_str(), arrived.path.as_str())).collect();
        assert_eq!(told[..2], [("PUT", "/v1/items/7?q=a%20b"); 2], "either way it is the same request");
        until_status(&cluster, "lamp", "counts each call once", |status| status["successMessages"] == 4)
            .await;
        let passed_on = second.inspector().report(LONG).await.counters["router_calls_passed_on"];
        let taken = cluster.state().await.counters["router_calls_of_peers"];
        assert!(passed_on >= 7 && taken == passed_on, "{passed_on} passed on, {taken} taken");
        // Without a token the second one asks nobody.
        let stranger = ask(doors[1], "POST", "/edge-1/default/lamp", &[], "on").await;
        assert_eq!(stranger.status, 401);
        second.stop(LONG).await;
    });
}

/// A call that waits for its answer.
async fn begin(door: u16, path: &str) -> tokio::task::JoinHandle<Option<(u16, Option<String>)>> {
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", door)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::get(path).header("host", "of-the-test").header(BEARER.0, BEARER.1);
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    tokio::task::spawn_local(async move {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok().map(|body| body.to_bytes());
        Some((head.status.as_u16(), body.map(|body| String::from_utf8_lossy(&body).into_owned())))
    })
}

#[test]
fn a_node_that_goes_to_another_cloudcore_is_reached_from_both_before_and_after() {
    run(async || {
        let (mut cluster, second) = two().await;
        let (mut node, _) = node_with_services(&mut cluster).await;
        cluster.until_ready(&node).await;
        let service = Target::start(cluster.env());
        endpoint(&cluster, "app", "servicebus", json!({"service_port": service.port().to_string()})).await;
        rule(&cluster, "app", ("rest", json!({"path": "app"})), ("app", json!({"path": "/"}))).await;
        let doors = [cluster.rule_door().port(), door_of(&second)];
        let answers = async |door: u16| {
            let answered = ask(door, "GET", "/edge-1/default/app", &[BEARER], "").await;
            if answered.status == 503 {
                // It was not made, and may be tried again.
                assert!(
                    answered.body.contains("edge-1") || answered.body.contains("CloudCore"),
                    "{}",
                    answered.body
                );
            }
            answered.status == 200
        };
        for door in doors {
            cluster.until_async("the node is reached", async || answers(door).await).await;
        }
        // In the middle of a call that the second one has passed on, the node goes to it.
        service.hangs(true);
        let came = service.arrived().len();
        let waiting = begin(doors[1], "/edge-1/default/app").await;
        cluster.until("the service has it", || service.arrived().len() > came).await;
        goes_to(&cluster, &mut node, second.link_address().unwrap().port()).await;
        let (status, said) = waiting.await.unwrap().unwrap();
        assert!(matches!(status, 502 | 504), "{status}: {said:?}");
        assert_eq!(service.arrived().len(), came + 1, "nobody makes it a second time");
        service.hangs(false);
        for door in doors {
            cluster.until_async("the node is reached where it is now", async || answers(door).await).await;
        }
        assert!(router_of(&second).await["peers"]["unreached"].as_object().unwrap().is_empty());

        // The CloudCore that has it dies: the other one says so at once, until the node has come.
        second.stop(LONG).await;
        let began = Instant::now();
        let gone = ask(doors[0], "GET", "/edge-1/default/app", &[BEARER], "").await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(gone.status == 503 && gone.headers["retry-after"] == "1", "{}: {}", gone.status, gone.body);
        let port = cluster.settings().modules.cloud_hub.quic.port;
        goes_to(&cluster, &mut node, port).await;
        cluster.until_async("the node is reached again", async || answers(doors[0]).await).await;
    });
}
