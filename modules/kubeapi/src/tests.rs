//! The rules over a store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::*;

mod admission;
mod raw;
mod reads;
mod registers;
mod writes;

#[derive(Default)]
struct State {
    revision: u64,
    items: BTreeMap<Key, Item>,
    history: Vec<Change>,
}

struct Memory {
    state: Mutex<State>,
    live: broadcast::Sender<Change>,
    /// While it is held, a list has read and does not answer yet.
    gate: tokio::sync::Mutex<()>,
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        let item = self.state.lock().unwrap().items.get(key).cloned();
        Box::pin(async { Ok(item) })
    }

    fn list(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let state = self.state.lock().unwrap();
        let mut items: Vec<Item> = state
            .items
            .values()
            .filter(|item| item.key.resource == range.resource)
            .filter(|item| range.namespace.as_ref().is_none_or(|ns| *ns == item.key.namespace))
            .filter(|item| {
                let at = (item.key.namespace.clone(), item.key.name.clone());
                range.after.as_ref().is_none_or(|after| at > *after)
            })
            .cloned()
            .collect();
        let more = range.limit.is_some_and(|limit| items.len() > limit);
        items.truncate(range.limit.unwrap_or(usize::MAX));
        let page = Page { items, revision: state.revision, more };
        Box::pin(async {
            drop(self.gate.lock().await);
            Ok(page)
        })
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<u64, WriteError>> {
        let mut state = self.state.lock().unwrap();
        let result = (|| {
            let (key, expected, after) = match write {
                Write::Create { key, json } => (key, None, Some(json)),
                Write::Update { key, expected, json } => (key, Some(expected), Some(json)),
                Write::Delete { key, expected } => (key, Some(expected), None),
            };
            let before = state.items.get(&key).cloned();
            match (&before, expected) {
                (Some(_), None) => return Err(WriteError::Exists),
                (None, Some(_)) => return Err(WriteError::Missing),
                (Some(item), Some(expected)) if item.revision != expected => {
                    return Err(WriteError::Conflict { current: item.revision });
                }
                _ => {}
            }
            state.revision += 1;
            let revision = state.revision;
            match &after {
                Some(json) => {
                    let item = Item { key: key.clone(), revision, json: json.clone() };
                    state.items.insert(key.clone(), item);
                }
                None => drop(state.items.remove(&key)),
            }
            let change = Change { revision, key, before: before.map(|item| item.json), after };
            state.history.push(change.clone());
            let _ = self.live.send(change);
            Ok(revision)
        })();
        Box::pin(async { result })
    }

    fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
    ) -> BoxFuture<'_, Result<Changes, WatchError>> {
        let state = self.state.lock().unwrap();
        let (resource, namespace) = (resource.to_owned(), namespace.map(str::to_owned));
        let wanted = move |change: &Change| {
            change.key.resource == resource
                && namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
        };
        let past: Vec<Change> =
            state.history.iter().filter(|c| c.revision > after && wanted(c)).cloned().collect();
        let live = self.live.subscribe();
        let live = futures::stream::unfold(live, |mut live| async { Some((live.recv().await.ok()?, live)) });
        let live = live.filter(move |change| futures::future::ready(wanted(change)));
        let all = futures::stream::iter(past).chain(live).map(Ok).boxed();
        Box::pin(async { Ok(all) })
    }

    fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }
}

struct NoHooks;

impl Hooks for NoHooks {
    fn mint_token(&self, order: &TokenOrder) -> Result<(String, Vec<String>, Timestamp), String> {
        let ends = Timestamp::from_second(order.expiration_seconds).unwrap();
        Ok((format!("token-of-{}", order.service_account), vec!["api".into()], ends))
    }
    fn review_token<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Option<(User, Vec<String>)>> {
        let user = User { name: "me".into(), ..User::default() };
        Box::pin(async move { (token == "good").then_some((user, vec!["api".to_owned()])) })
    }
    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, bool> {
        let verb = attributes.verb.as_str();
        let may = match user.name.as_str() {
            "me" => verb == "get",
            "binder" => verb == "bind" && attributes.name == "reader",
            "root" => true,
            _ => false,
        };
        Box::pin(std::future::ready(may))
    }
    fn rules_of<'a>(&'a self, user: &'a User, namespace: &'a str) -> BoxFuture<'a, Vec<Value>> {
        let rules = match (user.name.as_str(), namespace) {
            // Only in its namespace.
            ("owner", "d") => {
                vec![json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]})]
            }
            _ => Vec::new(),
        };
        Box::pin(std::future::ready(rules))
    }
}

