//! Real sockets on loopback against a server: what a stranger may take, and how a server ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::Env;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use https::{Answer, ClientCertificates, Event, Handler, Http, Limits, Peer, Port, Server, Tls, body};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(300);

/// A page of every kind.
#[derive(Clone, Default)]
struct Pages {
    begun: Arc<AtomicUsize>,
    release: Arc<tokio::sync::Notify>,
}

impl Handler for Pages {
    async fn handle(&self, mut request: Request<Incoming>, peer: &Peer) -> Answer {
        self.begun.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/" => body::sentence(StatusCode::OK, "hello"),
            "/panic" => panic!("a handler's defect"),
            "/wait" => {
                self.release.notified().await;
                body::sentence(StatusCode::OK, "released")
            }
            "/never" => std::future::pending().await,
            "/who" => {
                let shown = peer.certificate().map(|der| pki::node_of_certificate(der).unwrap());
                body::sentence(StatusCode::OK, shown.unwrap_or_default())
            }
            "/login" => match peer.identify("somebody", false) {
                Ok(()) => body::sentence(StatusCode::OK, "welcome"),
                Err(error) => body::sentence(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            },
            "/port" => body::sentence(StatusCode::OK, peer.port().port().to_string()),
            "/broken" => {
                let half = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"half"))) });
                let release = Arc::clone(&self.release);
                let cut = futures::stream::once(async move {
                    release.notified().await;
                    Err(std::io::Error::other("cut"))
                });
                Response::new(UnsyncBoxBody::new(StreamBody::new(futures::StreamExt::chain(half, cut))))
            }
            "/watch" => {
                let stopping = peer.stopping();
                let lines = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"line\n"))) });
                let rest = futures::stream::once(async move {
                    stopping.await;
                    Ok(Frame::data(Bytes::from_static(b"end\n")))
                });
                Response::new(UnsyncBoxBody::new(StreamBody::new(futures::StreamExt::chain(lines, rest))))
            }
            "/flood" => {
                let endless =
                    futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![0; 64 << 10]))));
                Response::new(UnsyncBoxBody::new(StreamBody::new(endless)))
            }
            "/upgrade" => {
                let upgrade = peer.upgrade(&mut request);
                actix_rt::spawn(async move {
                    let mut bytes = upgrade.await.unwrap();
                    let mut one = [0];
                    while bytes.read_exact(&mut one).await.is_ok() {
                        bytes.write_all(&one).await.unwrap();
                    }
                });
                let mut answer = body::sentence(StatusCode::SWITCHING_PROTOCOLS, "");
                answer.headers_mut().insert("connection", "upgrade".parse().unwrap());
                answer.headers_mut().insert("upgrade", "echo".parse().unwrap());
                answer
            }
            "/body" => {
                let clock = Env::real().clock();
                match body::read(request.body_mut(), 8, SOON / 2, &*clock).await {
                    Ok(bytes) => body::sentence(StatusCode::OK, String::from_utf8(bytes.to_vec()).unwrap()),
                    Err(error) => body::sentence(StatusCode::BAD_REQUEST, error.to_string()),
                }
            }
            _ => body::sentence(StatusCode::NOT_FOUND, ""),
        }
    }
}

struct Fixture {
    env: Env,
    port: Port,
    pages: Pages,
    events: Arc<Mutex<Vec<Event>>>,
    server: Server,
}

