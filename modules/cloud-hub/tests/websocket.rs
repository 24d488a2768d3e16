//! Links over real WebSocket and TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::tls::{self, Credentials, LiveCredentials};
use beehive::link::ws::WebSocketDialer;
use beehive::link::{Acceptor, CloseReason, Connection, DialError, Dialer, IncomingLink, Urgency};
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use cloud_hub::{SecretStore, WebSocketAcceptor, WebSocketListener, WebSocketMsg, websocket_queue};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::synccontroller::SyncMsg;
use fixture::{LONG, greet};
use harness::{StandAlone, enter};
use noderegistry::Registry;
use pki::Authority;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DAY: Duration = Duration::from_secs(86_400);

fn authority(env: &Env) -> Authority {
    Authority::create(env.wall(), env.random_id()).unwrap()
}

fn of_cloud(authority: &Authority, env: &Env) -> Credentials {
    let addresses = vec!["127.0.0.1".parse().unwrap()];
    let (certificate, key) = SecretStore::server_certificate(authority, addresses, Vec::new(), env).unwrap();
    Credentials { certificate, key: key.into(), authority: authority.cert_pem().to_owned() }
}

fn of_node(authority: &Authority, node: &str, env: &Env) -> Credentials {
    let request = pki::NodeRequest::new(node).unwrap();
    let issued = authority.sign_node(&request.csr_der, node, env.wall(), DAY, env.random_id()).unwrap();
    Credentials {
        certificate: issued.pem,
        key: request.key_pem.clone().into(),
        authority: authority.cert_pem().to_owned(),
    }
}

/// A listener in a hive of its own.
struct Listening {
    acceptor: Option<WebSocketAcceptor>,
    port: u16,
    listener: Address<WebSocketMsg>,
    hive: Hive,
}

impl Listening {
    async fn accept(&mut self) -> Option<Box<dyn Connection>> {
        self.acceptor.as_mut().unwrap().accept().await
    }
}

fn listen(authority: &Authority, env: &Env) -> Listening {
    listen_to(authority, env, |listener| listener)
}

fn listen_to(
    authority: &Authority,
    env: &Env,
    bounded: impl Fn(WebSocketListener) -> WebSocketListener + 'static,
) -> Listening {
    let port = Rc::new(https::Port::bind("127.0.0.1:0".parse().unwrap()).unwrap());
    let at = port.address().port();
    let tls = WebSocketListener::tls(&LiveCredentials::new(&of_cloud(authority, env)).unwrap()).unwrap();
    let (arrivals, acceptor) = websocket_queue();
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox::<WebSocketMsg>("websocket", Capacity::new(4, "a test's choice"));
    let listener = hive.grant("a test", &mailbox, Flow::Tell);
    let policy = Policy { backoff_min: Duration::from_millis(10), ..Policy::default() };
    hive.supervise(mailbox, policy, move || {
        bounded(WebSocketListener::new(Rc::clone(&port), tls.clone(), arrivals.clone()))
    });
    hive.open().unwrap();
    Listening { acceptor: Some(acceptor), port: at, listener, hive }
}

fn dialer(port: u16, credentials: &Credentials, env: &Env) -> WebSocketDialer {
    WebSocketDialer::new("127.0.0.1", port, credentials, env.clock()).unwrap()
}

const REQUEST: &str = "GET /link HTTP/1.1\r\nHost: cloud\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: hive-link.1\r\n\r\n";

/// TLS with a certificate of a node, and nothing said yet.
async fn by_hand(port: u16, credentials: &Credentials) -> TlsStream<TcpStream> {
    let tls = TlsConnector::from(Arc::new(tls::client(credentials, b"http/1.1").unwrap()));
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tls.connect(ServerName::try_from("127.0.0.1").unwrap(), socket).await.unwrap()
}

