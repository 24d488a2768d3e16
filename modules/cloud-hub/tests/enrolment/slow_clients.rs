//! Enrolment under those who do not mean it: silent connections, half a handshake, slow bodies.

use std::time::{Duration, Instant};

use beehive::Env;
use http::StatusCode;
use pki::NodeRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Cloud, tcp, tls};

const STRANGER: [u8; 4] = [127, 0, 0, 1];
const NODE: [u8; 4] = [127, 0, 0, 2];

/// M1: 300 silent connections, 60 half handshakes and 60 heads without an end, all of one address.
#[actix_rt::test]
async fn a_node_joins_within_two_seconds_while_one_address_holds_all_that_it_can() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let address = cloud.it.server.address;
    let token = cloud.token(60, None).await;
    let csr = NodeRequest::new("edge-1").unwrap().csr_der;
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
    let begun = Instant::now();
    let (status, _) = cloud.join_from(NODE, "edge-1", &token, &csr).await;
    assert_eq!(status, StatusCode::OK);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // A node behind the same address gets through as well: the silent ones go first.
    let begun = Instant::now();
    let (status, _) = cloud.join_from(STRANGER, "edge-2", &token, &csr).await;
    assert_eq!(status, StatusCode::OK);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // And every one of them has an end, whatever it does.
    let end = async |mut socket: tokio::net::TcpStream| {
        let mut rest = Vec::new();
        let read = env.timeout(Duration::from_secs(8), socket.read_to_end(&mut rest)).await;
        assert!(read.is_some(), "a silent connection was left open");
    };
    futures::future::join_all(silent.into_iter().map(end)).await;
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn a_body_is_not_waited_for_before_a_credential_nor_for_ever_after_it() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let token = cloud.token(60, None).await;
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
    let _ = env.timeout(Duration::from_secs(5), stranger.read_to_end(&mut answer)).await;
    assert!(String::from_utf8_lossy(&answer).contains("401 Unauthorized"), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
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
    assert!(env.timeout(Duration::from_secs(13), dripping).await.is_some(), "a slow body was waited for");
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
    cloud.it.server.stop().await;
}
