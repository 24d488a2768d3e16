//! What `kubectl` and `curl` do to a pod on an edge node: through the stand-alone API, and at the node's own port on CloudCore.
//! On a real containerd, whose streaming server listens on loopback of the host's network namespace: everything here runs there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use cri::Grpc;
use harness::{Cluster, LinkTransport, Node};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use testhost::{BUSYBOX, TestHost};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

const WITHIN: Duration = Duration::from_secs(60);
/// Logs without an end, and an echo at port 8080.
const SCRIPT: &str = "nc -ll -p 8080 -e cat & n=0; while true; do echo line $n; n=$((n+1)); sleep 0.2; done";

struct Fixture {
    cluster: Cluster,
    node: Node,
    folder: PathBuf,
}

/// What a program did.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `test` in the network namespace of a host, with a node on it and a pod `web` that runs.
fn run(name: &str, test: impl AsyncFnOnce(&mut Fixture) + Send + 'static) {
    run_over(LinkTransport::Quic, name, test);
}

fn run_over(carrier: LinkTransport, name: &str, test: impl AsyncFnOnce(&mut Fixture) + Send + 'static) {
    let host = TestHost::new(name).unwrap();
    let namespace = File::open(format!("/run/netns/{}", host.netns())).unwrap();
    let (endpoint, folder) = (host.endpoint(), host.dir().to_owned());
    std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        harness::run(async || {
            let mut fixture = Fixture::new(carrier, &endpoint, folder).await;
            test(&mut fixture).await;
            let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
            drop(pods.delete("web", &kube::api::DeleteParams::default()).await);
            let gone = async || pods.get_opt("web").await.is_ok_and(|found| found.is_none());
            fixture.cluster.until_async("the pod is gone", gone).await;
            fixture.node.stop().await;
        });
    })
    .join()
    .unwrap();
    drop(host);
}

impl Fixture {
    async fn new(carrier: LinkTransport, endpoint: &str, folder: PathBuf) -> Fixture {
        let runtime = Arc::new(Grpc::new(endpoint, endpoint, WITHIN).unwrap());
        let mut cluster = Cluster::over(carrier).await;
        let node = cluster.node_over("edge-1", runtime).await;
        cluster.until_ready(&node).await;
        let spec = json!({
            "nodeName": "edge-1", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "dnsPolicy": "Default",
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["/bin/sh", "-c", SCRIPT]}],
        });
        let metadata = json!({"name": "web", "namespace": "default"});
        cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": spec})).await;
        let fixture = Fixture { cluster, node, folder };
        let pods = fixture.cluster.objects("v1", "Pod", Some("default"));
        let runs = async || {
            let found = pods.get_opt("web").await.unwrap().unwrap();
            found.data["status"]["containerStatuses"][0]["state"]["running"].is_object()
        };
        fixture.cluster.until_async("the pod runs", runs).await;
        // It says its first line, and listens, a moment after it runs.
        let speaks = async || fixture.try_kubectl(&["logs", "web"], "").await.out.contains("line ");
        fixture.cluster.until_async("it speaks", speaks).await;
        fixture
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        command.arg("--cache-dir").arg(self.folder.join("kubectl")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn try_kubectl(&self, args: &[&str], input: &str) -> Done {
        done(self.command(args).spawn().unwrap(), input).await
    }

    async fn kubectl(&self, args: &[&str], input: &str) -> String {
        let done = self.try_kubectl(args, input).await;
        assert_eq!(done.code, Some(0), "kubectl {args:?}: {done:?}");
        done.out
    }

    /// The Node as the API says it.
    async fn shown(&self) -> Value {
        let nodes = self.cluster.objects("v1", "Node", None);
        nodes.get("edge-1").await.unwrap().data["status"].clone()
    }

    /// The port at which the node's kubelet endpoint is.
    async fn port(&self) -> u16 {
        let port = async || self.shown().await["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let is_written = async || port().await.is_some_and(|port| port != 0);
        self.cluster.until_async("the Node says its port", is_written).await;
        port().await.unwrap().try_into().unwrap()
    }

    /// The status and the body that `curl` gets at the node's port, verified by CloudCore's CA.
    async fn curl(&self, path: &str, token: Option<&str>) -> String {
        let authority = cloud_hub::SecretStore::new(self.cluster.client());
        let authority = authority.authority(self.cluster.env()).await.unwrap();
        let ca = self.folder.join("ca.crt");
        std::fs::write(&ca, authority.cert_pem()).unwrap();
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
            "%{http_code}",
            "--cacert",
        ]);
        command.arg(&ca);
        if let Some(token) = token {
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        command.arg(format!("https://127.0.0.1:{}{path}", self.port().await));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let done = done(command.spawn().unwrap(), "").await;
        assert_eq!(done.code, Some(0), "{done:?}");
        done.out
    }
}

