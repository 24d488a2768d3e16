//! One CloudCore's door with another one's behind it.

mod dead_and_silent;
mod strangers;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;

use beehive::Env;
use beehive::testing::Probe;
use bytes::Bytes;
use contract::ObjectKey;
use contract::ids::RULES;
use contract::nodelease::NodeHolder;
use contract::rule_stream::BODY_MAX;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use https::{Handler, Http, Limits, Port, Server};
use hyper::body::Incoming;
use nodecalls::NodeCalls;
use pki::{Authorities, Authority, CurrentAuthorities};
use serde_json::json;
use tokio::net::TcpStream;

use super::*;
use crate::door::Door;
use crate::door_settings::DoorSettings;
use crate::forwarding::{CurrentRules, SharedStatus};
use crate::peer_door::PeerDoor;
use crate::peer_settings;
use crate::rule_calls::RuleCalls;
use crate::rule_table::{ReadRule, RuleTable};
use crate::status::StatusBook;
use crate::tokens::{Callers, Tokens};

const TOKEN: &str = "0123456789abcdef";
const DAY: Duration = Duration::from_secs(86_400);
/// 20 s that a call has: half of it is far from that also where the machine is busy.
const WITHIN_20: Duration = Duration::from_secs(20);

/// What all CloudCores of a cluster have.
struct Cluster {
    env: Env,
    authorities: CurrentAuthorities,
}

impl Cluster {
    fn new() -> Cluster {
        let env = Env::real();
        let authority = Authority::create(env.wall(), env.random_id()).unwrap();
        Cluster { env, authorities: CurrentAuthorities::new(Authorities::of(authority)) }
    }

    fn peer(&self, identity: &str) -> PeerSettings {
        let mut settings = config::router::Router { enable: true, rest_timeout: 20, ..Default::default() };
        (settings.peers.bind_address, settings.peers.port) = ("127.0.0.1".to_owned(), 0);
        let address = Some([127, 0, 0, 1].into());
        PeerSettings::open(&settings, address, identity, self.authorities.clone(), &self.env).unwrap()
    }

    fn calls(&self) -> RuleCalls {
        let limits = nodecalls::Limits { of_node: 8, of_user: 8, all: 8 };
        RuleCalls {
            rules: rules(),
            status: SharedStatus::default(),
            calls: NodeCalls::new(limits, Metrics::default(), self.env.clock()),
            clock: self.env.clock(),
        }
    }

