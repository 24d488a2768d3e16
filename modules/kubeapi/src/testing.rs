//! A store in memory, and a server over it: for tests of whoever serves the rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apimachinery::ObjectKey;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use http::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::{
    Api, Body, Change, Changes, Item, Options, Page, Policy, Range, ReadStore, Store, StoreError, User,
    VersionInfo, WatchError, Write, WriteError,
};

/// Whether bodies of a kind are read as protobuf.
pub fn is_read_as_protobuf(api_version: &str, kind: &str) -> bool {
    crate::messages::of_kind(api_version, kind).is_some()
}

#[derive(Default)]
struct State {
    revision: u64,
    items: BTreeMap<ObjectKey, Item>,
    history: Vec<Change>,
}

/// Sees every change, in order.
type Observer = Box<dyn Fn(&Change) + Send + Sync>;

/// Objects in memory, with their whole history and no bounds.
pub struct MemoryStore {
    state: Mutex<State>,
    live: broadcast::Sender<Change>,
    observer: Option<Observer>,
    /// While it is held, a list has read and does not answer yet.
    pub lists: tokio::sync::Mutex<()>,
}

impl MemoryStore {
    /// An empty store, whose watchers may be `behind` so many changes.
    pub fn new(behind: usize) -> Self {
        MemoryStore {
            state: Mutex::default(),
            live: broadcast::channel(behind).0,
            observer: None,
            lists: tokio::sync::Mutex::default(),
        }
    }

    /// The same, and `observer` sees every change.
    pub fn observed(behind: usize, observer: impl Fn(&Change) + Send + Sync + 'static) -> Self {
        MemoryStore { observer: Some(Box::new(observer)), ..MemoryStore::new(behind) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, write: Write) -> Result<Change, WriteError> {
        let (key, expected, after) = match write {
            Write::Create { key, json } => (key, None, Some(json)),
            Write::Update { key, expected, json } => (key, Some(expected), Some(json)),
            Write::Delete { key, expected } => (key, Some(expected), None),
        };
        let before = self.items.get(&key);
        match (before, expected) {
            (Some(_), None) => return Err(WriteError::Exists),
            (None, Some(_)) => return Err(WriteError::Missing),
            (Some(item), Some(expected)) if item.revision != expected => {
                return Err(WriteError::Conflict { current: item.revision });
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let before = before.map(|item| item.json.clone());
        self.revision += 1;
        let revision = self.revision;
        match &after {
            Some(json) => {
                let item = Item { key: key.clone(), revision, json: json.clone() };
                self.items.insert(key.clone(), item);
            }
            None => drop(self.items.remove(&key)),
        }
        let change = Change { revision, key, before, after };
        self.history.push(change.clone());
        Ok(change)
    }
}

impl ReadStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        let item = self.state().items.get(key).cloned();
        Box::pin(async { Ok(item) })
    }

    fn list(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let state = self.state();
        let wanted = state.items.values().filter(|item| {
            let at = (&item.key.namespace, &item.key.name);
            item.key.resource == range.resource
                && range.namespace.as_ref().is_none_or(|namespace| *namespace == item.key.namespace)
                && range.after.as_ref().is_none_or(|(namespace, name)| at > (namespace, name))
        });
        let mut items: Vec<Item> = wanted.cloned().collect();
        let more = range.limit.is_some_and(|limit| items.len() > limit);
        items.truncate(range.limit.unwrap_or(usize::MAX));
        let page = Page { items, revision: state.revision, more };
        Box::pin(async {
            drop(self.lists.lock().await);
            Ok(page)
        })
    }

    fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
    ) -> BoxFuture<'_, Result<Changes, WatchError>> {
        let (resource, namespace) = (resource.to_owned(), namespace.map(str::to_owned));
        let wanted = move |change: &Change| {
            change.key.resource == resource
                && namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
        };
        let state = self.state();
        let past: Vec<Change> = state
            .history
            .iter()
            .filter(|change| change.revision > after && wanted(change))
            .cloned()
            .collect();
        // Taken while the state is held, so that nothing falls between the past and the live.
        let live = self.live.subscribe();
        drop(state);
        let live = futures::stream::unfold(live, |mut live| async { Some((live.recv().await.ok()?, live)) });
        let live = live.filter(move |change| std::future::ready(wanted(change)));
        let all: Changes = futures::stream::iter(past).chain(live).map(Ok).boxed();
        Box::pin(async { Ok(all) })
    }

    fn revision(&self) -> u64 {
        self.state().revision
    }
}

