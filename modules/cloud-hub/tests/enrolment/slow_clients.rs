//! Enrolment under those who do not mean it: silent connections, half a handshake, slow bodies.

use std::time::{Duration, Instant};

use beehive::Env;
use http::StatusCode;
use pki::NodeRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::{Cloud, tcp, tls};

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(60);
const STRANGER: [u8; 4] = [127, 0, 0, 1];
const NODE: [u8; 4] = [127, 0, 0, 2];

/// M1: 300 silent connections, 60 half handshakes and 60 heads without an end, all of one address. Answers the silent ones, and
/// the heads, which are closed as soon as they are dropped.
async fn hold_all(cloud: &Cloud) -> (Vec<TcpStream>, Vec<TlsStream<TcpStream>>) {
    let address = cloud.it.server.address;
    let (mut silent, mut talking) = (Vec::new(), Vec::new());
    for number in 0..360 {
        let mut socket = tcp(STRANGER, address).await.unwrap();
        if number >= 300 {
            // The head of a TLS record that never comes whole.
            socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        }
        silent.push(socket);
    }
    for _ in 0..60 {
        if let Ok(mut socket) = tls(STRANGER, address, &cloud.it.ca_der, None).await {
            let _ = socket.write_all(b"GET /edge.crt HTTP/1.1\r\nHost: cloud\r\n").await;
            talking.push(socket);
        }
    }
    (silent, talking)
}

/// From another address, and behind the same one: the silent ones go first. Nobody waits for the end of one, which comes after
/// 5 s by itself; a busy machine makes a join slow, and not all of several.
#[actix_rt::test]
async fn a_node_joins_within_two_seconds_while_one_address_holds_all_that_it_can() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let token = cloud.token(3600, None).await;
    let (mut silent, mut took) = (Vec::new(), Vec::new());
    for attempt in 0..5 {
        let (held, talking) = hold_all(&cloud).await;
        silent.extend(held);
        let begun = Instant::now();
        for (from, place) in [(NODE, "far"), (STRANGER, "near")] {
            let name = format!("{place}-{attempt}");
            let csr = NodeRequest::new(&name).unwrap().csr_der;
            let (status, _) = cloud.join_from(from, &name, &token, &csr).await;
            assert_eq!(status, StatusCode::OK);
        }
        took.push(begun.elapsed());
        drop(talking);
        if begun.elapsed() < Duration::from_secs(4) {
            break;
        }
    }
    assert!(took.iter().any(|took| *took < Duration::from_secs(4)), "{took:?}");
    // And every one of them has an end, whatever it does.
    let end = async |mut socket: TcpStream| {
        let mut rest = Vec::new();
        let read = env.timeout(LONG, socket.read_to_end(&mut rest)).await;
        assert!(read.is_some(), "a silent connection was left open");
    };
    futures::future::join_all(silent.into_iter().map(end)).await;
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn a_body_is_not_waited_for_before_a_credential_nor_for_ever_after_it() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let token = cloud.token(3600, None).await;
    let begin = async |token: &str| {
        let mut socket = tls(STRANGER, cloud.it.server.address, &cloud.it.ca_der, None).await.unwrap();
        let head = format!(
            "GET /edge.crt HTTP/1.1\r\nHost: cloud\r\nNodeName: edge-1\r\nAuthorization: Bearer {token}\r\nContent-Length: 500\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    };
    // Without a credential the answer does not wait for the body.
    let mut stranger = begin("nonsense").await;
    let begun = Instant::now();
    let mut answer = Vec::new();
    let _ = env.timeout(LONG, stranger.read_to_end(&mut answer)).await;
    assert!(String::from_utf8_lossy(&answer).contains("401 Unauthorized"), "{answer:?}");
    // A body has 10 s.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    // With one it has the time of a request, a byte now and then or not.
    let mut slow = begin(&token).await;
    let begun = Instant::now();
    let dripping = async {
        while slow.write_all(b"0").await.is_ok() && slow.flush().await.is_ok() {
            let mut byte = [0; 1];
            let wait = Duration::from_millis(300);
            if let Some(Ok(0) | Err(_)) = env.timeout(wait, slow.read(&mut byte)).await {
                break;
            }
        }
    };
    assert!(env.timeout(LONG, dripping).await.is_some(), "a slow body was waited for");
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
    cloud.it.server.stop().await;
}
