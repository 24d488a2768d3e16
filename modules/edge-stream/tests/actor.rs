//! EdgeStream in a hive: what agents on the node get, and what they don't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use contract::edgestream::EdgeStreamMsg;
use edge_store::{Options, Store};
use edge_stream::{EdgeStream, Settings};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(20);

fn settings(folder: &Path, local: SocketAddr) -> Settings {
    let mut settings = config::edge::EdgeCore::default();
    settings.modules.edged.root_directory = folder.to_owned();
    settings.modules.edged.tailored_kubelet_config.pod_logs_dir = folder.to_owned();
    settings.modules.edged.tailored_kubelet_config.read_only_port = local.port();
    settings.modules.edge_stream.token_file = folder.join("kubelet.token");
    settings.modules.edge_stream.socket = folder.join("kubelet.sock");
    Settings::new("n", &settings)
}

/// Until it is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let so = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, so).await.unwrap();
}

/// A request and its answer.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    token: Option<&str>,
) -> (u16, String) {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

struct Stream {
    hive: Hive,
    mailbox: Address<EdgeStreamMsg>,
    socket: PathBuf,
    token_file: PathBuf,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Stream {
    fn at(address: SocketAddr) -> Stream {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), address);
        let (token_file, socket) = (settings.token_file.clone(), settings.socket.clone().unwrap());
        std::fs::write(&token_file, OLD_TOKEN).unwrap();
        std::fs::set_permissions(&token_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let store = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
        let runtime = cri::Grpc::new("/nowhere/x.sock", "/nowhere/x.sock", LONG).unwrap();
        let runtime: Arc<dyn cri::Runtime> = Arc::new(runtime);
        let mut hive = Hive::new("test", Env::real());
        let mailbox = hive.mailbox::<EdgeStreamMsg>("edge-stream", Capacity::new(8, "a test's choice"));
        let granted = hive.grant("tester", &mailbox, Flow::Tell);
        let liveness = hive.inspector().liveness();
        hive.supervise(mailbox, Policy::default(), move || {
            let (runtime, store) = (Arc::clone(&runtime), store.clone());
            EdgeStream::new(settings.clone(), runtime, store, Some(liveness.clone()))
        });
        hive.open().unwrap();
        Stream { hive, mailbox: granted, socket, token_file, address, folder }
    }

    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        ask(TcpStream::connect(self.address).await.unwrap(), path, token).await
    }

    async fn get_at_socket(&self, path: &str) -> (u16, String) {
        ask(UnixStream::connect(&self.socket).await.unwrap(), path, None).await
    }

    async fn count(&self, event: &str) -> u64 {
        self.hive.inspector().report(LONG).await.counter(event)
    }

    /// The token, once the port is served.
    async fn token(&self) -> String {
        let is_new = || {
            std::fs::read_to_string(&self.token_file)
                .is_ok_and(|token| token.len() == 64 && token != OLD_TOKEN)
        };
        until(async || is_new() && TcpStream::connect(self.address).await.is_ok()).await;
        std::fs::read_to_string(&self.token_file).unwrap()
    }
}

/// What an edgecore that did not stop in order has left.
const OLD_TOKEN: &str = "0123456789012345678901234567890123456789012345678901234567890123";

/// A port that nobody has.
fn free() -> SocketAddr {
    let [port] = testhost::free_ports().unwrap();
    ([127, 0, 0, 1], port).into()
}

#[test]
fn who_has_the_port_meanwhile_gets_no_token_that_is_worth_something() {
    actix_rt::System::new().block_on(async {
        // A stranger has the port while the node was down, and hears what agents send.
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Stream::at(stranger.local_addr().unwrap());
        let listens = || std::os::unix::net::UnixStream::connect(&stream.socket).is_ok();
        until(async || stream.count("stream_local_port_taken").await > 0 && listens()).await;
        until(async || !stream.token_file.exists()).await;
        assert!(stream.count("stream_local_not_served").await > 0);
        // At the socket nobody else can listen: agents that ask there are served, and hear of it.
        assert_eq!(std::fs::metadata(&stream.socket).unwrap().permissions().mode() & 0o777, 0o600);
        let (status, body) = stream.get_at_socket("/healthz").await;
        assert!(status == 500 && body.contains("[-]readonlyport failed"), "{body}");
        assert_eq!(stream.get_at_socket("/healthz?exclude=readonlyport").await.0, 200);
        assert_eq!(stream.get_at_socket("/configz").await.0, 404, "it is the same server");
        drop(stranger);
        stream.mailbox.tell(EdgeStreamMsg::Serve).await.unwrap();
        let token = stream.token().await;
        assert_ne!(token, OLD_TOKEN);
        assert_eq!(stream.get("/healthz", Some(OLD_TOKEN)).await, (401, "Unauthorized".to_owned()));
        assert_eq!(stream.get("/healthz", Some(&token)).await, (200, "ok".to_owned()));
        assert_eq!(stream.get_at_socket("/healthz").await.0, 200);
        // Whoever listens there when the node has stopped hears nothing: agents have no token to show.
        let Stream { hive, socket, token_file, folder, .. } = stream;
        hive.shutdown(LONG).await;
        assert!(!token_file.exists() && !socket.exists());
        drop(folder);
    });
}

