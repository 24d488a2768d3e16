//! Calls at a node's port, from the TLS handshake to the node and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use beehive::link::{ByteStream, ByteStreamHandler, ByteStreamRefusal, PeerName};
use contract::cloudstream::CloudStreamMsg;
use fixture::{Fixture, Identity, LONG, begin, node, read_until};
use nodecalls::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const UPGRADE: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";

fn as_user(user: &str) -> String {
    format!("Authorization: Bearer {user}-token\r\n")
}

/// A command of Kate's, and the head of its answer.
async fn exec(fixture: &Fixture, port: u16) -> (TlsStream<TcpStream>, String) {
    let head = format!("POST /exec/d/p/c?command=cat HTTP/1.1\r\nHost: x\r\n{UPGRADE}{}", as_user("kate"));
    begin(fixture, (port, None), &head, "\r\n\r\n").await
}

/// A log of `c` with these parameters, which goes on, and its first line.
async fn log(
    fixture: &Fixture,
    at: (u16, Option<&Identity>),
    (parameters, headers): (&str, &str),
) -> (TlsStream<TcpStream>, String) {
    let head = format!("GET /containerLogs/d/p/c{parameters} HTTP/1.1\r\nHost: x\r\n{headers}");
    begin(fixture, at, &head, "line 1\n").await
}

#[actix_rt::test]
async fn nobody_is_served_whom_the_api_server_does_not_know() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.until_client_ca().await;
    for headers in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Basic a2F0ZQ==\r\n",
        "X-Remote-User: kate\r\n",
    ] {
        let told = fixture.ask(port, None, "GET /pods", headers).await;
        assert_eq!((told.status, told.body.as_str()), (401, "Unauthorized"), "{headers}");
        assert!(!told.head.contains("www-authenticate"), "a kubelet sends none: {}", told.head);
    }
    // A certificate of another CA is as none, and no alert: CloudCore's own nodes are not the API server's clients.
    let foreign = fixture.identity(&fixture.ours, "edge-2");
    let told = fixture.ask(port, Some(&foreign), "GET /pods", "").await;
    assert_eq!((told.status, told.body.as_str()), (401, "Unauthorized"));
    // Without a credential not even what exists is told, but for what a kubelet's mux tells.
    assert_eq!(fixture.ask(port, None, "GET /nowhere", "").await.status, 404);
    assert!(fixture.node.asked.lock().unwrap().is_empty(), "the node was never asked");
    // A token is asked about once in its time, a wrong one too.
    fixture.ask(port, None, "GET /pods", "Authorization: Bearer wrong\r\n").await;
    assert_eq!(fixture.api.tokens_asked(), ["wrong"]);
}

/// Each question is put under CloudCore's account, and has a share of the API server's patience with it.
#[actix_rt::test]
async fn an_address_that_shows_ever_new_tokens_is_told_to_wait_and_the_api_server_is_not_asked() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    assert_eq!(fixture.ask_as(port, "kate", "GET /pods").await.status, 403, "she is known");
    let mut refused = None;
    for number in 0..200 {
        let told = fixture
            .ask(port, None, "GET /pods", &as_user(&format!("bad-{number}")).replace("-token", ""))
            .await;
        if told.status != 401 {
            refused = Some(told);
            break;
        }
    }
    let refused = refused.expect("the address is bounded");
    assert!(refused.status == 429 && refused.head.contains("retry-after: 1"), "{}", refused.head);
    assert!((50..200).contains(&fixture.api.tokens_asked().len()));
    assert_eq!(fixture.ask_as(port, "kate", "GET /pods").await.status, 403, "who is known is not held up");
}

