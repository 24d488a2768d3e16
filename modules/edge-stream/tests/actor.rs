//! EdgeStream in a hive: what agents on the node get, and what they don't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Capacity, Env, Flow, Hive, Policy};
use contract::edgestream::EdgeStreamMsg;
use edge_store::{Options, Store};
use edge_stream::{EdgeStream, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(20);

fn settings(folder: &Path, local: SocketAddr) -> Settings {
    let mut settings = config::edge::EdgeCore::default();
    settings.modules.edged.root_directory = folder.to_owned();
    settings.modules.edged.tailored_kubelet_config.pod_logs_dir = folder.to_owned();
    settings.modules.edged.tailored_kubelet_config.read_only_port = local.port();
    settings.modules.edge_stream.token_file = folder.join("kubelet.token");
    Settings::new("n", &settings)
}

async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = loop {
        match TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: n\r\nconnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn agents_on_the_node_get_some_of_it_with_the_token() {
    actix_rt::System::new().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        // Somebody else has the port at first.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let settings = settings(folder.path(), address);
        let token_file = settings.token_file.clone();
        let store = Store::open(folder.path().join("db"), Options::new([1; 16])).unwrap();
        let runtime = cri::Grpc::new("/nowhere/x.sock", "/nowhere/x.sock", LONG).unwrap();
        let runtime: Arc<dyn cri::Runtime> = Arc::new(runtime);
        let mut hive = Hive::new("test", Env::real());
        let mailbox = hive.mailbox::<EdgeStreamMsg>("edge-stream", Capacity::new(8, "a test's choice"));
        let stream = hive.grant("tester", &mailbox, Flow::Tell);
        let liveness = hive.inspector().liveness();
        hive.supervise(mailbox, Policy::default(), move || {
            let (runtime, store) = (Arc::clone(&runtime), store.clone());
            EdgeStream::new(settings.clone(), runtime, store, Some(liveness.clone()))
        });
        hive.open().unwrap();
        let not_served = async {
            while hive.inspector().report(LONG).await.counter("stream_local_not_served") == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, not_served).await.unwrap();
        drop(taken);
        stream.tell(EdgeStreamMsg::Serve).await.unwrap();
        let served = async {
            while !token_file.exists() || TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, served).await.unwrap();
        let mode = std::fs::metadata(&token_file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = std::fs::read_to_string(&token_file).unwrap();
        for wrong in [None, Some("x"), Some(&token[1..])] {
            assert_eq!(get(address, "/healthz", wrong).await, (401, "Unauthorized".to_owned()), "{wrong:?}");
        }
        let token = Some(token.as_str());
        assert_eq!(get(address, "/healthz", token).await, (200, "ok".to_owned()));
        let pods = get(address, "/pods", token).await;
        assert!(pods.0 == 200 && pods.1.contains(r#""items":null"#), "{pods:?}");
        let resource = get(address, "/metrics/resource", token).await;
        assert!(resource.0 == 200 && resource.1.contains("resource_scrape_error 1"), "{resource:?}");
        let metrics = get(address, "/metrics", token).await.1;
        assert!(metrics.contains("kubehive_edge_events_total{event=\"stream_local_denied\"} 3"), "{metrics}");
        for path in ["/containerLogs/d/p/c", "/configz", "/logs/", "/runningpods/"] {
            assert_eq!(get(address, path, token).await.0, 404, "{path}");
        }
        hive.shutdown(LONG).await;
        // The port goes with the hive.
        let closed = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, closed).await.unwrap();
    });
}
