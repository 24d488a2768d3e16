//! What one node may have of the API server, on the simulated clock: an honest node that starts is served at once, and a captured one
//! that goes on asking waits for itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use cloud_edgecontroller::{Dependencies, EdgeController};
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::nodelease::{NodeLeaseMsg, SessionState};
use contract::synccontroller::SyncMsg;
use contract::{NodeName, Report, TokenGrant, TokenQuery, UpReport};
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(3600);
/// A pod as they are, and as a tenant may make one.
const USUAL: usize = 4 << 10;
const LARGE: usize = 100 << 10;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An API server that has every pod, one of them large, and grants every token.
#[derive(Default)]
struct Server {
    bytes_of_pods: AtomicUsize,
    tokens: AtomicUsize,
    takes_no_events: AtomicBool,
    can_never_take_events: AtomicBool,
    events: AtomicUsize,
}

fn whole(value: &Value) -> Response<Body> {
    Response::new(UnsyncBoxBody::new(Full::new(Bytes::from(value.to_string()))))
}

fn pod(name: &str) -> Value {
    let bytes = if name.starts_with("large") { LARGE } else { USUAL };
    // Each is bound to the node that it is named after.
    let node = name.find("edge-").map(|at| &name[at..]);
    let sources: Vec<Value> =
        (0..4).map(|n| json!({"serviceAccountToken": {"path": "t", "audience": format!("a{n}")}})).collect();
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "2",
            "annotations": {"example.com/large": "x".repeat(bytes)}},
        "spec": {"nodeName": node, "serviceAccountName": "web", "containers": [{"name": "web", "image": "web:1"}],
            "volumes": [{"name": "tokens", "projected": {"sources": sources}}]},
    })
}

impl Server {
    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let path = request.uri().path();
        if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
            let nothing = stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
            return Response::new(UnsyncBoxBody::new(StreamBody::new(nothing)));
        }
        if request.method() == Method::POST && path.ends_with("/token") {
            self.tokens.fetch_add(1, Ordering::Relaxed);
            return whole(&json!({"spec": {"audiences": [], "expirationSeconds": 3600},
                "status": {"token": "t", "expirationTimestamp": "2027-01-01T00:00:00Z"}}));
        }
        if request.method() == Method::POST && path.ends_with("/events") {
            if self.takes_no_events.load(Ordering::Relaxed) {
                let away = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                    "reason": "ServiceUnavailable", "message": "away"});
                let mut answer = whole(&away);
                *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                return answer;
            }
            if self.can_never_take_events.load(Ordering::Relaxed) {
                let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "namespaces \"default\" not found"});
                let mut answer = whole(&gone);
                *answer.status_mut() = http::StatusCode::NOT_FOUND;
                return answer;
            }
            self.events.fetch_add(1, Ordering::Relaxed);
            return whole(&json!({"metadata": {}, "involvedObject": {}}));
        }
        if path == "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices/gantry" {
            return whole(&json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
                "metadata": {"name": "gantry", "namespace": "default", "uid": "d1"}, "spec": {"nodeName": "edge-1"}}));
        }
        let of_pod = path.strip_prefix("/api/v1/namespaces/default/pods/");
        if let Some(name) = of_pod.map(|rest| rest.trim_end_matches("/status")) {
            let pod = pod(name);
            self.bytes_of_pods.fetch_add(pod.to_string().len(), Ordering::Relaxed);
            return whole(&pod);
        }
        whole(&json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}))
    }
}

struct Fixture {
    env: Env,
    server: Arc<Server>,
    controller: Address<EdgeControllerMsg>,
    _hive: Hive,
    _neighbours: (Probe<SyncMsg>, Probe<CloudHubMsg>, Probe<CloudStreamMsg>),
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(fixture()).await });
}

fn fixture() -> Fixture {
    let (env, server) = (Env::seeded(7), Arc::new(Server::default()));
    let serving = Arc::clone(&server);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let answer = serving.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let (sync, to_sync) = Probe::new(&env, 64);
    let (hub, to_hub) = Probe::new(&env, 1);
    let (stream, to_stream) = Probe::new(&env, 16);
    let (mut lease, to_lease) = Probe::new(&env, 64);
    tokio::task::spawn_local(async move {
        while let Some(message) = lease.next(Duration::MAX).await {
            if let NodeLeaseMsg::Session { reply, .. } = message {
                reply.send(SessionState::Open { node_uid: "n".to_owned() });
            }
        }
    });
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox("cloud-edgecontroller", Capacity::new(8192, "a test's choice"));
    let controller = hive.grant("tester", &mailbox, Flow::Ask);
    let dependencies = Dependencies {
        client: kube::Client::new(service, "default"),
        sync: to_sync,
        lease: to_lease,
        hub: to_hub,
        stream: to_stream,
        interruptions: Interruptions::default(),
        read_as: ReadAs::CloudCore,
        is_kubelet_endpoint: true,
        pod_addresses: cloud_edgecontroller::PodAddresses::Any,
    };
    hive.supervise(mailbox, Policy::default(), move || EdgeController::new(dependencies.clone()));
    hive.open().unwrap();
    Fixture { env, server, controller, _hive: hive, _neighbours: (sync, hub, stream) }
}