#[actix_rt::test]
async fn whoever_is_known_needs_the_right_and_create_to_run_a_command() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    let told = fixture.ask_as(port, "kate", "GET /pods").await;
    let words = "Forbidden (user=kate, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!((told.status, told.body.as_str()), (403, words));
    assert_eq!(fixture.api.rights_asked(), ["kate get pods@edge-1", "kate get proxy@edge-1"]);
    // The answer is kept: the right that was granted meanwhile does not show yet; another's does.
    fixture.api.grant("paul get proxy@edge-1");
    let told = fixture.ask_as(port, "paul", "GET /pods").await;
    assert_eq!((told.status, told.body.as_str()), (200, "{}"), "the second subresource decides, too");
    // Who may get nodes/proxy runs no command, by no method.
    for request in ["GET /exec/d/p/c?command=id", "POST /exec/d/p/c?command=id", "POST /run/d/p/c?cmd=id"] {
        let told = fixture.ask(port, None, request, &format!("{UPGRADE}{}", as_user("paul"))).await;
        let words = "Forbidden (user=paul, verb=create, resource=nodes, subresource(s)=[proxy])";
        assert_eq!((told.status, told.body.as_str()), (403, words), "{request}");
    }
    let told = fixture.ask_as(port, "undecided", "GET /configz").await;
    let words = "Authorization error (user=undecided, verb=get, resource=nodes, subresource=configz)\n";
    assert_eq!((told.status, told.body.as_str()), (500, words));
    let asked = fixture.node.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].target.as_str(), asked[0].user.as_str()), ("/pods", "paul"));
    assert!(!format!("{:?}", asked[0]).contains("token"), "no credential reaches the node");
}

#[actix_rt::test]
async fn the_api_servers_certificate_is_a_user_like_any_other() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.until_client_ca().await;
    let server = fixture.identity(fixture.api.clients(), "apiserver");
    assert_eq!(fixture.ask(port, Some(&server), "GET /healthz", "").await.status, 403);
    fixture.api.grant("system:node:apiserver get log@edge-1");
    let told = fixture
        .ask(port, Some(&server), "GET /logs/a.log?x=%20y", "Accept: text/plain\r\nCookie: c\r\n")
        .await;
    assert_eq!((told.status, told.body.as_str()), (200, "{}"));
    assert!(told.head.contains("content-type: application/json") && told.head.contains("content-length: 2"));
    let asked = fixture.node.asked.lock().unwrap()[0].clone();
    assert_eq!((asked.target.as_str(), asked.user.as_str()), ("/logs/a.log?x=%20y", "system:node:apiserver"));
    assert_eq!(asked.headers, [("accept".to_owned(), "text/plain".to_owned())]);
    assert_eq!(fixture.api.tokens_asked(), [] as [&str; 0]);
}

#[actix_rt::test]
async fn a_log_comes_as_it_is_written_and_a_cut_link_is_said_in_it_at_once() {
    let mut fixture = Fixture::start().await;
    let link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate get proxy@edge-1");
    let (mut log, head) = log(&fixture, (port, None), ("?follow=true", &as_user("kate"))).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    fixture.node.more.notify_one();
    read_until(&fixture, &mut log, "line 2\n").await;
    assert_eq!(fixture.calls.open().get(&node("edge-1")), Some(&1));
    link.close();
    let end = read_until(&fixture, &mut log, "\r\n0\r\n\r\n").await;
    assert!(end.contains("the log of node `edge-1` broke off here"), "{end}");
    assert!(end.contains("read it again when the node is Ready"), "{end}");
    fixture.until("the call is over", async || fixture.calls.open().is_empty()).await;
    // The next one is told at once, too; the port is closed when the hub has said that the session is over.
    let told = fixture.ask_as(port, "kate", "GET /containerLogs/d/p/c").await;
    assert_eq!(told.status, 502);
    assert!(told.body.contains("the link to node `edge-1` is down"), "{}", told.body);
    fixture.stream.tell(CloudStreamMsg::NodeDown { node: node("edge-1"), session: 1 }).await.unwrap();
    fixture
        .until("the port is closed", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err()
        })
        .await;
}