impl Store for MemoryStore {
    fn write(&self, write: Write) -> BoxFuture<'_, Result<u64, WriteError>> {
        let outcome = self.state().write(write).map(|change| {
            let revision = change.revision;
            if let Some(observer) = &self.observer {
                observer(&change);
            }
            // Nobody may be watching.
            let _ = self.live.send(change);
            revision
        });
        Box::pin(async { outcome })
    }
}

/// The time is 1,800,000,000 s after 1970 and stands still, and nothing is random.
pub fn options() -> Options {
    let counter = AtomicU8::new(0);
    Options {
        now: Arc::new(|| Timestamp::from_second(1_800_000_000).unwrap()),
        random: Arc::new(move || [counter.fetch_add(1, Ordering::Relaxed); 16]),
        sleep: Arc::new(|pause| Box::pin(tokio::time::sleep(pause))),
        version: VersionInfo { major: "1".into(), minor: "33".into(), git_version: "v1.33.0".into() },
    }
}

/// An API over a store in memory, with the namespace `d` and its service account `default`.
pub struct TestServer(pub Api<MemoryStore>);

impl TestServer {
    /// A server with a policy that is made of its store.
    pub async fn new(policy: impl FnOnce(&Arc<MemoryStore>) -> Arc<dyn Policy<MemoryStore>>) -> TestServer {
        let store = Arc::new(MemoryStore::new(64));
        let policy = policy(&store);
        let server = TestServer(Api::new(store, options(), policy));
        server.ok(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "d"}})).await;
        let account = json!({"metadata": {"name": "default"}});
        server.ok(Method::POST, "/api/v1/namespaces/d/serviceaccounts", account).await;
        server
    }

    /// Code, answer and warnings of a request of nobody in particular; a null body is none.
    pub async fn ask(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value, Vec<String>) {
        self.ask_as(&User::default(), method, uri, headers, body).await
    }

    /// The same of `user`.
    pub async fn ask_as(
        &self,
        user: &User,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value, Vec<String>) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.answer(request.body(body).unwrap(), user).await
    }

    /// The same of a body as it is written.
    pub async fn ask_text(&self, method: Method, uri: &str, body: &str) -> (u16, Value, Vec<String>) {
        let request = Request::builder().method(method).uri(uri);
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.answer(request.body(body).unwrap(), &User::default()).await
    }

    async fn answer(&self, request: Request<Bytes>, user: &User) -> (u16, Value, Vec<String>) {
        let response = self.0.handle(request, user).await;
        let warnings =
            response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let code = response.status().as_u16();
        let Body::Whole(bytes) = response.into_body() else { panic!("a stream") };
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null), warnings)
    }

    /// The answer to a request that is granted.
    pub async fn ok(&self, method: Method, uri: &str, body: Value) -> Value {
        let (code, answer, _) = self.ask(method, uri, &[], body).await;
        assert!((200..300).contains(&code), "{uri}: {answer}");
        answer
    }

    /// Code and message of a request that is refused.
    pub async fn refused(&self, method: Method, uri: &str, body: Value) -> (u16, String) {
        let (code, answer, _) = self.ask(method, uri, &[], body).await;
        assert_eq!(answer["kind"], "Status", "{uri}: {answer}");
        assert_eq!(answer["code"], code);
        (code, answer["message"].as_str().unwrap().to_owned())
    }

    /// Code and answer of a patch of the type `application/{kind}-patch+json`.
    pub async fn patch(&self, uri: &str, kind: &str, body: Value) -> (u16, Value) {
        let media = format!("application/{kind}-patch+json");
        let (code, answer, _) = self.ask(Method::PATCH, uri, &[("content-type", &media)], body).await;
        (code, answer)
    }

    /// The events of a watch.
    pub async fn watch(&self, uri: &str) -> impl Stream<Item = Value> + use<> {
        self.watch_as(uri.to_owned(), ("accept", "application/json")).await
    }

    /// The same with a header of its own.
    pub async fn watch_as(&self, uri: String, header: (&str, &str)) -> impl Stream<Item = Value> + use<> {
        let request = Request::builder().uri(uri).header(header.0, header.1).body(Bytes::new()).unwrap();
        let Body::Stream(lines) = self.0.handle(request, &User::default()).await.into_body() else {
            panic!()
        };
        lines.map(|line| serde_json::from_slice(&line).unwrap())
    }
}

/// A pod with one container.
pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
}
