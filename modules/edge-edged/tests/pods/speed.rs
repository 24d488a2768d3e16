//! Many starts at once. How long one takes, beside the same calls made bare, is for `benches`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge_edged::Settings;
use serde_json::json;

use crate::node::{Machine, Node, WAITS, eventually, pod, run};

/// What a node reports of itself comes between no two looks.
fn without_own_reports(settings: &mut Settings) {
    settings.report_node_every = Duration::from_secs(3600);
}

/// The number of writes, once there has been none for 2 s: what followed the starts is over.
async fn batches_at_rest(node: &Node) -> u64 {
    let at_rest = async || {
        let before = node.store.snapshot().batches;
        tokio::time::sleep(Duration::from_secs(2)).await;
        (node.store.snapshot().batches == before).then_some(before)
    };
    eventually(at_rest).await.expect("the node comes to rest")
}

#[test]
fn many_pods_start_beside_each_other() {
    const MANY: usize = 12;
    run(async {
        let host = Machine::new("many");
        let node = Node::start_set(&host, without_own_reports);
        let names: Vec<String> = (0..MANY).map(|number| format!("p{number}")).collect();
        let pods: Vec<_> = names.iter().map(|name| pod(name, WAITS, json!({}))).collect();
        let start = Instant::now();
        node.apply(&pods).await;
        for name in &names {
            node.until_ready(name).await;
        }
        eprintln!("{MANY} pods in {:?}", start.elapsed());
        let before = batches_at_rest(&node).await;
        // Nothing changed: looking again tells nothing.
        node.apply(&[]).await;
        assert_eq!(node.snapshot().await["pods"], json!({"Running": MANY}));
        let reports = node.reports().len();
        assert!(node.store.snapshot().batches - before <= 3, "{reports} reports");
    });
}

/// CPU time of this thread, the hive's.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

/// A server beside the hive's thread, which counts what it is asked.
fn counting_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 1024]);
            if stream.read(&mut head).unwrap() > 0 {
                count.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            }
        }
    });
    (port, asked)
}

#[test]
fn probes_that_find_nothing_new_write_nothing_and_wake_no_worker() {
    const MANY: usize = 12;
    run(async {
        let host = Machine::new("probed");
        let node = Node::start_set(&host, without_own_reports);
        let (port, asked) = counting_server();
        let pods = (0..MANY).map(|number| {
            let mut pod = pod(&format!("p{number}"), WAITS, json!({}));
            pod["spec"]["containers"][0]["readinessProbe"] =
                json!({"httpGet": {"host": "127.0.0.1", "port": port}, "periodSeconds": 1, "timeoutSeconds": 30});
            pod
        });
        node.apply(&pods.collect::<Vec<_>>()).await;
        for number in 0..MANY {
            node.until_ready(&format!("p{number}")).await;
        }
        let worker = "edged/pod-worker:default/p0/uid-of-p0";
        let rounds = async |rounds: usize| {
            let until = asked.load(Ordering::SeqCst) + rounds * MANY;
            eventually(async || (asked.load(Ordering::SeqCst) >= until).then_some(())).await.expect("probes");
        };
        // The last look at what a runtime's event may stand for is 8 s after it.
        rounds(10).await;
        let (batches, handled) = (batches_at_rest(&node).await, node.actor(worker).await.handled);
        let (before, begun) = (asked.load(Ordering::SeqCst), cpu());
        rounds(5).await;
        let probes = asked.load(Ordering::SeqCst) - before;
        eprintln!("{:?} of CPU for each probe over HTTP", (cpu() - begun) / u32::try_from(probes).unwrap());
        assert_eq!(node.actor(worker).await.handled, handled, "the worker hears of nothing");
        assert!(node.store.snapshot().batches - batches <= 2, "probes are not written");
    });
}