#[actix_rt::test]
async fn a_node_hears_at_once_that_the_reader_of_a_quiet_log_has_gone() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate get proxy@edge-1");
    // The body of a GET means nothing, and does not keep it from hearing so.
    for (number, body) in [(1, "\r\n"), (2, "Content-Length: 1\r\n\r\nx")] {
        let mut stream = fixture.connect(port, None).await;
        let text =
            format!("GET /containerLogs/d/p/c?follow=true HTTP/1.1\r\nHost: x\r\n{}{body}", as_user("kate"));
        stream.write_all(text.as_bytes()).await.unwrap();
        read_until(&fixture, &mut stream, "line 1\n").await;
        drop(stream);
        let gone = async || fixture.node.gone.load(std::sync::atomic::Ordering::SeqCst) == number;
        fixture.until("the node hears of it", gone).await;
    }
}

#[actix_rt::test]
async fn a_user_keeps_a_connection_to_each_of_many_nodes() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate get proxy@edge-1");
    // All ports have one count of connections: as many as metrics-server has in a fleet of 300.
    let mut kept = Vec::new();
    for _ in 0..300 {
        let mut stream = fixture.connect(port, None).await;
        let text = format!("GET /pods HTTP/1.1\r\nHost: x\r\n{}\r\n", as_user("kate"));
        stream.write_all(text.as_bytes()).await.unwrap();
        let told = read_until(&fixture, &mut stream, "{}").await;
        assert!(told.starts_with("HTTP/1.1 200"), "after {}: {told}", kept.len());
        kept.push(stream);
    }
}

#[actix_rt::test]
async fn what_is_not_a_log_and_is_cut_has_no_end_that_looks_whole() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate get metrics@edge-1");
    fixture.api.grant("kate get configz@edge-1");
    fixture.api.grant("kate get stats@edge-1");
    let mut stream = fixture.connect(port, None).await;
    stream
        .write_all(format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n", as_user("kate")).as_bytes())
        .await
        .unwrap();
    read_until(&fixture, &mut stream, "half of them\r\n").await;
    fixture.node.more.notify_one();
    let mut rest = Vec::new();
    let _ = fixture.env.timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends at once");
    assert_eq!(rest, b"", "not even the end of the chunks");
    let told = fixture.ask_as(port, "kate", "GET /configz").await;
    assert_eq!(told.status, 502);
    assert!(told.body.contains("node `edge-1` broke the call off"), "{}", told.body);
    let told = fixture.ask_as(port, "kate", "GET /stats/summary").await;
    assert_eq!((told.status, told.body.as_str()), (429, "the node has as many calls as it serves\n"));
}

#[actix_rt::test]
async fn an_upgraded_connection_is_bytes_both_ways_and_each_side_ends_alone() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate create proxy@edge-1");
    let (stream, head) = exec(&fixture, port).await;
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: spdy/3.1"), "{head}");
    // More than fits into any buffer on the way.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        for piece in sent.chunks(10_000) {
            writer.write_all(piece).await.unwrap();
        }
        writer.flush().await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let both = async { tokio::join!(send, reader.read_to_end(&mut received)) };
    let _ = fixture.env.timeout(LONG, both).await.expect("both sides end");
    assert!(received.ends_with(b"bye"), "the node's side went on after the caller's had ended");
    assert!(received[..received.len() - 3] == sent, "{} bytes of {}", received.len(), sent.len());
    fixture.until("the call is over", async || fixture.calls.open().is_empty()).await;
    let asked = fixture.node.asked.lock().unwrap()[0].clone();
    assert_eq!(
        contract::stream::header(&asked.headers, "x-stream-protocol-version"),
        Some("v4.channel.k8s.io")
    );
}

#[actix_rt::test]
async fn a_cut_link_ends_an_upgraded_connection_at_once() {
    let mut fixture = Fixture::start().await;
    let link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate create proxy@edge-1");
    let (mut stream, _) = exec(&fixture, port).await;
    stream.write_all(b"echo").await.unwrap();
    read_until(&fixture, &mut stream, "echo").await;
    link.close();
    let mut rest = Vec::new();
    let _ = fixture.env.timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert_eq!(rest, b"");
    fixture.until("the call is over", async || fixture.calls.open().is_empty()).await;
}

