//! With a real containerd: its streaming server listens on loopback of the host's own network namespace, so the test's thread
//! goes there.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use cri::pods::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID};
use cri::v1::*;
use cri::{Grpc, Runtime};
use futures::{SinkExt as _, StreamExt as _};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use testhost::TestHost;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::node::{LONG, Node, status};

const WEB_SOCKET: [(&str, &str); 5] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
    ("sec-websocket-protocol", "v4.channel.k8s.io"),
];
const SCRIPT: &str = "nc -ll -p 8080 -e cat & n=0; while true; do echo line $n; n=$((n+1)); sleep 0.2; done";

struct Fixture {
    node: Node,
    runtime: Arc<Grpc>,
    container: String,
    sandbox: String,
    uid: String,
}

/// Runs `test` in the network namespace of a host with one pod.
fn run(name: &'static str, test: impl AsyncFnOnce(&Fixture) + Send + 'static) {
    let host = TestHost::new(name).unwrap();
    let namespace = File::open(format!("/run/netns/{}", host.netns())).unwrap();
    let (endpoint, logs) = (host.endpoint(), host.dir().join("logs"));
    std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio.block_on(async {
            let uid = format!("u-{}-{name}", std::process::id());
            let fixture = Fixture::new(&endpoint, logs, uid).await;
            test(&fixture).await;
            fixture.runtime.stop_sandbox(&fixture.sandbox).await.unwrap();
            fixture.runtime.remove_sandbox(&fixture.sandbox).await.unwrap();
            for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
                let of_pod = hierarchy.unwrap().path().join(cgroup(&fixture.uid).trim_start_matches('/'));
                drop(std::fs::remove_dir(of_pod));
            }
        });
    })
    .join()
    .unwrap();
    drop(host);
}

/// Where Edged puts a pod of the lowest class.
fn cgroup(uid: &str) -> String {
    format!("/kubepods/besteffort/pod{uid}")
}

impl Fixture {
    async fn new(endpoint: &str, logs: std::path::PathBuf, uid: String) -> Fixture {
        let runtime = Arc::new(Grpc::new(endpoint, endpoint, Duration::from_secs(60)).unwrap());
        let mut labels = HashMap::from([
            (POD_NAME.to_owned(), "p".to_owned()),
            (POD_NAMESPACE.to_owned(), "d".to_owned()),
            (POD_UID.to_owned(), uid.clone()),
        ]);
        let folder = logs.join(format!("d_p_{uid}"));
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "p".into(),
                uid: uid.clone(),
                namespace: "d".into(),
                attempt: 0,
            }),
            hostname: "p".into(),
            log_directory: folder.display().to_string(),
            labels: labels.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup(&uid),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        std::fs::create_dir_all(folder.join("c")).unwrap();
        let sandbox = runtime.run_sandbox(config.clone(), "").await.unwrap();
        labels.insert(CONTAINER_NAME.to_owned(), "c".to_owned());
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(ImageSpec { image: testhost::BUSYBOX.into(), ..ImageSpec::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), SCRIPT.into()],
            log_path: "c/0.log".into(),
            labels,
            linux: Some(LinuxContainerConfig::default()),
            ..ContainerConfig::default()
        };
        let container = runtime.create_container(&sandbox, container, config).await.unwrap();
        runtime.start_container(&container).await.unwrap();
        let node = Node::over(Arc::clone(&runtime) as _, Some(logs));
        let running = json!({"state": {"running": {}}, "containerID": format!("containerd://{container}")});
        node.put("p", &uid, status(running)).await;
        Fixture { node, runtime, container, sandbox, uid }
    }

    async fn web_socket(&self, target: &str) -> WebSocketStream<DuplexStream> {
        let (head, stream) = self.node.call("GET", target, &WEB_SOCKET).await;
        assert_eq!(head.status, 101, "{head:?}");
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }
}

