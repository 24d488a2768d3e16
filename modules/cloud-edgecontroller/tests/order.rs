//! EdgeController over watches that are late, on the simulated clock: what a pod needs is told before it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Moment, Policy};
use bytes::Bytes;
use cloud_edgecontroller::{Dependencies, EdgeController};
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::nodelease::{NodeLeaseMsg, SessionState};
use contract::synccontroller::SyncMsg;
use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Full, StreamBody};
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};

/// The clock is simulated: it moves when everybody waits.
const LONG: Duration = Duration::from_secs(60);

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Lists = BTreeMap<&'static str, Value>;

/// An API server whose lists are given and whose watches tell what the test says, when it says so. A list that has a gate
/// waits for it.
struct Server {
    lists: Lists,
    gates: Mutex<BTreeMap<String, oneshot::Receiver<()>>>,
    watches: Mutex<BTreeMap<String, mpsc::Receiver<Bytes>>>,
}

impl Server {
    async fn answer(&self, uri: http::Uri) -> Response<Body> {
        let resource = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let watches = uri.query().is_some_and(|query| query.contains("watch=true"));
        if watches {
            // One that is watched again has nothing to tell.
            let lines = match self.watches.lock().unwrap().remove(&resource) {
                Some(lines) => lines.left_stream(),
                None => futures::stream::pending().right_stream(),
            };
            let frames = lines.map(|line| Ok(http_body::Frame::data(line)));
            return Response::new(UnsyncBoxBody::new(StreamBody::new(frames)));
        }
        let gate = self.gates.lock().unwrap().remove(&resource);
        if let Some(gate) = gate {
            let _ = gate.await;
        }
        let items = self.lists.get(resource.as_str()).cloned().unwrap_or_else(|| json!([]));
        let metadata = json!({"resourceVersion": "10"});
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
        Response::new(UnsyncBoxBody::new(Full::new(Bytes::from(list.to_string()))))
    }
}

struct Fixture {
    env: Env,
    _hive: Hive,
    sync: Probe<SyncMsg>,
    _hub: Probe<CloudHubMsg>,
    _stream: Probe<CloudStreamMsg>,
    /// What NodeLease says of the sessions.
    sessions: Sessions,
    watches: BTreeMap<&'static str, mpsc::Sender<Bytes>>,
    gates: BTreeMap<&'static str, oneshot::Sender<()>>,
    controller: Address<EdgeControllerMsg>,
}

fn run(lists: Lists, test: impl AsyncFnOnce(Fixture)) {
    run_gated(lists, &[], test);
}

/// The first list of these waits until the test opens its gate.
fn run_gated(lists: Lists, gated: &[&'static str], test: impl AsyncFnOnce(Fixture)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(fixture(lists, gated)).await });
}

fn fixture(mut lists: Lists, gated: &[&'static str]) -> Fixture {
    lists.insert("nodes", json!([node()]));
    let env = Env::seeded(7);
    let (mut watches, mut receivers) = (BTreeMap::new(), BTreeMap::new());
    for resource in ["nodes", "pods", "services", "configmaps", "secrets"] {
        let (sender, receiver) = mpsc::channel(16);
        watches.insert(resource, sender);
        receivers.insert(resource.to_owned(), receiver);
    }
    let (mut gates, mut closed) = (BTreeMap::new(), BTreeMap::new());
    for resource in gated {
        let (open, gate) = oneshot::channel();
        gates.insert(*resource, open);
        closed.insert((*resource).to_owned(), gate);
    }
    let server = Arc::new(Server { lists, gates: Mutex::new(closed), watches: Mutex::new(receivers) });
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request.uri().clone()).await) }
    });
    let client = kube::Client::new(service, "default");
    let (sync, to_sync) = Probe::new(&env, 64);
    let (hub, to_hub) = Probe::new(&env, 1);
    let (lease, to_lease) = Probe::new(&env, 16);
    let (stream, to_stream) = Probe::new(&env, 16);
    let sessions = Sessions::default();
    tokio::task::spawn_local(node_lease(lease, Rc::clone(&sessions)));
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox("cloud-edgecontroller", Capacity::new(64, "a test's choice"));
    let controller = hive.grant("tester", &mailbox, Flow::Ask);
    let dependencies = Dependencies {
        client,
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
    Fixture { env, _hive: hive, sync, _hub: hub, _stream: stream, sessions, watches, gates, controller }
}