/// What is answered until the socket ends, or up to the end of a head that grants.
async fn answer(socket: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    while !(answer.starts_with(b"HTTP/1.1 101") && answer.ends_with(b"\r\n\r\n")) {
        match socket.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

fn run(test: impl AsyncFnOnce(Env)) {
    actix_rt::System::new().block_on(async { test(Env::real()).await });
}

#[test]
fn a_node_reaches_the_hub_over_websocket_under_the_name_in_its_certificate() {
    run(async |env| {
        let api = StandAlone::start(&env).await;
        let registry = Registry::new(api.client());
        let authority = authority(&env);
        let mut server = listen(&authority, &env);
        let port = server.port;
        // Beside another way to arrive, as in the daemon.
        let over_websocket = Box::new(server.acceptor.take().unwrap());
        let mut fixture = fixture::Fixture::start(&env, registry, 10, vec![over_websocket]);

        let credentials = of_node(&authority, "a", &env);
        let serial =
            pki::serial_of(&CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).unwrap());
        let serial = serial.unwrap();
        enter(api.client(), "a", &serial, env.wall()).await;
        let connection = dialer(port, &credentials, &env).dial().await.unwrap();
        assert_eq!(connection.peer().as_str(), "KubeHive CloudCore");
        let link = greet(&env, connection, "system:node:a").await.unwrap();
        link.remote::<EdgeUp>().tell(EdgeUp::Alive).await.unwrap();
        let alive = |message| match message {
            EdgeControllerMsg::Up { node, session: 1, message: EdgeUp::Alive } => Some(node),
            _ => None,
        };
        assert_eq!(fixture.edge.find(LONG, alive).await.unwrap().as_str(), "a");
        // The same node by the other way: the newer link wins, whatever carries it.
        let newer = fixture.link("system:node:a", &serial).await.unwrap();
        assert_eq!(env.timeout(LONG, link.ended()).await, Some(CloseReason::Remote));
        drop(newer);
        let down = |message| matches!(message, SyncMsg::NodeDown { session: 2, .. }).then_some(());
        assert!(fixture.sync.find(LONG, down).await.is_some());
        // Who says another name than its certificate's is not let in.
        let connection = dialer(port, &credentials, &env).dial().await.unwrap();
        let impostor = greet(&env, connection, "system:node:b").await;
        assert!(impostor.unwrap_err().to_string().contains("its certificate is of `system:node:a`"));
    });
}

#[test]
fn a_stranger_is_let_in_at_neither_end() {
    run(async |env| {
        let (ours, other) = (authority(&env), authority(&env));
        let mut server = listen(&ours, &env);
        let port = server.port;
        // The server is not who the client trusts.
        assert!(dialer(port, &of_node(&other, "a", &env), &env).dial().await.is_err());
        // The client trusts the server, and the server does not trust the client.
        let mut half = of_node(&other, "a", &env);
        half.authority = ours.cert_pem().to_owned();
        assert!(dialer(port, &half, &env).dial().await.is_err());
        // Nobody has arrived.
        assert!(env.timeout(Duration::from_millis(200), server.accept()).await.is_none());
    });
}

async fn connected(env: &Env) -> (Box<dyn Connection>, Box<dyn Connection>, Listening) {
    let authority = authority(env);
    let mut server = listen(&authority, env);
    let dialer = dialer(server.port, &of_node(&authority, "a", env), env);
    let (edge, cloud) = futures::join!(dialer.dial(), server.accept());
    let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
    // No hello is said.
    cloud.admitted();
    (edge, cloud, server)
}

#[test]
fn megabytes_cross_in_both_directions_at_once_and_arrive_whole() {
    run(async |env| {
        let (edge, cloud, _server) = connected(&env).await;
        assert_eq!(cloud.peer().as_str(), "system:node:a");
        let (mut up, mut down) = edge.open(Urgency::Work).await.unwrap();
        up.write_all(b"begin").await.unwrap();
        let (mut back, mut came) = cloud.accept().await.unwrap();
        let body: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
        let send = async {
            up.write_all(&body).await.unwrap();
            up.shutdown().await.unwrap();
        };
        let send_back = async {
            back.write_all(&body).await.unwrap();
            back.shutdown().await.unwrap();
        };
        let (mut there, mut here) = (Vec::new(), Vec::new());
        let moved = async {
            futures::join!(send, send_back, came.read_to_end(&mut there), down.read_to_end(&mut here))
        };
        let (_, _, arrived, returned) = env.timeout(LONG, moved).await.unwrap();
        arrived.and(returned).unwrap();
        assert_eq!(there, [b"begin", &body[..]].concat());
        assert_eq!(here, body);
    });
}

#[test]
fn an_end_that_closes_is_heard_at_the_other() {
    run(async |env| {
        for edge_closes in [true, false] {
            let (edge, cloud, _server) = connected(&env).await;
            let (stays, goes) = if edge_closes { (cloud, edge) } else { (edge, cloud) };
            goes.close();
            drop(goes);
            let ended = async { while stays.accept().await.is_ok() {} };
            assert!(env.timeout(LONG, ended).await.is_some());
            assert!(stays.open(Urgency::Work).await.is_err());
        }
    });
}

#[test]
fn a_full_backlog_answers_and_asks_to_wait() {
    run(async |env| {
        let authority = authority(&env);
        let mut server = listen(&authority, &env);
        // 16 sockets of one name are let in at the most.
        let dialers: Vec<WebSocketDialer> = ["a", "b", "c", "d", "e"]
            .map(|name| dialer(server.port, &of_node(&authority, name, &env), &env))
            .into();
        let mut waiting = Vec::new();
        let busy = loop {
            match dialers[waiting.len() % dialers.len()].dial().await {
                Ok(connection) => waiting.push(connection),
                Err(error) => break error,
            }
            assert!(waiting.len() <= 64);
        };
        assert!(matches!(busy, DialError::Busy { wait, .. } if wait == Duration::from_secs(5)), "{busy}");
        assert_eq!(waiting.len(), 64);
        drop(server.accept().await.unwrap());
        assert!(dialers[0].dial().await.is_ok());
    });
}

#[test]
fn a_port_where_nobody_listens_and_a_peer_that_is_silent_are_told_apart_from_the_cloud() {
    run(async |env| {
        let authority = authority(&env);
        let credentials = of_node(&authority, "a", &env);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        drop(taken);
        let refused = dialer(port, &credentials, &env).dial().await.err().unwrap();
        assert!(matches!(refused, DialError::Connect { .. }), "{refused}");
        // A hello that never comes is given up by the link.
        let (edge, cloud, _server) = connected(&env).await;
        drop(edge);
        assert!(IncomingLink::read_hello(&env, cloud).await.is_err());
    });
}

#[test]
fn a_head_without_an_end_is_not_read_to_its_end() {
    run(async |env| {
        let authority = authority(&env);
        let server = listen(&authority, &env);
        let mut socket = by_hand(server.port, &of_node(&authority, "a", &env)).await;
        let head = [&REQUEST[..REQUEST.len() - 2], &"X-A: b\r\n".repeat(4000)].concat();
        let _ = socket.write_all(head.as_bytes()).await;
        let answered = env.timeout(Duration::from_secs(5), answer(&mut socket)).await;
        let answered = answered.expect("waits for more of it");
        assert!(!answered.starts_with("HTTP/1.1 101"), "{answered}");
    });
}

#[test]
fn other_requests_are_told_what_is_wrong_with_them() {
    run(async |env| {
        let authority = authority(&env);
        let server = listen(&authority, &env);
        for (from, to, status) in [
            ("/link", "/metrics", "404"),
            ("hive-link.1", "hive-link.7", "400"),
            ("Version: 13", "Version: 99", "426"),
            ("Upgrade: websocket", "Upgrade: h2c", "400"),
            ("GET", "POST", "404"),
        ] {
            let mut socket = by_hand(server.port, &of_node(&authority, "a", &env)).await;
            socket.write_all(REQUEST.replace(from, to).as_bytes()).await.unwrap();
            let answered = env.timeout(LONG, answer(&mut socket)).await.unwrap();
            assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{to}: {answered}");
        }
    });
}

#[test]
fn a_frame_that_is_larger_than_a_cell_ends_the_socket_before_its_body_has_come() {
    run(async |env| {
        let authority = authority(&env);
        let mut server = listen(&authority, &env);
        // 8 KiB and a head are a frame of the mux; one that says 1 GiB, and a text, and a piece of a message.
        let long = [&[0x82, 0xff][..], &(1_u64 << 30).to_be_bytes(), &[0; 4], &[0; 500]].concat();
        for bytes in [long, vec![0x81, 0x81, 0, 0, 0, 0, b'a'], vec![0x02, 0x81, 0, 0, 0, 0, 1]] {
            let mut socket = by_hand(server.port, &of_node(&authority, "a", &env)).await;
            socket.write_all(REQUEST.as_bytes()).await.unwrap();
            assert!(answer(&mut socket).await.starts_with("HTTP/1.1 101"));
            let connection = server.accept().await.unwrap();
            socket.write_all(&bytes).await.unwrap();
            let ended = env.timeout(Duration::from_secs(5), connection.accept()).await;
            assert!(ended.expect("waits for more of it").is_err());
            let mut rest = Vec::new();
            let gone = env.timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await;
            assert!(gone.is_some(), "the socket stays");
        }
    });
}

#[test]
fn after_a_fault_of_the_listener_its_links_have_ended_and_its_port_is_served_again() {
    run(async |env| {
        let authority = authority(&env);
        let mut server = listen(&authority, &env);
        let dialer = dialer(server.port, &of_node(&authority, "a", &env), &env);
        let (edge, cloud) = futures::join!(dialer.dial(), server.accept());
        let (edge, cloud) = (edge.unwrap(), cloud.unwrap());
        cloud.admitted();
        server.listener.tell(WebSocketMsg::ServerEnded).await.unwrap();
        for end in [&edge, &cloud] {
            let ended = async { while end.accept().await.is_ok() {} };
            assert!(env.timeout(LONG, ended).await.is_some(), "a link lives on without its listener");
        }
        // The port was never given up: whoever dials meanwhile waits.
        let (edge, cloud) =
            futures::join!(env.timeout(LONG, dialer.dial()), env.timeout(LONG, server.accept()));
        assert!(edge.unwrap().is_ok() && cloud.unwrap().is_some());
        let report = server.hive.inspector().report(LONG).await;
        assert_eq!(report.actor("websocket").unwrap().restarts, 1);
        assert_eq!(report.actor("websocket").unwrap().snapshot["connections"]["open"], 1);
        assert_eq!(server.hive.shutdown(LONG).await, beehive::Ended::InOrder);
        assert!(dialer.dial().await.is_err());
    });
}

async fn socket(from: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

/// Sockets that are silent, closed before they are old and opened again, of four addresses with more than all places.
#[test]
fn handshakes_of_a_few_addresses_leave_room_for_every_other_one() {
    run(async |env| {
        let authority = authority(&env);
        let server = listen_to(&authority, &env, |listener| listener.with_strangers(32, 8));
        let credentials = of_node(&authority, "a", &env);
        let connector = TlsConnector::from(Arc::new(tls::client(&credentials, b"http/1.1").unwrap()));
        let taken = async || {
            let report = server.hive.inspector().report(LONG).await;
            let connections = &report.actor("websocket").unwrap().snapshot["connections"];
            // Before its first message the actor has no view.
            let count = |of: &str| connections[of].as_u64().unwrap_or_default();
            count("open").saturating_sub(count("identified"))
        };
        let mut silent = VecDeque::new();
        for round in 0..40 {
            // The oldest are closed before they are old, and as many are opened as there are places again.
            while silent.len() > 28 {
                silent.pop_front();
            }
            let full = async {
                while taken().await < 32 {
                    for from in 2..6 {
                        silent.push_back(socket(from, server.port).await);
                    }
                    env.sleep(Duration::from_millis(5)).await;
                }
            };
            env.timeout(LONG, full).await.expect("the strangers do not fill the places");
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let shaken = connector.connect(name, socket(1, server.port).await);
            let shaken = env.timeout(LONG, shaken).await.expect("nobody answers");
            assert!(shaken.is_ok(), "round {round}: {:?}", shaken.err());
        }
    });
}
