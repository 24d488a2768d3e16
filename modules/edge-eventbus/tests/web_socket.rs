//! MQTT over WebSocket: frames as clients and as nobody should send them, and Eclipse Paho.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod node;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use config::edge::{EventBus as Settings, MqttTls, MqttWebSocket};
use futures::{SinkExt as _, StreamExt as _};
use node::certificates::Ca;
use node::child::{lines, spawn};
use node::{Node, SOON, connect, packet, publish, run, subscribe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// One version, so that a new release changes nothing here.
const PAHO: &str = "2.1.0";

fn settings() -> Settings {
    let listen = "127.0.0.1:0".to_owned();
    Settings {
        web_socket: MqttWebSocket { enable: true, listen, ..MqttWebSocket::default() },
        ..Settings::default()
    }
}

async fn address(node: &Node) -> String {
    node.view().await["listeningWebSocket"].as_str().unwrap().to_owned()
}

struct Client {
    socket: WebSocketStream<TcpStream>,
    heard: Vec<u8>,
}

/// Asks for a WebSocket, with these headers.
async fn ask(address: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, Error> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (socket, _) = client_async(request, tcp).await?;
    Ok(Client { socket, heard: Vec::new() })
}

const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "mqtt");

impl Client {
    async fn open(node: &Rc<Node>) -> Client {
        ask(&address(node).await, "/mqtt", &[PROTOCOL]).await.unwrap()
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::Binary(bytes.to_vec().into())).await.unwrap();
    }

    async fn expect(&mut self, wanted: &[u8]) {
        while self.heard.len() < wanted.len() {
            match tokio::time::timeout(SOON, self.socket.next()).await.unwrap() {
                Some(Ok(Message::Binary(bytes))) => self.heard.extend(bytes),
                Some(Ok(Message::Pong(_))) => {}
                other => panic!("{other:?} instead of {wanted:x?}, after {:x?}", self.heard),
            }
        }
        let rest = self.heard.split_off(wanted.len());
        assert_eq!(self.heard, wanted);
        self.heard = rest;
    }

    /// What still comes until the connection ends.
    async fn ends(mut self) {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        tokio::time::timeout(SOON, rest).await.expect("connection stays open");
    }
}

#[test]
fn packets_begin_and_end_anywhere_in_the_frames() {
    run(|store| async move {
        let node = Node::start_as(store, settings()).await;
        let mut client = Client::open(&node).await;
        let all = [
            connect("ws", true, 0, None),
            subscribe("t", 1),
            publish("t", "one", 1, 1),
            publish("t", "two", 0, 0),
            packet(0xc0, &[]),
        ]
        .concat();
        // A byte a frame, empty ones between, and a ping.
        for byte in &all[..20] {
            client.send(&[*byte]).await;
            client.send(&[]).await;
        }
        client.socket.send(Message::Ping(b"x".to_vec().into())).await.unwrap();
        client.expect(b"\x20\x02\0\0").await;
        client.send(&all[20..]).await;
        client.expect(b"\x90\x03\0\x09\x01").await;
        // Two publishes, a PUBACK and a PINGRESP, in an order that is the broker's to choose between control and messages.
        let wanted =
            [b"\x40\x02\0\x01".as_slice(), b"\xd0\0", b"\x32\x08\0\x01t\0\x01one", b"\x30\x06\0\x01ttwo"];
        let length = wanted.concat().len();
        while client.heard.len() < length {
            match tokio::time::timeout(SOON, client.socket.next()).await.unwrap() {
                Some(Ok(Message::Binary(bytes))) => client.heard.extend(bytes),
                Some(Ok(Message::Pong(_))) => {}
                other => panic!("{other:?}"),
            }
        }
        let mut rest = client.heard.clone();
        for one in wanted {
            let at = rest.windows(one.len()).position(|window| window == one).expect("each once");
            rest.drain(at..at + one.len());
        }
        assert!(rest.is_empty(), "{rest:x?}");
        // A client of plain TCP is in the same broker.
        let sub = node.mosquitto("sub", &["-t", "u", "-C", "1"]);
        node.subscriptions(2).await;
        client.heard.clear();
        client.send(&publish("u", "from a page", 0, 0)).await;
        assert_eq!(lines(sub).await, ["from a page"]);
    });
}

