//! The Kubernetes API over a store in memory: the real rules without a server, a disk or any right that is asked for.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use cloud_apiserver::{AccessControl, ClusterPolicy, TokenRequest};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, PostParams};
use kubeapi::testing::MemoryStore;
use kubeapi::{Attributes, Body, Options, Range, ReadStore, User};
use serde_json::json;

use crate::resource::resource;

/// 64 changes that a watcher may be behind.
const BEHIND_MAX: usize = 64;

/// Everybody may do everything, and a token is a name.
struct AllowAll;

impl AccessControl for AllowAll {
    fn mint_token(&self, request: &TokenRequest) -> Result<(String, Vec<String>, Timestamp), String> {
        Ok((format!("token of {}", request.service_account), request.audiences.clone(), Timestamp::MAX))
    }

    fn review_token<'a>(&'a self, _: &'a str, _: &'a [String]) -> BoxFuture<'a, Option<(User, Vec<String>)>> {
        async { None }.boxed()
    }

    fn authorize<'a>(&'a self, _: &'a User, _: &'a Attributes) -> BoxFuture<'a, bool> {
        async { true }.boxed()
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct MemoryApi {
    api: kubeapi::Api<MemoryStore>,
    store: Arc<MemoryStore>,
}

impl MemoryApi {
    /// An API over an empty store.
    pub fn over(store: MemoryStore, options: Options) -> MemoryApi {
        let (store, random) = (Arc::new(store), Arc::clone(&options.random));
        let policy = ClusterPolicy::new(Arc::clone(&store), Arc::new(AllowAll), random);
        let api = kubeapi::Api::new(Arc::clone(&store), options, Arc::new(policy));
        MemoryApi { api, store }
    }

    /// One with the namespaces of CloudCore, at a clock that stands still.
    ///
    /// # Panics
    /// When a namespace is refused.
    pub async fn start() -> MemoryApi {
        let started = MemoryApi::over(MemoryStore::new(BEHIND_MAX), kubeapi::testing::options());
        let namespaces: Api<DynamicObject> = Api::all_with(started.client(), &resource("v1", "Namespace"));
        for name in ["default", "kubeedge", "kube-node-lease"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let namespace = serde_json::from_value(namespace).unwrap();
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
        started
    }

    /// How many objects there are of a resource, over all namespaces.
    ///
    /// # Panics
    /// Never: a store in memory is always read.
    pub async fn count(&self, resource: &str) -> usize {
        let range = Range { resource: resource.to_owned(), namespace: None, after: None, limit: None };
        self.store.list(range).await.unwrap().items.len()
    }

    /// A client of it.
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                // Others get a turn between a read and a write.
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(api.answer(request).await)
            }
        });
        kube::Client::new(service, "default")
    }

    /// The answer to one request.
    pub async fn answer(
        &self,
        request: Request<kube::client::Body>,
    ) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        // As CloudCore is with its own stand-alone API: it makes mirror pods.
        let user = User { groups: vec!["system:masters".to_owned()], ..User::default() };
        let response = self.api.handle(Request::from_parts(parts, body), &user).await;
        response.map(|body| match body {
            Body::Whole(bytes) => UnsyncBoxBody::new(Full::new(bytes)),
            Body::Stream(lines) => {
                let frames = lines.map(|line| Ok(http_body::Frame::data(line)));
                UnsyncBoxBody::new(StreamBody::new(frames))
            }
        })
    }
}