fn query(node: &str, pod: usize, audience: usize) -> TokenQuery {
    TokenQuery {
        namespace: "default".into(),
        service_account: "web".into(),
        audiences: vec![format!("a{audience}")],
        expiration_seconds: 3600,
        pod_name: format!("p{pod}-{node}"),
        pod_uid: format!("p{pod}-{node}"),
    }
}

impl Fixture {
    async fn say(&self, node: &str, reports: Vec<Report>) -> Vec<i64> {
        let node = NodeName::parse(node).unwrap();
        let message = |reply| EdgeUp::Reports { reports: reports.into(), reply };
        let said = self.controller.ask(LONG, |reply| EdgeControllerMsg::Up {
            node,
            session: 4,
            message: message(reply),
        });
        said.await.unwrap_or_default()
    }

    async fn token(&self, node: &str, query: TokenQuery) -> Result<TokenGrant, String> {
        let node = NodeName::parse(node).unwrap();
        let message = |reply| EdgeUp::Token { query: query.into(), reply };
        let asked = self.controller.ask(LONG, |reply| EdgeControllerMsg::Up {
            node,
            session: 4,
            message: message(reply),
        });
        asked.await.unwrap()
    }
}

fn status(row: i64, pod: &str) -> Report {
    let report = UpReport::PodStatus {
        namespace: "default".into(),
        name: pod.into(),
        uid: pod.into(),
        status_json: json!({"phase": "Running"}).to_string(),
    };
    Report { row, repeat: false, report: report.into() }
}

#[test]
fn a_node_that_writes_without_end_has_so_many_bytes_and_no_more_and_holds_up_nobody() {
    run(async |fixture| {
        let began = fixture.env.now();
        // One that starts: each of 60 pods four times.
        let first: Vec<Report> = (1..=240).map(|row| status(row, "usual-edge-2")).collect();
        assert_eq!(fixture.say("edge-2", first).await.len(), 240);
        assert!(fixture.env.now().since(began) < Duration::from_secs(1));

        let before = fixture.server.bytes_of_pods.load(Ordering::Relaxed);
        let (twenty_seconds, begun) = (Duration::from_secs(20), fixture.env.now());
        let mut row = 1;
        while fixture.env.now().since(begun) < twenty_seconds {
            fixture.say("edge-1", (row..row + 10).map(|row| status(row, "large-edge-1")).collect()).await;
            row += 10;
        }
        let took = fixture.env.now().since(begun);
        let bytes = fixture.server.bytes_of_pods.load(Ordering::Relaxed) - before;
        // 32 MiB, 250 KiB in each second, and what the last message had of credit.
        let most = (32 << 20) + usize::try_from(took.as_secs()).unwrap() * (250 << 10) + 20 * 2 * LARGE;
        assert!((32 << 20..=most).contains(&bytes), "{bytes} of {most} bytes in {took:?}");
        // The small reports of another one wait for nothing.
        let now = fixture.env.now();
        assert_eq!(fixture.say("edge-3", vec![status(1, "usual-edge-3")]).await, [1]);
        assert!(fixture.env.now().since(now) < Duration::from_secs(1));
    });
}

#[test]
fn sixty_pods_that_start_with_four_tokens_each_have_them_at_once_and_who_asks_on_waits() {
    run(async |fixture| {
        let began = fixture.env.now();
        let asked = (0..60).flat_map(|pod| (0..4).map(move |audience| (pod, audience)));
        let granted =
            join_all(asked.map(|(pod, audience)| fixture.token("edge-2", query("edge-2", pod, audience))))
                .await;
        assert!(granted.iter().all(Result::is_ok), "{granted:?}");
        assert!(fixture.env.now().since(began) < Duration::from_secs(1));

        let before = fixture.server.tokens.load(Ordering::Relaxed);
        let minute = fixture.env.sleep(Duration::from_secs(60));
        let flood = stream::iter(0..).for_each_concurrent(1500, |n| {
            let asked = fixture.token("edge-1", query("edge-1", n % 250, n % 4));
            async {
                if asked.await.is_err() {
                    // It was turned away, and asks again.
                    fixture.env.sleep(Duration::from_secs(1)).await;
                }
            }
        });
        futures::future::select(std::pin::pin!(flood), minute).await;
        let granted = fixture.server.tokens.load(Ordering::Relaxed) - before;
        assert!((1024..=1024 + 62).contains(&granted), "{granted} tokens in a minute");
        // Another node's tokens are there at once.
        let now = fixture.env.now();
        fixture.token("edge-3", query("edge-3", 1, 1)).await.unwrap();
        assert!(fixture.env.now().since(now) < Duration::from_secs(1));
    });
}