fn node() -> Value {
    let labels = json!({"node-role.kubernetes.io/edge": ""});
    let annotations = json!({"kubehive.io/enrolment": "1"});
    let metadata = json!({"name": "edge-1", "uid": "n", "resourceVersion": "1", "labels": labels, "annotations": annotations});
    json!({"metadata": metadata})
}

fn pod(image: &str) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "p", "resourceVersion": "2"},
        "spec": {
            "nodeName": "edge-1",
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "token"}}]}],
            "volumes": [{"name": "page", "configMap": {"name": "page"}}],
            "containers": [{"name": "web", "image": image}],
        },
    })
}

fn need(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "3"}})
}

impl Fixture {
    async fn say(&mut self, resource: &str, what: &str, object: Value) {
        let line = json!({"type": what, "object": object}).to_string() + "\n";
        self.watches.get_mut(resource).unwrap().send(Bytes::from(line)).await.unwrap();
    }

    /// What SyncController is told until it is told this, and when that was.
    async fn told_until(&mut self, last: &str) -> (Vec<String>, Moment) {
        let mut told = Vec::new();
        while told.last().is_none_or(|message| message != last) {
            let message = self.sync.next(LONG).await.expect("more is told");
            told.push(match message {
                SyncMsg::Upsert { object, .. } => format!("+{}", object.key.name),
                SyncMsg::Delete { key, .. } => format!("-{}", key.name),
                other => beehive::Message::name(&other).to_owned(),
            });
        }
        (told, self.env.now())
    }

    fn open(&mut self, resource: &str) {
        let _ = self.gates.remove(resource).unwrap().send(());
    }

    async fn quiet(&mut self) {
        self.told_until("ListComplete").await;
    }

    async fn after(&self, milliseconds: u64) {
        self.env.sleep(Duration::from_millis(milliseconds)).await;
    }
}

fn edge_1() -> NodeName {
    NodeName::parse("edge-1").unwrap()
}

type Sessions = Rc<RefCell<BTreeMap<u64, SessionState>>>;

/// In NodeLease's place: answers what the test has said.
async fn node_lease(mut lease: Probe<NodeLeaseMsg>, sessions: Sessions) {
    while let Some(message) = lease.next(Duration::MAX).await {
        if let NodeLeaseMsg::Session { session, reply, .. } = message {
            let state = sessions.borrow().get(&session).cloned();
            reply.send(state.unwrap_or(SessionState::Ended));
        }
    }
}

impl Fixture {
    async fn node_up(&mut self, session: u64, state: SessionState) {
        self.sessions.borrow_mut().insert(session, state);
        self.controller.tell(EdgeControllerMsg::NodeUp { node: edge_1(), session }).await.unwrap();
    }

    fn is_current(message: &SyncMsg, of: u64) -> bool {
        matches!(message, SyncMsg::Current { session, .. } if *session == of)
    }
}

fn open_session() -> SessionState {
    SessionState::Open { node_uid: "n".to_owned() }
}

/// What a CloudCore that lags behind does not know, it would have the node forget.
#[test]
fn a_session_is_not_current_while_a_watch_is_broken() {
    run(Lists::new(), async |mut fixture| {
        fixture.quiet().await;
        fixture.watches.get_mut("pods").unwrap().send(Bytes::from_static(b"nonsense\n")).await.unwrap();
        fixture.after(1).await;
        let began = fixture.env.now();
        fixture.node_up(4, open_session()).await;
        fixture.sync.find(LONG, |message| Fixture::is_current(&message, 4).then_some(())).await.unwrap();
        let waited = fixture.env.now().since(began);
        assert!(waited >= Duration::from_millis(500), "it lists again first: {waited:?}");
    });
}