struct Server(Api<Memory>);

impl Server {
    async fn new() -> Server {
        let counter = std::sync::atomic::AtomicU8::new(0);
        let options = Options {
            now: Arc::new(|| Timestamp::from_second(1_800_000_000).unwrap()),
            random: Arc::new(move || [counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed); 16]),
            sleep: Arc::new(|pause| Box::pin(tokio::time::sleep(pause))),
            version: VersionInfo { major: "1".into(), minor: "33".into(), git_version: "v1.33.0".into() },
            hooks: Arc::new(NoHooks),
        };
        let memory =
            Memory { state: Mutex::default(), live: broadcast::channel(64).0, gate: Default::default() };
        let server = Server(Api::new(Arc::new(memory), options));
        let namespace = json!({"metadata": {"name": "d"}});
        server.ok(Method::POST, "/api/v1/namespaces", namespace).await;
        server
            .ok(
                Method::POST,
                "/api/v1/namespaces/d/serviceaccounts",
                json!({"metadata": {"name": "default"}}),
            )
            .await;
        server
    }

    async fn ask(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value, Vec<String>) {
        self.ask_as(&User::default(), method, uri, headers, body).await
    }

    async fn ask_as(
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
        let response = self.0.handle(request.body(body).unwrap(), user).await;
        let warnings =
            response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let code = response.status().as_u16();
        let Body::Whole(bytes) = response.into_body() else { panic!("a stream") };
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null), warnings)
    }

    async fn ok(&self, method: Method, uri: &str, body: Value) -> Value {
        let (code, answer, _) = self.ask(method, uri, &[], body).await;
        assert!((200..300).contains(&code), "{uri}: {answer}");
        answer
    }

    async fn refused(&self, method: Method, uri: &str, body: Value) -> (u16, String) {
        let (code, answer, _) = self.ask(method, uri, &[], body).await;
        assert_eq!(answer["kind"], "Status", "{uri}: {answer}");
        assert_eq!(answer["code"], code);
        (code, answer["message"].as_str().unwrap().to_owned())
    }

    async fn patch(&self, uri: &str, kind: &str, body: Value) -> (u16, Value) {
        let media = format!("application/{kind}-patch+json");
        let (code, answer, _) = self.ask(Method::PATCH, uri, &[("content-type", &media)], body).await;
        (code, answer)
    }

    async fn watch(&self, uri: &str) -> impl futures::Stream<Item = Value> + use<> {
        self.watch_as(uri.to_owned(), ("accept", "application/json")).await
    }

    async fn watch_as(
        &self,
        uri: String,
        header: (&str, &str),
    ) -> impl futures::Stream<Item = Value> + use<> {
        let request = Request::builder().uri(uri).header(header.0, header.1).body(Bytes::new()).unwrap();
        let Body::Stream(lines) = self.0.handle(request, &User::default()).await.into_body() else {
            panic!()
        };
        lines.map(|line| serde_json::from_slice(&line).unwrap())
    }
}

const PODS: &str = "/api/v1/namespaces/d/pods";
const MAPS: &str = "/api/v1/namespaces/d/configmaps";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
}