/// All bytes of a channel until `until` is met, or the other end has ended.
async fn channel(
    socket: &mut WebSocketStream<DuplexStream>,
    heard: &mut HashMap<u8, Vec<u8>>,
    until: impl Fn(&HashMap<u8, Vec<u8>>) -> bool,
) {
    let listen = async {
        while !until(heard) {
            match socket.next().await {
                Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => {
                    heard.entry(bytes[0]).or_default().extend_from_slice(&bytes[1..]);
                }
                Some(Ok(Message::Close(_))) | None => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(LONG, listen).await.unwrap();
}

#[test]
fn a_command_gets_its_input_and_its_exit_code_comes_back() {
    run("streamexec", async |fixture: &Fixture| {
        let script = "read%20x;echo%20got%20$x;echo%20oops%20%3E%262;exit%203";
        let target =
            format!("/exec/d/p/c?command=/bin/sh&command=-c&command={script}&input=1&output=1&error=1");
        let mut socket = fixture.web_socket(&target).await;
        let mut heard = HashMap::new();
        socket.send(Message::Binary(b"\x00hello\n".to_vec().into())).await.unwrap();
        let ended = |heard: &HashMap<u8, Vec<u8>>| heard.get(&3).is_some_and(|error| !error.is_empty());
        channel(&mut socket, &mut heard, ended).await;
        assert_eq!(heard.get(&1).map(Vec::as_slice), Some(&b"got hello\n"[..]));
        assert_eq!(heard.get(&2).map(Vec::as_slice), Some(&b"oops\n"[..]));
        let status: Value = serde_json::from_slice(&heard[&3]).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
        assert_eq!(status["details"]["causes"][0]["message"], "3", "{status}");
        // What the runtime does not speak is refused before anything is upgraded.
        let mut headers = WEB_SOCKET;
        headers[4].1 = "v5.channel.k8s.io";
        let (head, _) = fixture.node.call("GET", &target, &headers).await;
        assert!(head.status >= 400, "{head:?}");
        let (head, mut stream) = fixture.node.call("POST", "/run/d/p/c?cmd=echo%20hi", &[]).await;
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        assert_eq!((head.status, body.as_str()), (200, "hi\n"));
    });
}

#[test]
fn a_port_is_forwarded_and_a_container_attached_to() {
    run("streamport", async |fixture: &Fixture| {
        let mut heard = HashMap::new();
        let mut socket = fixture.web_socket("/attach/d/p/c?output=1&error=1").await;
        let spoken = |heard: &HashMap<u8, Vec<u8>>| heard.get(&1).is_some_and(|out| out.contains(&b'\n'));
        channel(&mut socket, &mut heard, spoken).await;
        assert!(heard[&1].starts_with(b"line "), "{heard:?}");
        // 8080 is 1f90, and 0A says that somebody listens there.
        let listens = "until grep -qi ':1f90 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done";
        let command = ["/bin/sh", "-c", listens].map(str::to_owned).to_vec();
        fixture.runtime.exec_sync(&fixture.container, command, LONG).await.unwrap();
        let mut socket = fixture.web_socket("/portForward/d/p?port=8080").await;
        socket.send(Message::Binary(b"\x00echo me".to_vec().into())).await.unwrap();
        let mut heard = HashMap::new();
        let echoed = |heard: &HashMap<u8, Vec<u8>>| heard.get(&0).is_some_and(|data| data.len() >= 9);
        channel(&mut socket, &mut heard, echoed).await;
        assert_eq!(heard[&0], [&8080_u16.to_le_bytes()[..], b"echo me"].concat());
        assert_eq!(heard[&1], 8080_u16.to_le_bytes());
    });
}

#[test]
fn a_log_is_followed_to_its_containers_end_and_its_use_is_counted() {
    run("streamlog", async |fixture: &Fixture| {
        let (head, stream) = fixture.node.call("GET", "/containerLogs/d/p/c?follow=true", &[]).await;
        assert_eq!(head.status, 200);
        let mut lines = BufReader::new(stream).lines();
        for number in 0..3 {
            let line = tokio::time::timeout(LONG, lines.next_line()).await.unwrap().unwrap();
            assert_eq!(line, Some(format!("line {number}")));
        }
        let sample: Value = serde_json::from_str(&fixture.node.get("/stats/summary").await.1).unwrap();
        let pod = &sample["pods"][0];
        assert_eq!(pod["podRef"]["name"], "p", "{sample}");
        assert!(pod["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0), "{sample}");
        assert!(pod["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(0), "{sample}");
        assert!(pod["containers"][0]["logs"]["usedBytes"].as_u64() > Some(0), "{sample}");
        assert_eq!(pod["network"]["name"], "eth0", "{sample}");
        let resource = fixture.node.get("/metrics/resource").await.1;
        let series = "container_cpu_usage_seconds_total{container=\"c\",namespace=\"d\",pod=\"p\"}";
        assert!(resource.contains(series), "{resource}");
        let cadvisor = fixture.node.get("/metrics/cadvisor").await.1;
        assert!(cadvisor.contains("container_network_receive_bytes_total{container=\"\""), "{cadvisor}");
        let id = format!("id=\"{}/{}\"", cgroup(&fixture.uid), fixture.sandbox);
        let of_sandbox =
            |family: &str| cadvisor.lines().any(|line| line.starts_with(family) && line.contains(&id));
        assert!(of_sandbox("container_network_receive_packets_total{"), "{cadvisor}");
        assert!(of_sandbox("container_cpu_usage_seconds_total{"), "{cadvisor}");
        fixture.runtime.stop_container(&fixture.container, Duration::from_secs(0)).await.unwrap();
        let rest = async { while lines.next_line().await.unwrap().is_some() {} };
        tokio::time::timeout(LONG, rest).await.unwrap();
    });
}