/// Nor what it has not been told yet: the node may hold it.
#[test]
fn a_session_is_not_current_while_something_of_its_pods_is_not_answered() {
    let lists = Lists::from([("pods", json!([pod("web:1")]))]);
    run_gated(lists, &["secrets"], async |mut fixture| {
        fixture.after(100).await;
        fixture.node_up(4, open_session()).await;
        fixture.after(7000).await;
        fixture.open("secrets");
        let opened = fixture.env.now();
        let (told, at) = fixture.told_until("Current").await;
        assert_eq!(told, ["ListBegins", "+edge-1", "+web", "ListComplete", "Current"]);
        assert!(at >= opened, "not before the answer");
    });
}

/// A Secret whose key the API server has lost, say: everything else goes, and it is told what is not known.
#[test]
fn what_is_never_answered_holds_up_nothing_but_itself() {
    let lists = Lists::from([("pods", json!([pod("web:1")]))]);
    run_gated(lists, &["secrets"], async |mut fixture| {
        fixture.after(7000).await;
        fixture.node_up(4, open_session()).await;
        let unknown = |message: SyncMsg| match message {
            SyncMsg::Current { unknown, .. } => Some(unknown),
            _ => None,
        };
        let began = fixture.env.now();
        let said = fixture.sync.find(LONG, unknown).await.expect("it is current");
        assert_eq!(said.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["token"]);
        let waited = fixture.env.now().since(began);
        assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(12), "{waited:?}");
        fixture.open("secrets");
        assert!(fixture.sync.find(LONG, unknown).await.expect("it was answered").is_empty());
    });
}

/// Its link ends instead, and its pods run on.
#[test]
fn a_node_whose_node_was_deleted_is_told_nothing_until_its_link_has_ended() {
    let lists = Lists::from([("pods", json!([pod("web:1")]))]);
    run(lists, async |mut fixture| {
        fixture.quiet().await;
        fixture.node_up(4, open_session()).await;
        fixture.told_until("Current").await;
        fixture.say("nodes", "DELETED", node()).await;
        fixture.after(3000).await;
        assert!(fixture.sync.next(Duration::from_millis(1)).await.is_none());
        fixture.controller.tell(EdgeControllerMsg::NodeDown { node: edge_1(), session: 3 }).await.unwrap();
        fixture.after(3000).await;
        assert!(fixture.sync.next(Duration::from_millis(1)).await.is_none(), "of an older session");
        fixture.controller.tell(EdgeControllerMsg::NodeDown { node: edge_1(), session: 4 }).await.unwrap();
        assert_eq!(fixture.told_until("-web").await.0, ["-edge-1", "-web"]);
    });
}

/// The same after a restart, when the link was told of again: what is not sent in the new list is gone for SyncController.
#[test]
fn a_session_whose_node_is_gone_is_not_current() {
    run(Lists::new(), async |mut fixture| {
        fixture.quiet().await;
        fixture.node_up(4, SessionState::Open { node_uid: "another".to_owned() }).await;
        fixture.after(3000).await;
        assert!(fixture.sync.next(Duration::from_millis(1)).await.is_none());
        fixture.node_up(5, open_session()).await;
        assert_eq!(fixture.told_until("Current").await.0, ["Current"]);
    });
}

#[test]
fn a_synccontroller_that_begins_anew_is_told_everything_again() {
    let lists = Lists::from([("pods", json!([pod("web:1")])), ("secrets", json!([need("token")]))]);
    run(lists, async |mut fixture| {
        fixture.quiet().await;
        fixture.node_up(4, open_session()).await;
        fixture.told_until("Current").await;
        fixture.controller.tell(EdgeControllerMsg::ListAgain).await.unwrap();
        let (told, _) = fixture.told_until("Current").await;
        assert_eq!(told, ["ListBegins", "+edge-1", "+token", "+web", "ListComplete", "Current"]);
        fixture.say("pods", "MODIFIED", pod("web:2")).await;
        assert_eq!(fixture.told_until("+web").await.0, ["+web"]);
    });
}