/// Else `kubectl exec` would take the end for the command's success.
#[actix_rt::test]
async fn a_command_whose_link_is_cut_has_failed() {
    let mut fixture = Fixture::start().await;
    let link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate create proxy@edge-1");
    let (mut stream, _) = exec(&fixture, port).await;
    // The node says it again: four bytes of stream 5, which is stdout.
    stream.write_all(&[0, 0, 0, 5, 0, 0, 0, 4]).await.unwrap();
    stream.write_all(b"done").await.unwrap();
    read_until(&fixture, &mut stream, "done").await;
    link.close();
    let mut rest = Vec::new();
    let _ = fixture.env.timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert_eq!(rest[..5], [0, 0, 0, 1, 1], "the error stream, and its end: {rest:?}");
    let status: serde_json::Value = serde_json::from_slice(&rest[8..]).unwrap();
    assert_eq!(status["status"], "Failure");
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("the connection to node `edge-1` was cut"), "{message}");
    // The next one is refused in words that client-go can read.
    let told = fixture.ask(port, None, "POST /exec/d/p/c", &format!("{UPGRADE}{}", as_user("kate"))).await;
    let status: serde_json::Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!((told.status, &status["kind"]), (502, &"Status".into()));
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("the link to node `edge-1` is down"), "{message}");
    fixture.until("the call is over", async || fixture.calls.open().is_empty()).await;
}

#[actix_rt::test]
async fn a_body_reaches_the_node_whole() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.grant("kate create proxy@edge-1");
    let body = "x".repeat(300_000);
    let headers = format!("{}Content-Length: {}\r\n\r\n{body}", as_user("kate"), body.len());
    let told = fixture.ask(port, None, "POST /run/d/p/c?cmd=cat", &headers).await;
    assert_eq!(told.status, 200);
    assert!(told.body.matches('x').count() == body.len(), "{} bytes", told.body.len());
}

#[actix_rt::test]
async fn calls_have_bounds_by_node_and_by_user_but_not_by_api_server() {
    let mut fixture = Fixture::with(Limits { of_node: 2, of_user: 1, all: 64 }).await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.until_client_ca().await;
    let server = fixture.identity(fixture.api.clients(), "apiserver");
    for right in ["kate get proxy@edge-1", "system:node:apiserver get proxy@edge-1"] {
        fixture.api.grant(right);
    }
    let mut held = Vec::new();
    for (identity, headers) in [(None, as_user("kate")), (Some(&server), String::new())] {
        held.push(log(&fixture, (port, identity), ("", &headers)).await.0);
    }
    let told = fixture.ask(port, Some(&server), "GET /containerLogs/d/p/c", "").await;
    assert_eq!(told.status, 429);
    assert!(
        told.head.contains("retry-after: 1") && told.body.contains("node `edge-1` has 2 calls open"),
        "{told:?}"
    );
    // Whoever goes makes room, and the node sees it.
    held.pop();
    fixture.until("there is room", async || fixture.calls.open().get(&node("edge-1")) == Some(&1)).await;
    let told = fixture.ask_as(port, "kate", "GET /containerLogs/d/p/c").await;
    assert_eq!(told.status, 429);
    assert!(told.body.contains("user `kate` has 1 calls open"), "{}", told.body);
}

#[actix_rt::test]
async fn a_client_certificate_that_is_no_api_servers_is_a_users_and_who_may_nothing_keeps_no_connection() {
    let mut fixture = Fixture::with(Limits { of_node: 8, of_user: 1, all: 64 }).await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.until_client_ca().await;
    let eve = fixture.identity(fixture.api.clients(), "eve");
    let told = fixture.ask(port, Some(&eve), "GET /containerLogs/d/p/c", "").await;
    assert_eq!(told.status, 403);
    assert!(told.head.contains("connection: close"), "{}", told.head);
    fixture.api.grant("system:node:mallory get proxy@edge-1");
    let mallory = fixture.identity(fixture.api.clients(), "mallory");
    let _held = log(&fixture, (port, Some(&mallory)), ("", "")).await;
    let told = fixture.ask(port, Some(&mallory), "GET /containerLogs/d/p/c", "").await;
    assert_eq!(told.status, 429);
    assert!(told.body.contains("user `system:node:mallory` has 1 calls open"), "{}", told.body);
}

