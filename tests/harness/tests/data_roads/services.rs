//! rest to eventbus, rest to servicebus and servicebus to rest.

use harness::{Cluster, LinkTransport, Node, run};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::fixture::{self, Mqtt, TOKEN, broker, endpoint, free_port, rule, until_status};
use crate::target::Target;

pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// A request over a connection of its own.
pub(crate) async fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Answered {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    let mut request = http::Request::builder().method(method).uri(path).header("host", "of-the-test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answered {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub(crate) const BEARER: (&str, &str) = ("authorization", "Bearer a-token-of-sixteen-and-more");

async fn call(cluster: &Cluster, method: &str, path: &str, body: &str) -> Answered {
    assert_eq!(BEARER.1, format!("Bearer {TOKEN}"));
    ask(cluster.rule_door().port(), method, path, &[BEARER], body.to_owned()).await
}

/// A node that is linked and calls services; where its applications call.
pub(crate) async fn node_with_services(cluster: &mut Cluster) -> (Node, u16) {
    let mut node = cluster.node("edge-1").await;
    let port = free_port();
    node.reconfigure(|settings| {
        settings.modules.service_bus.enable = true;
        settings.modules.service_bus.port = port;
    })
    .await;
    linked(cluster, &node).await;
    (node, port)
}

pub(crate) async fn linked(cluster: &Cluster, node: &Node) {
    cluster.until_async("the link is up", async || node.snapshot("edge-hub").await["up"] == true).await;
}

#[test]
fn what_is_posted_in_the_cloud_is_published_on_the_node() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Quic, true).await;
        let node = cluster.node("edge-1").await;
        linked(&cluster, &node).await;
        rule(
            &cluster,
            "down",
            ("rest", json!({"path": "/lamp"})),
            ("eventbus", json!({"topic": "home/lamp"})),
        )
        .await;
        let client = Mqtt::connect(broker(&cluster, &node, 0).await, "lamp");
        client.subscribe(&cluster, "home/#").await;
        cluster
            .until_async("the rule is known", async || {
                call(&cluster, "POST", "/edge-1/default/lamp", "on").await.status == 200
            })
            .await;
        let answered = call(&cluster, "POST", "/edge-1/default/lamp/kitchen?x=1", "off").await;
        assert_eq!((answered.status, answered.body.as_str()), (200, "message delivered"));
        cluster.until("both are published", || client.heard.borrow().len() == 2).await;
        let heard: Vec<(String, String)> = client.heard.borrow().clone();
        assert_eq!(heard, [("home/lamp".into(), "on".into()), ("home/lamp/kitchen".into(), "off".into())]);
        until_status(&cluster, "down", "counts both", |status| status["successMessages"] == 2).await;

        for (method, path, status, said) in [
            ("POST", "/edge-1/default/none", 404, "No rule match"),
            ("POST", "/edge-1/other/lamp", 404, "No rule match"),
            ("POST", "/edge-1", 404, "Request error"),
            ("POST", "/edge-1/default/lamp/../x", 404, "Request error"),
            ("GET", "/edge-1/default/lamp", 405, "use POST"),
            ("POST", "/edge-1/default/lamp/%23", 200, "message delivered"),
            ("POST", "/edge-1/default/lamp/+", 400, "topic of a rule"),
            ("POST", "/edge-2/default/lamp", 503, "node `edge-2` has no link to this CloudCore"),
        ] {
            let answered = call(&cluster, method, path, "x").await;
            assert!(
                answered.status == status && answered.body.contains(said),
                "{path}: {} {}",
                answered.status,
                answered.body
            );
        }
        let port = cluster.rule_door().port();
        for headers in
            [&[][..], &[("authorization", "Bearer another-token-of-sixteen")], &[("authorization", TOKEN)]]
        {
            let answered = ask(port, "POST", "/edge-1/default/lamp", headers, "x").await;
            assert_eq!(
                (answered.status, answered.headers["www-authenticate"].to_str().unwrap()),
                (401, "Bearer")
            );
        }
        let large = "x".repeat((256 << 10) + 1);
        assert_eq!(ask(port, "POST", "/edge-1/default/lamp", &[BEARER], large).await.status, 413);
    });
}