#[test]
fn events_that_could_not_be_written_use_up_no_place_and_are_written_when_the_api_server_is_back() {
    run(async |fixture| {
        let event = |row: i64| {
            let said = json!({"type": "Warning", "reason": "BackOff", "message": "m",
                "involvedObject": {"kind": "Pod", "namespace": "default", "name": "usual-edge-1", "uid": "usual-edge-1"}});
            let report = UpReport::Event {
                namespace: "default".into(),
                name: format!("usual-edge-1.{row}"),
                event_json: said.to_string(),
            };
            Report { row, repeat: false, report: report.into() }
        };
        fixture.server.takes_no_events.store(true, Ordering::Relaxed);
        for _ in 0..40 {
            assert_eq!(fixture.say("edge-1", vec![event(1)]).await, [] as [i64; 0]);
        }
        fixture.server.takes_no_events.store(false, Ordering::Relaxed);
        for row in 1..=25 {
            assert_eq!(fixture.say("edge-1", vec![event(row)]).await, [row]);
        }
        assert_eq!(fixture.server.events.load(Ordering::Relaxed), 25);
        // What is written is what counts: one more about this pod is too many, and forgotten.
        assert_eq!(fixture.say("edge-1", vec![event(26)]).await, [26]);
        assert_eq!(fixture.server.events.load(Ordering::Relaxed), 25);
    });
}

#[test]
fn an_event_about_a_device_is_its_own_nodes_to_say() {
    run(async |fixture| {
        let event = |row: i64, uid: &str| {
            let said = json!({"type": "Normal", "reason": "RuleTriggered", "message": "m",
                "involvedObject": {"kind": "Device", "namespace": "default", "name": "gantry", "uid": uid}});
            let report = UpReport::Event {
                namespace: "default".into(),
                name: format!("gantry.{row}"),
                event_json: said.to_string(),
            };
            Report { row, repeat: false, report: report.into() }
        };
        let written = || fixture.server.events.load(Ordering::Relaxed);
        assert_eq!(fixture.say("edge-2", vec![event(1, "d1")]).await, [1]);
        assert_eq!(written(), 0, "another node's word is confirmed, and forgotten");
        assert_eq!(fixture.say("edge-1", vec![event(2, "d0")]).await, [2]);
        assert_eq!(written(), 0, "so is one about the device before");
        assert_eq!(fixture.say("edge-1", vec![event(3, "d1")]).await, [3]);
        assert_eq!(written(), 1);
    });
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_refused_is_named_with_the_object_that_it_is_about() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        run(async |fixture| {
            let event = |row: i64, namespace: &str| {
                let said = json!({"type": "Warning", "reason": "BackOff", "message": "m", "involvedObject":
                    {"kind": "Pod", "namespace": "default", "name": "usual-edge-1", "uid": "usual-edge-1"}});
                let (namespace, name) = (namespace.to_owned(), "usual-edge-1.17".to_owned());
                let report = UpReport::Event { namespace, name, event_json: said.to_string() };
                Report { row, repeat: false, report: report.into() }
            };
            fixture.server.can_never_take_events.store(true, Ordering::Relaxed);
            assert_eq!(fixture.say("edge-1", vec![event(1, "default")]).await, [1]);
            assert_eq!(fixture.say("edge-2", vec![status(1, "usual-edge-1")]).await, [1]);
            assert_eq!(fixture.say("edge-3", vec![event(1, "a/b")]).await, [1]);
        });
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (node, words) in [
        ("edge-1", r#"about="Event default/usual-edge-1.17" why="the API server can never take it" reason="#),
        ("edge-1", "not found"),
        ("edge-2", r#"about="Pod default/usual-edge-1" why="a report about a pod of another node""#),
        ("edge-3", r#"about="an Event" why="its name or size is odd" reason="#),
    ] {
        let of_node = |line: &&str| line.contains(&format!("node={node} "));
        assert!(text.lines().filter(of_node).any(|line| line.contains(words)), "{words}: {text}");
    }
}