#[actix_rt::test]
async fn where_a_node_sends_its_caller_is_not_passed_on() {
    let mut fixture = Fixture::start().await;
    let _link = fixture.link("edge-1", 1).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    for right in ["kate get healthz@edge-1", "kate get log@edge-1"] {
        fixture.api.grant(right);
    }
    let told = fixture.ask_as(port, "kate", "GET /healthz/elsewhere").await;
    assert_eq!(told.status, 502);
    assert!(!told.head.contains("location") && !told.head.contains("retry-after"), "{}", told.head);
    assert!(told.body.contains("node `edge-1` answered with a redirect"), "{}", told.body);
    // A folder of logs leads to itself, whatever the node says.
    let told = fixture.ask_as(port, "kate", "GET /logs/elsewhere").await;
    assert_eq!(told.status, 302);
    assert!(
        told.head.contains("location: ./elsewhere/\r\n") && !told.head.contains("192.0.2.1"),
        "{}",
        told.head
    );
}

#[actix_rt::test]
async fn each_node_has_a_port_that_a_later_session_keeps() {
    let mut fixture = Fixture::start().await;
    let _one = fixture.link("edge-1", 1).await;
    let first = fixture.endpoint("edge-1", 1).await;
    let _two = fixture.link("edge-2", 2).await;
    let second = fixture.endpoint("edge-2", 2).await;
    assert_eq!(first.address, Some([127, 0, 0, 1].into()));
    assert_ne!(first.port, second.port);
    let _later = fixture.link("edge-1", 3).await;
    assert_eq!(fixture.endpoint("edge-1", 3).await, first, "EdgeController is told of the new session");
    // The end of the earlier session is not this one's.
    fixture.stream.tell(CloudStreamMsg::NodeDown { node: node("edge-1"), session: 1 }).await.unwrap();
    fixture.stream.tell(CloudStreamMsg::TellEndpoints).await.unwrap();
    assert_eq!(fixture.endpoint("edge-1", 3).await, first);
    assert_eq!(fixture.endpoint("edge-2", 2).await, second);
    fixture.api.grant("kate get proxy@edge-1");
    assert_eq!(fixture.ask_as(first.port, "kate", "GET /pods").await.status, 200);
    // The right is for one node.
    assert_eq!(fixture.ask_as(second.port, "kate", "GET /pods").await.status, 403);
    fixture.hive.shutdown(LONG).await;
    let refused = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", first.port)).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, refused).await.expect("nobody listens there");
}

#[actix_rt::test]
async fn after_a_restart_a_port_that_a_node_says_leads_to_no_other() {
    let first = loop {
        let [probe] = testhost::free_ports().unwrap();
        if (probe..probe + 3).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            break probe;
        }
    };
    let said = |node: &str, address: &str, port| (node.to_owned(), address.to_owned(), port);
    let nodes = vec![said("edge-2", "127.0.0.1", first), said("edge-9", "127.0.0.9", first + 1)];
    let mut fixture = Fixture::over(Limits { of_node: 4, of_user: 4, all: 4 }, first, nodes).await;
    let _three = fixture.link("edge-3", 1).await;
    assert_eq!(
        fixture.endpoint("edge-3", 1).await.port,
        first + 1,
        "the first is what the Node of edge-2 says"
    );
    let _two = fixture.link("edge-2", 2).await;
    assert_eq!(fixture.endpoint("edge-2", 2).await.port, first);
}

