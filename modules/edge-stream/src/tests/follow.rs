use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use contract::stream::StreamRequest;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, DuplexStream, ReadBuf};

use super::node::{Fake, LONG, Node, running};
use crate::link_calls;

struct Fixture {
    node: Node,
    runtime: Arc<Fake>,
    log: PathBuf,
    file: File,
}

impl Fixture {
    async fn new() -> Fixture {
        let runtime = Arc::new(Fake::default());
        let node = Node::new(Arc::clone(&runtime) as _, running()).await;
        let log = node.dir.path().join("logs/d_p_u/c/0.log");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        let file = File::create(&log).unwrap();
        *runtime.log.lock().unwrap() = log.clone();
        runtime.running.lock().unwrap().push("c1".into());
        Fixture { node, runtime, log, file }
    }

    fn say(&mut self, text: &str) {
        writeln!(self.file, "2026-11-28T10:00:00Z stdout F {text}").unwrap();
    }

    fn rotate(&mut self) {
        std::fs::rename(&self.log, self.log.with_extension("log.20261128-100000")).unwrap();
        // The runtime opens a new one a moment later, and writes to the old one until then.
        self.say("to the old one");
        self.file = OpenOptions::new().create_new(true).append(true).open(&self.log).unwrap();
    }

    async fn follow(&self, more: &str) -> BufReader<DuplexStream> {
        let target = format!("/containerLogs/d/p/c?follow=true{more}");
        let (head, stream) = self.node.call("GET", &target, &[]).await;
        assert_eq!(head.status, 200);
        BufReader::new(stream)
    }

    fn end(&self) {
        self.runtime.running.lock().unwrap().clear();
    }
}

async fn line(stream: &mut BufReader<DuplexStream>) -> String {
    let mut line = String::new();
    tokio::time::timeout(LONG, stream.read_line(&mut line)).await.unwrap().unwrap();
    line
}

async fn rest(mut stream: BufReader<DuplexStream>) -> String {
    let mut rest = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    rest
}

#[tokio::test]
async fn lines_come_as_they_are_written_until_the_container_has_ended() {
    let mut fixture = Fixture::new().await;
    fixture.say("before");
    let mut stream = fixture.follow("").await;
    assert_eq!(line(&mut stream).await, "before\n");
    for number in 0..20 {
        fixture.say(&number.to_string());
        assert_eq!(line(&mut stream).await, format!("{number}\n"));
    }
    fixture.say("last words");
    fixture.end();
    assert_eq!(rest(stream).await, "last words\n");
}

#[tokio::test]
async fn a_rotation_loses_nothing_and_doubles_nothing() {
    let mut fixture = Fixture::new().await;
    fixture.say("begun");
    let mut stream = fixture.follow("").await;
    // The head of the answer is sent before the file is opened.
    assert_eq!(line(&mut stream).await, "begun\n");
    let mut expected = Vec::new();
    for round in 0..10 {
        fixture.say(&format!("{round} before"));
        fixture.rotate();
        fixture.say(&format!("{round} after"));
        expected.extend([format!("{round} before\n"), "to the old one\n".into(), format!("{round} after\n")]);
        // The next one is not before this one has been seen: of two at once the one between would be missed, as by a kubelet.
        for _ in 0..3 {
            let heard = line(&mut stream).await;
            assert_eq!(heard, expected.remove(0));
        }
        std::fs::remove_file(fixture.log.with_extension("log.20261128-100000")).unwrap();
    }
    fixture.end();
    assert_eq!(rest(stream).await, "");
}

#[tokio::test]
async fn a_follower_of_a_container_that_has_ended_gets_what_is_there() {
    let mut fixture = Fixture::new().await;
    fixture.say("one");
    fixture.say("two");
    fixture.end();
    assert_eq!(rest(fixture.follow("").await).await, "one\ntwo\n");
    assert_eq!(rest(fixture.follow("&tailLines=1").await).await, "two\n");
    assert_eq!(fixture.runtime.lists.load(Ordering::SeqCst), 0, "nobody has to look whether it runs");
}

#[tokio::test]
async fn half_a_line_is_shown_once() {
    let mut fixture = Fixture::new().await;
    write!(fixture.file, "2026-11-28T10:00:00Z stdout F ha").unwrap();
    let mut stream = fixture.follow("").await;
    writeln!(fixture.file, "lf").unwrap();
    assert_eq!(line(&mut stream).await, "half\n");
    fixture.end();
    assert_eq!(rest(stream).await, "");
}

#[tokio::test]
async fn who_has_gone_is_let_go() {
    let mut fixture = Fixture::new().await;
    let mut stream = fixture.follow("").await;
    fixture.say("one");
    assert_eq!(line(&mut stream).await, "one\n");
    drop(stream);
    let gone = async {
        while fixture.node.metrics.count_of("stream_calls_cut") == 0 {
            fixture.say("to nobody");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
    assert_eq!(fixture.node.kubelet.logs.changes.watched(), 0);
}

/// A caller's side that has no body to carry, and breaks off when the sender is dropped.
struct CallersSide(tokio::sync::oneshot::Receiver<()>);

impl AsyncRead for CallersSide {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll(cx).map(|_| Err(std::io::ErrorKind::ConnectionReset.into()))
    }
}

#[tokio::test]
async fn who_breaks_off_while_a_log_is_quiet_is_let_go_at_once() {
    let fixture = Fixture::new().await;
    let (stays, goes) = tokio::sync::oneshot::channel();
    let (mut client, stream) = tokio::io::duplex(64 << 10);
    let request = StreamRequest {
        method: "GET".into(),
        target: "/containerLogs/d/p/c?follow=true".into(),
        headers: Vec::new(),
        user: "tester".into(),
    };
    let side = tokio::io::join(CallersSide(goes), stream);
    let call = tokio::spawn(link_calls::serve(Arc::clone(&fixture.node.kubelet), request, side));
    // It is answered, and followed from then on.
    client.read_u8().await.unwrap();
    while fixture.node.kubelet.logs.changes.watched() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stays);
    tokio::time::timeout(LONG, call).await.unwrap().unwrap();
    assert_eq!(fixture.node.metrics.count_of("stream_calls_cut"), 1);
    assert_eq!(fixture.node.kubelet.logs.changes.watched(), 0);
}

#[tokio::test]
async fn a_thousand_followers_share_one_watch_and_one_question_a_second() {
    let mut fixture = Fixture::new().await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(fixture.follow("").await);
    }
    fixture.say("to all");
    for stream in &mut streams {
        assert_eq!(line(stream).await, "to all\n");
    }
    assert_eq!(fixture.node.kubelet.logs.changes.watched(), 1);
    let before = (fixture.runtime.lists.load(Ordering::SeqCst), tokio::time::Instant::now());
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let asked = fixture.runtime.lists.load(Ordering::SeqCst) - before.0;
    assert!(asked as u64 <= before.1.elapsed().as_secs() + 1, "{asked} in {:?}", before.1.elapsed());
    fixture.end();
    for stream in streams {
        assert_eq!(rest(stream).await, "");
    }
    assert_eq!(fixture.node.kubelet.logs.changes.watched(), 0);
}