#[test]
fn what_is_no_mqtt_over_web_socket_is_refused() {
    run(|store| async move {
        let mut settings = settings();
        settings.web_socket.allowed_origins = vec!["https://panel.example".to_owned()];
        let node = Node::start_as(store, settings).await;
        let at = address(&node).await;
        let status = |answer: Result<Client, Error>| match answer {
            Ok(_) => 101,
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(status(ask(&at, "/mqtt", &[]).await), 400);
        assert_eq!(status(ask(&at, "/mqtt", &[("sec-websocket-protocol", "chat")]).await), 400);
        assert_eq!(status(ask(&at, "/", &[PROTOCOL]).await), 404);
        let from = |origin| [PROTOCOL, ("origin", origin)];
        assert_eq!(status(ask(&at, "/mqtt", &from("https://evil.example")).await), 403);
        assert_eq!(status(ask(&at, "/mqtt", &from("https://panel.example")).await), 101);
        let own = format!("http://{at}");
        assert_eq!(status(ask(&at, "/mqtt", &[PROTOCOL, ("origin", &own)]).await), 101);
        // Text ends the connection [MQTT-6.0.0-1], and so does MQTT without a WebSocket around it.
        let mut client = Client::open(&node).await;
        client.send(&connect("ws", true, 0, None)).await;
        client.expect(b"\x20\x02\0\0").await;
        client.socket.send(Message::Text("x".into())).await.unwrap();
        client.ends().await;
        let mut plain = TcpStream::connect(&at).await.unwrap();
        plain.write_all(&connect("x", true, 0, None)).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(SOON, plain.read_to_end(&mut rest)).await.unwrap();
        assert!(!rest.starts_with(&[0x20]), "{rest:x?}");
        // Whoever does get in is served all the same.
        let mut client = Client::open(&node).await;
        client.send(&connect("ws", true, 0, None)).await;
        client.expect(b"\x20\x02\0\0").await;
    });
}

#[test]
fn whoever_asks_for_another_version_or_for_no_web_socket_is_told_which_is_spoken() {
    run(|store| async move {
        let node = Node::start_as(store, settings()).await;
        let at = address(&node).await;
        let web_socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: mqtt\r\n";
        let version = |version: &str| {
            format!(
                "{web_socket}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: {version}\r\n"
            )
        };
        for (method, headers, status) in [
            ("GET", version("8"), "426"),
            ("GET", version("14"), "426"),
            ("GET", web_socket.to_owned(), "426"),
            ("GET", String::new(), "426"),
            ("POST", version("13"), "405"),
            ("GET", format!("{web_socket}Sec-WebSocket-Version: 13\r\n"), "400"),
        ] {
            let mut client = TcpStream::connect(&at).await.unwrap();
            let request = format!("{method} /mqtt HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{answer}");
            let names_version = answer.contains("\r\nsec-websocket-version: 13\r\n");
            assert_eq!(names_version, status == "426", "{answer}");
        }
    });
}

#[test]
fn a_frame_is_no_larger_than_a_packet_may_be_and_before_connect_than_a_connect() {
    run(|store| async move {
        let node = Node::start_as(store, settings()).await;
        let large = "x".repeat(900 << 10);
        let mut client = Client::open(&node).await;
        client.send(&connect("ws", true, 0, None)).await;
        client.expect(b"\x20\x02\0\0").await;
        client.send(&publish("t", &large, 1, 1)).await;
        client.expect(b"\x40\x02\0\x01").await;
        // Of 2 MiB nobody takes even the beginning.
        let frame = Message::Binary(vec![0x30; 2 << 20].into());
        let _ = client.socket.send(frame).await;
        client.ends().await;
        // Nobody knows whose this would be.
        let mut stranger = Client::open(&node).await;
        let _ = stranger.socket.send(Message::Binary(vec![0; 900 << 10].into())).await;
        stranger.ends().await;
        node.wait("nobody", |view| view["clients"] == 0).await;
    });
}

/// A Python that has Paho: the machine's own, or one in a virtual environment made for these tests.
async fn python() -> PathBuf {
    async fn has(python: &Path) -> bool {
        let check = format!("import paho.mqtt, sys; sys.exit(paho.mqtt.__version__ != '{PAHO}')");
        let run = Command::new(python).args(["-c", &check]).stderr(Stdio::null()).status().await;
        run.is_ok_and(|status| status.success())
    }
    async fn done(command: &mut Command, need: &str) {
        let output = command.output().await.expect(need);
        assert!(output.status.success(), "{need}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let own = PathBuf::from("python3");
    if has(&own).await {
        return own;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("paho-{PAHO}"));
    // Tests are processes of their own: one of them makes it, the others wait for it.
    let lock = std::fs::File::create(folder.with_extension("lock")).unwrap();
    let _made_by_one =
        tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
    let made = folder.join("bin/python3");
    if !has(&made).await {
        let venv = "python3 with its venv module is needed (Debian: python3-venv)";
        done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder), venv).await;
        let paho = format!("paho-mqtt=={PAHO}");
        let install = ["-m", "pip", "install", "--quiet", "--no-deps", &paho];
        done(Command::new(&made).args(install), "Paho has to be installed, or PyPI within reach").await;
    }
    made
}

async fn talk(arguments: &[&str]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/paho/web_socket.py");
    let arguments = [script.to_str().unwrap()].into_iter().chain(arguments.iter().copied());
    lines(spawn(python().await, arguments)).await
}

const ALL: [&str; 6] = ["3.1.1 0", "3.1.1 1", "3.1.1 2", "5 0", "5 1", "5 2"];

#[test]
fn paho_speaks_mqtt_over_web_socket() {
    run(|store| async move {
        let node = Node::start_as(store, settings()).await;
        let at = address(&node).await;
        assert_eq!(talk(&[at.rsplit(':').next().unwrap()]).await, ALL);
    });
}

#[test]
fn paho_speaks_mqtt_over_web_socket_in_tls() {
    run(|store| async move {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(folder.path(), "ours");
        ca.issue("broker", &["broker"], 1);
        let mut settings = settings();
        settings.web_socket.tls = true;
        settings.tls = MqttTls {
            enable: true,
            listen: "127.0.0.1:0".to_owned(),
            cert_file: ca.path("broker.crt"),
            key_file: ca.path("broker.key"),
            ..MqttTls::default()
        };
        let node = Node::start_as(store, settings).await;
        let at = address(&node).await;
        assert_eq!(talk(&[at.rsplit(':').next().unwrap(), &ca.shown("ca")]).await, ALL);
    });
}