#[tokio::test]
async fn an_object_is_made_read_changed_and_removed() {
    let server = Server::new().await;
    let made = server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await;
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(made["metadata"][field].is_string(), "{field}");
    }
    assert_eq!(
        server.refused(Method::POST, MAPS, json!({"metadata": {"name": "a"}})).await,
        (409, "configmaps \"a\" already exists".to_owned())
    );
    let mut next = made.clone();
    next["data"]["k"] = json!("2");
    let uri = format!("{MAPS}/a");
    let updated = server.ok(Method::PUT, &uri, next.clone()).await;
    assert_ne!(updated["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (code, message) = server.refused(Method::PUT, &uri, next).await;
    assert_eq!(code, 409);
    assert!(
        message
            .starts_with("Operation cannot be fulfilled on configmaps \"a\": the object has been modified")
    );
    // Nothing changed, nothing is written.
    assert_eq!(server.ok(Method::PUT, &uri, updated.clone()).await, updated);
    let gone = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert_eq!(gone["status"], "Success");
    assert_eq!(
        server.refused(Method::GET, &uri, Value::Null).await,
        (404, "configmaps \"a\" not found".to_owned())
    );
}

#[tokio::test]
async fn a_server_refuses_what_a_server_refuses() {
    let server = Server::new().await;
    let cases = [
        (
            MAPS,
            json!({"metadata": {"name": "A"}}),
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\"",
        ),
        (MAPS, json!({"metadata": {}}), 422, "name or generateName is required"),
        (MAPS, json!({"metadata": {"name": "a", "namespace": "e"}}), 400, "does not match the namespace"),
        (
            "/api/v1/namespaces/e/configmaps",
            json!({"metadata": {"name": "a"}}),
            404,
            "namespaces \"e\" not found",
        ),
        (
            PODS,
            json!({"metadata": {"name": "a"}, "spec": {"containers": []}}),
            422,
            "spec.containers: Required value",
        ),
        (
            PODS,
            json!({"metadata": {"name": "a"}, "spec": {"containers": "x"}}),
            400,
            "cannot be handled as a Pod",
        ),
        (PODS, json!({"kind": "Node", "apiVersion": "v1"}), 400, "does not match the expected API version"),
        (PODS, json!([1]), 400, "unrecognized"),
        ("/api/v1/nothings", json!({}), 404, "could not find the requested resource"),
        ("/api/v1/namespaces/d/nodes", json!({}), 404, "could not find the requested resource"),
    ];
    for (uri, body, code, part) in cases {
        let (found, message) = server.refused(Method::POST, uri, body).await;
        assert!(found == code && message.contains(part), "{uri}: {found} {message}");
    }
    let strict = format!("{PODS}?fieldValidation=Strict");
    let mut odd = pod("a");
    odd["spec"]["colour"] = json!("red");
    let (code, message) = server.refused(Method::POST, &strict, odd.clone()).await;
    assert_eq!(
        (code, message.as_str()),
        (
            400,
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.colour\""
        )
    );
    let (code, made, warnings) = server.ask(Method::POST, PODS, &[], odd).await;
    assert_eq!((code, warnings), (201, vec!["299 - \"unknown field \\\"spec.colour\\\"\"".to_owned()]));
    assert_eq!(made["spec"].get("colour"), None);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/d/leases";
    server.ok(Method::POST, lease, json!({"metadata": {"name": "l"}})).await;
    let (code, message) =
        server.refused(Method::PUT, &format!("{lease}/l"), json!({"metadata": {"name": "l"}})).await;
    assert!(code == 422 && message.contains("must be specified for an update"), "{message}");
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.ask(Method::POST, PODS, &protobuf, json!({})).await.0, 415);
    assert_eq!(
        server
            .ask(Method::GET, PODS, &[("accept", "application/vnd.kubernetes.protobuf")], Value::Null)
            .await
            .0,
        406
    );
    let large = json!({"metadata": {"name": "x".repeat(BODY_MAX)}});
    assert_eq!(server.refused(Method::POST, MAPS, large).await.0, 413);
}

#[tokio::test]
async fn status_is_written_through_its_own_door_only() {
    let server = Server::new().await;
    let mut running = pod("a");
    running["status"] = json!({"phase": "Running"});
    let made = server.ok(Method::POST, PODS, running).await;
    assert_eq!(made["status"]["phase"], "Pending");
    let uri = format!("{PODS}/a");
    let (code, next) = server.patch(&uri, "merge", json!({"status": {"phase": "Failed"}})).await;
    assert_eq!((code, &next["status"]["phase"]), (200, &json!("Pending")));
    let status = format!("{uri}/status");
    let (code, next) = server
        .patch(&status, "strategic-merge", json!({"status": {"phase": "Running"}, "spec": {"nodeName": "n"}}))
        .await;
    assert_eq!((code, &next["status"]["phase"]), (200, &json!("Running")));
    assert_eq!(next["spec"].get("nodeName"), None);
}