#[test]
fn a_token_that_was_heard_while_the_node_was_down_is_worth_nothing_although_the_port_is_free_again() {
    actix_rt::System::new().block_on(async {
        let stream = Stream::at(free());
        until(async || stream.count("stream_local_token_made").await > 0).await;
        let token = stream.token().await;
        assert_eq!(stream.get("/healthz", Some(OLD_TOKEN)).await.0, 401);
        assert_eq!(stream.get("/healthz", Some(&token)).await.0, 200);
        stream.hive.shutdown(LONG).await;
    });
}

#[test]
fn strangers_take_no_place_of_who_has_the_token_and_are_closed_soon() {
    actix_rt::System::new().block_on(async {
        let stream = Stream::at(free());
        let token = stream.token().await;
        // More strangers than there are places for agents, and an agent that is about to ask when one more comes.
        let mut strangers = Vec::new();
        let come = async || (Instant::now(), TcpStream::connect(stream.address).await.unwrap());
        for _ in 0..200 {
            strangers.push(come().await);
        }
        // All of them have come: who came last is answered.
        assert_eq!(stream.get("/healthz", None).await.0, 401);
        let agent = TcpStream::connect(stream.address).await.unwrap();
        strangers.push(come().await);
        assert_eq!(ask(agent, "/healthz", Some(&token)).await.0, 200);
        // One that says nothing is closed, and so is one that has shown no token. One that is idle is closed after 10 s.
        let closed = async {
            let mut stayed = Vec::new();
            for (came, stranger) in &mut strangers {
                assert_eq!(stranger.read(&mut [0]).await.unwrap_or_default(), 0);
                stayed.push(came.elapsed());
            }
            stayed
        };
        let stayed = tokio::time::timeout(LONG, closed).await.expect("strangers stay");
        assert!(stayed.iter().min() < Some(&Duration::from_secs(8)), "{stayed:?}");
        let mut wrong = TcpStream::connect(stream.address).await.unwrap();
        wrong.write_all(b"GET /healthz HTTP/1.1\r\nhost: n\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        wrong.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
        stream.hive.shutdown(LONG).await;
    });
}

#[test]
fn agents_on_the_node_get_some_of_it_with_the_token() {
    actix_rt::System::new().block_on(async {
        let stream = Stream::at(free());
        let token = stream.token().await;
        let mode = std::fs::metadata(&stream.token_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for wrong in [None, Some("x"), Some(&token[1..])] {
            assert_eq!(stream.get("/healthz", wrong).await, (401, "Unauthorized".to_owned()), "{wrong:?}");
        }
        let token = Some(token.as_str());
        assert_eq!(stream.get("/healthz", token).await, (200, "ok".to_owned()));
        let pods = stream.get("/pods", token).await;
        assert!(pods.0 == 200 && pods.1.contains(r#""items":null"#), "{pods:?}");
        let resource = stream.get("/metrics/resource", token).await;
        assert!(resource.0 == 200 && resource.1.contains("resource_scrape_error 1"), "{resource:?}");
        let metrics = stream.get("/metrics", token).await.1;
        assert!(metrics.contains("kubehive_edge_events_total{event=\"stream_local_denied\"} 3"), "{metrics}");
        for path in ["/containerLogs/d/p/c", "/devices", "/events", "/configz", "/logs/", "/runningpods/"] {
            assert_eq!(stream.get(path, token).await.0, 404, "{path}");
        }
        // Whoever has come to the socket is root.
        let missing = (404, "pod \"p\" does not exist".to_owned());
        assert_eq!(stream.get_at_socket("/containerLogs/d/p/c").await, missing);
        let nobody = (404, "this node has no devices".to_owned());
        assert_eq!(stream.get_at_socket("/devices").await, nobody);
        let (hive, address) = (stream.hive, stream.address);
        hive.shutdown(LONG).await;
        // The port goes with the hive.
        until(async || TcpStream::connect(address).await.is_err()).await;
    });
}