    /// A door for callers, of `own`, whose NodeLease says what `holder` does.
    fn door(
        &self,
        own: PeerSettings,
        mut holder: impl FnMut() -> Option<Result<Option<NodeHolder>, String>> + 'static,
    ) -> OpenDoor {
        let (mut lease, to_lease) = Probe::new(&self.env, 16);
        let asked = Rc::<Cell<usize>>::default();
        let counted = Rc::clone(&asked);
        actix_rt::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(message) = lease.next(Duration::from_secs(600)).await {
                let NodeLeaseMsg::Holder { node, reply } = message else { panic!("{message:?}") };
                assert_eq!(node.as_str(), "edge-1");
                counted.set(counted.get() + 1);
                match holder() {
                    Some(answer) => reply.send(answer),
                    None => unanswered.push(reply),
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, TOKEN).unwrap();
        let callers = Callers::Holders(Tokens::read(&file).unwrap());
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.address();
        let settings = DoorSettings {
            port: Arc::new(port),
            within: WITHIN_20,
            tls: None,
            has_own_certificate: false,
            callers: callers.clone(),
        };
        let (calls, metrics) = (self.calls(), Metrics::default());
        let peers = Peers {
            lease: to_lease,
            settings: own,
            known: SharedPeers::default(),
            clock: self.env.clock(),
            metrics: metrics.clone(),
        };
        let status = calls.status.clone();
        let door = Door { callers, calls, within: WITHIN_20, peers: Some(peers), metrics: metrics.clone() };
        let server = settings.serve(door, &self.env).unwrap();
        OpenDoor { address, status, metrics, asked, _server: server, _folder: folder }
    }

    /// The real door for other CloudCores, with no node behind it.
    fn peer_door(&self, settings: &PeerSettings) -> (Server, SharedStatus, Metrics) {
        let (calls, metrics) = (self.calls(), Metrics::default());
        let status = calls.status.clone();
        let door =
            PeerDoor { calls, within: WITHIN_20, metrics: metrics.clone(), refused: AtomicU64::new(0) };
        (door.serve(settings, &self.env).unwrap(), status, metrics)
    }

    /// In its place: one that answers as the test has it.
    fn stand_in(
        &self,
        settings: &PeerSettings,
        answer: impl Fn() -> Answer + Send + 'static,
    ) -> (Server, Arc<Mutex<Vec<Seen>>>) {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let handler = StandIn { seen: Arc::clone(&seen), answer };
        let (tls, limits) = (Some(settings.tls.clone()), Limits::default());
        let clock = self.env.clock();
        let make = move || Http::new(handler);
        (Server::start("peer", &settings.port, tls, limits, clock, |_| {}, make).unwrap(), seen)
    }
}

/// `/mqtt` publishes, `/http` calls.
fn rules() -> CurrentRules {
    let rule = |name: &str, target: &str, resource: serde_json::Value| {
        let spec = json!({
            "source": "rest", "sourceResource": {"path": name}, "target": target, "targetResource": resource,
        });
        (ObjectKey::new(RULES, "default", name), json!({"spec": spec}))
    };
    let rules = [
        rule("mqtt", "eventbus", json!({"topic": "lamp"})),
        rule("http", "servicebus", json!({"path": "/app"})),
    ];
    let read = rules.iter().map(|(key, value)| ReadRule { key, uid: "u", value });
    let endpoint = |key: &ObjectKey| {
        let spec = json!({"ruleEndpointType": key.name, "properties": {"service_port": "8080"}});
        Some(json!({"spec": spec}))
    };
    let current = CurrentRules::default();
    current.set(RuleTable::of(read, endpoint));
    current
}

struct OpenDoor {
    address: std::net::SocketAddr,
    status: SharedStatus,
    metrics: Metrics,
    /// How often NodeLease was asked.
    asked: Rc<Cell<usize>>,
    _server: Server,
    _folder: tempfile::TempDir,
}

/// How many calls have succeeded and failed since this was asked last.
fn counted(status: &SharedStatus) -> (i64, i64) {
    let news = status.with(StatusBook::rest);
    let sum = |of: fn(&crate::status::News) -> i64| news.iter().map(|status| of(&status.news)).sum();
    (sum(|news| news.successes), sum(|news| news.failures))
}

/// What came to a stand-in.
struct Seen {
    method: String,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

struct StandIn<F> {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: F,
}

impl<F: Fn() -> Answer + 'static> Handler for StandIn<F> {
    async fn handle(&self, request: Request<Incoming>, _: &https::Peer) -> Answer {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return (self.answer)() };
        let (method, url) = (head.method.to_string(), head.uri.to_string());
        self.seen.lock().unwrap().push(Seen { method, url, headers: head.headers, body: body.to_bytes() });
        (self.answer)()
    }
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    /// `None`: it broke off.
    body: Option<String>,
}

impl Answered {
    fn says(&self, status: u16, words: &str) {
        let body = self.body.as_deref().unwrap_or_default();
        assert!(self.status == status && body.contains(words), "{}: {body}", self.status);
    }
}

const MQTT: &str = "/edge-1/default/mqtt";
const HTTP: &str = "/edge-1/default/http";

