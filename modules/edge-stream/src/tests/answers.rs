//! Answers that nobody takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use contract::stream::header;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::node::{Fake, LONG, Node, running};
use crate::budget::Origin;

/// Resident memory in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

async fn read(mut stream: DuplexStream) -> String {
    let mut body = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut body)).await.unwrap().unwrap();
    body
}

#[tokio::test]
async fn pods_that_nobody_reads_take_no_memory_and_who_reads_gets_all_of_them() {
    let node = Node::over(Arc::new(Fake::default()), None);
    let annotation = "a".repeat(250 << 10);
    for pod in 0..30 {
        node.put_annotated(&format!("p-{pod:02}"), &format!("u-{pod}"), running(), &annotation).await;
    }
    let whole = |body: &str| {
        let list: Value = serde_json::from_str(body).unwrap();
        assert_eq!(list["items"].as_array().unwrap().len(), 30);
    };
    // What a reader costs once is there.
    whole(&node.get("/pods").await.1);
    let before = resident();
    let mut unread = Vec::new();
    let mut refused = 0;
    for _ in 0..64 {
        let (head, stream) = node.call("GET", "/pods", &[]).await;
        match head.status {
            200 => unread.push(stream),
            503 => {
                assert!(header(&head.headers, "retry-after").is_some());
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 100, "{grown} MiB");
    assert!(unread.len() > 8 && refused > 0, "{} are held, {refused} refused", unread.len());
    assert_eq!(node.metrics.count_of("stream_answers_over_the_bound"), refused);
    // An agent on the node still finds room, and so does who asks when the others have gone.
    assert!(node.kubelet.budget().answer(Origin::Local).is_ok());
    let last = unread.pop().unwrap();
    drop(unread);
    whole(&read(last).await);
    // Those who have gone are noticed a moment later.
    let asked = async {
        loop {
            let (status, body) = node.get("/pods").await;
            if status == 200 {
                return body;
            }
            tokio::task::yield_now().await;
        }
    };
    whole(&tokio::time::timeout(LONG, asked).await.expect("there is room again"));
}

#[tokio::test]
async fn every_answer_that_is_made_whole_finds_room_first() {
    let runtime = Arc::new(Fake::default());
    let node = Node::new(Arc::clone(&runtime) as _, running()).await;
    runtime.running.lock().unwrap().push("c1".into());
    let pages = [
        "/runningpods/",
        "/stats/summary",
        "/metrics",
        "/metrics/cadvisor",
        "/metrics/resource",
        "/configz",
        "/logs/",
        "/pods",
    ];
    let held: Vec<_> = std::iter::from_fn(|| node.kubelet.budget().answer(Origin::Link).ok()).collect();
    for page in pages {
        let (head, _) = node.call("GET", page, &[]).await;
        assert_eq!((head.status, header(&head.headers, "retry-after")), (503, Some("1")), "{page}");
    }
    assert_eq!(node.get("/healthz").await.0, 200, "what is small needs none");
    drop(held);
    for page in pages {
        assert_ne!(node.get(page).await.0, 503, "{page}");
    }
    assert_eq!(node.metrics.count_of("stream_answers_over_the_bound"), pages.len() as u64);
}

#[tokio::test]
async fn what_a_command_said_has_its_place_until_it_is_taken() {
    let runtime = Arc::new(Fake::default());
    let node = Node::new(Arc::clone(&runtime) as _, running()).await;
    runtime.running.lock().unwrap().push("c1".into());
    runtime.output.store(1 << 20, Ordering::SeqCst);
    let run = async || node.call("POST", "/run/d/p/c?cmd=true", &[]).await;
    let (first, second) = (run().await, run().await);
    assert_eq!((first.0.status, second.0.status), (200, 200));
    assert_eq!(run().await.0.status, 429);
    assert_eq!(read(first.1).await.len(), (1 << 20) + 8);
    // The place is free as soon as the call has ended.
    while run().await.0.status != 200 {
        tokio::task::yield_now().await;
    }
    drop(second);
}
