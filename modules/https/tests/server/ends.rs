//! How a server ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use https::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, LONG, SOON, request, serve};

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
