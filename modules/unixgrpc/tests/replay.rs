//! What real clients sent, byte by byte, at a server behind the front: each made two calls of `Register` on one connection, by
//! dialling a socket's path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::Status;
use unixgrpc::{Bounds, Calls, serve_connection};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// Kind, flags and stream of every frame that a server sent.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s, t, u, v, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let Some(behind) = rest.get(length..) else { break };
        frames.push((*kind, *flags, u32::from_be_bytes([*s, *t, *u, *v])));
        bytes = behind;
    }
    frames
}

/// Plays a recording, in pieces of `size` bytes; answers the paths that were called, once both calls have an answer.
async fn played(recorded: &[u8], size: usize) -> Vec<String> {
    let (client, server) = UnixStream::pair().unwrap();
    let called = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&called);
    let calls: Calls = Rc::new(move |request| {
        seen.borrow_mut().push(request.uri().path().to_owned());
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        assert!(authority.is_some_and(|authority| authority.bytes().all(|byte| byte == b'X')));
        Box::pin(async {
            let message = request.into_body().collect().await.unwrap().to_bytes();
            assert!(message.len() > 30, "{message:?}");
            Status::ok("").into_http()
        })
    });
    let (mut reading, mut writing) = client.into_split();
    let talk = async {
        for piece in recorded.chunks(size) {
            writing.write_all(piece).await.unwrap();
        }
        let mut answer = Vec::new();
        loop {
            let frames = frames(&answer);
            let bad = frames.iter().find(|(kind, ..)| matches!(*kind, RST_STREAM | GOAWAY));
            assert_eq!(bad, None, "the server refuses");
            let ends = frames.iter().filter(|(kind, flags, _)| *kind == HEADERS && flags & END_STREAM != 0);
            if ends.count() == 2 {
                break;
            }
            assert!(reading.read_buf(&mut answer).await.unwrap() > 0, "the server closed: {frames:?}");
        }
    };
    let talk = tokio::time::timeout(Duration::from_secs(30), talk);
    let served = serve_connection(server, Bounds::DEFAULT, calls);
    tokio::select! {
        done = talk => done.expect("both calls have an answer"),
        () = served => panic!("the server ended"),
    }
    called.take()
}

async fn plays(recorded: &str) {
    let bytes = hex::decode(recorded.trim()).unwrap();
    for size in [1, 7, bytes.len()] {
        assert_eq!(played(&bytes, size).await, ["/v1beta1.Registration/Register"; 2], "in pieces of {size}");
    }
}

/// grpcio 1.85 (gRPC's C core 58): the path with `%2F`, names and values spelled plainly.
#[tokio::test]
async fn python() {
    plays(include_str!("recorded/python.hex")).await;
}

/// grpc-go 1.81 by `grpc.Dial` with a dialer of its own: the path as it is, Huffman coded, and by its index in the second call.
#[tokio::test]
async fn go() {
    plays(include_str!("recorded/go.hex")).await;
}

/// Whoever names no authority at all writes an entry of HPACK's own table, among the headers that may come nowhere else.
#[tokio::test]
async fn an_authority_without_a_sign_is_as_good_as_any() {
    let (client, server) = UnixStream::pair().unwrap();
    let calls: Calls = Rc::new(|request| {
        assert_eq!((request.uri().path(), request.uri().authority()), ("/a/B", None));
        Box::pin(async { Status::ok("").into_http() })
    });
    // POST, no authority, http, and the path spelled out; both calls end with their heads.
    let block = [[0x83, 0x81, 0x86, 0x04, 4].as_slice(), b"/a/B"].concat();
    let head = |stream| [[0, 0, 9, HEADERS, 0x4 | END_STREAM, 0, 0, 0, stream].as_slice(), &block].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].as_slice();
    let asked = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings, &head(1), &head(3)].concat();
    let (mut reading, mut writing) = client.into_split();
    let talk = async {
        writing.write_all(&asked).await.unwrap();
        let mut answer = Vec::new();
        let ended = |answer: &[u8]| frames(answer).iter().filter(|(kind, ..)| *kind == HEADERS).count();
        while ended(&answer) < 2 {
            let bad = frames(&answer).into_iter().find(|(kind, ..)| matches!(*kind, RST_STREAM | GOAWAY));
            assert_eq!(bad, None, "the server refuses");
            assert!(reading.read_buf(&mut answer).await.unwrap() > 0, "the server closed");
        }
    };
    let talk = tokio::time::timeout(Duration::from_secs(30), talk);
    tokio::select! {
        done = talk => done.expect("both calls have an answer"),
        () = serve_connection(server, Bounds::DEFAULT, calls) => panic!("the server ended"),
    }
}