#[tokio::test]
async fn a_bound_pod_goes_gracefully_and_an_unbound_one_at_once() {
    let server = Server::new().await;
    server.ok(Method::POST, PODS, pod("a")).await;
    server.ok(Method::DELETE, &format!("{PODS}/a"), Value::Null).await;
    assert_eq!(server.refused(Method::GET, &format!("{PODS}/a"), Value::Null).await.0, 404);
    server.ok(Method::POST, PODS, pod("b")).await;
    let uri = format!("{PODS}/b");
    server
        .ok(Method::POST, &format!("{uri}/binding"), json!({"target": {"kind": "Node", "name": "n"}}))
        .await;
    let (code, message) =
        server.refused(Method::POST, &format!("{uri}/binding"), json!({"target": {"name": "m"}})).await;
    assert!(code == 409 && message.contains("already assigned to node \"n\""), "{message}");
    let going = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(going["metadata"]["deletionTimestamp"].is_string());
    let (code, message) = server.refused(Method::DELETE, &uri, json!({"preconditions": {"uid": "x"}})).await;
    assert!(code == 409 && message.contains("UID in precondition: x"), "{message}");
    server.ok(Method::DELETE, &uri, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(server.refused(Method::GET, &uri, Value::Null).await.0, 404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::new().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
    server.ok(Method::POST, MAPS, held).await;
    let uri = format!("{MAPS}/a");
    let marked = server.ok(Method::DELETE, &uri, Value::Null).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let (code, _) = server.patch(&uri, "merge", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    assert_eq!(server.refused(Method::GET, &uri, Value::Null).await.0, 404);
    let foreground = json!({"propagationPolicy": "Foreground"});
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "b"}})).await;
    let marked = server.ok(Method::DELETE, &format!("{MAPS}/b"), foreground).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    // A namespace waits for its own finalizer.
    let space = server.ok(Method::DELETE, "/api/v1/namespaces/d", Value::Null).await;
    assert_eq!(space["status"]["phase"], "Terminating");
    let (code, message) = server.refused(Method::POST, MAPS, json!({"metadata": {"name": "c"}})).await;
    assert!(code == 403 && message.contains("it is being terminated"), "{message}");
    let done = json!({"metadata": {"name": "d"}, "spec": {"finalizers": []}});
    server.ok(Method::PUT, "/api/v1/namespaces/d/finalize", done).await;
    assert_eq!(server.refused(Method::GET, "/api/v1/namespaces/d", Value::Null).await.0, 404);
}

