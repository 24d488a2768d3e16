//! The Kubernetes API of a run: the real rules over a store in memory, and a server that can be away.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use beehive::Env;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, PostParams};
use kubeapi::{Attributes, Body, Hooks, Options, TokenOrder, User, VersionInfo};
use serde_json::{Value, json};

use crate::store::Memory;

/// Everybody may do everything, and a token is a name.
struct Open;

impl Hooks for Open {
    fn mint_token(&self, order: &TokenOrder) -> Result<(String, Vec<String>, Timestamp), String> {
        Ok((format!("token of {}", order.service_account), order.audiences.clone(), Timestamp::MAX))
    }

    fn review_token<'a>(&'a self, _: &'a str, _: &'a [String]) -> BoxFuture<'a, Option<User>> {
        async { None }.boxed()
    }

    fn authorize<'a>(&'a self, _: &'a User, _: &'a Attributes) -> BoxFuture<'a, bool> {
        async { true }.boxed()
    }
}

/// The API of a run.
#[derive(Clone)]
pub(crate) struct Server {
    api: kubeapi::Api<Memory>,
    away: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn new(env: &Env) -> Server {
        let (wall, sleeper) = (env.clock(), env.clock());
        let options = Options {
            now: Arc::new(move || Timestamp::try_from(wall.wall()).unwrap_or_default()),
            random: Arc::from(env.id_source()),
            sleep: Arc::new(move |pause| sleeper.sleep(pause)),
            version: VersionInfo { major: "1".into(), minor: "33".into(), git_version: "v1.33.0+sim".into() },
            hooks: Arc::new(Open),
        };
        Server { api: kubeapi::Api::new(Arc::new(Memory::default()), options), away: Arc::default() }
    }

    /// While it is away, every request is answered with 503.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// A client that finds the server as it is.
    pub(crate) fn client(&self) -> kube::Client {
        self.client_when(true)
    }

    /// A client of the run itself, for which the server is never away.
    pub(crate) fn own_client(&self) -> kube::Client {
        self.client_when(false)
    }

    fn client_when(&self, may_be_away: bool) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request, may_be_away).await) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(
        &self,
        request: Request<kube::client::Body>,
        may_be_away: bool,
    ) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        if may_be_away && self.away.load(Ordering::Relaxed) {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                "reason": "ServiceUnavailable", "message": "the server is away",
            });
            let mut response = Response::new(whole(Bytes::from(status.to_string())));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let response = self.api.handle(Request::from_parts(parts, body), &User::default()).await;
        response.map(|body| match body {
            Body::Whole(bytes) => whole(bytes),
            Body::Stream(lines) => {
                let frames = lines.map(|line| Ok(http_body::Frame::data(line)));
                UnsyncBoxBody::new(StreamBody::new(frames))
            }
        })
    }
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
