//! One tenant against the bounds of the store, which are small here.

use std::sync::Arc;
use std::time::Duration;

use beehive::{Capacity, Env, Hive};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request};
use jiff::Timestamp;
use kubeapi::{Api, Attributes, Body, Options, User, VersionInfo};
use serde_json::{Value, json};

use crate::access::{AccessControl, TokenRequest};
use crate::admission::ClusterPolicy;
use crate::store::{BOUNDS, SqliteStore, StoreBounds};
use crate::{bootstrap, controllers, loopback};

struct AllowAll;

impl AccessControl for AllowAll {
    fn mint_token(&self, _: &TokenRequest) -> Result<(String, Vec<String>, Timestamp), String> {
        Err("none here".to_owned())
    }
    fn review_token<'a>(&'a self, _: &'a str, _: &'a [String]) -> BoxFuture<'a, Option<(User, Vec<String>)>> {
        Box::pin(std::future::ready(None))
    }
    fn authorize<'a>(&'a self, _: &'a User, _: &'a Attributes) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(true))
    }
}

struct Small {
    api: Api<SqliteStore>,
    env: Env,
    _temp: tempfile::TempDir,
}

impl Small {
    async fn new(bounds: StoreBounds) -> Small {
        let temp = tempfile::tempdir().unwrap();
        let store = SqliteStore::bounded(&temp.path().join("api.db"), bounds).unwrap();
        let env = Env::real();
        let (wall, sleeper) = (env.clock(), env.clock());
        let options = Options {
            now: Arc::new(move || Timestamp::try_from(wall.wall()).unwrap()),
            random: Arc::from(env.id_source()),
            sleep: Arc::new(move |pause| sleeper.sleep(pause)),
            version: VersionInfo { major: "1".into(), minor: "33".into(), git_version: "v1.33.0".into() },
        };
        let store = Arc::new(store);
        let random = Arc::clone(&options.random);
        let policy = ClusterPolicy::new(Arc::clone(&store), Arc::new(AllowAll), random);
        let api = Api::new(store, options, Arc::new(policy));
        bootstrap::run(&api).await.unwrap();
        Small { api, env, _temp: temp }
    }

    async fn ask(&self, user: &User, method: Method, uri: &str, body: Value) -> (u16, Value) {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(uri).header("content-type", media);
        let response = self.api.handle(request.body(body).unwrap(), user).await;
        let code = response.status().as_u16();
        let Body::Whole(bytes) = response.into_body() else { panic!("a stream") };
        (code, serde_json::from_slice(&bytes).unwrap())
    }

    async fn admin(&self, method: Method, uri: &str, body: Value) -> Value {
        let (code, answer) = self.ask(&bootstrap::loopback(), method, uri, body).await;
        assert!((200..300).contains(&code), "{uri}: {answer}");
        answer
    }
}

fn tenant() -> User {
    User { name: "system:serviceaccount:default:tenant".to_owned(), ..User::default() }
}

fn map(name: &str, bytes: usize) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "x".repeat(bytes)}})
}

fn maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

#[tokio::test]
async fn one_tenant_does_not_fill_the_store() {
    let bounds = StoreBounds { object_bytes: 400_000, reserve: 100_000, space_bytes: 100_000, ..BOUNDS };
    let small = Small::new(bounds).await;
    let spaces = ["default", "b", "c", "d", "e"];
    for space in &spaces[1..] {
        small.admin(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": space}})).await;
    }
    let (mut codes, mut told) = (Vec::new(), String::new());
    let mut fill = async |space: &str| {
        for n in 0..60 {
            let mut body = map(&format!("m{n}"), 3_000);
            body["metadata"]["finalizers"] = json!(["x.io/hold"]);
            let (code, answer) = small.ask(&tenant(), Method::POST, &maps(space), body).await;
            codes.push(code);
            if code != 201 {
                told = answer["message"].as_str().unwrap().to_owned();
                assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Failure")));
                return told.clone();
            }
        }
        panic!("{space} has no end");
    };
    let message = fill("default").await;
    assert!(message.contains("is forbidden: exceeded quota: the objects of namespace default"), "{message}");
    for space in &spaces[1..] {
        fill(space).await;
    }
    assert_eq!(
        (codes.iter().filter(|code| **code == 403).count(), codes.last()),
        (2, Some(&507)),
        "{codes:?}"
    );
    assert!(told.contains("the database is full") && told.contains("delete some first"), "{told}");
    // An administrator works on, in the tenant's namespaces, too.
    small.admin(Method::POST, &maps("default"), map("admin", 3_000)).await;
    small.admin(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "more"}})).await;
    // What is larger is refused to the tenant, what removes is not: a mark makes the object larger, too.
    let one = format!("{}/m0", maps("default"));
    let larger = json!({"data": {"k": "x".repeat(90_000)}});
    let (code, answer) = small.ask(&tenant(), Method::PATCH, &one, larger).await;
    assert!(matches!(code, 403 | 507), "{answer}");
    let (code, marked) = small.ask(&tenant(), Method::DELETE, &one, Value::Null).await;
    assert!(code == 200 && marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    let release = json!({"metadata": {"finalizers": null}});
    assert_eq!(small.ask(&tenant(), Method::PATCH, &one, release).await.0, 200);
    let (code, answer) = small.ask(&tenant(), Method::POST, &maps("default"), map("again", 100)).await;
    assert!(code == 201 || code == 507, "{answer}");
}

