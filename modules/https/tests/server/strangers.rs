//! What a stranger may take.

use std::sync::atomic::Ordering;
use std::time::Duration;

use https::{ClientCertificates, Event, Limits, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, LONG, SOON, from, request};
use crate::tls::certificates;

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
