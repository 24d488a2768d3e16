//! One server at many ports.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use beehive::Env;
use https::{Http, Limits, Port, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{LONG, Pages, SOON, on_event, port_of, request};

#[actix_rt::test]
async fn a_server_listens_at_many_ports_and_each_is_closed_alone() {
    let (env, pages) = (Env::real(), Pages::default());
    let (on_event, handler) = (on_event(&Arc::default()), pages.clone());
    let server =
        Server::without_port("many", None, Limits::default(), env.clock(), on_event, || Http::new(handler));
    let (mut listening, mut ports) = (Vec::new(), Vec::new());
    // One of them is bound again.
    for port in testhost::free_ports::<3>().unwrap() {
        let port = Port::bind(([127, 0, 0, 1], port).into()).unwrap();
        ports.push(port.address());
        listening.push(server.listen(port).await.unwrap());
    }
    for port in &ports {
        assert_eq!(port_of(*port).await, port.port().to_string());
    }
    // What is in hand at a port that is closed is answered; what is idle ends.
    let mut open = TcpStream::connect(ports[0]).await.unwrap();
    open.write_all(request("/wait", "").as_bytes()).await.unwrap();
    let begun = async {
        while pages.begun.load(Ordering::SeqCst) < 4 {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(LONG, begun).await.expect("the request is in hand");
    drop(listening.remove(0));
    pages.release.notify_one();
    let mut answer = String::new();
    env.timeout(LONG, open.read_to_string(&mut answer)).await.expect("the connection ends").unwrap();
    assert!(answer.ends_with("released"), "{answer}");
    // The connection and the listener end by the same word, each in a task of its own.
    let refused = async {
        while TcpStream::connect(ports[0]).await.is_ok() {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(LONG, refused).await.expect("nobody listens there");
    for port in &ports[1..] {
        assert_eq!(port_of(*port).await, port.port().to_string());
    }
    // The port is free for whoever comes next.
    let _again = server.listen(Port::bind(ports[0]).unwrap()).await.unwrap();
    assert_eq!(port_of(ports[0]).await, ports[0].port().to_string());
    env.timeout(LONG, server.stop(SOON)).await.expect("it stops");
}

/// A port for each of a thousand nodes.
#[actix_rt::test]
async fn a_thousand_ports_cost_one_thread_and_little_memory() {
    let status = |key: &str| -> u64 {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (env, on_event) = (Env::real(), on_event(&Arc::default()));
    let server = Server::without_port("many", None, Limits::default(), env.clock(), on_event, || {
        Http::new(Pages::default())
    });
    let (memory, threads) = (status("VmRSS:"), status("Threads:"));
    let (mut listening, mut last) = (Vec::new(), None);
    for _ in 0..1000 {
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        last = Some(port.address());
        listening.push(server.listen(port).await.unwrap());
    }
    // It is the last one that is listened at.
    let last = last.unwrap();
    assert_eq!(port_of(last).await, last.port().to_string());
    let (grown, more) = (status("VmRSS:").saturating_sub(memory), status("Threads:").saturating_sub(threads));
    println!("1000 ports: {grown} KiB, {more} threads");
    assert!(grown <= 8 << 10 && more <= 1, "{grown} KiB, {more} threads");
}
