//! The Kubernetes API of a run: the real rules over a store in memory, and a server that can be away.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beehive::{Clock, Env};
use bytes::Bytes;
use harness::MemoryApi;
use http::header::DATE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, PostParams};
use kubeapi::{Options, VersionInfo};
use serde_json::{Value, json};

use crate::api_store::{WantedPods, store};
use crate::trace::Trace;
use crate::violations::Violations;

/// 2 s: the most that a request takes over a slow path, and its answer.
const SLOW: Duration = Duration::from_secs(2);
/// 15 s: the most that one in eight of them takes.
const SLOWEST: Duration = Duration::from_secs(15);

/// The API of a run.
#[derive(Clone)]
pub(crate) struct Server {
    api: MemoryApi,
    clock: Arc<dyn Clock>,
    /// 16 random bytes.
    lots: Arc<dyn Fn() -> [u8; 16] + Send + Sync>,
}

/// The way of one CloudCore to the server.
#[derive(Clone, Default)]
pub(crate) struct Path {
    away: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    stuck: Arc<AtomicBool>,
}

impl Path {
    /// While the server is away, every request is answered with 503.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// While the path is stuck, three requests take longer than a node needs to go to another CloudCore.
    pub(crate) fn set_stuck(&self, stuck: bool) {
        self.stuck.store(stuck, Ordering::Relaxed);
    }

    /// While the path is slow, requests and answers arrive late, each for itself.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }
}

impl Server {
    pub(crate) fn new(env: &Env, trace: &Trace, violations: &Violations, pods: &WantedPods) -> Server {
        let (wall, sleeper) = (env.clock(), env.clock());
        let options = Options {
            now: Arc::new(move || Timestamp::try_from(wall.wall()).unwrap_or_default()),
            random: Arc::from(env.id_source()),
            sleep: Arc::new(move |pause| sleeper.sleep(pause)),
            version: VersionInfo { major: "1".into(), minor: "33".into(), git_version: "v1.33.0+sim".into() },
        };
        let api = MemoryApi::over(store(trace.clone(), Arc::clone(violations), pods.clone()), options);
        Server { api, clock: env.clock(), lots: Arc::from(env.id_source()) }
    }

    /// A client over a path.
    pub(crate) fn client(&self, path: &Path) -> kube::Client {
        self.client_over(Some(path.clone()))
    }

    /// A client of the run itself, for which the server is always there.
    pub(crate) fn own_client(&self) -> kube::Client {
        self.client_over(None)
    }

    fn client_over(&self, path: Option<Path>) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, path) = (server.clone(), path.clone());
            async move {
                let Some(path) = path else { return Ok::<_, Infallible>(server.api.answer(request).await) };
                server.delay(&path).await;
                let mut response = match path.away.load(Ordering::Relaxed) {
                    true => away(),
                    false => server.api.answer(request).await,
                };
                server.say_time(&mut response);
                server.delay(&path).await;
                Ok(response)
            }
        });
        kube::Client::new(service, "default")
    }

    /// Each answer says what time it is: the server's clock is right.
    fn say_time<B>(&self, response: &mut Response<B>) {
        let now = Timestamp::try_from(self.clock.wall()).unwrap_or_default();
        let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.headers_mut().insert(DATE, date.parse().expect("a date is plain text"));
    }

    /// What a request or an answer takes over a path that is slow.
    async fn delay(&self, path: &Path) {
        let stuck = path.stuck.load(Ordering::Relaxed);
        if stuck || path.slow.load(Ordering::Relaxed) {
            let [kind, lot, ..] = (self.lots)();
            let (least, most) = match (stuck, kind < 32) {
                (true, _) => (SLOW * 5 / 4, SLOW * 2),
                (false, true) => (Duration::ZERO, SLOWEST),
                (false, false) => (Duration::ZERO, SLOW),
            };
            self.clock.sleep(least + (most - least) * u32::from(lot) / 255).await;
        }
    }
}

fn away() -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
        "reason": "ServiceUnavailable", "message": "the server is away",
    });
    let mut response = Response::new(whole(Bytes::from(status.to_string())));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn whole(bytes: Bytes) -> UnsyncBoxBody<Bytes, Infallible> {
    UnsyncBoxBody::new(Full::new(bytes))
}

/// Objects of a kind.
pub(crate) fn objects(client: &kube::Client, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = harness::resource(api_version, kind);
    match kind {
        "Namespace" | "Node" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), "default", &resource),
    }
}

/// Creates an object.
pub(crate) async fn create(client: &kube::Client, api_version: &str, kind: &str, mut object: Value) {
    object["apiVersion"] = Value::from(api_version);
    object["kind"] = Value::from(kind);
    let object: DynamicObject = serde_json::from_value(object).expect("an object has a name");
    let name = object.metadata.name.clone();
    let created = objects(client, api_version, kind).create(&PostParams::default(), &object).await;
    created.unwrap_or_else(|error| panic!("{kind} {name:?} of the story is refused: {error}"));
}