async fn done(mut child: Child, input: &str) -> Done {
    let mut stdin = child.stdin.take().unwrap();
    // It may end before it has read all.
    drop(stdin.write_all(input.as_bytes()).await);
    drop(stdin);
    let output = tokio::time::timeout(WITHIN, child.wait_with_output()).await.expect("it hangs").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Reads lines until one has `word`, and gives that.
async fn line_with(out: &mut (impl tokio::io::AsyncBufRead + Unpin), word: &str) -> String {
    let read = async {
        loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).await.unwrap() > 0, "it ended without `{word}`");
            if line.contains(word) {
                return line;
            }
        }
    };
    tokio::time::timeout(WITHIN, read).await.unwrap_or_else(|_| panic!("no line with `{word}`"))
}

/// The admin's token, from the kubeconfig.
fn token(kubeconfig: &Path) -> String {
    let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

#[test]
fn kubectl_reads_runs_copies_and_forwards_in_a_pod_on_the_edge() {
    run("kubectl", async |fixture| {
        // Logs, as they are written.
        let tail = fixture.kubectl(&["logs", "web", "--tail=1"], "").await;
        assert!(tail.starts_with("line ") && tail.lines().count() == 1, "{tail}");
        let mut follow = fixture.command(&["logs", "-f", "web"]).spawn().unwrap();
        let mut out = BufReader::new(follow.stdout.take().unwrap());
        line_with(&mut out, "line 0\n").await;
        let seen: u64 =
            line_with(&mut out, "line").await.trim().strip_prefix("line ").unwrap().parse().unwrap();
        line_with(&mut out, &format!("line {}\n", seen + 5)).await;
        drop(follow);
        // A command: its output, its input, its exit code.
        assert_eq!(fixture.kubectl(&["exec", "web", "--", "echo", "a  b&c=d"], "").await, "a  b&c=d\n");
        let long = "0123456789\n".repeat(20_000);
        assert!(fixture.kubectl(&["exec", "-i", "web", "--", "cat"], &long).await == long);
        let failed = fixture.try_kubectl(&["exec", "web", "--", "sh", "-c", "echo no >&2; exit 3"], "").await;
        assert_eq!((failed.code, failed.err.contains("no\n")), (Some(3), true), "{failed:?}");
        // A copy there and back.
        let (there, back) = (fixture.folder.join("there"), fixture.folder.join("back"));
        std::fs::write(&there, &long).unwrap();
        fixture.kubectl(&["cp", there.to_str().unwrap(), "web:/tmp/copy"], "").await;
        fixture.kubectl(&["cp", "web:/tmp/copy", back.to_str().unwrap()], "").await;
        assert!(std::fs::read_to_string(&back).unwrap() == long);
        // A port.
        let mut forward = fixture.command(&["port-forward", "pod/web", ":8080"]).spawn().unwrap();
        let mut out = BufReader::new(forward.stdout.take().unwrap());
        let line = line_with(&mut out, "Forwarding from 127.0.0.1:").await;
        let port = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap();
        let mut socket = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        socket.write_all(b"echo of this").await.unwrap();
        let mut echo = [0; 12];
        tokio::time::timeout(WITHIN, socket.read_exact(&mut echo)).await.expect("an echo").unwrap();
        assert_eq!(&echo, b"echo of this");
        drop((socket, forward));
        // The node itself.
        assert_eq!(fixture.kubectl(&["get", "--raw", "/api/v1/nodes/edge-1/proxy/healthz"], "").await, "ok");
    });
}

#[test]
fn the_nodes_port_serves_whoever_shows_a_good_token() {
    run("port", async |fixture| {
        let token = token(&fixture.cluster.kubeconfig());
        assert_eq!(fixture.curl("/healthz", Some(&token)).await, "ok200");
        assert_eq!(fixture.curl("/healthz", None).await, "Unauthorized401");
        let logs = fixture.curl("/containerLogs/default/web/c?tailLines=1", Some(&token)).await;
        assert!(logs.starts_with("line ") && logs.ends_with("\n200"), "{logs}");
        let pods = fixture.curl("/pods", Some(&token)).await;
        assert!(pods.contains("\"name\":\"web\"") && pods.ends_with("200"), "{pods}");
        // No name is dialled before the address of CloudCore.
        let addresses = fixture.shown().await["addresses"].clone();
        assert_eq!(addresses[0], json!({"type": "InternalIP", "address": "127.0.0.1"}));
        let types: Vec<&str> =
            addresses.as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
        assert!(!types.contains(&"Hostname") && !types.contains(&"InternalDNS"), "{types:?}");
        // Whoever's link is gone is named, with what to look at.
        fixture.node.stop().await;
        let words = async || fixture.try_kubectl(&["logs", "web"], "").await.err;
        fixture
            .cluster
            .until_async("the node is named", async || words().await.contains("node `edge-1` is not linked"))
            .await;
        // At its port, too, which its Node still says: an API server goes there.
        let path = "/containerLogs/default/web/c";
        let said = fixture.curl(path, Some(&token)).await;
        assert!(
            said.starts_with("node `edge-1` is not linked to this CloudCore") && said.ends_with("503"),
            "{said}"
        );
        assert_eq!(fixture.curl(path, None).await, "Unauthorized401");
        fixture.node.start().await;
        fixture
            .cluster
            .until_async("logs again", async || {
                fixture.try_kubectl(&["logs", "web", "--tail=1"], "").await.code == Some(0)
            })
            .await;
    });
}

/// UDP was blocked when the node dialled, and passes now.
#[test]
fn no_call_ends_because_the_link_goes_back_to_quic() {
    run_over(LinkTransport::WebSocketBeforeQuic, "to-quic", async |fixture| {
        let hub = async |key: &str| fixture.node.snapshot("edge-hub").await[key].clone();
        assert_eq!(hub("carrier").await, "websocket");
        let mut follow = fixture.command(&["logs", "-f", "--tail=1", "web"]).spawn().unwrap();
        let mut lines = BufReader::new(follow.stdout.take().unwrap());
        line_with(&mut lines, "line").await;
        let command = "n=0; while [ ! -e /tmp/enough ]; do sleep 0.2; n=$((n+1)); echo $n; done; echo ended";
        let mut exec = fixture.command(&["exec", "web", "--", "sh", "-c", command]);
        let mut exec = exec.spawn().unwrap();
        let mut counted = BufReader::new(exec.stdout.take().unwrap());
        line_with(&mut counted, "1\n").await;
        fixture.cluster.open_udp();
        // The way over QUIC is found, and not taken.
        let waits = async || hub("waitsForCalls").await == true;
        fixture.cluster.until_async("going over waits for the calls", waits).await;
        assert_eq!(fixture.kubectl(&["exec", "web", "--", "touch", "/tmp/enough"], "").await, "");
        line_with(&mut counted, "ended").await;
        let ended = tokio::time::timeout(WITHIN, exec.wait_with_output()).await.unwrap().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        line_with(&mut lines, "line").await;
        assert_eq!((hub("carrier").await, hub("waitsForCalls").await), (json!("websocket"), json!(true)));
        // The last call ends. Calls that come while the link goes over are made over the next.
        follow.start_kill().unwrap();
        let moved = async || {
            assert_eq!(fixture.kubectl(&["exec", "web", "--", "echo", "here"], "").await, "here\n");
            hub("carrier").await == "quic"
        };
        fixture.cluster.until_async("the link is over QUIC", moved).await;
        assert_eq!(hub("lastEnd").await, Value::Null, "its own going over is no end that is told");
        let last = fixture.kubectl(&["logs", "web", "--tail=1"], "").await;
        assert!(last.starts_with("line "), "{last}");
    });
}