impl Fixture {
    fn start(limits: Limits, tls: Option<Tls>) -> Self {
        let (env, pages) = (Env::real(), Pages::default());
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let server = serve(&env, &port, limits, tls, &pages, &events);
        Fixture { env, port, pages, events, server }
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let look = async {
            while !is(self) {
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        self.env.timeout(LONG, look).await.unwrap_or_else(|| panic!("{what}: {:?}", self.server.counts()));
    }

    async fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(request(path, "Connection: close\r\n").as_bytes()).await.unwrap();
        self.rest(&mut stream).await
    }

    async fn rest(&self, stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        let read = self.env.timeout(LONG, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the connection does not end");
        String::from_utf8(answer).unwrap()
    }

    async fn is_closed(&self, stream: &mut TcpStream) -> bool {
        let read = self.env.timeout(LONG, stream.read_u8()).await.expect("the connection does not end");
        read.is_err()
    }
}

fn serve(
    env: &Env,
    port: &Port,
    limits: Limits,
    tls: Option<Tls>,
    pages: &Pages,
    events: &Arc<Mutex<Vec<Event>>>,
) -> Server {
    let (on_event, pages) = (on_event(events), pages.clone());
    Server::start("test", port, tls, limits, env.clock(), on_event, move || Http::new(pages)).unwrap()
}

fn on_event(events: &Arc<Mutex<Vec<Event>>>) -> impl Fn(Event) + Send + Sync + 'static {
    let events = Arc::clone(events);
    move |event| events.lock().unwrap().push(event)
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

async fn from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[actix_rt::test]
async fn a_panic_of_a_handler_ends_its_connection_and_nothing_else() {
    let fixture = Fixture::start(Limits::default(), None);
    let mut other = TcpStream::connect(fixture.address()).await.unwrap();
    other.write_all(request("/wait", "Connection: close\r\n").as_bytes()).await.unwrap();
    fixture.until("begun", |fixture| fixture.pages.begun.load(Ordering::SeqCst) == 1).await;
    assert_eq!(fixture.ask("/panic").await, "");
    fixture.until("counted", |fixture| fixture.server.counts().panics == 1).await;
    fixture.until("told", |fixture| fixture.events.lock().unwrap()[..] == [Event::Panicked]).await;
    assert!(fixture.ask("/").await.ends_with("hello"));
    fixture.pages.release.notify_one();
    assert!(fixture.rest(&mut other).await.ends_with("released"));
    fixture.until("all places are free", |fixture| fixture.server.counts().open == 0).await;
}

#[actix_rt::test]
async fn whoever_is_slow_in_the_handshake_the_head_or_the_answer_is_ended() {
    let (authority, chain, key) = certificates();
    let tls = Tls::new(&chain, &key, &ClientCertificates::NotAsked).unwrap();
    drop(authority);
    let limits = Limits { handshake_within: SOON, ..Limits::default() };
    let fixture = Fixture::start(limits, Some(tls));
    let mut silent = TcpStream::connect(fixture.address()).await.unwrap();
    assert!(fixture.is_closed(&mut silent).await);
    fixture.until("told", |fixture| fixture.events.lock().unwrap()[..] == [Event::HandshakeFailed]).await;

    // Long enough for a head that comes at once.
    let limits = Limits { head_within: Duration::from_secs(2), ..Limits::default() };
    let fixture = Fixture::start(limits, None);
    let mut slow = TcpStream::connect(fixture.address()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    fixture.rest(&mut slow).await;
    let mut idle = TcpStream::connect(fixture.address()).await.unwrap();
    idle.write_all(request("/", "").as_bytes()).await.unwrap();
    assert!(fixture.rest(&mut idle).await.ends_with("hello"), "answered, and closed when it was idle");
    let fixture = Fixture::start(Limits { answer_within: Some(SOON), ..Limits::default() }, None);
    let late = fixture.ask("/never").await;
    assert!(late.starts_with("HTTP/1.1 503") && late.contains("connection: close"), "{late}");
    fixture.until("counted", |fixture| fixture.server.counts().answers_late == 1).await;
    let fixture = Fixture::start(Limits::default(), None);
    let (short, long) = ("Content-Length: 2\r\n\r\nab", "Content-Length: 9\r\n\r\nabcdefghi");
    for (sent, got) in [
        (short, "ab"),
        (long, "the body is too long"),
        ("Content-Length: 2\r\n\r\na", "the body did not arrive in time"),
    ] {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        let head = format!("POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{sent}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = fixture.rest(&mut stream).await;
        assert!(answer.ends_with(got), "{sent:?}: {answer:?}");
    }
}

#[actix_rt::test]
async fn a_head_without_an_end_is_refused() {
    let fixture = Fixture::start(Limits { head_bytes: 8192, header_fields: 4, ..Limits::default() }, None);
    for headers in [format!("X: {}\r\n", "a".repeat(20 << 10)), "X: a\r\n".repeat(9)] {
        let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
        stream.write_all(request("/", &headers).as_bytes()).await.unwrap();
        let answer = fixture.rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(fixture.pages.begun.load(Ordering::SeqCst), 0);
}

#[actix_rt::test]
async fn a_peer_that_takes_nothing_is_ended() {
    let fixture = Fixture::start(Limits { taken_within: SOON, ..Limits::default() }, None);
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    stream.write_all(request("/flood", "").as_bytes()).await.unwrap();
    fixture.until("taken", |fixture| fixture.server.counts().requests == 1).await;
    fixture.until("ended", |fixture| fixture.server.counts().open == 0).await;
}

#[actix_rt::test]
async fn an_address_that_floods_takes_no_place_of_another_and_none_of_a_user() {
    let limits =
        Limits { strangers: 8, strangers_per_address: 6, connections_per_user: 2, ..Limits::default() };
    let fixture = Fixture::start(limits, None);
    let mut user = from(9, fixture.address()).await;
    user.write_all(request("/login", "").as_bytes()).await.unwrap();
    fixture.until("identified", |fixture| fixture.server.counts().identified == 1).await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(from(2, fixture.address()).await);
    }
    fixture.until("displaced", |fixture| fixture.server.counts().displaced >= 34).await;
    fixture.until("they have ended", |fixture| fixture.server.counts().open <= 9).await;
    assert!(fixture.events.lock().unwrap().contains(&Event::Displaced));
    // The user's connection is there, and another address is served.
    user.write_all(request("/wait", "Connection: close\r\n").as_bytes()).await.unwrap();
    fixture.until("asked", |fixture| fixture.pages.begun.load(Ordering::SeqCst) == 2).await;
    fixture.pages.release.notify_one();
    assert!(fixture.rest(&mut user).await.ends_with("released"));
    let mut honest = from(3, fixture.address()).await;
    honest.write_all(request("/", "Connection: close\r\n").as_bytes()).await.unwrap();
    assert!(fixture.rest(&mut honest).await.ends_with("hello"));
    // Two connections of a user, and no third.
    let mut kept = Vec::new();
    for status in ["200", "200", "429"] {
        let mut stream = from(4, fixture.address()).await;
        stream.write_all(request("/login", "").as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head[9..], status.as_bytes());
        kept.push(stream);
    }
}

#[actix_rt::test]
async fn a_server_that_stops_answers_what_is_in_hand_ends_watches_and_frees_its_port() {
    let Fixture { env, port, pages, events, server } = Fixture::start(Limits::default(), None);
    let address = port.address();
    let open = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request(path, "").as_bytes()).await.unwrap();
        stream
    };
    let (mut waits, mut watches, mut idle) = (open("/wait").await, open("/watch").await, open("/").await);
    let look = async {
        while pages.begun.load(Ordering::SeqCst) < 3 {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(LONG, look).await.unwrap();
    let releaser = {
        let (release, env) = (Arc::clone(&pages.release), env.clone());
        async move {
            env.sleep(Duration::from_millis(50)).await;
            release.notify_one();
        }
    };
    let begun = env.now();
    futures::future::join(server.stop(LONG), releaser).await;
    assert!(env.now().since(begun) < LONG / 2, "it waited for its deadline");
    for (stream, end) in
        [(&mut waits, "released"), (&mut watches, "end\n\r\n0\r\n\r\n"), (&mut idle, "hello")]
    {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(end), "{answer}");
    }
    // The next server at the same port answers who waits in its queue.
    let waiting = open("/").await;
    let server = serve(&env, &port, Limits::default(), None, &pages, &events);
    let fixture = Fixture { env, port, pages, events, server };
    let mut waiting = waiting;
    let mut head = [0; 12];
    waiting.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert!(fixture.ask("/").await.ends_with("hello"));
}

#[actix_rt::test]
async fn a_server_that_stops_cuts_what_does_not_end() {
    let fixture = Fixture::start(Limits { answer_within: None, ..Limits::default() }, None);
    let mut hangs = TcpStream::connect(fixture.address()).await.unwrap();
    hangs.write_all(request("/never", "").as_bytes()).await.unwrap();
    let mut upgraded = TcpStream::connect(fixture.address()).await.unwrap();
    upgraded
        .write_all(request("/upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(upgraded.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    for letter in b"abc" {
        upgraded.write_u8(*letter).await.unwrap();
        assert_eq!(upgraded.read_u8().await.unwrap(), *letter);
    }
    assert_eq!(fixture.server.counts().open, 2, "an upgraded connection keeps its place");
    let Fixture { env, server, .. } = fixture;
    let begun = env.now();
    server.stop(SOON).await;
    assert!(env.now().since(begun) < LONG / 2);
    assert!(upgraded.read_u8().await.is_err());
    assert!(hangs.read_u8().await.is_err());
}

#[actix_rt::test]
async fn a_server_listens_at_many_ports_and_each_is_closed_alone() {
    let (env, pages) = (Env::real(), Pages::default());
    let (on_event, handler) = (on_event(&Arc::default()), pages.clone());
    let server =
        Server::without_port("many", None, Limits::default(), env.clock(), on_event, || Http::new(handler));
    let (mut listening, mut ports) = (Vec::new(), Vec::new());
    // One of them is bound again.
    for port in testhost::free_ports::<3>().unwrap() {
        let port = Port::bind(([127, 0, 0, 1], port).into()).unwrap();
        ports.push(port.address());
        listening.push(server.listen(port).await.unwrap());
    }
    for port in &ports {
        assert_eq!(port_of(*port).await, port.port().to_string());
    }
    // What is in hand at a port that is closed is answered; what is idle ends.
    let mut open = TcpStream::connect(ports[0]).await.unwrap();
    open.write_all(request("/wait", "").as_bytes()).await.unwrap();
    let begun = async {
        while pages.begun.load(Ordering::SeqCst) < 4 {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(LONG, begun).await.expect("the request is in hand");
    drop(listening.remove(0));
    pages.release.notify_one();
    let mut answer = String::new();
    env.timeout(LONG, open.read_to_string(&mut answer)).await.expect("the connection ends").unwrap();
    assert!(answer.ends_with("released"), "{answer}");
    // The connection and the listener end by the same word, each in a task of its own.
    let refused = async {
        while TcpStream::connect(ports[0]).await.is_ok() {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(LONG, refused).await.expect("nobody listens there");
    for port in &ports[1..] {
        assert_eq!(port_of(*port).await, port.port().to_string());
    }
    // The port is free for whoever comes next.
    let _again = server.listen(Port::bind(ports[0]).unwrap()).await.unwrap();
    assert_eq!(port_of(ports[0]).await, ports[0].port().to_string());
    env.timeout(LONG, server.stop(SOON)).await.expect("it stops");
}

/// A port for each of a thousand nodes.
#[actix_rt::test]
async fn a_thousand_ports_cost_one_thread_and_little_memory() {
    let status = |key: &str| -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (env, on_event) = (Env::real(), on_event(&Arc::default()));
    let server = Server::without_port("many", None, Limits::default(), env.clock(), on_event, || {
        Http::new(Pages::default())
    });
    let (memory, threads) = (status("VmRSS:"), status("Threads:"));
    let (mut listening, mut last) = (Vec::new(), None);
    for _ in 0..1000 {
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        last = Some(port.address());
        listening.push(server.listen(port).await.unwrap());
    }
    // It is the last one that is listened at.
    let last = last.unwrap();
    assert_eq!(port_of(last).await, last.port().to_string());
    let (grown, more) = (status("VmRSS:").saturating_sub(memory), status("Threads:").saturating_sub(threads));
    println!("1000 ports: {grown} KiB, {more} threads");
    assert!(grown <= 8 << 10 && more <= 1, "{grown} KiB, {more} threads");
}

/// The port that a handler sees.
async fn port_of(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request("/port", "Connection: close\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

#[actix_rt::test]
async fn a_body_that_fails_is_not_taken_for_a_whole_one() {
    let fixture = Fixture::start(Limits::default(), None);
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    stream.write_all(request("/broken", "").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"half\r\n") {
        answer.push(fixture.env.timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    fixture.pages.release.notify_one();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        answer.ends_with(b"half\r\n"),
        "no end of the body is said: {}",
        String::from_utf8_lossy(&answer)
    );
}

#[actix_rt::test]
async fn a_dropped_server_leaves_no_connection_and_no_listener() {
    let Fixture { env, port, server, pages, events } = Fixture::start(Limits::default(), None);
    let mut hangs = TcpStream::connect(port.address()).await.unwrap();
    hangs.write_all(request("/never", "").as_bytes()).await.unwrap();
    let mut upgraded = TcpStream::connect(port.address()).await.unwrap();
    upgraded
        .write_all(request("/upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n").as_bytes())
        .await
        .unwrap();
    let address = port.address();
    drop(server);
    drop(port);
    for stream in [&mut hangs, &mut upgraded] {
        let end = env.timeout(LONG, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_some(), "the connection lives on");
    }
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    env.timeout(LONG, refused).await.expect("somebody listens");
    drop((pages, events));
}

fn certificates() -> (pki::Authority, String, String) {
    let env = Env::real();
    let authority = pki::Authority::create(env.wall(), env.random_id()).unwrap();
    let alt_names = pki::SubjectAltNames { addresses: vec!["127.0.0.1".parse().unwrap()], names: Vec::new() };
    let day = Duration::from_secs(86_400);
    let (issued, key) = authority.server(&alt_names, env.wall(), day, env.random_id()).unwrap();
    (authority, issued.pem, key)
}

#[actix_rt::test]
async fn a_clients_certificate_is_shown_to_the_handler_and_a_strangers_is_refused() {
    let (authority, chain, key) = certificates();
    let ours = vec![authority.cert_der().to_vec()];
    let env = Env::real();
    let day = Duration::from_secs(86_400);
    let of = |authority: &pki::Authority| {
        let request = pki::NodeRequest::new("edge-1").unwrap();
        let issued =
            authority.sign_node(&request.csr_der, "edge-1", env.wall(), day, env.random_id()).unwrap();
        (issued.der, request.key_pem.clone())
    };
    let (good, foreign) = (of(&authority), of(&certificates().0));
    let optional = Tls::new(&chain, &key, &ClientCertificates::Optional(ours.clone())).unwrap();
    let fixture = Fixture::start(Limits::default(), Some(optional));
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some("edge-1"));
    assert_eq!(who(&fixture, &authority, None).await.as_deref(), Some(""));
    assert_eq!(who(&fixture, &authority, Some(&foreign)).await, None);
    let required = Tls::also_tls12(&chain, &key, &ClientCertificates::Required(ours.clone())).unwrap();
    let fixture = Fixture::start(Limits::default(), Some(required));
    assert_eq!(who(&fixture, &authority, None).await, None);
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some("edge-1"));
    let checked = |authorities| Tls::new(&chain, &key, &ClientCertificates::Checked(authorities)).unwrap();
    let tls = checked(vec![]);
    let fixture = Fixture::start(Limits::default(), Some(tls.clone()));
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some(""), "no CA is known yet");
    tls.replace(&checked(ours));
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some("edge-1"));
    assert_eq!(
        who(&fixture, &authority, Some(&foreign)).await.as_deref(),
        Some(""),
        "a wrong one is as none"
    );
    assert_eq!(who(&fixture, &authority, None).await.as_deref(), Some(""));
}

/// What `/who` answers over TLS, or `None` when there is no answer.
async fn who(
    fixture: &Fixture,
    authority: &pki::Authority,
    shown: Option<&(Vec<u8>, String)>,
) -> Option<String> {
    let stream = over_tls(fixture, authority, shown, &[]).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
    actix_rt::spawn(async move { drop(connection.await) });
    let request = Request::get("/who").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some(String::from_utf8(body.to_vec()).unwrap())
}

/// A connection over TLS, whose client speaks `protocols`; `None` when there is none.
async fn over_tls(
    fixture: &Fixture,
    authority: &pki::Authority,
    shown: Option<&(Vec<u8>, String)>,
    protocols: &[&str],
) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.cert_der().to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some((der, key)) => {
            let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![der.clone().into()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = config;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(fixture.address()).await.unwrap();
    connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.ok()
}

#[actix_rt::test]
async fn whoever_chooses_http_2_has_many_requests_in_hand_on_one_connection() {
    let (authority, chain, key) = certificates();
    let tls = Tls::with_http2(&chain, &key, &ClientCertificates::NotAsked).unwrap();
    let limits = Limits { streams_per_connection: 2, ..Limits::default() };
    let fixture = Fixture::start(limits, Some(tls));
    // Who does not, is served as before.
    assert_eq!(who(&fixture, &authority, None).await.as_deref(), Some(""));
    let stream = over_tls(&fixture, &authority, None, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let over = actix_rt::spawn(async move { drop(connection.await) });
    let ask = |path: &str| {
        let mut sender = sender.clone();
        let request = Request::get(format!("https://127.0.0.1{path}"));
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        async move {
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.version(), http::Version::HTTP_2);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        }
    };
    let waits = actix_rt::spawn(ask("/wait"));
    fixture.until("the first is in hand", |fixture| fixture.pages.begun.load(Ordering::SeqCst) == 2).await;
    assert_eq!(ask("/").await, "hello");
    // What is in hand is answered when the server stops, and then the connection ends.
    let (waited, ()) = tokio::join!(waits, async {
        let stopping = fixture.server.stop(LONG);
        tokio::join!(stopping, async {
            fixture.env.sleep(SOON / 3).await;
            fixture.pages.release.notify_one();
        });
    });
    assert_eq!(waited.unwrap(), "released");
    over.await.unwrap();
}
