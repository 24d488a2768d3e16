//! Who keeps pods on a node that is cut off: EdgeController finds out, and does the one or the other. On the simulated clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Capacity, Env, Hive, Policy};
use bytes::Bytes;
use cloud_edgecontroller::{Dependencies, EdgeController};
use contract::edgecontroller::EdgeControllerMsg;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};

/// The clock is simulated: it moves when everybody waits.
const LONG: Duration = Duration::from_secs(600);

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(UnsyncBoxBody::new(Full::new(Bytes::from(value.to_string()))));
    *answer.status_mut() = status;
    answer
}

/// How the server answers the question for a Node that is cut off.
#[derive(Clone, Copy, PartialEq)]
enum Admits {
    /// It would make it as it is.
    AsItIs,
    /// It takes the taints off.
    WithoutTaints,
    /// It makes none.
    Nothing,
    /// It cannot say now.
    NotNow,
}

/// An API server with a node that is cut off and two pods on it, of which one asks to be evicted.
struct Server {
    admits: Mutex<Admits>,
    /// Method, path and body of what was written.
    written: Mutex<Vec<(Method, String, Value)>>,
}

fn node() -> Value {
    json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": "edge-1", "uid": "n", "resourceVersion": "1",
            "labels": { "node-role.kubernetes.io/edge": "" }, "annotations": { "kubehive.io/enrolment": "1" } },
        "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } })
}

fn pod(name: &str, label: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "uid": name, "resourceVersion": "2",
            "labels": { "kubehive.io/keep-eviction": label } },
        "spec": { "nodeName": "edge-1", "containers": [{ "name": "c", "image": "i" }], "tolerations": [
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }] } })
}

impl Server {
    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        if query.contains("watch=true") {
            let frames = futures::stream::pending::<Bytes>().map(|line| Ok(http_body::Frame::data(line)));
            return Response::new(UnsyncBoxBody::new(StreamBody::new(frames)));
        }
        let body = body.collect().await.unwrap().to_bytes();
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if parts.method == Method::POST && path == "/api/v1/nodes" {
            assert!(query.contains("dryRun=All"), "no Node is made: {query}");
            let refused = |code: u16| {
                let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no" });
                whole(StatusCode::from_u16(code).unwrap(), &status)
            };
            match *self.admits.lock().unwrap() {
                Admits::AsItIs => {}
                Admits::WithoutTaints => body["spec"]["taints"] = json!([]),
                Admits::Nothing => return refused(403),
                Admits::NotNow => return refused(503),
            }
            return whole(StatusCode::CREATED, &body);
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        let object = match last {
            "edge-1" => node(),
            "stays" => pod("stays", "false"),
            _ => pod("leaves", "true"),
        };
        if parts.method != Method::GET {
            self.written.lock().unwrap().push((parts.method, path, body));
            return whole(StatusCode::OK, &object);
        }
        let items = match last {
            "edge-1" | "stays" | "leaves" => return whole(StatusCode::OK, &object),
            "nodes" => json!([node()]),
            "pods" => json!([pod("stays", "false"), pod("leaves", "true")]),
            _ => json!([]),
        };
        let metadata = json!({ "resourceVersion": "10" });
        whole(
            StatusCode::OK,
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }),
        )
    }
}

struct Fixture {
    env: Env,
    server: Arc<Server>,
    _hive: Hive,
}

fn run(admits: Admits, test: impl AsyncFnOnce(Fixture)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(7);
        let server = Arc::new(Server { admits: Mutex::new(admits), written: Mutex::default() });
        let answers = Arc::clone(&server);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let answers = Arc::clone(&answers);
            async move { Ok::<_, Infallible>(answers.answer(request).await) }
        });
        let (_sync, sync) = Probe::new(&env, 64);
        let (_hub, hub) = Probe::new(&env, 1);
        let (_lease, lease) = Probe::new(&env, 16);
        let (_stream, stream) = Probe::new(&env, 16);
        let mut hive = Hive::new("test", env.clone());
        let mailbox =
            hive.mailbox::<EdgeControllerMsg>("cloud-edgecontroller", Capacity::new(64, "a test's choice"));
        let dependencies = Dependencies {
            client: kube::Client::new(service, "default"),
            sync,
            lease,
            hub,
            stream,
            interruptions: Interruptions::default(),
            read_as: ReadAs::CloudCore,
            is_kubelet_endpoint: true,
            pod_addresses: cloud_edgecontroller::PodAddresses::Any,
        };
        hive.supervise(mailbox, Policy::default(), move || EdgeController::new(dependencies.clone()));
        hive.open().unwrap();
        test(Fixture { env, server, _hive: hive }).await;
    });
}

impl Fixture {
    /// What was written of pods until that many were.
    async fn written(&self, many: usize) -> Vec<(Method, String, Value)> {
        let look = async {
            while self.server.written.lock().unwrap().len() < many {
                self.env.sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(self.env.timeout(LONG, look).await.is_some(), "nothing more is written");
        std::mem::take(&mut *self.server.written.lock().unwrap())
    }

    async fn nothing_for(&self, pause: Duration) {
        self.env.sleep(pause).await;
        assert_eq!(*self.server.written.lock().unwrap(), []);
    }
}

fn is_lift((method, path, body): &(Method, String, Value)) -> bool {
    let tolerations = &body["spec"]["tolerations"];
    method == Method::PATCH
        && path.ends_with("/pods/stays")
        && tolerations[0]["key"] == "node.kubernetes.io/unreachable"
        && tolerations[0].get("tolerationSeconds").is_none()
}

#[test]
fn where_the_server_keeps_pods_none_is_changed_and_who_asks_for_it_is_evicted() {
    run(Admits::WithoutTaints, async |fixture| {
        fixture.nothing_for(Duration::from_secs(295)).await;
        let written = fixture.written(2).await;
        let done: Vec<(&Method, &str)> =
            written.iter().map(|(method, path, _)| (method, path.as_str())).collect();
        let pod = "/api/v1/namespaces/default/pods/leaves";
        assert_eq!(done, [(&Method::PATCH, &*format!("{pod}/status")), (&Method::DELETE, pod)]);
        assert_eq!(written[0].2["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        assert_eq!(written[1].2["preconditions"]["uid"], "leaves", "and no other of that name");
        // It is still there: the server has not said otherwise.
        assert_eq!(fixture.written(2).await.len(), 2);
    });
}

#[test]
fn elsewhere_the_tolerations_are_lifted_and_nobody_is_evicted_from_here() {
    for admits in [Admits::AsItIs, Admits::Nothing] {
        run(admits, async |fixture| {
            let written = fixture.written(1).await;
            assert!(written.iter().all(is_lift), "{written:?}");
            fixture.nothing_for(Duration::from_secs(400)).await;
        });
    }
}

#[test]
fn as_long_as_the_server_does_not_say_nothing_is_done_and_a_policy_that_goes_is_found() {
    run(Admits::NotNow, async |fixture| {
        fixture.nothing_for(Duration::from_secs(400)).await;
        *fixture.server.admits.lock().unwrap() = Admits::WithoutTaints;
        fixture.nothing_for(Duration::from_secs(70)).await;
        // A server that begins anew refuses all until it has read its roles.
        *fixture.server.admits.lock().unwrap() = Admits::Nothing;
        fixture.nothing_for(Duration::from_secs(120)).await;
        *fixture.server.admits.lock().unwrap() = Admits::AsItIs;
        let written = fixture.written(1).await;
        assert!(written.iter().all(is_lift), "{written:?}");
        fixture.nothing_for(Duration::from_secs(400)).await;
    });
}