async fn call(door: &OpenDoor, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answered {
    call_with(door, path, headers, https::body::whole(body)).await
}

async fn call_with(door: &OpenDoor, path: &str, headers: &[(&str, &str)], body: https::Body) -> Answered {
    read(head_of(door, path, headers, body).await).await
}

async fn read(answer: Response<Incoming>) -> Answered {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok().map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
    Answered { status: head.status, headers: head.headers, body }
}

/// The answer as soon as its head has come.
async fn head_of(
    door: &OpenDoor,
    path: &str,
    headers: &[(&str, &str)],
    body: https::Body,
) -> Response<Incoming> {
    let socket = TcpStream::connect(door.address).await.unwrap();
    let (mut sender, connection) = httpclient::handshake(socket).await.unwrap();
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    let mut request = Request::post(path).header("host", "of-the-test");
    request = request.header("authorization", format!("Bearer {TOKEN}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(body).unwrap()).await.unwrap()
}

fn holder(of: &PeerSettings, identity: &str) -> Option<Result<Option<NodeHolder>, String>> {
    let (cloudcore, address) = (identity.to_owned(), of.address().map(|address| address.to_string()));
    Some(Ok(Some(NodeHolder { cloudcore, address, is_here: false })))
}

#[actix_rt::test]
async fn a_call_goes_to_who_has_the_node_without_its_token_and_the_answer_comes_back_as_it_is() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.peer("cloudcore-a"), cluster.peer("cloudcore-b"));
    let (_server, seen) = cluster.stand_in(&b, || {
        let mut answer = Response::new(https::body::whole("I'm a teapot"));
        *answer.status_mut() = StatusCode::IM_A_TEAPOT;
        for (name, value) in [("x-of-service", "1"), ("x-of-service", "2"), ("kubehive-forward-x", "1")] {
            answer.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        answer
    });
    let door = cluster.door(a, move || holder(&b, "cloudcore-b"));
    // What a caller writes of ours counts for nothing.
    let headers = [
        ("x-app", "7"),
        ("kubehive-forward-within", "1"),
        ("kubehive-forward-outcome", "moved"),
        ("connection", "x-own"),
        ("x-own", "of this connection"),
    ];
    let answered = call(&door, "/edge-1/default/http/items/7?q=a%20b", &headers, "{\"n\":1}").await;
    answered.says(418, "I'm a teapot");
    assert_eq!(answered.headers.get_all("x-of-service").iter().count(), 2);
    assert!(!answered.headers.contains_key("kubehive-forward-x"), "{:?}", answered.headers);
    let published = call(&door, MQTT, &[], "on").await;
    published.says(418, "I'm a teapot");
    let seen = seen.lock().unwrap();
    let [called, posted] = &seen[..] else { panic!("{} calls", seen.len()) };
    assert_eq!(
        (called.method.as_str(), called.url.as_str()),
        ("POST", "https://cloudcore-b/edge-1/default/http/items/7?q=a%20b")
    );
    assert_eq!((&called.body[..], &posted.body[..]), (&b"{\"n\":1}"[..], &b"on"[..]));
    assert_eq!(called.headers["x-app"], "7");
    for gone in ["authorization", "x-own", "connection", "kubehive-forward-outcome"] {
        assert!(!called.headers.contains_key(gone), "{gone}");
    }
    let within: Vec<u64> = called
        .headers
        .get_all(&WITHIN)
        .iter()
        .map(|value| value.to_str().unwrap().parse().unwrap())
        .collect();
    assert!(matches!(within[..], [one] if (10_000..=20_000).contains(&one)), "{within:?}");
    assert_eq!(door.asked.get(), 1, "what was heard counts for a while");
    assert_eq!(counted(&door.status), (0, 0), "the other one has counted it");
    assert_eq!(door.metrics.counters()["router_calls_passed_on"], 2);
}

#[actix_rt::test]
async fn a_call_that_was_passed_on_goes_no_further() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.peer("cloudcore-a"), cluster.peer("cloudcore-b"));
    let (_server, status, metrics) = cluster.peer_door(&b);
    let door = cluster.door(a, move || holder(&b, "cloudcore-b"));
    for times in 1..=2 {
        for path in [MQTT, HTTP] {
            let answered = call(&door, path, &[], "x").await;
            answered.says(503, "node `edge-1` is not linked to the CloudCore any more that its Lease named");
            assert_eq!(answered.headers["retry-after"], "1");
            assert!(!answered.headers.contains_key(&OUTCOME));
        }
        assert_eq!(door.asked.get(), 2 * times, "what has shown itself wrong is asked for again");
    }
    assert_eq!((counted(&door.status), counted(&status)), ((0, 4), (0, 0)), "it is counted once");
    assert_eq!(metrics.counters()["router_calls_of_peers"], 4);
    assert_eq!(door.metrics.counters()["router_passed_calls_moved"], 4);
    // What the other one refuses is its own word, and counted nowhere.
    let none = call(&door, "/edge-1/default/none", &[], "x").await;
    none.says(404, "No rule match");
    assert_eq!(metrics.counters()["router_calls_of_peers"], 4, "there is no rule here, either");
}

