use std::sync::Arc;

use contract::stream::header;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::node::{Fake, LONG, Node, running, status};

const SPDY: [(&str, &str); 3] =
    [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];

async fn node() -> (Node, Arc<Fake>) {
    let runtime = Arc::new(Fake::default());
    let node = Node::new(Arc::clone(&runtime) as _, running()).await;
    let log = node.dir.path().join("logs/d_p_u/c/0.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "2026-11-28T10:00:00Z stdout F one\n2026-11-28T10:00:01Z stderr F two\n").unwrap();
    *runtime.log.lock().unwrap() = log;
    runtime.running.lock().unwrap().push("c1".into());
    (node, runtime)
}

#[tokio::test]
async fn logs_are_read_where_the_runtime_says_and_nowhere_else() {
    let (node, runtime) = node().await;
    assert_eq!(node.get("/containerLogs/d/p/c").await, (200, "one\ntwo\n".into()));
    assert_eq!(node.get("/containerLogs/d/p/c?tailLines=1").await, (200, "two\n".into()));
    let timed = "2026-11-28T10:00:01.000000000Z two\n";
    assert_eq!(node.get("/containerLogs/d/p/c?stream=Stderr&timestamps=true").await, (200, timed.into()));
    let secret = node.dir.path().join("secret");
    std::fs::write(&secret, "2026-11-28T10:00:00Z stdout F secret\n").unwrap();
    let link = node.dir.path().join("logs/d_p_u/c/1.log");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    for path in [secret, link, node.dir.path().join("logs/../secret"), node.dir.path().join("logs/none")] {
        *runtime.log.lock().unwrap() = path;
        let (status, body) = node.get("/containerLogs/d/p/c").await;
        assert!(status == 200 && body.starts_with("failed to try resolving symlinks in path"), "{body}");
    }
}

#[tokio::test]
async fn logs_that_are_not_there_are_refused_in_a_kubelets_words() {
    let (node, _) = node().await;
    let refused = |text: &str, status: u16| (status, text.to_owned());
    assert_eq!(node.get("/containerLogs/d/x/c").await, refused(r#"pod "x" does not exist"#, 404));
    assert_eq!(node.get("/containerLogs/d/p/x").await, refused(r#"container "x" not found in pod "p""#, 404));
    let previous = r#"previous terminated container "c" in pod "p" not found"#;
    assert_eq!(node.get("/containerLogs/d/p/c?previous=true").await, refused(previous, 400));
    node.put("w", "w", status(json!({"state": {"waiting": {"reason": "ContainerCreating"}}}))).await;
    let waits = r#"container "c" in pod "w" is waiting to start: ContainerCreating"#;
    assert_eq!(node.get("/containerLogs/d/w/c").await, refused(waits, 400));
    node.put("g", "g", status(json!({"state": {"running": {}}, "containerID": "containerd://gone"}))).await;
    let gone = "unable to retrieve container logs for containerd://gone";
    assert_eq!(node.get("/containerLogs/d/g/c").await, refused(gone, 200));
    assert_eq!(node.metrics.count_of("stream_calls"), 5);
    assert_eq!(node.metrics.count_of("stream_calls_refused"), 4);
}

#[tokio::test]
async fn an_upgrade_passes_as_bytes_both_ways_with_half_close() {
    let (node, runtime) = node().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *runtime.url.lock().unwrap() = format!("http://{}/exec/token", server.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut peer, _) = server.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(peer.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                       X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\nearly";
        peer.write_all(answer).await.unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        // The client has ended its side and still hears this.
        peer.write_all(b" and late").await.unwrap();
        peer.shutdown().await.unwrap();
        (String::from_utf8(head).unwrap(), all)
    });
    let target = "/exec/d/p/c?command=sh&command=-c&command=a%20b&input=1&output=1&error=1";
    let (head, mut stream) = node.call("POST", target, &SPDY).await;
    assert_eq!(head.status, 101);
    assert_eq!(header(&head.headers, "x-stream-protocol-version"), Some("v4.channel.k8s.io"));
    let sent = vec![7; 1 << 20];
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let write = async {
        writing.write_all(&sent).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let both = async { tokio::join!(write, reading.read_to_end(&mut heard)).1.unwrap() };
    tokio::time::timeout(LONG, both).await.unwrap();
    assert_eq!(heard, b"early and late");
    let (request, received) = served.await.unwrap();
    assert!(received == sent);
    assert!(request.starts_with("POST /exec/token HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("x-stream-protocol-version: v4.channel.k8s.io\r\n"), "{request}");
    let asked = runtime.asked.lock().unwrap().clone();
    assert!(asked[0].contains(r#"cmd: ["sh", "-c", "a b"], tty: false, stdin: true"#), "{asked:?}");
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_refused_in_a_kubelets_words() {
    let (node, runtime) = node().await;
    let refused = async |method: &str, target: &str, headers: &[(&str, &str)]| {
        let (head, mut stream) = node.call(method, target, headers).await;
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        // client-go reads YAML, in which a sentence with a colon is no sentence.
        if let Ok(said) = serde_json::from_str::<Value>(&body) {
            assert_eq!((&said["kind"], said["code"].as_u64()), (&"Status".into(), Some(head.status.into())));
            body = said["message"].as_str().unwrap().to_owned();
            assert!(body.contains(':'), "{body}");
        }
        (head.status, body, head.headers)
    };
    let plain = refused("POST", "/exec/d/p/c?output=1&command=ls", &[]).await;
    assert_eq!((plain.0, plain.1.as_str()), (500, "Upgrade request required\n"));
    assert!(runtime.asked.lock().unwrap().is_empty(), "the runtime is not asked for nothing");
    let unknown = refused("POST", "/exec/d/x/c?output=1", &SPDY).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "pod does not exist"));
    let full = refused("POST", "/attach/d/p/c?output=1", &SPDY).await;
    let text = "rpc error: code = ResourceExhausted desc = too many requests";
    assert_eq!((full.0, full.1.as_str(), header(&full.2, "retry-after")), (429, text, Some("60")));
    // A URL that leads off the node.
    *runtime.url.lock().unwrap() = "http://192.0.2.1:80/exec".into();
    let off = refused("POST", "/exec/d/p/c?output=1", &SPDY).await;
    assert!(off.0 == 500 && off.1.contains("loopback"), "{off:?}");
    // The runtime does not speak what the client speaks.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *runtime.url.lock().unwrap() = format!("http://{}/exec/token", server.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut peer, _) = server.accept().await.unwrap();
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nX-Accepted-Stream-Protocol-Versions: v1\r\n\r\nno v5";
        peer.write_all(answer).await.unwrap();
        drop(peer.read(&mut [0; 512]).await);
    });
    let other = refused("POST", "/portForward/d/p", &SPDY).await;
    assert_eq!((other.0, other.1.as_str()), (403, "no v5"));
    assert_eq!(header(&other.2, "x-accepted-stream-protocol-versions"), Some("v1"));
    assert!(runtime.asked.lock().unwrap().last().unwrap().contains("s-new"), "the newest sandbox");
    runtime.running.lock().unwrap().push("c2".into());
    drop(refused("POST", "/exec/d/p/c?output=1", &SPDY).await);
    assert!(runtime.asked.lock().unwrap().last().unwrap().contains("c2"), "the latest attempt");
    runtime.running.lock().unwrap().clear();
    let ended = refused("POST", "/exec/d/p/c?output=1", &SPDY).await;
    assert_eq!((ended.0, ended.1.as_str()), (500, r#"container not found ("c")"#));
    let ended = refused("POST", "/attach/d/p/c?output=1", &SPDY).await;
    assert_eq!((ended.0, ended.1.as_str()), (500, "container c not found in pod p_d"));
}

#[tokio::test]
async fn the_other_calls_are_a_kubelets_too() {
    let (node, _) = node().await;
    let run = async |command: &str| {
        let (head, mut stream) = node.call("POST", &format!("/run/d/p/c?cmd={command}"), &[]).await;
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        (head.status, body)
    };
    assert_eq!(run("true").await, (200, "out\nerr\n".into()));
    assert_eq!(run("false%20x").await, (500, "command 'false x' exited with 1: err\n".into()));
    let pods: Value = serde_json::from_str(&node.get("/pods").await.1).unwrap();
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    assert_eq!(node.get("/healthz").await, (200, "ok".into()));
    assert_eq!(node.get("/metrics/probes").await, (200, String::new()));
    assert!(node.get("/configz").await.1.starts_with(r#"{"kubeletconfig":{"#));
    assert_eq!(node.get("/logs/none").await.0, 500, "there is no such folder");
    std::fs::create_dir(node.dir.path().join("var-log")).unwrap();
    std::fs::write(node.dir.path().join("var-log/syslog"), "words").unwrap();
    assert_eq!(node.get("/logs/syslog").await, (200, "words".into()));
    let (head, mut stream) = node.call("POST", "/checkpoint/d/p/c", &[]).await;
    let mut body = String::new();
    stream.read_to_string(&mut body).await.unwrap();
    assert!(
        head.status == 500
            && body.starts_with("checkpointing of d/p/c failed (rpc error: code = Unimplemented"),
        "{body}"
    );
    assert!(node.get("/metrics/resource").await.1.contains("resource_scrape_error 0"));
    assert!(node.get("/metrics/cadvisor").await.1.contains("machine_cpu_cores{"));
    let summary: Value = serde_json::from_str(&node.get("/stats/summary").await.1).unwrap();
    assert_eq!(summary["node"]["nodeName"], "n");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);
}
