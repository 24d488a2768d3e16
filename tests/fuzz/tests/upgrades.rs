//! The request for an upgrade to WebSocket: what somebody with a certificate sends first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;

use beehive::TokioClock;
use fuzz::{endure_async, link};
use tokio::task::LocalSet;

const GOOD: &[u8] = b"GET /link HTTP/1.1\r\nHost: cloud\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: hive-link.1\r\n\r\n";
const ELSEWHERE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: cloud\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_request_is_granted_or_refused_and_leaves_nothing() {
    LocalSet::new().run_until(requests()).await;
}

async fn requests() {
    let clock = Arc::new(TokioClock::real());
    let granted = |answer: &[u8]| answer.starts_with(b"HTTP/1.1 101");
    assert!(granted(&link::head(GOOD, clock.clone()).await));
    assert!(link::head(ELSEWHERE, clock.clone()).await.starts_with(b"HTTP/1.1 404"));
    let endless = [&GOOD[..20], &b"X-A: b\r\n".repeat(20_000)].concat();
    assert!(!granted(&link::head(&endless, clock.clone()).await));
    let mut taken = 0_u32;
    let left = endure_async(1, async |random| {
        let bytes = match random.below(8) {
            0 => random.bytes(4000),
            1 => random.text(2000).into_bytes(),
            _ => random.damaged(&[GOOD, ELSEWHERE]),
        };
        let answer = link::head(&bytes, clock.clone()).await;
        if granted(&answer) {
            taken += 1;
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            assert!(text.contains("/link") && text.contains("hive-link.1"), "granted: {text}");
        }
    })
    .await;
    println!("{} KiB are left; {taken} were granted", left.unwrap());
}