#[actix_rt::test]
async fn bodies_have_the_bounds_of_the_door_and_none_is_taken_for_a_whole_one_that_is_not() {
    let cluster = Cluster::new();
    let b = cluster.peer("cloudcore-b");
    let cut = Arc::new(tokio::sync::Notify::new());
    let cutting = Arc::clone(&cut);
    let (_server, seen) = cluster.stand_in(&b, move || {
        let cut = Arc::clone(&cutting);
        let half = futures::stream::iter([Ok(Frame::data(Bytes::from("half")))]);
        let broken = futures::stream::once(async move {
            cut.notified().await;
            Err(std::io::Error::other("the link is cut"))
        });
        Response::new(https::Body::new(StreamBody::new(half.chain(broken))))
    });
    let door = cluster.door(cluster.peer("cloudcore-a"), move || holder(&b, "cloudcore-b"));
    let broken = head_of(&door, HTTP, &[], https::body::whole("x")).await;
    cut.notify_one();
    let broken = read(broken).await;
    assert_eq!((broken.status, broken.body), (StatusCode::OK, None), "half an answer");
    // Of a length that is said, and of one that is not.
    let large = Bytes::from(vec![b'x'; 256 << 10]);
    let published = call(&door, MQTT, &[], [&large[..], &b"x"[..]].concat()).await;
    published.says(413, "what is published has at most 262144 bytes");
    let pieces = BODY_MAX as usize / large.len();
    let pieces = std::iter::repeat_n(large, pieces).chain([Bytes::from("x")]);
    let pieces = pieces.map(|piece| Ok(Frame::data(piece)));
    let body = https::Body::new(StreamBody::new(futures::stream::iter(pieces)));
    call_with(&door, HTTP, &[], body).await.says(413, "the body has more than 12582912 bytes");
    assert_eq!(seen.lock().unwrap().len(), 1, "no half request was taken for a whole one");
}

#[actix_rt::test]
async fn a_ca_that_gives_way_to_its_successor_parts_nobody() {
    let cluster = Cluster::new();
    let env = &cluster.env;
    let elder = cluster.authorities.get();
    // Each CloudCore hears of the successor by itself.
    let apart = Cluster {
        env: env.clone(),
        authorities: CurrentAuthorities::new(Authorities::of(
            Authority::from_pem(elder.signing().cert_pem(), elder.signing().key_pem()).unwrap(),
        )),
    };
    let (a, b) = (cluster.peer("cloudcore-a"), apart.peer("cloudcore-b"));
    let (_server, seen) = apart.stand_in(&b, || Response::new(https::body::whole("done")));
    assert!(!a.renew(env).unwrap(), "it is young");
    let successor = Authority::create(env.wall(), env.random_id()).unwrap();
    let cross = elder.signing().cross_sign(&successor, env.wall(), env.random_id()).unwrap();
    let both = || {
        let signing = Authority::from_pem(successor.cert_pem(), successor.key_pem()).unwrap();
        Authorities::with(signing, &[elder.signing().cert_pem()], Some(cross.as_str())).unwrap()
    };
    let at = b.clone();
    let door = cluster.door(a.clone(), move || holder(&at, "cloudcore-b"));
    cluster.authorities.replace(both());
    assert!(a.renew(env).unwrap());
    call(&door, MQTT, &[], "1").await.says(200, "done");
    apart.authorities.replace(both());
    assert!(b.renew(env).unwrap());
    call(&door, MQTT, &[], "2").await.says(200, "done");
    assert_eq!(seen.lock().unwrap().len(), 2);
}