#[test]
fn a_call_in_the_cloud_is_answered_by_a_service_of_the_node() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Quic, true).await;
        let (mut node, _) = node_with_services(&mut cluster).await;
        let service = Target::start(cluster.env());
        endpoint(&cluster, "app", "servicebus", json!({"service_port": service.port().to_string()})).await;
        endpoint(&cluster, "nobody", "servicebus", json!({"service_port": free_port().to_string()})).await;
        rule(&cluster, "app", ("rest", json!({"path": "app"})), ("app", json!({"path": "/v1"}))).await;
        rule(&cluster, "nobody", ("rest", json!({"path": "nobody"})), ("nobody", json!({"path": "/"}))).await;
        cluster
            .until_async("the rules are known", async || {
                call(&cluster, "GET", "/edge-1/default/nobody", "").await.status == 502
            })
            .await;
        let port = cluster.rule_door().port();
        let headers = [BEARER, ("x-app", "1"), ("connection", "x-own"), ("x-own", "of this connection")];
        let answered = ask(port, "PUT", "/edge-1/default/app/items/7?q=a%20b", &headers, "{\"n\":1}").await;
        assert_eq!((answered.status, answered.body.as_str()), (200, "answer to 7 bytes"));
        assert_eq!(answered.headers["x-of-target"], "yes");
        assert!(!answered.headers.contains_key("x-hop"), "what is of the service's connection stays there");
        let arrived = &service.arrived()[0];
        assert_eq!((arrived.method.as_str(), arrived.path.as_str()), ("PUT", "/v1/items/7?q=a%20b"));
        assert_eq!((arrived.body.as_str(), &arrived.headers["x-app"]), ("{\"n\":1}", &"1".parse().unwrap()));
        assert_eq!(arrived.headers["host"], format!("127.0.0.1:{}", service.port()));
        for own in ["authorization", "x-own"] {
            assert!(!arrived.headers.contains_key(own), "{own}");
        }
        // The service's own refusal comes back as it is, and a large body goes there whole.
        service.answers(418);
        assert_eq!(call(&cluster, "GET", "/edge-1/default/app", "").await.status, 418);
        service.answers(200);
        let large = "x".repeat(3 << 20);
        let answered = ask(port, "POST", "/edge-1/default/app", &[BEARER], large.clone()).await;
        assert_eq!(answered.body, format!("answer to {} bytes", large.len()));
        let nobody = call(&cluster, "GET", "/edge-1/default/nobody", "").await;
        assert!(nobody.body.starts_with("error to call service: 127.0.0.1:"), "{}", nobody.body);
        until_status(&cluster, "nobody", "counts the failures", |status| {
            status["failMessages"].as_i64() >= Some(2)
                && status["errors"][0].as_str().is_some_and(|error| error.contains("error to call service"))
        })
        .await;
        service.hangs(true);
        let late = call(&cluster, "GET", "/edge-1/default/app", "").await;
        assert!(late.status == 504 && late.body.contains("has not answered within 10 s"), "{}", late.body);
        service.hangs(false);

        // edgecore's own ports are no services, and neither is anything where the node says so.
        let own = broker(&cluster, &node, 0).await;
        node.reconfigure(|settings| {
            settings.modules.event_bus.mqtt_server_internal = format!("127.0.0.1:{own}")
        })
        .await;
        linked(&cluster, &node).await;
        endpoint(&cluster, "broker", "servicebus", json!({"service_port": own.to_string()})).await;
        rule(&cluster, "broker", ("rest", json!({"path": "broker"})), ("broker", json!({"path": "/"}))).await;
        cluster
            .until_async("the broker is refused", async || {
                let answered = call(&cluster, "GET", "/edge-1/default/broker", "").await;
                answered.status == 403 && answered.body.contains("edgecore's own")
            })
            .await;
        node.reconfigure(|settings| settings.modules.service_bus.enable = false).await;
        linked(&cluster, &node).await;
        let off = call(&cluster, "GET", "/edge-1/default/app", "").await;
        assert!(
            off.status == 501 && off.body.contains("modules.serviceBus.enable is false"),
            "{} {}",
            off.status,
            off.body
        );
    });
}

#[test]
fn an_application_of_the_node_calls_a_target_in_the_cloud() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Quic, false).await;
        let (node, port) = node_with_services(&mut cluster).await;
        let target = Target::start(cluster.env());
        let source = json!({"target_url": "http://erp.example/orders", "node_name": "edge-1"});
        rule(&cluster, "erp", ("servicebus", source), ("rest", json!({"resource": target.url("/in")}))).await;
        cluster
            .until_async("the node knows the rule", async || {
                node.snapshot("edge-servicebus").await["targetUrls"] == 1
            })
            .await;
        let body = r#"{"method":"POST","targetURL":"http://erp.example/orders","payload":{"id":7}}"#;
        let asked = async |body: &str| {
            let answered = ask(port, "POST", "/", &[], body.to_owned()).await;
            assert_eq!(answered.status, 200, "as with KubeEdge the code stands in the body");
            serde_json::from_str::<Value>(&answered.body).unwrap()
        };
        let good = asked(body).await;
        let expected = json!({
            "code": 200,
            "msg": "receive response from cloud successfully",
            "body": format!("answer to {} bytes", body.len()),
        });
        assert_eq!(good, expected);
        assert_eq!((target.arrived()[0].path.as_str(), target.arrived()[0].body.as_str()), ("/in", body));
        let foreign = asked(r#"{"targetURL":"http://erp.example/others"}"#).await;
        assert_eq!(foreign["code"], 400);
        assert!(
            foreign["msg"].as_str().unwrap().contains("is not allowed and please make a rule"),
            "{foreign}"
        );
        assert_eq!(asked("nothing").await["msg"], "invalid params");
        let large = asked(&"x".repeat((768 << 10) + 1)).await;
        assert!(large["msg"].as_str().unwrap().contains("can't read data from body"), "{large}");
        let page = ask(port, "POST", "/", &[("origin", "http://evil.example")], body.to_owned()).await;
        assert_eq!(page.status, 403, "a page of a browser");
        until_status(&cluster, "erp", "counts it", |status| status["successMessages"] == 1).await;
        cluster.stop_cloud().await;
        cluster
            .until_async("the link is down", async || node.snapshot("edge-hub").await["up"] == false)
            .await;
        let offline = asked(body).await;
        assert_eq!(
            (&offline["code"], offline["msg"].as_str().unwrap().contains("out of reach")),
            (&json!(503), true)
        );
    });
}