#[tokio::test]
async fn lists_are_chosen_paged_and_drawn() {
    let server = Server::new().await;
    for name in ["a", "b", "c"] {
        server.ok(Method::POST, PODS, pod(name)).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = server.ok(Method::GET, &format!("{PODS}?labelSelector=app%20in%20(a,c)"), Value::Null).await;
    assert_eq!((names(&list), &list["kind"]), (vec!["a".to_owned(), "c".to_owned()], &json!("PodList")));
    let list = server
        .ok(Method::GET, "/api/v1/pods?fieldSelector=metadata.name=b,spec.nodeName=", Value::Null)
        .await;
    assert_eq!(names(&list), ["b"]);
    let first = server.ok(Method::GET, &format!("{PODS}?limit=2"), Value::Null).await;
    assert_eq!(names(&first), ["a", "b"]);
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = server.ok(Method::GET, &format!("{PODS}?limit=2&continue={next}"), Value::Null).await;
    assert_eq!((names(&second), second["metadata"].get("continue")), (vec!["c".to_owned()], None));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let (_, drawn, _) = server.ask(Method::GET, PODS, &table, Value::Null).await;
    assert_eq!(drawn["kind"], "Table");
    let cells = drawn["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("a"), json!("0/1"), json!("Pending"), json!("0")]);
    assert_eq!(server.refused(Method::GET, &format!("{PODS}?continue=%21"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn a_watch_tells_what_its_selector_sees() {
    let server = Server::new().await;
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "a", "labels": {"x": "1"}}})).await;
    let mut watch = std::pin::pin!(server.watch(&format!("{MAPS}?watch=true&labelSelector=x=1")).await);
    let mut next = async || {
        let event =
            tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
        (
            event["type"].as_str().unwrap().to_owned(),
            event["object"]["metadata"]["name"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(next().await, ("ADDED".into(), "a".into()));
    server.ok(Method::POST, MAPS, json!({"metadata": {"name": "b"}})).await;
    server.patch(&format!("{MAPS}/b"), "merge", json!({"metadata": {"labels": {"x": "1"}}})).await;
    assert_eq!(next().await, ("ADDED".into(), "b".into()));
    server.patch(&format!("{MAPS}/a"), "merge", json!({"data": {"k": "v"}})).await;
    assert_eq!(next().await, ("MODIFIED".into(), "a".into()));
    server.patch(&format!("{MAPS}/a"), "merge", json!({"metadata": {"labels": {"x": "2"}}})).await;
    assert_eq!(next().await, ("DELETED".into(), "a".into()));
    server.ok(Method::DELETE, &format!("{MAPS}/b"), Value::Null).await;
    assert_eq!(next().await, ("DELETED".into(), "b".into()));
}

#[tokio::test]
async fn a_definition_makes_a_kind_with_rules() {
    let server = Server::new().await;
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "things.x.io"}, "spec": {
        "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1, "maximum": 3}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    let made = server.ok(Method::POST, DEFINITIONS, definition).await;
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    const THINGS: &str = "/apis/x.io/v1/namespaces/d/things";
    let thing = server
        .ok(Method::POST, THINGS, json!({"metadata": {"name": "t"}, "spec": {}, "status": {"a": 1}}))
        .await;
    assert_eq!((&thing["spec"]["size"], thing.get("status")), (&json!(1), None));
    assert_eq!(thing["metadata"]["generation"], 1);
    let (code, message) =
        server.refused(Method::POST, THINGS, json!({"metadata": {"name": "u"}, "spec": {"size": 9}})).await;
    assert!(
        code == 422 && message.starts_with("Thing.x.io \"u\" is invalid: spec.size: Invalid value: 9"),
        "{message}"
    );
    let strict = format!("{THINGS}?fieldValidation=Strict");
    let (code, message) =
        server.refused(Method::POST, &strict, json!({"metadata": {"name": "u"}, "spec": {"sice": 9}})).await;
    assert!(code == 400 && message.ends_with("unknown field \"spec.sice\""), "{message}");
    let uri = format!("{THINGS}/t");
    let (_, next) = server.patch(&uri, "merge", json!({"spec": {"size": 2}})).await;
    assert_eq!(next["metadata"]["generation"], 2);
    let (_, next) = server
        .patch(&format!("{uri}/status"), "merge", json!({"status": {"a": 2}, "spec": {"size": 3}}))
        .await;
    assert_eq!((&next["spec"]["size"], &next["status"]["a"]), (&json!(2), &json!(2)));
    assert_eq!(next["metadata"]["generation"], 2);
    assert_eq!(server.patch(&uri, "strategic-merge", json!({})).await.0, 415);
    let (_, drawn, _) =
        server.ask(Method::GET, THINGS, &[("accept", "application/json;as=Table")], Value::Null).await;
    assert_eq!(drawn["rows"][0]["cells"], json!(["t", 2]));
    let (code, message) =
        server.refused(Method::PUT, &uri, json!({"metadata": {"name": "t"}, "spec": {}})).await;
    assert!(
        code == 422
            && message
                .ends_with("metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"),
        "{message}"
    );
    server.ok(Method::DELETE, &format!("{DEFINITIONS}/things.x.io"), Value::Null).await;
    assert_eq!(server.refused(Method::GET, THINGS, Value::Null).await.0, 404);
}

#[tokio::test]
async fn scale_tokens_reviews_and_dry_runs() {
    let server = Server::new().await;
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/d/deployments";
    let template =
        json!({"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let deployment = json!({"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template}});
    let dry = server.ok(Method::POST, &format!("{DEPLOYMENTS}?dryRun=All"), deployment.clone()).await;
    assert_eq!(dry["spec"]["replicas"], 1);
    assert_eq!(server.refused(Method::GET, &format!("{DEPLOYMENTS}/w"), Value::Null).await.0, 404);
    server.ok(Method::POST, DEPLOYMENTS, deployment).await;
    let (code, scale) =
        server.patch(&format!("{DEPLOYMENTS}/w/scale"), "merge", json!({"spec": {"replicas": 3}})).await;
    assert_eq!(
        (code, &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (200, &json!(3), &json!("app=w"))
    );
    let (code, message) = {
        let (code, answer) = server
            .patch(
                &format!("{DEPLOYMENTS}/w"),
                "merge",
                json!({"spec": {"selector": {"matchLabels": {"app": "v"}}}}),
            )
            .await;
        (code, answer["message"].as_str().unwrap().to_owned())
    };
    assert!(code == 422 && message.contains("spec.selector"), "{message}");
    let token = server
        .ok(
            Method::POST,
            "/api/v1/namespaces/d/serviceaccounts/default/token",
            json!({"spec": {"expirationSeconds": 600}}),
        )
        .await;
    assert_eq!(token["status"]["token"], "token-of-default");
    let short = json!({"spec": {"expirationSeconds": 5}});
    assert_eq!(
        server.refused(Method::POST, "/api/v1/namespaces/d/serviceaccounts/default/token", short).await.0,
        422
    );
    let review = server
        .ok(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "good"}}))
        .await;
    assert_eq!(review["status"]["user"]["username"], "me");
    let access = json!({"spec": {"user": "me", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let review = server.ok(Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", access).await;
    assert_eq!(review["status"]["allowed"], true);
    let services = "/api/v1/namespaces/d/services";
    let service = server
        .ok(Method::POST, services, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}))
        .await;
    assert!(service["spec"]["clusterIP"].as_str().unwrap().starts_with("10."), "{service}");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
}