#[tokio::test]
async fn events_take_no_more_than_a_namespaces_share_whoever_writes_them() {
    let small = Small::new(StoreBounds { space_objects: 20, ..BOUNDS }).await;
    for user in [bootstrap::loopback(), bootstrap::controllers()] {
        let space = if user.is_master() { "default" } else { "kube-system" };
        let uri = format!("/api/v1/namespaces/{space}/events");
        let mut codes = Vec::new();
        for n in 0..21 {
            let event = json!({"metadata": {"name": format!("e{n}")}, "involvedObject": {"kind": "Pod", "namespace": space}});
            codes.push(small.ask(&user, Method::POST, &uri, event).await.0);
        }
        assert_eq!((&codes[..20], codes[20]), (&[201; 20][..], 403), "{space}");
        // What keeps the cluster running still has room.
        let account = json!({"metadata": {"name": "more"}});
        let uri = format!("/api/v1/namespaces/{space}/serviceaccounts");
        assert_eq!(small.ask(&user, Method::POST, &uri, account).await.0, 201);
    }
}

#[actix_rt::test]
async fn a_replica_set_without_end_ends() {
    let small = Small::new(StoreBounds { pods: 20, space_objects: 60, ..BOUNDS }).await;
    let settings = controllers::ControllerSettings {
        retry_first: Duration::from_millis(10),
        retry_most: Duration::from_millis(100),
        ..controllers::ControllerSettings::default()
    };
    let client = loopback::client_of(&small.api, bootstrap::controllers());
    let mut hive = Hive::new("controllers", small.env.clone());
    let mailbox = hive.mailbox("controller-manager", Capacity::new(1, "a test's choice"));
    controllers::supervise(&mut hive, mailbox, client, settings);
    hive.open().unwrap();
    {
        let sets = "/apis/apps/v1/namespaces/default/replicasets";
        let set = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2_000_000_000,
                "selector": {"matchLabels": {"app": "w"}},
                "template": {"metadata": {"labels": {"app": "w"}},
                    "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
        assert_eq!(small.ask(&tenant(), Method::POST, sets, set).await.0, 201);
        let pods = "/api/v1/namespaces/default/pods";
        let events = "/api/v1/namespaces/default/events";
        let count = async |uri: &str| {
            small.admin(Method::GET, uri, Value::Null).await["items"].as_array().unwrap().len()
        };
        // It says why it has not more, and tries again and again.
        let tries = async || {
            let list = small.admin(Method::GET, events, Value::Null).await;
            let mut items = list["items"].as_array().unwrap().iter();
            items
                .find(|event| {
                    event["reason"] == "FailedCreate"
                        && event["message"].as_str().unwrap().contains("exceeded quota")
                })
                .map(|event| event["count"].as_i64().unwrap())
        };
        let wait = async {
            while tries().await.is_none_or(|tries| tries < 5) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
        assert_eq!(count(pods).await, 20);
        let (_, set) = small.ask(&tenant(), Method::GET, &format!("{sets}/web"), Value::Null).await;
        let condition = &set["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["reason"]),
            (&json!("ReplicaFailure"), &json!("FailedCreate"))
        );
        assert!(condition["message"].as_str().unwrap().contains("exceeded quota"), "{condition}");
        // One event counts up: the tries leave nothing behind.
        let list = small.admin(Method::GET, events, Value::Null).await;
        let told = list["items"].as_array().unwrap().iter();
        let full = |event: &&Value| event["message"].as_str().unwrap().contains("exceeded quota");
        assert_eq!(told.filter(full).count(), 1);
        // An event whose time is over is told anew.
        small.admin(Method::DELETE, events, Value::Null).await;
        let wait = async {
            while tries().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
        // An administrator's pod has room.
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        small.admin(Method::POST, pods, pod).await;
        let none = json!({"spec": {"replicas": 0}});
        assert_eq!(small.ask(&tenant(), Method::PATCH, &format!("{sets}/web"), none).await.0, 200);
        let wait = async {
            while count(pods).await > 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    }
    hive.shutdown(Duration::from_secs(10)).await;
}