#[actix_rt::test]
async fn a_node_for_which_no_port_is_left_is_looked_after_once_however_often_it_comes() {
    let [first] = testhost::free_ports().unwrap();
    let fixture = Fixture::at(Limits { of_node: 4, of_user: 4, all: 4 }, first).await;
    let told = async || {
        let report = fixture.hive.inspector().report(LONG).await;
        let actor = report.actor("cloud-stream").unwrap();
        (actor.snapshot["lookedForAgain"].clone(), actor.handled, report.counter("stream_no_port"))
    };
    // Eight have one at the most.
    let mut links = Vec::new();
    for number in 1..=9 {
        links.push(fixture.link(&format!("edge-{number}"), 1).await);
    }
    fixture.until("one has none", async || told().await.0.as_u64() > Some(0)).await;
    let before = told().await.1;
    for session in 2..=6 {
        links.push(fixture.link("edge-9", session).await);
    }
    fixture.until("it came again", async || told().await.1 >= before + 5).await;
    let (waiting, _, counted) = told().await;
    assert_eq!(waiting, counted, "each of them once");
}

#[actix_rt::test]
async fn a_node_that_comes_back_has_its_port_again_and_a_port_of_somebody_else_is_passed_over() {
    // Eight ports that were free a moment ago, the second of which is somebody else's.
    let (first, _somebody) = loop {
        let [first] = testhost::free_ports().unwrap();
        if let Ok(somebody) = std::net::TcpListener::bind(("127.0.0.1", first + 1)) {
            break (first, somebody);
        }
    };
    let mut fixture = Fixture::at(Limits { of_node: 4, of_user: 4, all: 4 }, first).await;
    let one = fixture.link("edge-1", 1).await;
    assert_eq!(fixture.endpoint("edge-1", 1).await.port, first);
    let _two = fixture.link("edge-2", 2).await;
    let second = fixture.endpoint("edge-2", 2).await.port;
    assert!(second > first + 1, "{second}");
    // In one breath, as when a session takes another's place.
    drop(one);
    fixture.stream.tell(CloudStreamMsg::NodeDown { node: node("edge-1"), session: 1 }).await.unwrap();
    let _again = fixture.link("edge-1", 3).await;
    assert_eq!(fixture.endpoint("edge-1", 3).await.port, first);
    fixture.api.grant("kate get proxy@edge-1");
    assert_eq!(fixture.ask_as(first, "kate", "GET /pods").await.status, 200);
}

/// A node that goes over to another link: it takes no stream over this one.
struct Moves(AtomicUsize);

impl ByteStreamHandler for Moves {
    fn accept(&self, _: &PeerName, _: Vec<u8>, _: ByteStream) -> Result<(), ByteStreamRefusal> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(ByteStreamRefusal { code: contract::stream::MOVING, reason: "the node is going over".to_owned() })
    }
}

#[actix_rt::test]
async fn a_call_that_comes_while_its_node_goes_over_to_another_link_is_made_over_that() {
    let mut fixture = Fixture::start().await;
    let moves = Arc::new(Moves(AtomicUsize::new(0)));
    let old = fixture.link_to("edge-1", 1, Arc::<Moves>::clone(&moves)).await;
    let port = fixture.endpoint("edge-1", 1).await.port;
    fixture.api.node_says("edge-1", "127.0.0.1", port);
    fixture.api.grant("kate get proxy@edge-1");
    let said = async || {
        let report = fixture.hive.inspector().report(LONG).await;
        report.actor("cloud-stream").unwrap().snapshot["portsSaid"] == 1
    };
    fixture.until("the Node says the port", said).await;
    let asked = async {
        fixture.until("it is refused", async || moves.0.load(Ordering::SeqCst) > 0).await;
        old.close();
        fixture.stream.tell(CloudStreamMsg::NodeDown { node: node("edge-1"), session: 1 }).await.unwrap();
        fixture.until("the link is gone", async || !fixture.calls.is_linked(&node("edge-1"))).await;
        fixture.link("edge-1", 2).await
    };
    let (told, _new) = futures::join!(fixture.ask_as(port, "kate", "GET /pods"), asked);
    assert_eq!((told.status, told.body.as_str()), (200, "{}"));
    assert_eq!(fixture.node.asked.lock().unwrap().len(), 1);
    // One whose next link does not come is told that there is none.
    let _never = fixture.link_to("edge-1", 3, Arc::<Moves>::clone(&moves)).await;
    let told = fixture.ask_as(port, "kate", "GET /pods").await;
    assert_eq!((told.status, told.body.as_str()), (421, "the node is going over\n"));
}