#[test]
fn what_a_pod_needs_is_told_before_it_however_late_the_answers_are() {
    let lists = Lists::from([("secrets", json!([need("token")])), ("configmaps", json!([need("page")]))]);
    run_gated(lists, &["secrets", "configmaps"], async |mut fixture| {
        fixture.quiet().await;
        fixture.say("pods", "ADDED", pod("web:1")).await;
        fixture.after(600).await;
        fixture.open("secrets");
        fixture.after(600).await;
        fixture.open("configmaps");
        assert_eq!(fixture.told_until("+web").await.0, ["+token", "+page", "+web"]);
        // It has gone: what comes later waits for nobody.
        fixture.say("secrets", "DELETED", need("token")).await;
        fixture.say("pods", "MODIFIED", pod("web:2")).await;
        assert_eq!(fixture.told_until("-token").await.0, ["+web", "-token"]);
    });
}

#[test]
fn a_pod_whose_needs_are_answered_goes_at_once_and_one_without_an_answer_does_not_wait_for_ever() {
    for (gated, least, most) in [(&[] as &[&str], 0, 0), (&["secrets"], 5000, 5000)] {
        run_gated(Lists::new(), gated, async |mut fixture| {
            fixture.quiet().await;
            let began = fixture.env.now();
            fixture.say("pods", "ADDED", pod("web:1")).await;
            let (told, at) = fixture.told_until("+web").await;
            assert_eq!(told, ["+web"]);
            let waited = at.since(began).as_millis();
            assert!((least..=most).contains(&waited), "{waited} ms with {gated:?}");
        });
    }
}

#[test]
fn nothing_counts_as_missing_before_the_needs_of_the_first_look_are_answered() {
    let lists = Lists::from([("pods", json!([pod("web:1")])), ("secrets", json!([need("token")]))]);
    run_gated(lists, &["secrets"], async |mut fixture| {
        fixture.after(6000).await;
        fixture.open("secrets");
        assert_eq!(
            fixture.told_until("ListComplete").await.0,
            ["ListBegins", "+edge-1", "+web", "+token", "ListComplete"]
        );
    });
}

fn service(name: &str, ip: &str) -> Value {
    let mut service = need(name);
    service["spec"] = json!({"clusterIP": ip, "ports": [{"port": 80}]});
    service
}

/// A pod's variables name them, which are made when its containers start.
#[test]
fn the_services_of_a_pods_namespace_are_told_before_it() {
    let lists = Lists::from([("services", json!([service("db", "10.0.0.1"), service("peers", "None")]))]);
    run_gated(lists, &["services"], async |mut fixture| {
        fixture.quiet().await;
        fixture.say("pods", "ADDED", pod("web:1")).await;
        fixture.after(600).await;
        fixture.open("services");
        assert_eq!(fixture.told_until("+web").await.0, ["+db", "+web"]);
        fixture.node_up(4, open_session()).await;
        assert_eq!(fixture.told_until("Current").await.0, ["Current"]);
        fixture.say("services", "ADDED", service("cache", "10.0.0.2")).await;
        assert_eq!(fixture.told_until("+cache").await.0, ["+cache"]);
        fixture.say("services", "DELETED", service("db", "10.0.0.1")).await;
        assert_eq!(fixture.told_until("-db").await.0, ["-db"]);
    });
}

/// A node would forget the Services that it holds.
#[test]
fn a_session_is_not_current_while_the_services_of_its_pods_are_not_listed() {
    let lists = Lists::from([("pods", json!([pod("web:1")]))]);
    run_gated(lists, &["services"], async |mut fixture| {
        fixture.after(100).await;
        fixture.node_up(4, open_session()).await;
        fixture.after(7000).await;
        fixture.open("services");
        let opened = fixture.env.now();
        let (told, at) = fixture.told_until("Current").await;
        assert_eq!(
            told,
            ["ListBegins", "+edge-1", "+web", "ListComplete", "Current"],
            "it did not wait for them for long"
        );
        assert!(at >= opened, "not before the answer");
    });
}
